"""Curves for people: series of numbers drawn with Pillow alone, in the lettering of `figures`.

A plot is uint8 `(H, W, 3)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .figures import _FAINT, _INK, _PAPER, _elided, _font, _line_height

COLOURS = [(31, 96, 168), (200, 80, 30), (60, 140, 70), (130, 70, 160), (120, 120, 40), (20, 140, 150)]
_WIDTH, _HEIGHT, _GAP = 720, 240, 24  # of one panel's frame, and around it


@dataclass(frozen=True)
class Panel:
    """Curves `(points, curves)` over `start`, `start` + 1, ...; values that are not finite are left out.

    What lies left of `shaded` is greyed (burn-in); `level` is drawn as a horizontal line.
    """

    title: str
    curves: np.ndarray
    axis: str = "iteration"
    start: int = 1
    shaded: float | None = None
    level: float | None = None


def plot(panels: Sequence[Panel], title: str, notes: Sequence[str] = ()) -> np.ndarray:
    """The panels below one another under `title` and `notes`."""
    head, small = _font(24), _font(15)
    lines = [(title, head, _INK), *((note, small, _FAINT) for note in notes)]
    left, line = 90, _line_height(small)
    width = left + _WIDTH + 2 * _GAP
    top = 2 * _GAP + sum(_line_height(font) + 4 for _, font, _ in lines)
    each = _HEIGHT + 3 * line + _GAP
    picture = Image.new("RGB", (width, top + each * len(panels) + _GAP), _PAPER)
    draw, y = ImageDraw.Draw(picture), _GAP
    for text, font, ink in lines:
        draw.text((_GAP, y), _elided(text, font, width - 2 * _GAP), fill=ink, font=font)
        y += _line_height(font) + 4
    for k, panel in enumerate(panels):
        _draw(draw, panel, left + _GAP, top + k * each + line)
    return np.asarray(picture)


def _draw(draw: ImageDraw.ImageDraw, panel: Panel, left: int, top: int) -> None:
    small, curves = _font(15), np.asarray(panel.curves, float)
    n, line = len(curves), _line_height(small)
    finite = curves[np.isfinite(curves)]
    values = np.append(finite, panel.level) if panel.level is not None else finite
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    low, high = low - margin, high + margin

    def at(i: float, value: float) -> tuple[float, float]:
        return left + (i + 0.5) / n * _WIDTH, top + (high - value) / (high - low) * _HEIGHT

    draw.text((left, top - line - 2), _elided(panel.title, small, _WIDTH), fill=_INK, font=small)
    if panel.shaded is not None:
        edge = left + min(max((panel.shaded - panel.start) / n, 0), 1) * _WIDTH
        draw.rectangle((left, top, edge, top + _HEIGHT), fill=(234, 234, 238))
    for value in ticks(low, high):
        y = at(0, value)[1]
        draw.line((left, y, left + _WIDTH, y), fill=(222, 222, 226))
        label = f"{value:.6g}"
        draw.text((left - 8 - small.getlength(label), y - line / 2), label, fill=_FAINT, font=small)
    for value in ticks(panel.start, panel.start + n - 1):
        x, label = at(value - panel.start, low)[0], f"{value:g}"
        draw.line((x, top + _HEIGHT, x, top + _HEIGHT + 5), fill=_FAINT)
        draw.text((x - small.getlength(label) / 2, top + _HEIGHT + 6), label, fill=_FAINT, font=small)
    draw.text(
        (left + _WIDTH - small.getlength(panel.axis), top + _HEIGHT + 6 + line), panel.axis, fill=_FAINT, font=small
    )
    if panel.level is not None:
        draw.line((*at(-0.5, panel.level), *at(n - 0.5, panel.level)), fill=_FAINT)
    for c, column in enumerate(curves.T):
        colour = COLOURS[c % len(COLOURS)]
        for part in _runs(column):
            points = [at(i, value) for i, value in part]
            if len(points) == 1:
                x, y = points[0]
                draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=colour)
            else:
                draw.line(points, fill=colour, width=1)
    draw.rectangle((left, top, left + _WIDTH, top + _HEIGHT), outline=_FAINT)


def _runs(column: np.ndarray) -> list[list[tuple[int, float]]]:
    """The curve in pieces of finite values; long ones as the lowest and highest value per pixel column."""
    pieces: list[list[tuple[int, float]]] = []
    step = max(1, len(column) // (2 * _WIDTH))
    open_piece = False
    for i in range(0, len(column), step):
        part = column[i : i + step]
        good = np.flatnonzero(np.isfinite(part))
        if not len(good):
            open_piece = False
            continue
        if not open_piece:
            pieces.append([])
        open_piece = True
        ends = sorted({int(good[part[good].argmin()]), int(good[part[good].argmax()])})
        pieces[-1] += [(i + j, float(part[j])) for j in ends]
    return pieces


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between `low` and `high`, at most `most`."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(s * power for s in (1, 2, 5, 10, 20) if (high - low) / (s * power) < most)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
