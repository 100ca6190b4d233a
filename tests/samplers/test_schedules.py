"""Noise schedules."""

import itertools
import math

import pytest

from gpnp_cli.samplers.schedules import geometric, power


@pytest.mark.parametrize(("high", "low"), [(0.5, 0.005), (2.0, 0.002), (0.1, 0.07)])
@pytest.mark.parametrize("n", [2, 3, 100])
def test_ends_are_exact_and_the_rest_falls(high, low, n):
    sigmas = geometric(high, low, n)
    assert isinstance(sigmas, tuple) and len(sigmas) == n
    assert sigmas[0] == high and sigmas[-1] == low
    assert all(a > b for a, b in itertools.pairwise(sigmas))


def test_one_level_is_the_last_and_equal_ends_are_constant():
    assert geometric(0.5, 0.005, 1) == (0.005,)
    assert geometric(0.3, 0.3, 5) == pytest.approx((0.3,) * 5, rel=1e-14)


def test_geometric_falls_by_a_constant_factor():
    sigmas = geometric(0.5, 0.005, 101)
    assert all(b / a == pytest.approx(0.01 ** (1 / 100), rel=1e-12) for a, b in itertools.pairwise(sigmas))


@pytest.mark.parametrize("n", [2, 3, 50])
def test_powers_roots_are_evenly_spaced(n):
    sigmas = power(2.0, 0.002, n)
    assert len(sigmas) == n and sigmas[0] == pytest.approx(2.0) and sigmas[-1] == 0.002
    steps = [a ** (1 / 7) - b ** (1 / 7) for a, b in itertools.pairwise(sigmas)]
    assert steps == pytest.approx([steps[0]] * (n - 1)) and steps[0] > 0
    assert power(0.9, 0.1, n, rho=1.0) == pytest.approx([0.9 - 0.8 * k / (n - 1) for k in range(n)])
    assert power(2.0, 0.002, n, rho=1e4) == pytest.approx(geometric(2.0, 0.002, n), rel=0.01)
    assert power(2.0, 0.002, 1) == (0.002,)


@pytest.mark.parametrize(
    ("high", "low", "n"),
    [(0.005, 0.5, 10), (0.5, 0.0, 10), (0.5, -0.1, 10), (0.5, 0.005, 0), (math.nan, 0.1, 5), (0.5, math.nan, 5)],
)
def test_impossible_schedules_are_refused(high, low, n):
    with pytest.raises(ValueError, match="sigma_min <= sigma_max and n >= 1"):
        geometric(high, low, n)
