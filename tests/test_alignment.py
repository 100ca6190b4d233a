"""Scores up to a shift."""

import numpy as np
import pytest

from gpnp_cli.alignment import aligned, best_shift, moved
from gpnp_cli.metrics import psnr


def picture(height=60, width=70, rows=0.0, columns=0.0):
    """A smooth picture, seen from another place."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    y, x = y + rows, x + columns
    return (0.5 + 0.2 * np.sin(x / 3) * np.cos(y / 4) + 0.1 * np.sin((x + y) / 7))[None].astype(np.float32)


@pytest.mark.parametrize("shift", [(0, 0), (3, -7), (-10, 10), (2.25, -0.75), (-9.5, 4.0)])
def test_a_shift_is_found_and_undone(shift):
    truth, estimate = picture(), picture(rows=-shift[0], columns=-shift[1])
    assert best_shift(estimate, truth) == shift
    mine, target = aligned(estimate, truth)
    assert mine.shape == target.shape == (1, 30, 40)
    assert psnr(mine.astype(np.float32), target) > (45 if any(s % 1 for s in shift) else 100)


def test_movement_is_linear_between_pixels():
    x = np.arange(20, dtype=np.float32)[None, None].repeat(20, 1)
    window = slice(5, 15), slice(5, 15)
    assert moved(x, 0, 0.25, window) == pytest.approx(x[:, 5:15, 5:15] + 0.25)
    assert moved(x, -0.5, -2, window) == pytest.approx(x[:, 5:15, 5:15] - 2)


def test_the_border_does_not_count():
    truth = picture()
    estimate = truth.copy()
    estimate[:, :15], estimate[:, :, -15:] = 0, 1
    assert psnr(*aligned(estimate, truth, (0.0, 0.0))) == np.inf
    with pytest.raises(ValueError, match="30x70"):
        aligned(picture(70, 30), picture(70, 30))
