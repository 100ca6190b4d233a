"""Coverage of intervals by ranks, and the calibration ratio."""

import math

import numpy as np
import pytest

from gpnp_cli.coverage import calibration_ratio, coverage

RNG = np.random.default_rng(0)


def test_truth_of_the_draws_own_law_is_held_as_often_as_promised():
    x = RNG.gamma(0.7, size=(10, 200_000))  # any law, however skew
    found = coverage(x[1:], x[0])
    assert [round(item.nominal, 12) for item in found] == [0.8, 0.6, 0.4, 0.2]
    for item in found:
        assert item.found == pytest.approx(item.nominal, abs=4 * math.sqrt(0.25 / 200_000))
    assert calibration_ratio(x[1:], x[0]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("scale", "ratio"), [(0.5, 0.25), (2.0, 4.0)])
def test_too_narrow_and_too_wide_draws_are_seen(scale, ratio):
    truth = RNG.normal(size=200_000)
    draws = scale * RNG.normal(size=(9, 200_000))
    # the error of the mean is that of the truth and of scale^2 / 9
    assert calibration_ratio(draws, truth) == pytest.approx(scale**2 * (1 + 1 / 9) / (1 + scale**2 / 9), rel=0.03)
    widest = coverage(draws, truth)[0]
    assert (widest.found < widest.nominal) is (scale < 1)


def test_ties_of_rounded_pixels_do_not_bias():
    levels = np.round(RNG.normal(size=(6, 200_000)))  # most values tie
    for item in coverage(levels[1:], levels[0]):
        assert item.found == pytest.approx(item.nominal, abs=4 * math.sqrt(0.25 / 200_000))


def test_small_cases_by_hand():
    draws = np.array([[0.125], [0.25], [0.375]])
    (only,) = coverage(draws, np.array([0.3]))
    assert only == (0.5, 1.0)
    assert coverage(draws, np.array([0.4]))[0].found == 0.0
    assert math.isnan(calibration_ratio(draws[:1], np.array([0.25])))
    assert calibration_ratio(draws, np.array([0.25])) == math.inf
    assert math.isnan(calibration_ratio(np.full((2, 1), 0.25), np.array([0.25])))
