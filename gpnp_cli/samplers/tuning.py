"""The step of a Metropolis kernel, found by a pilot chain of its own."""

import math
from collections.abc import Callable

from torch import Tensor

from .base import Kernel, iterate
from .rng import ChainRng

WALK, LANGEVIN = (
    0.234,
    0.574,
)  # the best acceptance rates in many dimensions (Roberts & Rosenthal, Statistical Science 2001)
ROUNDS, STEPS = 30, 20


def find_step(make: Callable[[float], Kernel], x: Tensor, rng: ChainRng, wanted: float, first: float) -> float:
    """The step at which about the share `wanted` of proposals is accepted, by Robbins & Monro's recursion.

    `make(step)` gives a kernel whose info has `acceptance`; all of them must share one kind of state. Starts from `x`
    `(N, C, H, W)` and `first`; what comes back is the geometric mean over the second half of the rounds (Polyak &
    Juditsky 1992). Draws from `rng`, so give the pilot a generator of its own: the step is then the same however many
    chains follow.
    """
    log_step, state, late = math.log(first), make(first).init(x), []
    for k in range(ROUNDS):
        accepted = []
        for last in iterate(make(math.exp(log_step)), state, [1.0] * STEPS, rng):
            accepted.append(float(last.info.acceptance.mean()))
        state = last.state
        log_step += 3 / math.sqrt(1 + k) * (sum(accepted) / STEPS - wanted)
        if k >= ROUNDS // 2:
            late.append(log_step)
    return math.exp(sum(late) / len(late))
