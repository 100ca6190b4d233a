"""Diffusion posterior sampling (Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", ICLR
2023)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Denoiser
from ..errors import UsageError
from ..forward.base import ForwardModel
from .base import Info
from .diffusion import ancestral
from .rng import ChainRng


class DpsState(NamedTuple):
    """As `Diffused`; `push`, shaped like x, points where the data are met better."""

    x: Tensor
    noisy: Tensor
    sigma: float | None
    push: Tensor


@dataclass(frozen=True)
class Dps:
    """One step of reverse diffusion, then one along the gradient of the data's misfit through the denoiser.

    Algorithm 1: x_tau <- ancestral step - zeta_i grad ||y - A x0(x_sigma)||, where zeta_i = `zeta` (sigma - tau) sqrt(M),
    M = number of data: the push of a pixel then depends neither on the picture's size nor on the number of steps. What
    is drawn is not the posterior: p(y | x_sigma) is taken to be p(y | x0), and its weight is a tuned constant.
    Costs a backward pass of the denoiser for each call. Raises `UsageError` for a denoiser without a gradient.
    """

    denoiser: Denoiser
    model: ForwardModel
    zeta: float = 4.0

    def init(self, x: Tensor) -> DpsState:
        return DpsState(x, x, None, torch.zeros_like(x))

    def step(self, state: DpsState, sigma: float, rng: ChainRng) -> tuple[DpsState, Info]:
        x = state.noisy
        if state.sigma is not None:
            x = ancestral(x, state.x, state.sigma, sigma, rng) + self.zeta * (state.sigma - sigma) * state.push
        x0, push = self._denoise(x, sigma)
        return DpsState(x0, x, sigma, push), Info(x0, 1)

    def _denoise(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """x0 and -sqrt(M) times the gradient of ||y - A x0|| with respect to x: J^T A^T e / rms(e), e = y - A x0."""
        A, y = self.model.A, self.model.y
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.clone().requires_grad_(True)
            x0 = self.denoiser(leaf, sigma)
            if not x0.requires_grad:
                raise UsageError(
                    "dps follows the gradient of the denoiser, and this one has none", hint="use --sampler diffpir"
                )
            with torch.no_grad():
                misfit = y - A.forward(x0)
                size = self.model.residual(x0).reshape(-1, *[1] * (x.ndim - 1))
                back = A.adjoint(misfit) / size.clamp_min(torch.finfo(x.dtype).tiny)
            (push,) = torch.autograd.grad(x0, leaf, back)
        return x0.detach(), push
