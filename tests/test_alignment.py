"""Scores up to a shift."""

import numpy as np
import pytest

from gpnp_cli.alignment import LANCZOS, aligned, best_shift, moved, offset, shifted
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


@pytest.mark.parametrize("by", [(0, 0), (2, -3), (0.3, -0.4), (-1.75, 0.5)])
def test_pictures_move_by_parts_of_a_pixel(by):
    x, inner = picture(), (slice(None), slice(8, -8), slice(8, -8))
    there = picture(rows=-by[0], columns=-by[1])
    assert np.abs(shifted(x, *by) - there)[inner].max() < 2e-3
    assert shifted(x, *by).dtype == np.float32
    assert offset(x, there) == pytest.approx(by, abs=0.02)


def test_fine_detail_survives_moving():
    """A wave of three pixels, which linear interpolation takes half of."""
    rows = np.arange(60)
    wave, half = (np.sin(2 * np.pi * (rows - by) / 3)[None, :, None].repeat(40, 2) for by in (0, 0.5))
    assert np.abs(shifted(wave, 0.5, 0) - half)[:, LANCZOS:-LANCZOS].max() < 0.05
    assert np.abs((wave[:, 1:] + wave[:, :-1]) / 2 - half[:, 1:]).max() > 0.4


def test_what_varies_in_one_direction_moves_in_that_one():
    x = np.sin(np.arange(60) / 4)[None, :, None].repeat(50, 2)
    assert offset(x, shifted(x, 0.4, 0)) == pytest.approx((0.4, 0), abs=0.01)
    flat = np.full((1, 24, 32), 0.5)
    assert offset(flat, flat + 0.1) == (0, 0)
