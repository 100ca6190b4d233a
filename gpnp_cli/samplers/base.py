"""Markov kernels and the one loop that drives them.

Images are float32 `(N, C, H, W)` in [0, 1], N the number of chains; every sigma is a standard
deviation in those units. A kernel knows one step; `iterate` yields each step, and whoever consumes
it shows progress, takes snapshots or thins. Nothing here prints or touches files.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import DivergenceError
from .rng import ChainRng


class State(NamedTuple):
    """The least a state holds: `x` `(N, C, H, W)`. Kernels that cache more define their own tuple."""

    x: Tensor


class Info(NamedTuple):
    """What a step tells besides its state: the denoised image (or None) and its denoiser calls."""

    x0: Tensor | None
    nfe: int


S = TypeVar("S")


class Kernel(Protocol[S]):
    """One Markov transition over a batch of chains (the BlackJAX pattern)."""

    def init(self, x: Tensor) -> S: ...

    def step(self, state: S, sigma: float, rng: ChainRng) -> tuple[S, Info]: ...


class Step(NamedTuple):
    """One finished iteration: number (from 1), its sigma, the new state, the kernel's info, NFE so far."""

    iteration: int
    sigma: float
    state: S
    info: Info
    nfe: int


def iterate(kernel: Kernel[S], state: S, sigmas: Iterable[float], rng: ChainRng) -> Iterator[Step]:
    """Run `kernel` once per sigma, yielding after every step.

    Raises `DivergenceError` naming chain and step at the first non-finite state.
    """
    nfe = 0
    for iteration, sigma in enumerate(sigmas, start=1):
        state, info = kernel.step(state, sigma, rng)
        nfe += info.nfe
        yield _checked(Step(iteration, sigma, state, info, nfe))


def anneal(kernel: Kernel[S], x: Tensor, sigmas: Sequence[float], rng: ChainRng, finish: bool) -> Iterator[Step]:
    """`iterate` from the images `x` over falling sigmas; `finish` adds the kernel's noise-removing last step."""
    step = None
    for step in iterate(kernel, kernel.init(x), sigmas, rng):
        yield step
    if finish:
        state, info = kernel.finish(step.state, step.sigma)
        yield _checked(Step(step.iteration + 1, step.sigma, state, info, step.nfe + info.nfe))


def _checked(step: Step) -> Step:
    finite = torch.isfinite(step.state.x).flatten(1).all(1)
    if not bool(finite.all()):
        chain = int((~finite).nonzero()[0])
        raise DivergenceError(
            f"chain {chain} became non-finite at iteration {step.iteration} (sigma {step.sigma:.4g})",
            hint="a smaller beta or another denoiser usually helps",
        )
    return step


def collect(
    steps: Iterable[Step], burn_in: int, thin: int = 1, monitor: Mapping[str, Callable[[Tensor], Tensor]] | None = None
) -> "Chain":
    """Consume `steps`: every `thin`-th state after the first `burn_in` is kept and enters the moments.

    `monitor` names functions of the state, `(N, C, H, W)` to `(N,)`, recorded at every iteration.
    """
    draws, moments, nfe = [], Moments(), 0
    series: dict[str, list[Tensor]] = {name: [] for name in monitor or {}}
    for step in steps:
        nfe = step.nfe
        for name, measure in (monitor or {}).items():
            series[name].append(measure(step.state.x).cpu())
        if step.iteration > burn_in and (step.iteration - burn_in - 1) % thin == 0:
            draws.append(step.state.x)
            moments.update(step.state.x)
    if not draws:
        raise ValueError(f"no state left: {burn_in} iterations of burn-in are all there were")
    return Chain(torch.stack(draws, dim=1), moments, nfe, {name: torch.stack(rows) for name, rows in series.items()})


class Moments:
    """Running mean and variance of images, one observation per image (Welford; Chan et al. 1983 for batches).

    Holds two images however many it has seen.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None  # (C, H, W)
        self._m2: Tensor | None = None  # sum of squared deviations

    def update(self, x: Tensor) -> None:
        """Take in the N images of `x` `(N, C, H, W)`."""
        for image in x:
            self.count += 1
            if self.mean is None:
                self.mean, self._m2 = image.clone(), torch.zeros_like(image)
                continue
            gap = image - self.mean
            self.mean += gap / self.count
            self._m2 += gap * (image - self.mean)

    def std(self) -> Tensor:
        """Pixelwise standard deviation `(C, H, W)` (n - 1 in the denominator; zero for one observation)."""
        return (self._m2 / max(1, self.count - 1)).sqrt()


@dataclass(frozen=True)
class Chain:
    """The result of a run.

    `draws` `(chain, draw, C, H, W)` are the states kept; `moments` their running mean and variance;
    `nfe` the denoiser calls per chain; `diagnostics` named series, one value
    per iteration and chain, `(iteration, chain)`.
    """

    draws: Tensor
    moments: Moments
    nfe: int
    diagnostics: dict[str, Tensor]

    def mean(self) -> Tensor:
        """The MMSE estimate, `(C, H, W)`: the mean over chains and kept states."""
        return self.moments.mean

    def std(self) -> Tensor:
        """Pixelwise standard deviation over chains and kept states, `(C, H, W)`."""
        return self.moments.std()

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Pixelwise credible interval `(low, high)` of the kept draws, each `(C, H, W)`, e.g. `level=0.9`."""
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=self.draws.dtype, device=self.draws.device)
        low, high = torch.quantile(self.draws.flatten(0, 1), tail, dim=0)
        return low, high
