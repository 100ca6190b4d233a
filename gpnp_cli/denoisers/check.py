"""Diagnostics of a denoiser: accuracy, bias, and how far its score is from a gradient field."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..samplers.rng import generator
from .base import Denoiser


class Report(NamedTuple):
    """A denoiser at one sigma: mean PSNR in dB, mean of output minus truth, Jacobian asymmetry (None: no Jacobian)."""

    sigma: float
    psnr: float
    bias: float
    asymmetry: float | None


def check(
    denoiser: Denoiser, images: Iterable[Tensor], sigmas: Iterable[float], seed: int = 0, probes: int = 4
) -> Iterator[Report]:
    """Yield one `Report` per sigma, over `images`, each `(1, C, H, W)` in [0, 1].

    PSNR is that of the output clipped to [0, 1], averaged over images; the noisy input is neither
    clipped nor rounded; noise depends on (seed, image number) only, so it is the same at every sigma
    up to scale. The asymmetry is measured on a 48-pixel crop of the first image's centre.
    """
    images = list(images)
    differentiable = getattr(denoiser, "differentiable", True)
    for sigma in sigmas:
        psnrs, biases = [], []
        for i, x in enumerate(images):
            noise = torch.randn(x.shape, generator=generator(seed, i)).to(x)
            with torch.no_grad():
                x0 = denoiser(x + sigma * noise, sigma)
            psnrs.append(psnr(x0, x))
            biases.append((x0 - x).mean().item())
        asymmetry = None
        if differentiable:
            crop = centre(images[0], 48)
            noise = torch.randn(crop.shape, generator=generator(seed, 0)).to(crop)
            asymmetry = jacobian_asymmetry(denoiser, crop + sigma * noise, sigma, probes, seed)
        yield Report(sigma, sum(psnrs) / len(psnrs), sum(biases) / len(biases), asymmetry)


def psnr(estimate: Tensor, truth: Tensor) -> float:
    """10 log10(1 / mean squared error) of `estimate` clipped to [0, 1]."""
    return -10 * (estimate.clamp(0, 1) - truth).square().mean().log10().item()


def centre(x: Tensor, side: int) -> Tensor:
    """The central `side` x `side` pixels of `x` `(N, C, H, W)`, all of a shorter side."""
    top, left = max(0, (x.shape[2] - side) // 2), max(0, (x.shape[3] - side) // 2)
    return x[:, :, top : top + side, left : left + side]


def jacobian_asymmetry(denoiser: Denoiser, v: Tensor, sigma: float, probes: int = 4, seed: int = 0) -> float:
    """||J - J^T|| / ||J|| (Frobenius) of the score's Jacobian at `v` `(1, C, H, W)`; 0 for a gradient field.

    J = (D - I) / sigma^2 with D the denoiser's Jacobian. For z of independent +-1 entries
    ||M||^2 = E|M z|^2 (Hutchinson); J z is a Jacobian-vector, J^T z a vector-Jacobian product, and
    ||J||^2 is taken as the mean of E|J z|^2 and E|J^T z|^2. The factor 1/sigma^2 cancels.
    """
    rng = generator(seed, 1)

    def residual(x: Tensor) -> Tensor:
        return denoiser(x, sigma) - x

    difference = total = 0.0
    _, transposed = torch.func.vjp(residual, v)
    for _ in range(probes):
        z = (2.0 * torch.randint(0, 2, v.shape, generator=rng) - 1).to(v)
        jz = torch.func.jvp(residual, (v,), (z,))[1]
        jtz = transposed(z)[0]
        difference += (jz - jtz).square().sum().item()
        total += (jz.square().sum().item() + jtz.square().sum().item()) / 2
    return (difference / total) ** 0.5 if total > 0 else 0.0
