"""Curves: where they lie in the picture, and what is left out."""

import numpy as np
import pytest

from gpnp_cli.plots import COLOURS, Panel, plot, ticks


def where(picture: np.ndarray, colour) -> np.ndarray:
    """Rows and columns of a colour."""
    return np.argwhere((picture == np.array(colour)).all(2))


def test_a_rising_curve_rises():
    picture = plot([Panel("line", np.linspace(0, 1, 100)[:, None])], "title", ("a note",))
    assert picture.dtype == np.uint8 and picture.ndim == 3
    rows, columns = where(picture, COLOURS[0]).T
    left, right = rows[columns == columns.min()].mean(), rows[columns == columns.max()].mean()
    assert left - right > 180  # pixel rows count downwards
    assert np.corrcoef(rows, columns)[0, 1] < -0.99


def test_chains_have_colours_and_panels_stand_below_one_another():
    flat = np.zeros((50, 2)) + [0.0, 1.0]
    one, two = plot([Panel("a", flat)], "t"), plot([Panel("a", flat), Panel("b", flat)], "t")
    assert two.shape[1] == one.shape[1] and two.shape[0] > one.shape[0] + 200
    first, second = (where(one, COLOURS[k])[:, 0].mean() for k in (0, 1))
    assert first > second


@pytest.mark.parametrize("n", [1, 2, 5000])
def test_any_length_with_gaps(n):
    curve = np.sin(np.arange(n) / 50)[:, None]
    curve[n // 2 : n // 2 + n // 10] = np.nan
    columns = where(plot([Panel("x", curve)], "t"), COLOURS[0])[:, 1]
    assert len(columns)
    if n > 100:
        assert np.diff(np.unique(columns)).max() > 40  # the gap is seen


@pytest.mark.parametrize("value", [0.0, 3.0, -1e9, np.nan, np.inf])
def test_constant_and_empty_curves(value):
    assert plot([Panel("x", np.full((20, 1), value), level=0.0, shaded=5)], "t").size


def test_burn_in_is_greyed():
    curve = np.zeros((100, 1))
    grey = where(plot([Panel("x", curve, shaded=51)], "t"), (234, 234, 238))
    none = where(plot([Panel("x", curve)], "t"), (234, 234, 238))
    assert len(grey) > 10_000 and len(none) == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (1e-9, 5e-9), (1e6, 1e6 + 3)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert min(found) >= low - 1e-12 and max(found) <= high + 1e-9 * high
    assert ticks(2.0, 2.0) == [2.0]
