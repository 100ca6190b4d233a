"""Split Gibbs sampling with a diffusion prior (PnP-DM: Wu et al., "Principled Probabilistic Imaging using Diffusion Models
as Plug-and-Play Priors", NeurIPS 2024; Vono et al., "Split-and-augmented Gibbs sampler", 2019)."""

import itertools
from dataclasses import dataclass

from torch import Tensor

from ..denoisers.base import Denoiser
from ..forward.base import ForwardModel
from .base import Info, State
from .diffusion import ancestral
from .gpnp import remove_noise
from .rng import ChainRng
from .schedules import geometric

DEPTH = 5  # the inner diffusion's last level is sigma / DEPTH: what it leaves out is 4 % of a variance sigma^2


@dataclass(frozen=True)
class SplitGibbs:
    """One step is GPnP's alternation with both proximal generators drawn, none approximated by a small step.

    Prior: x ~ exp(-u0(x) - ||x - z||^2 / 2 sigma^2), which is the law of a picture given that it looks like z under
    noise of std sigma: a reverse diffusion from z down, in `steps` steps (see `draw`), 2 `steps` + 1 denoiser calls.
    Data: z ~ exp(-u1(z) - ||z - x||^2 / 2 sigma^2), `ForwardModel.generate`. At fixed sigma the chain of z is
    reversible, its law the posterior under the prior blurred by sigma, as for `Gpnp`.
    """

    denoiser: Denoiser
    model: ForwardModel
    steps: int = 2
    exact: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a reverse diffusion needs at least one step, not {self.steps}")

    @property
    def calls(self) -> int:
        """Denoiser calls of one step of the chain."""
        return 2 * self.steps + 1

    def init(self, x: Tensor) -> State:
        return State(x)

    def step(self, state: State, sigma: float, rng: ChainRng) -> tuple[State, Info]:
        x = self.draw(state.x, sigma, rng)
        return State(self.model.generate(x, sigma, rng, self.exact)), Info(x, self.calls)

    def draw(self, z: Tensor, sigma: float, rng: ChainRng) -> Tensor:
        """A draw of the picture given its noisy version `z` of level `sigma`.

        DDPM's step from level s to t draws around E[x | z] as if that were the picture, and so leaves out its spread:
        of the variance (S^2 + t^2)(s^2 - t^2) / (S^2 + s^2) that it should have under a prior of std S, it gives the
        noise n that of S = 0. The difference of the next estimate and this one is what the denoiser takes n for:
        nothing if S << t, n itself if S >> s. Added s / t - 1 times, it makes both limits exact, and the mean stays.
        """
        lowest = min(sigma, max(sigma / DEPTH, self.denoiser.sigma_range[0]))
        levels = geometric(sigma, lowest, self.steps + 1)
        for level, tau in itertools.pairwise(levels):
            x0 = self.denoiser(z, level)
            z = ancestral(z, x0, level, tau, rng)
            z = z + (level / tau - 1) * (self.denoiser(z, tau) - x0)
        return self.denoiser(z, levels[-1])

    def finish(self, state: State, sigma: float) -> tuple[State, Info]:
        """Remove the noise of level `sigma` that the last state carries."""
        return remove_noise(self.denoiser, self.model, state, sigma, sigma)
