"""Randomness of a batch of chains: one generator per chain, so that chain k never depends on its neighbours."""

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, *stream: int) -> torch.Generator:
    """A CPU generator for one purpose; `stream` numbers keep purposes apart (see `ChainRng`)."""
    # SeedSequence hashes its entropy: neighbouring raw seeds would give correlated Mersenne states.
    state = np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


class ChainRng:
    """One `torch.Generator` per chain, seeded from (seed, chain number).

    Numbers are drawn on the CPU whatever the device, so a seed means the same noise everywhere.
    `chains` is how many, or which chain numbers (`ChainRng(0, [2])` is chain 2 of any run with seed 0).
    """

    def __init__(self, seed: int, chains: int | list[int], device: torch.device | str = "cpu") -> None:
        numbers = list(range(chains)) if isinstance(chains, int) else list(chains)
        self.device = torch.device(device)
        self.generators = [generator(seed, number) for number in numbers]

    def randn_like(self, x: Tensor) -> Tensor:
        """Standard normal noise shaped like `x` `(N, ...)`, N = number of chains."""
        return self._draw(torch.randn, x)

    def rand_like(self, x: Tensor) -> Tensor:
        """Uniform noise on [0, 1) shaped like `x` `(N, ...)`, N = number of chains."""
        return self._draw(torch.rand, x)

    def _draw(self, draw, x: Tensor) -> Tensor:
        if x.shape[0] != len(self.generators):
            raise ValueError(f"{x.shape[0]} states for {len(self.generators)} chains")
        rows = [draw(x.shape[1:], generator=g, dtype=x.dtype) for g in self.generators]
        return torch.stack(rows).to(self.device)

    def state_dict(self) -> list[Tensor]:
        return [g.get_state() for g in self.generators]

    def load_state_dict(self, states: list[Tensor]) -> None:
        for g, state in zip(self.generators, states, strict=True):
            g.set_state(state)
