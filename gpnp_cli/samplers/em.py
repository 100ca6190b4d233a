"""GPnP-EM: posterior samples when the blur kernel is unknown, too (Bouman & Buzzard 2023; EM with samples in place of
expectations: Wei & Tanner 1990).

Repeat while sigma falls: a GPnP step of every chain at the present kernel (E-step); the kernel that explains the data
best by what the states show, and the noise level from what remains (M-step).

Where to begin decides where this ends: at a given kernel the states fit the data, whatever the kernel, so that it moves
little by little only. A first kernel comes from strong edges (`forward.edges`), from coarse to fine, since large kernels
have few pixels on a small picture. The first states come from the denoiser (`Pnp`), not from those edges: a cartoon fits the
data badly, and with the high noise level that it leaves the M-step takes kernels away from where they were, even from the
true one. For if x = W y is the E-step's answer, the M-step's is h = 1 / W, and W falls short of 1 / h where the data are
taken for noise.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..denoisers.base import Denoiser
from ..forward.base import ForwardModel
from ..forward.blur import Blur
from ..forward.edges import Extremes, completed, strong_edges
from ..forward.kernel_fit import Fit, differences, fit_kernel, recentred, resized, seen_differences
from .base import Info, State, anneal, iterate
from .gpnp import Gpnp
from .pnp import Pnp, Silence
from .rng import ChainRng
from .schedules import geometric

MISFIT_SIGMAS, MISFIT_NOISE = geometric(0.1, 0.03, 6), 0.02  # of the estimates that kernels are compared by
FIRST_SIGMAS, FIRST_NOISE = geometric(0.1, 0.005, 8), 0.005  # of the estimate that the chains begin with


class EmState(NamedTuple):
    """The chains' pictures `x` `(K, 1, H, W)`, the kernel `h` `(kh, kw)` they share, the noise level of the data."""

    x: Tensor
    h: Tensor
    sigma_y: float


@dataclass(frozen=True)
class GpnpEm:
    """One step of all chains, then one of the kernel and the noise level.

    `y` `(1, 1, H, W)` are the data, of which those `known` `(H, W)` teach the kernel. It starts at `h`, and the noise
    level at `sigma_y`, from where it falls with the residual, no lower than `floor`.

    The kernel is fitted to the denoised states x0: noise of a state's own, which the data know nothing of, would pass
    for blur, while the error of an estimate E[X | state] is not correlated with the estimate, and does no harm.
    """

    denoiser: Denoiser
    y: Tensor
    known: Tensor
    fit: Fit
    h: Tensor
    sigma_y: float
    floor: float
    beta: float = 0.5
    r: float = 1.0

    def init(self, x: Tensor) -> EmState:
        return EmState(x, self.h, self.sigma_y)

    def step(self, state: EmState, sigma: float, rng: ChainRng) -> tuple[EmState, Info]:
        model = self.model(state)
        (x,), info = Gpnp(self.denoiser, model, self.beta, self.r).step(State(state.x), sigma, rng)
        h = fit_kernel(info.x0, self.y, self.known, model.A.frame, state.h, self.fit)
        residual = self.model(EmState(x, h, 1.0)).residual(x).square().mean().sqrt()
        sigma_y = min(state.sigma_y, max(self.floor, float(residual)))
        h, x = recentred(h, x)
        return EmState(x, h, sigma_y), info

    def model(self, state: EmState) -> ForwardModel:
        return ForwardModel(Blur(state.h, self.y.shape[1:]), self.y, state.sigma_y)


@dataclass(frozen=True)
class Schedule:
    """The search: strong edges from coarse to fine, then GPnP-EM at full resolution.

    Each level is `ratio` times finer than the one before, the coarsest kernel about `smallest` wide; on each, picture
    and kernel are found in turn `rounds` times, the price `weight` of an edge falling by `decay` each time;
    `extremes` says whether black and white are given back to the edges, for noise lowers and lifts pixels, too. Of
    the `iterations` that follow, sigma falls from `sigma_max` to `sigma_min`; the data's noise is `sigma_y` at first.
    """

    iterations: int = 24
    sigma_max: float = 0.03
    sigma_min: float = 0.01
    sigma_y: float = 0.02
    ratio: float = math.sqrt(2)
    smallest: int = 5
    rounds: int = 5
    weight: float = 8e-3
    decay: float = 1.1
    extremes: bool = True

    def factors(self, size: tuple[int, int]) -> list[float]:
        """The levels' scales, coarsest first, the last one 1, for a kernel of this size."""
        count = max(0, math.floor(math.log(max(size) / self.smallest) / math.log(self.ratio)))
        return [self.ratio**-level for level in range(count, -1, -1)]

    def total(self, size: tuple[int, int]) -> int:
        """Iterations of both parts."""
        return self.rounds * len(self.factors(size)) + self.iterations


class EmStep(NamedTuple):
    """One iteration of the search; `picture` `(K, 1, H, W)` is the frame of the data at the present `scale`.

    While only edges are looked at, sigma and the number `nfe` of denoiser calls are 0.
    """

    iteration: int
    sigma: float
    state: EmState
    nfe: int
    scale: float
    picture: Tensor


Fits = Callable[[float], Fit]  # the M-step at a scale


def edges_first(y: Tensor, known: Tensor, size: tuple[int, int], fit: Fits, schedule: Schedule) -> Iterator[EmStep]:
    """A kernel from strong edges, from coarse to fine."""
    factors, weight, iteration, h = schedule.factors(size), schedule.weight, 0, None
    extremes = Extremes.of(y) if schedule.extremes else None
    for level, scale in enumerate(factors):
        small = y if scale == 1 else shrunk(y, scale)
        seen = known if scale == 1 else shrunk(known[None, None].to(y), scale)[0, 0] > 0.999
        shape = tuple(nearest_odd(scale * k) for k in size)
        h = _spot(shape).to(y) if h is None else resized(h, shape, scale / factors[level - 1])
        mstep, A = fit(scale), Blur(h, small.shape[1:])  # where the frame lies is the same for all kernels of a level
        x = A.on_torus(small)
        for _ in range(schedule.rounds):
            whole = completed(small, h, x, A.frame)
            x = strong_edges(whole, h, weight, extremes)
            h = fit_kernel(x, small, seen, A.frame, h, mstep, rounds=2)
            h, x = recentred(h, x)
            weight, iteration = weight / schedule.decay, iteration + 1
            extremes = extremes and extremes.narrower()
            yield EmStep(iteration, 0.0, EmState(x, h, schedule.sigma_y), 0, scale, A.crop(x))


def refine(
    denoiser: Denoiser,
    y: Tensor,
    known: Tensor,
    begun: EmStep,
    fit: Fit,
    schedule: Schedule,
    floor: float,
    rng: ChainRng,
) -> Iterator[EmStep]:
    """GPnP-EM from where `edges_first` ended, one chain for each generator of `rng`; the last step holds the result.

    `begun` may also be a step of its own: it then goes on there, if `rng` is in the state that it had.
    """
    (_, h, sigma_y), n = begun.state, len(rng.generators)
    kernel = GpnpEm(denoiser, y, known, fit, h, max(sigma_y, floor), floor)
    sigmas, state = geometric(schedule.sigma_max, schedule.sigma_min, schedule.iterations), begun.state
    if begun.nfe == 0:
        model = ForwardModel(Blur(h, y.shape[1:]), y, max(floor, FIRST_NOISE))
        x = estimate(denoiser, model, FIRST_SIGMAS).expand(n, -1, -1, -1)
        state = kernel.init(x + sigmas[0] * rng.randn_like(x))
    for step in iterate(kernel, state, sigmas[begun.nfe :], rng):
        picture = kernel.model(step.state).A.crop(step.state.x)
        yield EmStep(begun.iteration + step.iteration, step.sigma, step.state, begun.nfe + step.nfe, 1.0, picture)


def misfit(denoiser: Denoiser, y: Tensor, known: Tensor, h: Tensor) -> float:
    """How far from `y` a natural picture blurred by `h` stays, as the std of the white noise that would do the same.

    That is the root mean square of the differences of neighbours in y - h * x, where both are `known`, over sqrt(2). Like
    the M-step it looks at differences: pictures' strong low frequencies tell little of a kernel, and hide the rest.

    x is the half-quadratic splitting's estimate (`Pnp`) that ends at a noise level above the data's, so that the prior has
    the last word. A wrong kernel needs ripples to explain y, no blur needs soft edges, and the denoiser grants neither.
    It stands for -log p(y | h), which nobody can compute, when kernels are compared; the truth is not needed.
    """
    model = ForwardModel(Blur(h, y.shape[1:]), y, MISFIT_NOISE)
    x = estimate(denoiser, model, MISFIT_SIGMAS)
    error = differences(y - model.A.forward(x))[:, seen_differences(known)]
    return float(error.square().mean().sqrt()) / math.sqrt(2)


def estimate(denoiser: Denoiser, model: ForwardModel, sigmas: Sequence[float]) -> Tensor:
    """One sharp picture `(1, 1, *size)` by half-quadratic splitting along `sigmas`."""
    *_, last = anneal(Pnp(denoiser, model), model.A.extend(model.y), sigmas, Silence(), False)
    return last.state.x


def shrunk(y: Tensor, scale: float) -> Tensor:
    """`y` `(1, 1, H, W)` at a scale below 1, each pixel the mean of those it covers (a triangle about it)."""
    size = tuple(max(1, round(scale * side)) for side in y.shape[-2:])
    return F.interpolate(y, size=size, mode="bilinear", antialias=True, align_corners=False)


def nearest_odd(length: float) -> int:
    """The nearest odd number, 3 at least."""
    return max(3, 2 * round((length - 1) / 2) + 1)


def _spot(shape: tuple[int, int]) -> Tensor:
    """A narrow Gaussian, to begin with."""
    profiles = [torch.exp(-((torch.arange(n) - n // 2) ** 2) / (2 * 0.7**2)) for n in shape]
    h = torch.outer(*profiles)
    return h / h.sum()
