"""Langevin dynamics by a denoiser's score, at one noise level or annealed (Song & Ermon, NeurIPS 2019 and 2020)."""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from ..denoisers.base import Denoiser
from ..forward.base import ForwardModel
from .base import Info, State
from .gpnp import remove_noise
from .rng import ChainRng


@dataclass(frozen=True)
class Langevin:
    """One step x <- x + epsilon s_sigma(x) + sqrt(2 epsilon) W with epsilon = beta sigma^2, then the data's.

    s_sigma is the score of the prior blurred by sigma (Tweedie's formula), so that the drift is beta (x0 - x): with
    beta = 1 the step reads "denoise, then add sqrt(2) sigma W". Song & Ermon's epsilon_n = epsilon_0 (sigma_n /
    sigma_min)^2 is beta = epsilon_0 / sigma_min^2. Whether this is Langevin or annealed Langevin is the schedule's
    matter: one sigma, or falling ones.

    A state carries noise of std sigma, and so do the data seen from it: at fixed sigma and small beta the chain draws
    from p_sigma(x) N(y; A x, (sigma_y^2 + sigma^2) I) (Jalal et al., NeurIPS 2021, eq. 6 with gamma = sigma). The data
    term's step is implicit, a proximal map with gamma^2 = epsilon, hence stable for every A, and legal for sigma_y = 0.
    With `model` None the chain draws from the prior alone.
    """

    denoiser: Denoiser
    model: ForwardModel | None
    beta: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta must be in (0, 1], not {self.beta}")

    def init(self, x: Tensor) -> State:
        return State(x)

    def step(self, state: State, sigma: float, rng: ChainRng) -> tuple[State, Info]:
        x, gamma = state.x, math.sqrt(self.beta) * sigma
        x0 = self.denoiser(x, sigma)
        x = x + self.beta * (x0 - x) + math.sqrt(2) * gamma * rng.randn_like(x)
        if self.model is not None:
            x = replace(self.model, sigma_y=math.hypot(self.model.sigma_y, sigma)).prox(x, gamma)
        return State(x), Info(x0, 1)

    def finish(self, state: State, sigma: float) -> tuple[State, Info]:
        """Remove the noise of level `sigma` that the last state carries."""
        return remove_noise(self.denoiser, self.model, state, sigma, sigma)
