"""Denoisers in closed form, for proofs: Gaussian and Gaussian-mixture priors (no network needed).

They keep the caller's dtype, so that tests can run in float64.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from .base import per_image


@dataclass(frozen=True)
class GaussianPixels:
    """Independent pixels N(mean, std^2): Denoise(v) = mean + std^2 / (std^2 + sigma^2) (v - mean)."""

    mean: float = 0.5
    std: float = 0.25
    channels = None
    sigma_range = (0.0, math.inf)
    receptive_field = 0

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        s = per_image(sigma, v)
        return self.mean + self.std**2 / (self.std**2 + s**2) * (v - self.mean)


def load_gaussian(channels: int | None = None, argument: str | None = None, device="cpu", dtype=None) -> GaussianPixels:
    """`gaussian` or `gaussian:MEAN,STD`."""
    if not argument:
        return GaussianPixels()
    try:
        mean, std = (float(part) for part in argument.split(","))
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"denoiser 'gaussian:{argument}' is not gaussian:MEAN,STD", hint="e.g. gaussian:0.5,0.25"
        ) from None
    return GaussianPixels(mean, std)


class GaussianMixture:
    """X = component k with probability weights[k], then N(means[k], covariances[k]) on flattened images.

    `weights` `(K,)`, `means` `(K, D)`, `covariances` `(K, D, D)` with D = C H W; one component is a plain
    Gaussian prior. Denoise(v; sigma) = sum_k p(k | v) (m_k + C_k (C_k + sigma^2 I)^-1 (v - m_k)).
    """

    channels = None
    sigma_range = (0.0, math.inf)

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        self.weights, self.means, self.covariances = weights / weights.sum(), means, covariances
        self.variances, self.axes = torch.linalg.eigh(covariances)  # (K, D), (K, D, D): C = U diag U^T

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        s2 = per_image(sigma, v).reshape(-1, 1, 1) ** 2  # (N, 1, 1)
        gap = v.flatten(1)[:, None] - self.means  # (N, K, D)
        along = torch.einsum("kdi,nkd->nki", self.axes, gap)
        total = self.variances + s2  # (N, K, D)
        log_p = self.weights.log() - 0.5 * (along**2 / total + total.log()).sum(2)
        share = torch.softmax(log_p, dim=1)  # p(k | v)
        x0 = self.means + torch.einsum("kdi,nki->nkd", self.axes, self.variances / total * along)
        return (share[:, :, None] * x0).sum(1).reshape(v.shape).to(v.dtype)

    def posterior(self, A: Tensor, y: Tensor, sigma_y: float) -> "GaussianMixture":
        """The exact posterior given y = A x + N(0, sigma_y^2 I), again a mixture; `A` `(M, D)`, `y` `(M,)`."""
        log_w, means, covariances = [], [], []
        for w, m, c in zip(self.weights, self.means, self.covariances, strict=True):
            s = A @ c @ A.T + sigma_y**2 * torch.eye(len(y), dtype=y.dtype)
            gain = torch.linalg.solve(s, A @ c).T
            gap = y - A @ m
            log_w.append(w.log() - 0.5 * (gap @ torch.linalg.solve(s, gap) + torch.logdet(s)))
            means.append(m + gain @ gap)
            spread = c - gain @ A @ c
            covariances.append((spread + spread.T) / 2)
        return GaussianMixture(torch.softmax(torch.stack(log_w), 0), torch.stack(means), torch.stack(covariances))

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """`(n, D)` independent draws."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        z = torch.randn(n, self.means.shape[1], generator=rng, dtype=self.means.dtype)
        return self.means[k] + torch.einsum("ndi,ni->nd", self.axes[k], self.variances[k].clamp_min(0).sqrt() * z)
