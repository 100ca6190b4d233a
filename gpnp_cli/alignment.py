"""Comparing up to a shift: what is moved together with its blur kernel is the same picture.

The protocol of Levin et al. (TPAMI 2011): the estimate is moved by quarter pixels (linear in between) to where it differs
least from the truth, whose border is left out. numpy only.
"""

import math

import numpy as np

REACH, STEP, BORDER = 10, 0.25, 15  # pixels


def moved(pixels: np.ndarray, rows: float, columns: float, window: tuple[slice, slice]) -> np.ndarray:
    """The `window` of `pixels` `(C, H, W)` seen `rows` further down and `columns` further right, linear in between."""
    i, j = math.floor(rows), math.floor(columns)
    a, b = rows - i, columns - j

    def part(down: int, right: int) -> np.ndarray:
        y, x = window
        return pixels[:, y.start + i + down : y.stop + i + down, x.start + j + right : x.stop + j + right]

    upper = part(0, 0) if b == 0 else (1 - b) * part(0, 0) + b * part(0, 1)
    if a == 0:
        return upper
    return (1 - a) * upper + a * (part(1, 0) if b == 0 else (1 - b) * part(1, 0) + b * part(1, 1))


def best_shift(
    estimate: np.ndarray, truth: np.ndarray, reach: int = REACH, step: float = STEP, border: int = BORDER
) -> tuple[float, float]:
    """(rows, columns) by which to look further into `estimate` `(C, H, W)` for the least squared error.

    Whole pixels are tried first, then the finer steps about the best of them.
    """
    window = inner(truth, border)
    target = truth[:, window[0], window[1]]
    reach = min(reach, border)

    def error(shift: tuple[float, float]) -> float:
        return float(np.square(moved(estimate, *shift, window) - target).sum())

    whole = range(-reach, reach + 1)
    best = min(((i, j) for i in whole for j in whole), key=error)
    fine = np.arange(1 - 1 / step, 1 / step) * step
    near = [(best[0] + float(a), best[1] + float(b)) for a in fine for b in fine]
    return min((s for s in near if max(abs(s[0]), abs(s[1])) <= reach), key=error)


def inner(pixels: np.ndarray, border: int = BORDER) -> tuple[slice, slice]:
    """The window of `pixels` `(C, H, W)` inside its border."""
    height, width = pixels.shape[1:]
    if min(height, width) <= 2 * border:
        raise ValueError(f"{width}x{height} pixels have nothing inside a border of {border}")
    return slice(border, height - border), slice(border, width - border)


def aligned(
    estimate: np.ndarray, truth: np.ndarray, shift: tuple[float, float] | None = None, border: int = BORDER
) -> tuple[np.ndarray, np.ndarray]:
    """Both without their borders, the estimate moved by `shift` (None: the best one)."""
    estimate, window = estimate.clip(0, 1), inner(truth, border)
    shift = shift or best_shift(estimate, truth, border=border)
    return moved(estimate, *shift, window), truth[:, window[0], window[1]]
