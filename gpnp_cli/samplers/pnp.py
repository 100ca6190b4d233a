"""Plug-and-play restoration by half-quadratic splitting (DPIR: Zhang et al., "Plug-and-Play Image Restoration with Deep
Denoiser Prior", TPAMI 2022): one sharp estimate instead of samples."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Denoiser
from ..forward.base import ForwardModel
from .base import Info, State
from .rng import ChainRng


@dataclass(frozen=True)
class Pnp:
    """One iteration at noise level sigma_k (equations 6a and 6b): the data term's prox, then the denoiser.

    z <- Denoise(argmin_x ||y - A x||^2 + rho_k ||x - z||^2; sigma_k) with rho_k = weight sigma_y^2 / sigma_k^2, that
    is gamma_k = sigma_k / sqrt(weight). Uses no randomness. `weight` is the paper's lambda: more is smoother.
    """

    denoiser: Denoiser
    model: ForwardModel
    weight: float = 0.23

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"weight must be positive, not {self.weight}")

    def init(self, x: Tensor) -> State:
        return State(x)

    def step(self, state: State, sigma: float, rng: ChainRng | None = None) -> tuple[State, Info]:
        x = self.model.prox(state.x, sigma / math.sqrt(self.weight))
        z = self.denoiser(x, sigma)
        return State(z), Info(z, 1)

    def finish(self, state: State, sigma: float) -> tuple[State, Info]:
        """The data's prox once more, without the denoiser: data without noise are then met exactly."""
        return State(self.model.prox(state.x, sigma / math.sqrt(self.weight))), Info(state.x, 0)


class Silence:
    """A source of no noise for one chain: what starts chains around a picture then starts at the picture itself."""

    generators = (None,)
    randn_like = staticmethod(torch.zeros_like)
