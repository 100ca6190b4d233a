"""Grid energies against sums over every pair of sites, the names they go by, and what a bad one is told."""

import itertools
import math

import pytest
import torch

from gpnp_cli.errors import InputError, UsageError
from gpnp_cli.samplers.energies import (
    GRID_ENERGIES,
    Ising,
    Mrf,
    PairwiseGrid,
    Potts,
    check_temperature,
    evaluate,
    evaluate_start,
    parse_energy,
)
from gpnp_cli.samplers.rng import ChainRng

MAKERS = {
    "ising": lambda **grid: Ising(J=0.7, **grid),
    "antiferromagnet": lambda **grid: Ising(J=-0.7, **grid),
    "potts": lambda **grid: Potts(q=4, J=1.3, **grid),
    "mrf": lambda **grid: Mrf(p=1.2, theta=3.0, **grid),
    "total variation": lambda **grid: Mrf(p=1, theta=3.0, **grid),
    "levels": lambda **grid: Mrf(p=2, theta=5.0, levels=4, **grid),
}


def pair_energy(energy: PairwiseGrid, a: float, b: float) -> float:
    """The energies' definitions once more, on two numbers."""
    if isinstance(energy, Ising):
        return -energy.J * a * b
    if isinstance(energy, Potts):
        return -energy.J * (a == b)
    return energy.theta * abs(a - b) ** energy.p


def brute_force(energy: PairwiseGrid, image: list[list[float]]) -> float:
    """Half the sum over all sites and all their neighbours."""
    h, w = len(image), len(image[0])
    total = 0.0
    for i, j, di, dj in itertools.product(range(h), range(w), (-1, 0, 1), (-1, 0, 1)):
        if (di, dj) == (0, 0) or (di and dj and energy.neighbours == 4):
            continue
        k, m = i + di, j + dj
        if energy.periodic:
            k, m = k % h, m % w
        elif not (0 <= k < h and 0 <= m < w):
            continue
        total += pair_energy(energy, image[i][j], image[k][m]) / math.hypot(di, dj) / 2
    return total


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("periodic", [True, False], ids=["periodic", "free"])
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (2, 2), (1, 7), (3, 1)], ids=str)
def test_an_energy_is_the_sum_over_neighbouring_pairs(name, neighbours, periodic, size):
    energy = MAKERS[name](neighbours=neighbours, periodic=periodic)
    x = energy.start(torch.empty(3, 2, *size, dtype=torch.float64), ChainRng(1, 3))
    expected = [sum(brute_force(energy, channel.tolist()) for channel in image) for image in x]
    assert evaluate(energy, x).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_starts_and_proposals_are_legal_and_use_every_value(name):
    energy = MAKERS[name]()
    x = energy.start(torch.empty(2, 1, 20, 20), ChainRng(2, 2))
    uniform = ChainRng(3, 2).rand_like(x)
    uniform[:, :, 0, 0], uniform[:, :, 0, 1] = 0.0, 1 - 2**-24  # both ends of [0, 1)
    w = energy.propose(x, uniform)
    assert energy.legal(x).all()
    assert ((energy.to_unit(x) >= 0) & (energy.to_unit(x) <= 1)).all()
    if energy.discrete:
        assert energy.legal(w).all() and (w != x).all()
        assert torch.equal(x.unique(), w.unique())
        values = {"ising": 2, "antiferromagnet": 2, "potts": 4, "levels": 4}[name]
        assert x.unique().numel() == energy.to_unit(x).unique().numel() == values
    else:
        assert (w - x).abs().max() <= energy.width
        assert 0.9 < (x.amax() - x.amin()) < 1


@pytest.mark.parametrize("energy", [Potts(q=5), Mrf(levels=5)], ids=["potts", "mrf"])
def test_label_proposals_are_symmetric(energy):
    """Each of the four other labels is proposed by a quarter of the uniform numbers."""
    labels = energy.start(torch.empty(1, 1, 30, 30), ChainRng(0, 1)).unique()
    uniform = ((torch.arange(400) + 0.5) / 400).reshape(1, 1, 1, 400)
    for label in labels:
        values, counts = energy.propose(label.expand(1, 1, 1, 400), uniform).unique(return_counts=True)
        assert torch.equal(values, labels[labels != label])
        assert counts.tolist() == [100] * 4


@pytest.mark.parametrize(
    "energy, illegal",
    [(Ising(), 0.0), (Potts(q=3), 3.0), (Potts(q=3), 0.5), (Potts(q=3), -1.0)]
    + [(Mrf(), 1.001), (Mrf(), -0.001), (Mrf(levels=3), 0.25), (Mrf(levels=3), 1.5)],
    ids=str,
)
def test_an_image_with_an_illegal_value_has_infinite_energy(energy, illegal):
    x = energy.start(torch.empty(2, 1, 4, 4), ChainRng(0, 2))
    x[1, 0, 2, 3] = illegal
    u = energy(x)
    assert torch.isfinite(u[0]) and u[1] == math.inf
    with pytest.raises(InputError, match="infinite where chain 1 starts"):
        evaluate_start(energy, x)


@pytest.mark.parametrize(
    "text, energy",
    [
        ("ising", Ising()),
        ("ising:J=-0.5,periodic=false,neighbours=8", Ising(J=-0.5, periodic=False, neighbours=8)),
        ("potts:q=4,J=2", Potts(q=4, J=2.0)),
        ("mrf", Mrf(neighbours=4, periodic=False)),
        ("mrf:p=1,theta=2.5,levels=8,periodic=True", Mrf(p=1.0, theta=2.5, levels=8, periodic=True)),
        ("mrf:width=0.1,", Mrf(width=0.1)),
    ],
)
def test_a_name_with_options_becomes_an_energy(text, energy):
    assert parse_energy(text) == energy


@pytest.mark.parametrize(
    "text, message, hint",
    [
        ("isin", "unknown energy 'isin'", "did you mean 'ising'"),
        ("xyz:p=1", "unknown energy 'xyz:p=1'", "known: ising, potts, mrf or FILE.py:function"),
        ("", "unknown energy ''", "known: "),
        ("ising.py", "names no function", "write ising.py:NAME"),
        ("mrf:thet=1", "mrf has no option 'thet=1'", "did you mean 'theta'"),
        ("mrf:p", "mrf: p= is not a number", "p=1"),
        ("mrf:p=abc", "p=abc is not a number", "p=1"),
        ("potts:q=2.5", "q=2.5 is not a whole number", "q=8"),
        ("potts:periodic=1", "periodic=1 is not true or false", "periodic=true"),
        ("potts:q=1", "q=1 is not a number of labels", "q=2"),
        ("potts:J=0", "potts coupling J=0 is zero", "J=1"),
        ("ising:J=0", "ising coupling J=0 is zero", "J=1"),
        ("ising:J=nan", "J=nan is zero or not finite", "J=1"),
        ("ising:neighbours=6", "neighbours=6", "4 or 8"),
        ("mrf:p=0", "exponent p=0 is not positive", "between 1 and 2"),
        ("mrf:p=nan", "exponent p=nan", "between 1 and 2"),
        ("mrf:theta=0", "theta=0 is not positive", "theta=10"),
        ("mrf:theta=inf", "theta=inf is not positive", "theta=10"),
        ("mrf:levels=1", "levels=1 leaves nothing to draw", "2 or more"),
        ("mrf:width=0", "width=0 is outside", "width=0.2"),
    ],
)
def test_a_wrong_name_or_option_is_told_with_its_mend(text, message, hint):
    with pytest.raises(UsageError) as error:
        parse_energy(text)
    assert message in error.value.message and hint in error.value.hint


def test_only_the_grid_energies_have_names():
    assert list(GRID_ENERGIES) == ["ising", "potts", "mrf"]


ENERGY_FILE = """
from __future__ import annotations
from dataclasses import dataclass
import torch

@dataclass
class Weight:
    value: float

def half_square(x):
    return x.square().flatten(1).sum(1) / 2

def broken(x):
    return x @ Weight("a")

number = 3
"""


def test_a_function_of_a_file_is_an_energy(tmp_path):
    path = tmp_path / "my energies.py"
    path.write_text(ENERGY_FILE)
    energy = parse_energy(f"{path}:half_square")
    assert evaluate(energy, torch.full((2, 1, 2, 2), 3.0)).tolist() == [18.0, 18.0]
    for function in ("number", "absent", ""):
        with pytest.raises(InputError, match=f"no function '{function}'"):
            parse_energy(f"{path}:{function}")
    with pytest.raises(InputError, match=r"my energies\.py: broken: TypeError"):
        parse_energy(f"{path}:broken")(torch.zeros(1, 1, 2, 2))


def test_a_file_that_does_not_load_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.py: no such energy file"):
        parse_energy(f"{tmp_path / 'absent.py'}:f")
    path = tmp_path / "wrong.py"
    path.write_text("def f(x:\n")
    with pytest.raises(InputError, match=r"wrong\.py: SyntaxError"):
        parse_energy(f"{path}:f")
    path.write_text("import no_such_module_anywhere")
    with pytest.raises(InputError, match=r"wrong\.py: ModuleNotFoundError"):
        parse_energy(f"{path}:f")


@pytest.mark.parametrize(
    "energy, message",
    [
        (lambda x: x.sum(), r"returned \(\) for 3 images of shape \(1, 2, 2\)"),
        (lambda x: x.flatten(1).sum(1, keepdim=True), r"returned \(3, 1\)"),
        (lambda x: x.flatten(1).sum(1).numpy(), "returned ndarray"),
        (lambda x: torch.tensor([0.0, math.nan, 0.0]), "NaN or -inf"),
        (lambda x: torch.tensor([0.0, 0.0, -math.inf]), "NaN or -inf"),
    ],
    ids=["scalar", "column", "numpy", "nan", "minus infinity"],
)
def test_an_energy_that_returns_nonsense_is_named(energy, message):
    energy.__name__ = "bad"
    with pytest.raises(InputError, match=f"energy 'bad' returned {message}|energy 'bad' {message}"):
        evaluate(energy, torch.zeros(3, 1, 2, 2))


def test_an_energy_may_be_infinite_or_a_whole_number():
    u = evaluate(lambda x: torch.tensor([1.0, math.inf]), torch.zeros(2, 1, 2, 2))
    assert u.dtype == torch.float64 and u.tolist() == [1.0, math.inf]
    assert evaluate(lambda x: (x > 0).flatten(1).sum(1), torch.ones(2, 1, 2, 2)).tolist() == [4.0, 4.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_a_positive_number(temperature):
    assert check_temperature(0.5) == 0.5
    with pytest.raises(UsageError, match="is not a positive number"):
        check_temperature(temperature)
