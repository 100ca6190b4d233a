"""Reverse diffusion with a denoiser, in variance-exploding form: x_sigma = x + sigma W (Karras et al., "Elucidating the
Design Space of Diffusion-Based Generative Models", NeurIPS 2022)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..denoisers.base import Denoiser
from .base import Info
from .rng import ChainRng


class Diffused(NamedTuple):
    """`x` `(N, C, H, W)`: the estimate of the picture made from `noisy`, which carries noise of std `sigma`.

    Before the first step `noisy` is the start, and `sigma` None: the first step says it.
    """

    x: Tensor
    noisy: Tensor
    sigma: float | None


@dataclass(frozen=True)
class Edm:
    """One step down to `sigma` along the probability-flow ODE dx = (x - x0) / sigma dsigma, by Heun's rule (algorithm 2).

    `churn` >= 0 is the paper's gamma: before it is denoised, a state at sigma gets the noise that lifts it to
    (1 + churn) sigma; 0 is the ODE, deterministic but for its start. `heun` False leaves Euler's rule: half the calls.
    The paper's step i ends with the denoiser call that step i + 1 begins with; so does this one, and `x` is at every
    time the denoised state: after the last sigma nothing is left to do.
    """

    denoiser: Denoiser
    churn: float = 0.0
    heun: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.churn <= 1:
            raise ValueError(f"churn must be in [0, 1], not {self.churn}")

    def init(self, x: Tensor) -> Diffused:
        return Diffused(x, x, None)

    def step(self, state: Diffused, sigma: float, rng: ChainRng) -> tuple[Diffused, Info]:
        x, nfe = state.noisy, 1
        if state.sigma is not None:
            slope, down = (x - state.x) / state.sigma, sigma - state.sigma
            if self.heun:
                there = x + down * slope
                slope = (slope + (there - self.denoiser(there, sigma)) / sigma) / 2
                nfe = 2
            x = x + down * slope
        if self.churn:
            x = x + sigma * math.sqrt((1 + self.churn) ** 2 - 1) * rng.randn_like(x)
            sigma = (1 + self.churn) * sigma
        x0 = self.denoiser(x, sigma)
        return Diffused(x0, x, sigma), Info(x0, nfe)


def ancestral(x: Tensor, x0: Tensor, sigma: float, tau: float, rng: ChainRng) -> Tensor:
    """A draw of x_tau given x_sigma = `x` and the picture `x0`, tau <= sigma: the reverse step of DDPM.

    Normal with mean x0 + (tau / sigma)^2 (x - x0) and variance tau^2 (1 - (tau / sigma)^2) (Ho et al., NeurIPS 2020,
    equations 6 and 7, with their state multiplied by sqrt(1 + sigma^2)).
    """
    share = (tau / sigma) ** 2
    return x0 + share * (x - x0) + tau * math.sqrt(1 - share) * rng.randn_like(x)
