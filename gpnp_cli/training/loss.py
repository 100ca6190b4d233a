"""Denoising score matching (Vincent 2011) over a continuous range of noise levels.

Minimising E||Denoise(X + sigma W; sigma) - X||^2 at every sigma is minimising the score's error
(ALGORITHMS: Tweedie). Any positive weight over sigma has the same minimiser; the weight only decides
where a finite network spends its capacity.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.unet import Preconditioned


def weight(sigma: Tensor) -> Tensor:
    """(1 + 150 sigma) / sigma^2: about the inverse of the least mean squared error on photographs.

    It makes every noise level's loss about 1 at the optimum, so that none drowns the others' gradient.
    The constant is a fit to DRUNet's published PSNRs at sigma*255 = 15, 25, 50.
    """
    return (1 + 150 * sigma) / sigma**2


@dataclass(frozen=True)
class SigmaLaw:
    """How sigma is drawn in training: log-normal around `focus`, or log-uniform over the whole range.

    `uniform` is the share of the second part; it keeps both ends of [low, high] trained. What falls
    outside moves to the nearer end.
    """

    low: float = 0.0015
    high: float = 2.2
    focus: float = 0.09
    spread: float = 1.1
    uniform: float = 0.3

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """`(n,)` noise levels from a generator on the CPU."""
        low, high = math.log(self.low), math.log(self.high)
        wide = low + (high - low) * torch.rand(n, generator=rng)
        near = math.log(self.focus) + self.spread * torch.randn(n, generator=rng)
        mixed = torch.where(torch.rand(n, generator=rng) < self.uniform, wide, near)
        return mixed.exp().clamp(self.low, self.high)


def denoising_loss(model: Preconditioned, x: Tensor, sigma: Tensor, noise: Tensor, grey: Tensor) -> Tensor:
    """The weighted squared error per image, `(N,)`; `x`, `noise` `(N, C, H, W)`, `sigma`, `grey` `(N,)`."""
    x0 = model(x + sigma[:, None, None, None] * noise, sigma, grey)
    return weight(sigma) * (x0 - x).square().mean((1, 2, 3))
