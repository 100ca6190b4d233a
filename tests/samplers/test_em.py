"""GPnP-EM with a denoiser that knows the picture: then the kernel must come out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpnp_cli.forward.blur import Blur
from gpnp_cli.forward.edges import MARGIN_FALL, Extremes
from gpnp_cli.forward.kernel_fit import Connectedness, FreeForm, SmallEnergy, Sparsity, moved_onto
from gpnp_cli.samplers.base import iterate
from gpnp_cli.samplers.em import EmState, EmStep, GpnpEm, Schedule, edges_first, misfit, refine
from gpnp_cli.samplers.rng import ChainRng
from gpnp_cli.samplers.schedules import geometric

NOISE = 0.01


class Oracle:
    """E[X | v] when only one picture is possible."""

    channels, sigma_range = None, (0.0, 10.0)

    def __init__(self, x):
        self.x = x

    def __call__(self, v, sigma):
        height, width = v.shape[-2:]
        top, left = ((a - b) // 2 for a, b in zip(self.x.shape[-2:], v.shape[-2:], strict=True))
        return self.x[..., top : top + height, left : left + width].expand_as(v)


@pytest.fixture
def case():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 72, 68, generator=rng)
    h = torch.zeros(7, 7)
    h[3, 1:6], h[2, 4], h[4, 2] = torch.tensor([1.0, 2, 3, 2, 1]), 1, 1
    h /= h.sum()
    A = Blur(h, (1, 64, 60))
    y = A.forward(x[..., 1:-1, 1:-1])
    return x, h, y + NOISE * torch.randn(y.shape, generator=rng)


def em(x, y, **options):
    h = torch.full((7, 7), 1 / 49)
    known = torch.ones(y.shape[-2:], dtype=torch.bool)
    options = {"fit": FreeForm([Sparsity(1e-5), Connectedness()]), "h": h, "sigma_y": 0.1, "floor": 0.002} | options
    return GpnpEm(Oracle(x), y, known, **options)


@pytest.mark.parametrize("chains", [1, 2])
def test_kernel_and_noise_are_found(case, chains):
    x, h, y = case
    kernel, rng = em(x, y), ChainRng(0, chains)
    start = kernel.init(0.5 + 0.3 * rng.randn_like(x[..., 1:-1, 1:-1].expand(chains, -1, -1, -1)))
    steps = list(iterate(kernel, start, geometric(0.3, 0.005, 30), rng))
    state = steps[-1].state
    assert float((state.h - h).abs().max()) < 0.01
    assert state.sigma_y == pytest.approx(NOISE, rel=0.15)
    assert float(state.h.sum()) == pytest.approx(1) and float(state.h.min()) >= 0
    levels = [step.state.sigma_y for step in steps]
    assert levels == sorted(levels, reverse=True)
    assert steps[-1].nfe == 30


def test_noise_falls_no_lower_than_its_floor(case):
    x, _, y = case
    kernel, rng = em(x, y, floor=0.05), ChainRng(0, 1)
    *_, last = iterate(kernel, kernel.init(x[..., 1:-1, 1:-1]), geometric(0.3, 0.005, 20), rng)
    assert last.state.sigma_y == 0.05


def test_same_seed_same_kernel(case):
    x, _, y = case

    def run(seed):
        kernel, rng = replace(em(x, y), denoiser=Smooth()), ChainRng(seed, 1)
        *_, last = iterate(kernel, kernel.init(x[..., 1:-1, 1:-1]), geometric(0.3, 0.05, 4), rng)
        return last.state.h

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_states_of_one_colour_leave_the_kernel_alone(case):
    x, _, y = case
    kernel, rng = replace(em(x, y), denoiser=lambda v, sigma: torch.full_like(v, 0.5)), ChainRng(0, 1)
    state, _ = kernel.step(kernel.init(x[..., 1:-1, 1:-1]), 0.1, rng)
    assert torch.equal(state.h, kernel.h)


def test_levels_go_from_coarse_to_fine():
    schedule = Schedule(iterations=10)
    assert schedule.factors((5, 5)) == schedule.factors((3, 3)) == [1.0]
    factors = schedule.factors((31, 31))
    assert factors == sorted(factors) and factors[-1] == 1
    assert factors[0] * 31 >= schedule.smallest - 1e-9
    assert schedule.total((31, 31)) == schedule.rounds * len(factors) + 10


class Smooth:
    """Not a prior to trust, but a quick one."""

    channels, sigma_range = None, (0.0, 10.0)

    def __call__(self, v, sigma):
        return v * (0.04 / (0.04 + sigma**2)) + 0.5 * (sigma**2 / (0.04 + sigma**2))


FIRST = FreeForm([SmallEnergy(0.01), Sparsity(0.0), Connectedness()])


def test_a_search_tells_every_iteration(case):
    _, _, y = case
    schedule, size = Schedule(iterations=5, rounds=2), (11, 11)
    known = torch.ones(y.shape[-2:], dtype=torch.bool)
    steps = list(edges_first(y, known, size, lambda scale: FIRST, schedule))
    steps += refine(Smooth(), y, known, steps[-1], FreeForm(()), schedule, 0.01, ChainRng(0, 2))
    assert [step.iteration for step in steps] == list(range(1, schedule.total(size) + 1))
    assert steps[-1].nfe == 5 and steps[-6].nfe == 0
    assert steps[-1].scale == 1 and steps[-1].picture.shape == (2, 1, 64, 60)
    assert steps[-1].state.h.shape == size
    sizes = [step.picture.shape[-1] for step in steps]
    assert sizes == sorted(sizes) and sizes[0] < 60


def test_black_and_white_are_given_back_if_the_schedule_says_so(case, monkeypatch):
    _, _, y = case
    known, seen = torch.ones(y.shape[-2:], dtype=torch.bool), []

    def edges(y, h, weight, extremes):
        seen.append(extremes)
        return y

    monkeypatch.setattr("gpnp_cli.samplers.em.strong_edges", edges)
    list(edges_first(y, known, (11, 11), lambda scale: FIRST, Schedule(rounds=2)))
    margins = torch.tensor([each.margin for each in seen])
    assert torch.allclose(margins[1:] * MARGIN_FALL, margins[:-1]) and seen[0] == Extremes.of(y)
    count = len(seen)
    list(edges_first(y, known, (11, 11), lambda scale: FIRST, Schedule(rounds=2, extremes=False)))
    assert seen[count:] == count * [None]


def test_chains_begin_at_the_denoisers_picture_not_at_the_edges(case):
    x, h, y = case
    known, schedule = torch.ones(y.shape[-2:], dtype=torch.bool), Schedule(iterations=3)

    def kernels(edges):
        begun = EmStep(0, 0.0, EmState(edges, h, schedule.sigma_y), 0, 1.0, edges)
        steps = refine(Smooth(), y, known, begun, FreeForm(()), schedule, 0.001, ChainRng(0, 1))
        return [step.state.h for step in steps]

    inner = x[..., 1:-1, 1:-1]
    some, others = kernels(torch.zeros_like(inner)), kernels(inner)
    assert all(torch.equal(one, other) for one, other in zip(some, others, strict=True))
    assert not torch.equal(some[0], some[1])


def test_edges_alone_find_a_motion():
    """Rectangles on one another are what strong edges are made of."""
    rng = np.random.Generator(np.random.PCG64(0))
    x = np.full((120, 120), 0.5)
    for _ in range(40):
        top, left = rng.integers(0, 110, 2)
        height, width = rng.integers(8, 50, 2)
        x[top : top + height, left : left + width] = rng.uniform(0.05, 0.95)
    h = torch.zeros(9, 9)
    h[4, 1:8] = torch.tensor([1.0, 1, 1, 1, 1, 1, 1])
    h[3, 7] = 1
    h /= h.sum()
    A = Blur(h, (1, 112, 112))
    y = A.forward(torch.from_numpy(x).float()[None, None])
    y = y + 0.005 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    known = torch.ones(112, 112, dtype=torch.bool)
    *_, last = edges_first(y, known, (11, 11), lambda scale: FIRST, Schedule())
    found, reference = last.state.h, F.pad(h, (1, 1, 1, 1))
    likeness = float((moved_onto(found, reference) * reference).sum() / found.norm() / reference.norm())
    assert likeness > 0.9


def test_the_right_kernel_fits_best(case):
    x, h, y = case
    known = torch.ones(y.shape[-2:], dtype=torch.bool)
    known[:10, :10] = False
    cost = misfit(Oracle(x), y, known, h)
    assert cost == pytest.approx(NOISE, rel=0.05)
    for wrong in (torch.ones(1, 1), torch.full((7, 7), 1 / 49)):
        assert misfit(Oracle(x), y, known, wrong) > 2 * cost
    y = torch.where(known, y, 5.0)
    assert misfit(Oracle(x), y, known, h) == pytest.approx(cost, rel=0.05)  # what is not known does not count
