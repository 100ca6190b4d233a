"""Comparing up to a shift: what is moved together with its blur kernel is the same picture.

Scores: the protocol of Levin et al. (TPAMI 2011): the estimate is moved by quarter pixels (linear in between) to where
it differs least from the truth, whose border is left out. numpy only.
"""

import math

import numpy as np

REACH, STEP, BORDER = 10, 0.25, 15  # pixels
LANCZOS = 4  # half the width of the filter that moves pictures by parts of a pixel
MIDDLE, ROUNDS = 512, 6  # pixels that tell by how much, and rounds


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


def shifted(pixels: np.ndarray, rows: float, columns: float) -> np.ndarray:
    """`pixels` `(C, H, W)` moved down and right, by Lanczos' filter, which keeps fine detail; mirrored beyond the border."""
    for axis, by in ((1, rows), (2, columns)):
        whole = math.floor(by)
        part, taps = by - whole, np.arange(-LANCZOS, LANCZOS + 1)
        weights = np.where(abs(taps + part) < LANCZOS, np.sinc(taps + part) * np.sinc((taps + part) / LANCZOS), 0)
        weights = (weights / weights.sum()).astype(pixels.dtype)
        reach, n = LANCZOS + abs(whole), pixels.shape[axis]
        padded = np.pad(pixels, [(reach, reach) if k == axis else (0, 0) for k in range(3)], mode="reflect")
        starts = reach - whole + taps
        pixels = sum(w * padded.take(range(i, i + n), axis) for w, i in zip(weights, starts, strict=True) if w)
    return pixels


def offset(pixels: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """(rows, columns) by which `pixels` `(C, H, W)` are to be `shifted` for the least squared error, from near 0.

    Gauss and Newton's method on the middle of the pictures, without their border (Lucas & Kanade 1981).
    """
    border = min(BORDER, min(reference.shape[1:]) // 4)
    window = tuple(
        slice(max(border, (n - MIDDLE) // 2), min(n - border, (n + MIDDLE) // 2)) for n in reference.shape[1:]
    )
    outer = tuple(slice(max(0, part.start - border), part.stop + border) for part in window)
    inside = (slice(None), *(slice(w.start - o.start, w.stop - o.start) for w, o in zip(window, outer, strict=True)))
    pixels, target = pixels[:, *outer].astype(np.float64), reference[:, *window]
    by, best = np.zeros(2), (math.inf, (0.0, 0.0))
    for _ in range(ROUNDS):
        here = shifted(pixels, *by)
        error = (here[inside] - target).ravel()
        best = min(best, (float(error @ error), (float(by[0]), float(by[1]))))
        slopes = np.stack([np.gradient(here, axis=axis)[inside].ravel() for axis in (1, 2)])
        normal = slopes @ slopes.T
        step = np.linalg.lstsq(normal, slopes @ error, rcond=1e-8)[0]  # none along directions that nothing varies in
        by = np.clip(by + step, -border / 2, border / 2)
    return best[1]
