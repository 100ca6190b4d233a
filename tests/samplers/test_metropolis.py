"""Metropolis, Hastings, MALA and the sweeps against exact laws.

Where the chance of a move can be read off by injecting random numbers there is no Monte Carlo: acceptance
probabilities one by one, whole transition matrices on tiny lattices. The rest are thousands of independent
chains, whose last states are compared with the exact law by a test of fixed seed.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from gpnp_cli.errors import InputError, UsageError
from gpnp_cli.samplers.base import iterate
from gpnp_cli.samplers.energies import Ising, Mrf, PairwiseGrid, Potts
from gpnp_cli.samplers.metropolis import (
    ACTIVE,
    GaussianWalk,
    Hastings,
    IndependentNormal,
    IsingSweep,
    LogWalk,
    Mala,
    Metropolis,
    Sweep,
)
from gpnp_cli.samplers.rng import ChainRng, generator

CHAINS = 20_000


class OneGenerator:
    """Randomness for thousands of tiny chains at once."""

    def __init__(self, seed: int) -> None:
        self.generator = generator(seed)

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)

    def rand_like(self, x: Tensor) -> Tensor:
        return torch.rand(x.shape, generator=self.generator, dtype=x.dtype)

    def bits_like(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        info = torch.iinfo(dtype)
        return torch.randint(info.min, info.max + 1, x.shape, generator=self.generator, dtype=dtype)


class Injected:
    """Hands out prepared tensors, one per call, whatever the law that is asked for."""

    def __init__(self, numbers) -> None:
        self.numbers = iter(numbers)

    def rand_like(self, x: Tensor) -> Tensor:
        return next(self.numbers).reshape(x.shape).to(x.dtype)

    randn_like = rand_like

    def bits_like(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return next(self.numbers).reshape(x.shape).to(dtype)


def run(kernel, x: Tensor, steps: int, rng) -> list:
    return list(iterate(kernel, kernel.init(x), [1.0] * steps, rng))


def flat(x: Tensor) -> np.ndarray:
    return x.flatten().double().numpy()


def at(value: float, chains: int = CHAINS, pixels: int = 1) -> Tensor:
    return torch.full((chains, 1, 1, pixels), value, dtype=torch.float64)


def normal(mean: float, std: float):
    return lambda x: ((x - mean) / std).square().flatten(1).sum(1) / 2


# Lattices whose images can be listed.


def images(energy: PairwiseGrid, values: int, size: tuple[int, int]) -> Tensor:
    """All images, in the order of `code`."""
    labels = torch.tensor(list(itertools.product(range(values), repeat=size[0] * size[1])), dtype=torch.float32)
    unit = (labels / (values - 1)).reshape(-1, 1, *size)
    return {Ising: 2 * unit - 1, Potts: labels.reshape(unit.shape), Mrf: unit}[type(energy)]


def code(energy: PairwiseGrid, values: int, x: Tensor) -> Tensor:
    """The number of each image: its labels are the digits."""
    labels = torch.round(energy.to_unit(x) * (values - 1)).long().flatten(1)
    return labels @ (values ** torch.arange(labels.shape[1] - 1, -1, -1))


def gibbs(energy, x: Tensor, temperature: float) -> Tensor:
    return torch.softmax(-energy(x) / temperature, dim=0)


def transition(kernel, states: Tensor, values: int, weights: Tensor, rng) -> Tensor:
    """The transition matrix: every state meets each of the injected draws, whose chances are `weights`."""
    count = len(states)
    start = states.repeat_interleave(len(weights), 0)
    state, _ = kernel.step(kernel.init(start), 1.0, rng)
    source = torch.arange(count).repeat_interleave(len(weights))
    matrix = torch.bincount(source * count + code(kernel.energy, values, state.x), weights.repeat(count), count**2)
    return matrix.reshape(count, count)


def choices(chances: list[float], values: int, sites: int) -> tuple[Tensor, Tensor, Tensor]:
    """All that can happen at `sites` sites: numbers to propose with and to accept with, (draw, site), and their chances.

    An acceptance probability is one of `chances`, so that one number from between each two stands for all there.
    """
    edges = [0.0, *sorted(chances), 1.0]
    accept = [((a + b) / 2, b - a) for a, b in itertools.pairwise(edges)]
    propose = [((i + 0.5) / (values - 1), 1 / (values - 1)) for i in range(values - 1)]
    one = torch.tensor(
        [(p, a, pw * aw) for (p, pw), (a, aw) in itertools.product(propose, accept)], dtype=torch.float64
    )
    draws = one[torch.tensor(list(itertools.product(range(len(one)), repeat=sites)))]
    return draws[..., 0], draws[..., 1], draws[..., 2].prod(1)


def class_matrix(kernel: Sweep, states: Tensor, values: int, moved: tuple, chances: list[float]) -> Tensor:
    """`transition` when only the parity classes `moved` are active; the others are told to stay."""
    sites = {(a, b): states[0, 0, a::2, b::2].numel() for a, b in Sweep.CLASSES}
    propose, accept, weights = choices(chances, values, sum(sites[each] for each in moved))
    numbers, first = [], 0
    for each in Sweep.CLASSES:
        if each in moved:
            own = slice(first, first := first + sites[each])
            numbers += [propose[:, own].repeat(len(states), 1), accept[:, own].repeat(len(states), 1)]
        else:
            stay = torch.full((len(states) * len(weights), sites[each]), math.inf)
            numbers += [torch.zeros_like(stay), stay]
    return transition(kernel, states, values, weights, Injected(numbers))


@pytest.mark.parametrize(
    "energy, values, size, most",
    [
        (Potts(q=3, J=1), 3, (2, 2), 4),
        (Potts(q=3, J=1, periodic=False), 3, (2, 3), 3),
        (Potts(q=4, J=-1, periodic=False), 4, (2, 2), 2),
        (Mrf(p=1, theta=2, levels=3), 3, (2, 2), 4),
        (Ising(J=0.5), 2, (2, 2), 4),
        (Ising(J=0.5, periodic=False), 2, (2, 3), 3),
    ],
    ids=str,
)
def test_each_class_of_a_sweep_is_in_detailed_balance_and_sweeps_forget_their_start(energy, values, size, most):
    """Every move costs a whole number up to `most`."""
    kernel, states = Sweep(energy, temperature=1.4), images(energy, values, size)
    law = gibbs(energy, states, kernel.temperature)
    sweep = torch.eye(len(states), dtype=torch.float64)
    for moved in Sweep.CLASSES:
        chances = [ACTIVE * math.exp(-rise / kernel.temperature) for rise in range(most + 1)]
        matrix = class_matrix(kernel, states, values, (moved,), chances)
        flow = law[:, None] * matrix
        assert (matrix.diagonal() < 0.95).all()
        assert torch.allclose(flow, flow.T, rtol=0, atol=1e-15)
        sweep = sweep @ matrix
    assert torch.allclose(torch.linalg.matrix_power(sweep, 1000), law.expand_as(sweep), rtol=0, atol=1e-9)


@pytest.mark.parametrize("J, size", [(1.0, (2, 4)), (-1.0, (4, 2)), (1.0, (2, 2))], ids=str)
def test_both_ising_sweeps_have_one_transition_matrix_and_it_keeps_the_law(J, size):
    energy, temperature = Ising(J=J), 2.5
    plain, fast = Sweep(energy, temperature), IsingSweep(energy, temperature)
    states = images(energy, 2, size)
    law = gibbs(energy, states, temperature)
    chances = [ACTIVE * math.exp(-cost / temperature) for cost in (0, 4, 8)]
    _, accept, weights = choices(chances, 2, states[0].numel() // 2)
    bits = ((accept - 0.5) * 2**32).long().repeat(len(states), 1)
    stay = torch.full_like(bits, 2**31 - 1)
    sweep = torch.eye(len(states), dtype=torch.float64)
    for classes, numbers in [(Sweep.CLASSES[:2], (bits, stay)), (Sweep.CLASSES[2:], (stay, bits))]:
        colour = transition(fast, states, 2, weights, Injected(numbers))
        assert torch.allclose(colour, class_matrix(plain, states, 2, classes, chances), rtol=0, atol=1e-14)
        sweep = sweep @ colour
    assert torch.allclose(law @ sweep, law, rtol=0, atol=1e-14)
    assert torch.allclose(torch.linalg.matrix_power(sweep, 4000), law.expand_as(sweep), rtol=0, atol=1e-6)


@pytest.mark.parametrize("J", [1.0, -1.0])
def test_a_spin_of_the_fast_sweep_flips_with_the_chance_that_its_energy_gives(J):
    """Chain n moves only the n-th spin of the packed halves; six columns tell left neighbours from right ones."""
    energy, temperature, sites = Ising(J=J), 3.0, 4 * 6
    kernel = IsingSweep(energy, temperature)
    x = energy.start(torch.empty(sites, 1, 4, 6), ChainRng(5, sites))

    def step(numbers: Tensor) -> Tensor:
        bits = torch.full((sites, sites), 2**31 - 1).diagonal_scatter(numbers)
        return kernel.step(kernel.init(x), 1.0, Injected(bits.chunk(2, 1)))[0].x

    w = step(torch.full((sites,), -(2**31)))
    assert torch.equal((w != x).sum(0), torch.ones(1, 4, 6)) and ((w != x).flatten(1).sum(1) == 1).all()
    chance = ACTIVE * torch.exp((energy(x) - energy(w)) / temperature).clamp(max=1)
    assert chance.unique().numel() == 3
    assert torch.equal(step(((chance * (1 - 1e-6) - 0.5) * 2**32).long()), w)
    assert torch.equal(step(((chance * (1 + 1e-6) - 0.5) * 2**32).long()), x)


@pytest.mark.parametrize("J, temperature", [(1.0, 2.0), (-0.4, 1.0), (1.0, 0.4), (1.0, 0.2)], ids=str)
def test_the_integer_threshold_is_the_flip_probability(J, temperature):
    """All neighbours aligned: the flip costs 8 |J|. At T = 0.2 its chance is below 2^-32: it never happens."""
    energy = Ising(J=J)
    x = images(energy, 2, (2, 2))[[15 if J > 0 else 0b1001]].repeat(1, 1, 2, 2)
    limit = math.floor(ACTIVE * math.exp(-8 * abs(J) / temperature) * 2**32) - 2**31
    for bits, flips in [(limit - 1, 1.0), (limit, 0.0)]:
        if bits >= -(2**31):
            numbers = torch.full((1, 8), bits), torch.full((1, 8), bits)
            _, info = IsingSweep(energy, temperature).step(IsingSweep(energy).init(x), 1.0, Injected(numbers))
            assert info.acceptance.item() == flips


@pytest.mark.parametrize("periodic, size", [(True, (4, 6)), (False, (5, 3))], ids=["periodic", "free"])
@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize(
    "make",
    [
        functools.partial(Ising, J=0.3),
        functools.partial(Potts, q=3),
        functools.partial(Mrf, p=1.2, theta=2.0),
        functools.partial(Mrf, p=2, theta=3.0, levels=5),
    ],
    ids=["ising", "potts", "mrf", "levels"],
)
def test_a_site_moves_with_the_chance_that_its_energy_gives(make, neighbours, periodic, size):
    """Chain n moves only site n, just below and just above the acceptance probability."""
    energy, temperature, sites = make(neighbours=neighbours, periodic=periodic), 0.7, size[0] * size[1]
    kernel = Sweep(energy, temperature)
    rng = ChainRng(11, sites)
    x = energy.start(torch.empty(sites, 1, *size, dtype=torch.float64), rng)
    one_site = torch.eye(sites, dtype=torch.bool).reshape(x.shape)
    uniform = rng.rand_like(x)
    w = torch.where(one_site, energy.propose(x, uniform), x)
    chance = torch.exp((energy(x) - energy(w)) / temperature).reshape(-1, 1, 1, 1)  # 0 where w is not legal
    assert ((chance > 0) & (chance < 1)).any() and (chance > 1).any()
    for factor in (1 - 1e-9, 1 + 1e-9):
        accept = torch.where(one_site, ACTIVE * chance.clamp(max=1) * factor, math.inf)
        numbers = [plane[..., a::2, b::2] for a, b in Sweep.CLASSES for plane in (uniform, accept)]
        state, info = kernel.step(kernel.init(x), 1.0, Injected(numbers))
        moves = chance.flatten() > (0 if factor < 1 else math.inf)
        assert torch.equal(state.x, torch.where(moves.reshape(-1, 1, 1, 1), w, x))
        assert torch.equal(info.acceptance, moves / sites)


def check_histogram(observed: Tensor, law: Tensor, cells: Tensor) -> float:
    """The p-value of chi-squared for drawn numbers of images, grouped into `cells`; rare cells are merged."""
    _, cells = torch.unique(cells, return_inverse=True)
    expected = torch.bincount(cells, law) * len(observed)
    seen = torch.bincount(cells[observed], minlength=len(expected)).double()
    rare = expected < 20
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    seen = torch.cat([seen[~rare], seen[rare].sum()[None]])
    filled = expected > 0
    statistic = ((seen - expected)[filled] ** 2 / expected[filled]).sum()
    return stats.chi2.sf(statistic.item(), int(filled.sum()) - 1)


@pytest.mark.parametrize("sweep", [Sweep, IsingSweep])
def test_ising_sweeps_draw_the_law_of_all_65536_images(sweep):
    """The joint law of energy and |magnetisation| on 4x4, from all spins up."""
    energy, temperature = Ising(J=1), 3.0
    states = images(energy, 2, (4, 4))
    cells = energy(states) * 100 + states.flatten(1).sum(1).abs()
    step = run(sweep(energy, temperature, sweeps=10), torch.ones(CHAINS, 1, 4, 4), 3, OneGenerator(3))[-1]
    drawn = code(energy, 2, step.state.x)
    law = gibbs(energy, states, temperature)
    assert check_histogram(drawn, law, cells) > 1e-3
    assert check_histogram(drawn, gibbs(energy, states, temperature * 1.04), cells) < 1e-6  # it can tell
    standard_error = (energy(states).square() @ law - (energy(states) @ law) ** 2).sqrt() / math.sqrt(CHAINS)
    assert abs(energy(step.state.x).mean() - energy(states) @ law) < 4 * standard_error


@dataclass(frozen=True)
class SetOneSpin:
    """A spin, each equally likely, is set to 1 with probability `up`, to -1 otherwise: asymmetric."""

    up: float

    def propose(self, x: Tensor, rng) -> Tensor:
        site = torch.floor(rng.rand_like(x[:, 0, 0, 0]) * x[0].numel()).long()
        spin = torch.where(rng.rand_like(x[:, 0, 0, 0]) < self.up, 1.0, -1.0)
        return x.flatten(1).scatter(1, site[:, None], spin[:, None]).reshape(x.shape)

    def log_density(self, w: Tensor, x: Tensor) -> Tensor:
        chance = torch.where(w > 0, math.log(self.up), math.log(1 - self.up))
        return (chance * (w != x)).flatten(1).sum(1)


def test_metropolis_and_hastings_draw_the_law_of_all_16_images_and_need_the_right_ratio():
    energy, temperature = Ising(J=1), 4.0
    states = images(energy, 2, (2, 2))
    law, each = gibbs(energy, states, temperature), torch.arange(16)
    x = torch.ones(CHAINS, 1, 2, 2)

    def chance(kernel) -> float:
        last = run(kernel, x, 250, OneGenerator(5))[-1].state.x
        return check_histogram(code(energy, 2, last), law, each)

    assert chance(Metropolis(energy, SetOneSpin(0.5), temperature)) > 1e-3
    assert chance(Hastings(energy, SetOneSpin(0.7), temperature)) > 1e-3
    assert chance(Metropolis(energy, SetOneSpin(0.7), temperature)) < 1e-6


# The acceptance rule, number by number.

ENERGY = normal(0.8, 0.4)


@pytest.mark.parametrize(
    "kernel, log_q",
    [
        (Metropolis(ENERGY, GaussianWalk(0.3), 1.7), lambda w, x: 0 * w),
        (Hastings(ENERGY, GaussianWalk(0.3), 1.7), lambda w, x: stats.norm.logpdf(w, x, 0.3)),
        (Hastings(ENERGY, LogWalk(0.3), 1.7), lambda w, x: stats.lognorm.logpdf(w, s=0.3, scale=x)),
        (Hastings(ENERGY, IndependentNormal(1.0, 0.5), 1.7), lambda w, x: stats.norm.logpdf(w, 1.0, 0.5)),
        (
            Mala(ENERGY, 0.1, 1.7),
            lambda w, x: stats.norm.logpdf(w, x - 0.1 / 1.7 * (x - 0.8) / 0.4**2, math.sqrt(2 * 0.1)),
        ),
    ],
    ids=["metropolis", "symmetric", "log", "independent", "mala"],
)
def test_a_proposal_is_accepted_with_the_hastings_probability(kernel, log_q):
    chains, shape = 60, (60, 1, 2, 3)
    x = 0.5 + OneGenerator(1).rand_like(torch.empty(shape, dtype=torch.float64))
    noise = OneGenerator(2).randn_like(x)
    state = kernel.init(x)
    moved, info = kernel.step(state, 1.0, Injected([noise, torch.zeros(chains)]))  # log 0: all are accepted
    w = moved.x
    assert info.acceptance.tolist() == [1.0] * chains and (w != x).all()
    ratio = (log_q(x.numpy(), w.numpy()) - log_q(w.numpy(), x.numpy())).reshape(chains, -1).sum(1)
    log_alpha = (ENERGY(x) - ENERGY(w)) / kernel.temperature + torch.from_numpy(ratio)
    assert (log_alpha < 0).any() and (log_alpha > 0).any()
    for factor in (1 - 1e-9, 1 + 1e-9):
        uniform = log_alpha.exp().clamp(max=1 - 1e-9) * factor
        new, info = kernel.step(state, 1.0, Injected([noise, uniform]))
        accepted = log_alpha > (0 if factor > 1 else -math.inf)
        assert torch.equal(new.x, torch.where(accepted.reshape(-1, 1, 1, 1), w, x))
        assert torch.equal(info.acceptance, accepted.double())
        assert torch.allclose(new.energy, ENERGY(new.x), rtol=1e-12)
        if isinstance(kernel, Mala):
            assert torch.allclose(new.gradient, (new.x - 0.8) / 0.4**2, rtol=1e-12)


# Densities in closed form, by many chains.


def test_metropolis_on_a_gaussian_and_its_acceptance_rate():
    """Accepted in the long run: 2/pi arctan(2 std / scale) (Gelman, Roberts & Gilks, 1996)."""
    temperature, std, scale = 2.0, 0.3, 0.9
    steps = run(Metropolis(normal(0.5, std), GaussianWalk(scale), temperature), at(0.1), 60, OneGenerator(6))
    wide = std * math.sqrt(temperature)
    assert stats.kstest(flat(steps[-1].state.x), stats.norm(0.5, wide).cdf).pvalue > 1e-3
    rate = 2 / math.pi * math.atan(2 * wide / scale)
    measured = steps[-1].info.acceptance.mean().item()
    assert abs(measured - rate) < 4 * math.sqrt(rate * (1 - rate) / CHAINS)


def test_hastings_with_a_multiplicative_walk_draws_a_gamma_law_and_metropolis_does_not():
    def energy(x: Tensor) -> Tensor:
        return (x - 2 * torch.log(x)).flatten(1).sum(1)

    steps = run(Hastings(energy, LogWalk(1.0)), at(1.0), 50, OneGenerator(7))
    assert stats.kstest(flat(steps[-1].state.x), stats.gamma(3).cdf).pvalue > 1e-3
    wrong = run(Metropolis(energy, LogWalk(1.0)), at(1.0), 50, OneGenerator(7))
    assert stats.kstest(flat(wrong[-1].state.x), stats.gamma(3).cdf).pvalue < 1e-6


def test_hastings_with_independent_proposals_gives_separated_modes_their_weights():
    def energy(x: Tensor) -> Tensor:
        left = math.log(0.3) - (x + 2).square() / (2 * 0.3**2)
        right = math.log(0.7) - (x - 2).square() / (2 * 0.3**2)
        return -torch.logaddexp(left, right).flatten(1).sum(1)

    def cdf(x):
        return 0.3 * stats.norm.cdf(x, -2, 0.3) + 0.7 * stats.norm.cdf(x, 2, 0.3)

    steps = run(Hastings(energy, IndependentNormal(-1.0, 2.5)), at(-2.0), 80, OneGenerator(8))
    assert stats.kstest(flat(steps[-1].state.x), cdf).pvalue > 1e-3


def test_mala_draws_a_correlated_gaussian_with_steps_that_unadjusted_langevin_could_not_take():
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    precision, mean, temperature = torch.linalg.inv(covariance), torch.tensor([0.3, -0.2]), 0.5

    def energy(x: Tensor) -> Tensor:
        gap = x.flatten(1) - mean
        return ((gap @ precision) * gap).sum(1) / 2

    steps = run(Mala(energy, 0.06, temperature), at(0.0, pixels=2), 150, OneGenerator(9))
    z = (steps[-1].state.x.flatten(1) - mean) @ torch.linalg.inv(torch.linalg.cholesky(temperature * covariance)).T
    assert 0.5 < steps[-1].info.acceptance.mean() < 0.95
    for direction in torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, -0.8]], dtype=torch.float64):
        assert stats.kstest((z @ direction).numpy(), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("p", [1.2, 2.0])
@pytest.mark.parametrize("kind", ["metropolis", "sweep", "mala"])
def test_every_kernel_draws_the_same_field_on_the_unit_interval(kind, p):
    """Two neighbours with u = theta |a - b|^p: the density of a - b and of a by quadrature."""
    energy = Mrf(p=p, theta=6.0, width=0.6)
    kernel = {
        "metropolis": Metropolis(energy, GaussianWalk(0.3)),
        "sweep": Sweep(energy, sweeps=1),
        "mala": Mala(energy, 0.02),
    }[kind]
    x = run(kernel, at(0.05, pixels=2), 80, OneGenerator(10))[-1].state.x.flatten(1)
    assert ((x >= 0) & (x <= 1)).all()
    grid = np.linspace(0, 1, 401)
    density = np.exp(-6 * np.abs(grid[:, None] - grid) ** p)
    marginal = integrate.cumulative_trapezoid(integrate.trapezoid(density, grid), grid, initial=0)
    gap = integrate.cumulative_trapezoid(np.exp(-6 * grid**p) * (1 - grid), grid, initial=0)
    for values, cdf in [(x[:, 0], marginal), (x[:, 1], marginal), ((x[:, 0] - x[:, 1]).abs(), gap)]:
        assert stats.kstest(values.numpy(), lambda v, cdf=cdf: np.interp(v, grid, cdf / cdf[-1])).pvalue > 1e-3


# What holds for any kernel.


def half_normal(x: Tensor) -> Tensor:
    return torch.where((x >= 0).flatten(1).all(1), x.square().flatten(1).sum(1) / 2, math.inf)


@pytest.mark.parametrize(
    "kernel",
    [
        Metropolis(half_normal, GaussianWalk(1.0)),
        Hastings(half_normal, IndependentNormal(0.0, 1.5)),
        Mala(half_normal, 0.5),
    ],
    ids=["metropolis", "hastings", "mala"],
)
def test_an_image_of_infinite_energy_is_never_accepted(kernel):
    steps = run(kernel, at(0.5), 60, OneGenerator(12))
    assert all((step.state.x >= 0).all() for step in steps)
    assert stats.kstest(flat(steps[-1].state.x), stats.halfnorm.cdf).pvalue > 1e-3
    x = at(0.5, 3)
    x[1] = -1
    with pytest.raises(InputError, match="'half_normal' is infinite where chain 1 starts"):
        kernel.init(x)


ALL = {
    "metropolis": Metropolis(normal(0.5, 0.2), GaussianWalk(0.1)),
    "hastings": Hastings(normal(0.5, 0.2), LogWalk(0.2)),
    "mala": Mala(normal(0.5, 0.2), 0.01),
    "potts": Sweep(Potts(q=3), 1.0, sweeps=2),
    "mrf": Sweep(Mrf(), 1.0, sweeps=2),
    "ising": IsingSweep(Ising(), 2.5, sweeps=2),
}


def start(kernel, chains: int, size: tuple[int, int] = (4, 6), seed: int = 1) -> Tensor:
    x = torch.empty(chains, 1, *size)
    return kernel.energy.start(x, ChainRng(seed, chains)) if hasattr(kernel.energy, "start") else x.fill_(0.4)


@pytest.mark.parametrize("name", ALL)
def test_a_chain_does_not_depend_on_its_neighbours(name):
    kernel = ALL[name]
    x = start(kernel, 4)
    together = run(kernel, x, 6, ChainRng(7, 4))
    alone = run(kernel, x[2:3], 6, ChainRng(7, [2]))
    assert not torch.equal(together[-1].state.x[2], x[2])
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a.state.x[2], b.state.x[0], rtol=0, atol=1e-6)
        assert a.info.acceptance[2] == b.info.acceptance[0]


@pytest.mark.parametrize("name", ALL)
def test_a_step_leaves_its_arguments_alone_and_keeps_the_precision(name):
    kernel = ALL[name]
    x = start(kernel, 2)
    kept, state = x.clone(), kernel.init(x)
    new, info = kernel.step(state, 1.0, ChainRng(0, 2))
    assert torch.equal(state.x, kept) and torch.equal(x, kept)
    assert new.x.dtype == torch.float32 and new.x.shape == x.shape
    assert info.acceptance.shape == (2,) and info.nfe == 0 and info.x0 is None


@pytest.mark.parametrize("sweep", [Sweep, IsingSweep])
def test_a_sweep_reports_the_share_of_spins_that_it_flipped(sweep):
    energy = Ising()
    x = start(sweep(energy), 3, (8, 8))
    singles = run(sweep(energy, 2.0), x, 3, ChainRng(4, 3))
    before = x
    for step in singles:
        assert torch.equal(step.info.acceptance, (step.state.x != before).float().flatten(1).mean(1))
        before = step.state.x
    (triple,) = run(sweep(energy, 2.0, sweeps=3), x, 1, ChainRng(4, 3))
    assert torch.equal(triple.state.x, before)
    assert torch.allclose(triple.info.acceptance, sum(step.info.acceptance for step in singles) / 3)


def test_mala_finds_its_gradient_where_gradients_are_switched_off():
    with torch.inference_mode():
        off = run(ALL["mala"], start(ALL["mala"], 2), 3, ChainRng(0, 2))[-1].state.x
    on = run(ALL["mala"], start(ALL["mala"], 2), 3, ChainRng(0, 2))[-1].state.x
    assert torch.equal(off, on) and not on.requires_grad


# What is refused.


@pytest.mark.parametrize("size", [(3, 4), (4, 5)], ids=str)
def test_periodic_grids_with_an_odd_side_are_refused(size):
    for kernel in (Sweep(Potts()), Sweep(Mrf(periodic=True))):
        with pytest.raises(UsageError, match=f"periodic grid of {size[0]}x{size[1]}") as error:
            kernel.init(start(kernel, 1, size))
        assert "periodic=false" in error.value.hint
    with pytest.raises(UsageError, match="Ising grid"):
        IsingSweep(Ising()).init(torch.ones(1, 1, *size))
    Sweep(Potts(periodic=False)).init(torch.ones(1, 1, *size))


def test_ising_sweeps_refuse_what_they_would_get_wrong():
    with pytest.raises(UsageError, match="one channel"):
        IsingSweep(Ising()).init(torch.ones(1, 3, 4, 4))
    for energy in (Ising(neighbours=8), Ising(periodic=False)):
        with pytest.raises(UsageError, match="4 neighbours on a periodic grid"):
            IsingSweep(energy)
    for sweep in (Sweep(Ising()), IsingSweep(Ising())):
        with pytest.raises(InputError, match="'Ising' is infinite where chain 0 starts"):
            sweep.init(torch.full((1, 1, 4, 4), 0.5))


@pytest.mark.parametrize(
    "make",
    [
        lambda t: Metropolis(ENERGY, GaussianWalk(1), t),
        lambda t: Hastings(ENERGY, GaussianWalk(1), t),
        lambda t: Mala(ENERGY, 0.1, t),
        lambda t: Sweep(Potts(), t),
        lambda t: IsingSweep(Ising(), t),
    ],
    ids=["metropolis", "hastings", "mala", "sweep", "ising"],
)
def test_a_temperature_must_be_positive(make):
    for temperature in (0.0, -1.0):
        with pytest.raises(UsageError, match="not a positive number"):
            make(temperature)


def test_mala_refuses_energies_without_a_gradient():
    for energy in (Ising(), Potts(), Mrf(levels=4)):
        with pytest.raises(UsageError, match=f"energy '{type(energy).__name__}' has labels"):
            Mala(energy, 0.1)
    with pytest.raises(UsageError, match="differentiable"):
        Mala(lambda x: (x > 0.5).flatten(1).sum(1), 0.1).init(at(0.5, 2))
    with pytest.raises(InputError, match="gradient of energy 'Mrf' is not finite"):
        Mala(Mrf(p=0.5), 0.1).init(at(0.5, 2, pixels=2))  # |a - b|^0.5 has a cusp at a = b


@pytest.mark.parametrize(
    "log_density, message",
    [
        (lambda w, x: torch.where(w.flatten(1).sum(1) > x.flatten(1).sum(1), -math.inf, 0.0), "density zero"),
        (lambda w, x: w - x, "not one number per image"),
        (lambda w, x: torch.full((len(w),), math.nan), "not one number per image"),
    ],
    ids=["zero", "shape", "nan"],
)
def test_a_proposal_whose_density_contradicts_it_is_named(log_density, message):
    class Crooked(GaussianWalk):
        def log_density(self, w: Tensor, x: Tensor) -> Tensor:
            return log_density(w, x)

    kernel = Hastings(ENERGY, Crooked(0.1))
    with pytest.raises(UsageError, match=f"proposal 'Crooked' .*{message}"):
        kernel.step(kernel.init(at(0.5, 8)), 1.0, OneGenerator(0))


def test_a_move_that_cannot_be_undone_is_never_made():
    class Upwards(GaussianWalk):
        def propose(self, x: Tensor, rng) -> Tensor:
            return x + self.scale * rng.rand_like(x)

        def log_density(self, w: Tensor, x: Tensor) -> Tensor:
            return torch.where((w >= x).flatten(1).all(1), 0.0, -math.inf)

    (step,) = run(Hastings(ENERGY, Upwards(0.1)), at(0.5, 8), 1, OneGenerator(0))
    assert (step.state.x == 0.5).all() and step.info.acceptance.sum() == 0


def test_stripes_on_which_no_flip_costs_energy_break_up():
    """Without visits that propose nothing, this state only ever moves sideways, whatever the random numbers."""
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    x = torch.where((i + j) % 4 < 2, 1.0, -1.0).expand(1, 1, 8, 8)
    for kernel in (Sweep(Ising(), 2.0), IsingSweep(Ising(), 2.0)):
        energies = {Ising()(step.state.x).item() for step in run(kernel, x, 40, ChainRng(0, 1))}
        assert len(energies) > 5
