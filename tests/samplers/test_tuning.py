"""The pilot chain finds the step that theory says is best."""

import math

import pytest
import torch

from gpnp_cli.samplers.metropolis import GaussianWalk, Mala, Metropolis
from gpnp_cli.samplers.rng import ChainRng
from gpnp_cli.samplers.tuning import LANGEVIN, WALK, find_step

STD = 0.1


def bowl(x):
    return ((x - 0.5) / STD).square().flatten(1).sum(1) / 2


@pytest.mark.parametrize("first", [1e-4, 1.0])
def test_a_walk_in_many_dimensions(first):
    """At the acceptance rate 0.234 the best std is 2.38 std / sqrt(D) (Roberts, Gelman & Gilks 1997)."""
    x = 0.5 + STD * torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    step = find_step(lambda s: Metropolis(bowl, GaussianWalk(s)), x, ChainRng(0, 1), WALK, first)
    assert step == pytest.approx(2.38 * STD / math.sqrt(36), rel=0.2)


def test_mala_accepts_as_often_as_wanted():
    x = 0.5 + STD * torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    step = find_step(lambda s: Mala(bowl, s), x, ChainRng(0, 1), LANGEVIN, 0.1)
    kernel, rng, accepted = Mala(bowl, step), ChainRng(1, 1), []
    state = kernel.init(x)
    for _ in range(1000):
        state, info = kernel.step(state, 1.0, rng)
        accepted.append(float(info.acceptance))
    assert sum(accepted) / 1000 == pytest.approx(LANGEVIN, abs=0.08)
