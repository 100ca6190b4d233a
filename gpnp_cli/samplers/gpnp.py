"""Generative Plug and Play (Bouman & Buzzard, "Generative Plug and Play: Posterior Sampling for Inverse Problems", 2023)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoisers.base import Denoiser
from ..forward.base import ForwardModel
from .base import Info, State
from .rng import ChainRng


@dataclass(frozen=True)
class Gpnp:
    """One step: the prior's proximal generator, then the forward model's.

    `beta` in (0, 1] is the step, gamma = sqrt(beta) sigma; `r` the regularisation: 1 is the
    posterior, more sharpens (tempers) the prior. `exact`: see `ForwardModel.generate`.
    With `model` None the chain draws from the prior alone.
    """

    denoiser: Denoiser
    model: ForwardModel | None
    beta: float = 0.25
    r: float = 1.0
    exact: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta must be in (0, 1], not {self.beta}")

    def init(self, x: Tensor) -> State:
        return State(x)

    def step(self, state: State, sigma: float, rng: ChainRng) -> tuple[State, Info]:
        x, gamma = state.x, math.sqrt(self.beta) * sigma
        x0 = self.denoiser(x, sigma)
        v = x + self.r * self.beta * (x0 - x) + gamma * rng.randn_like(x)
        if self.model is None:
            return State(v + gamma * rng.randn_like(v)), Info(x0, 1)
        return State(self.model.generate(v, gamma, rng, self.exact)), Info(x0, 1)

    def finish(self, state: State, sigma: float) -> tuple[State, Info]:
        """Remove the noise of level `sigma` that the last state carries."""
        return remove_noise(self.denoiser, self.model, state, sigma, math.sqrt(self.beta) * sigma)


def remove_noise(
    denoiser: Denoiser, model: ForwardModel | None, state: State, sigma: float, gamma: float
) -> tuple[State, Info]:
    """Tweedie's step, then the data's, which ends a chain that has reached noise level `sigma`.

    The state's unobserved pixels are the picture plus noise of std sigma; E[X | state] is what is shown.
    """
    x0 = denoiser(state.x, sigma)
    x = x0 if model is None else model.prox(x0, gamma)
    return State(x), Info(x0, 1)


def tracking_r(sigmas: Sequence[float], beta: float) -> float:
    """The r with which a chain keeps up with a geometric schedule: 1 + (1 - rho) / beta, rho = sigma_next / sigma.

    At a fixed sigma, r = 1 is right: the step's pull beta (x0 - x) balances its noise. While sigma falls, the
    state's noise must shrink along with it, which takes the pull of the probability-flow ODE on top:
    dx = (x - x0) dsigma / sigma (Karras et al. 2022, eq. 1), that is (1 - rho) (x0 - x) per step. Without it,
    noise is frozen in: the unobserved std of a Gaussian prior ends 12 % too large at N = 100, beta = 1/4; with
    it, within 1 %.
    """
    if len(sigmas) < 2:
        return 1.0
    rho = (sigmas[-1] / sigmas[0]) ** (1 / (len(sigmas) - 1))
    return 1 + (1 - rho) / beta
