"""Randomness of a batch of chains: one generator per chain, so that chain k never depends on its neighbours."""

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, *stream: int) -> torch.Generator:
    """A CPU generator for one purpose; `stream` numbers keep purposes apart (see `ChainRng`)."""
    # SeedSequence hashes: neighbouring raw seeds would give correlated Mersenne states. The stream is its
    # spawn key, not more entropy: entropy is padded with zeros, so that [seed] and [seed, 0] would be the same.
    state = np.random.SeedSequence(seed, spawn_key=stream).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


class ChainRng:
    """One `torch.Generator` per chain, seeded from (seed, chain number).

    Numbers are drawn on the CPU whatever the device, so a seed means the same noise everywhere.
    `chains` is how many, or which chain numbers (`ChainRng(0, [2])` is chain 2 of any run with seed 0).

    With `antithetic`, chains 2k and 2k + 1 share a generator, and the second has the normal noise of the first with the
    opposite sign (Hammersley & Morton 1956). Each chain alone is what it was; what depends on the noise linearly cancels in
    the mean of a pair.
    """

    def __init__(
        self, seed: int, chains: int | list[int], device: torch.device | str = "cpu", antithetic: bool = False
    ) -> None:
        numbers = list(range(chains)) if isinstance(chains, int) else list(chains)
        self.device = torch.device(device)
        self.generators = [generator(seed, number // 2 if antithetic else number) for number in numbers]
        self.signs = torch.tensor([-1.0 if antithetic and number % 2 else 1.0 for number in numbers])

    def randn_like(self, x: Tensor) -> Tensor:
        """Standard normal noise shaped like `x` `(N, ...)`, N = number of chains."""
        return self.signs.to(x).reshape(-1, *[1] * (x.dim() - 1)) * self._draw(torch.randn, x)

    def rand_like(self, x: Tensor) -> Tensor:
        """Uniform noise on [0, 1) shaped like `x` `(N, ...)`, N = number of chains."""
        return self._draw(torch.rand, x)

    def bits_like(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Random integers, uniform over the whole range of `dtype`, shaped like `x` `(N, ...)`."""

        def draw(shape: torch.Size, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
            # the Mersenne twister yields 64 bits at a time: filling int64 and reinterpreting is fastest
            words = torch.empty(-(-shape.numel() * dtype.itemsize // 8), dtype=torch.int64)
            words.random_(-(2**63), None, generator=generator)
            return words.view(dtype)[: shape.numel()].reshape(shape)

        return self._draw(draw, x, dtype)

    def _draw(self, draw, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        if x.shape[0] != len(self.generators):
            raise ValueError(f"{x.shape[0]} states for {len(self.generators)} chains")
        rows = [draw(x.shape[1:], generator=g, dtype=dtype or x.dtype) for g in self.generators]
        return torch.stack(rows).to(self.device)

    def state_dict(self) -> list[Tensor]:
        return [g.get_state() for g in self.generators]

    def load_state_dict(self, states: list[Tensor]) -> None:
        for g, state in zip(self.generators, states, strict=True):
            g.set_state(state)


class UnitVectors:
    """A false source of noise that reads an affine step x -> M x + b + L w off one batch of states.

    Chain k gets the k-th unit vector of all the noise drawn so far, and later chains get zeros, so that the
    difference of chain k and the last one is column k of L. Raises `ValueError` if no chain remains without noise.
    """

    def __init__(self) -> None:
        self.used = 0

    def randn_like(self, x: Tensor) -> Tensor:
        """The next block of unit vectors, shaped like `x` `(N, ...)`."""
        size = x[0].numel()
        if self.used + size >= x.shape[0]:
            raise ValueError(f"{x.shape[0]} chains cannot tell {self.used + size} noise numbers apart: one must remain")
        noise = torch.zeros(x.shape[0], size, dtype=x.dtype)
        noise[self.used : self.used + size] = torch.eye(size, dtype=x.dtype)
        self.used += size
        return noise.reshape(x.shape)
