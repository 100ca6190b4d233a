"""Markov kernels and the one loop that drives them.

Images are float32 `(N, C, H, W)` in [0, 1], N the number of chains; every sigma is a standard
deviation in those units. A kernel knows one step; `iterate` yields each step, and whoever consumes
it shows progress, takes snapshots or thins. Nothing here prints or touches files.
"""

from collections.abc import Iterable, Iterator
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
        finite = torch.isfinite(state.x).flatten(1).all(1)
        if not bool(finite.all()):
            chain = int((~finite).nonzero()[0])
            raise DivergenceError(
                f"chain {chain} became non-finite at iteration {iteration} (sigma {sigma:.4g})",
                hint="a smaller beta or another denoiser usually helps",
            )
        yield Step(iteration, sigma, state, info, nfe)


@dataclass(frozen=True)
class Chain:
    """The result of a run: `draws` `(chain, draw, C, H, W)`, denoiser calls per chain, the seed."""

    draws: Tensor
    nfe: int
    seed: int

    def mean(self) -> Tensor:
        """The MMSE estimate, `(C, H, W)`: the mean over chains and draws."""
        return self.draws.flatten(0, 1).mean(0)

    def std(self) -> Tensor:
        """Pixelwise standard deviation over chains and draws, `(C, H, W)`; zero for a single draw."""
        return self.draws.flatten(0, 1).std(0, correction=1 if self.draws.shape[:2].numel() > 1 else 0)

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Pixelwise credible interval `(low, high)`, each `(C, H, W)`, e.g. `level=0.9`."""
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=self.draws.dtype, device=self.draws.device)
        low, high = torch.quantile(self.draws.flatten(0, 1), tail, dim=0)
        return low, high
