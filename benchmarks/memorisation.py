"""How near samples lie to their nearest training pictures, beside how near held-out pictures do: a table.

A sampler that repeats training pictures draws samples that lie much nearer than held-out pictures of the same kind do.
A training with mirrored pictures can also repeat those: `mirrored` takes each training picture and its mirror image.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 500  # training pictures measured at once


class Measure(NamedTuple):
    """A distance of pictures: `unit` times the Euclidean one of what `of` makes of them, `(N, C, H, W)` to `(N, D, ...)`."""

    title: str
    of: Callable[[Tensor], Tensor]
    unit: float = 1.0


def rms_of_pixels(x: Tensor) -> Measure:
    """The root of the mean squared difference, for pictures like those of `x` `(N, C, H, W)`."""
    return Measure("rms of pixels", lambda pictures: pictures, x[0].numel() ** -0.5)


def nearest(x: Tensor, training: Tensor, measure: Measure, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """Distance `(N,)` and number `(N,)` of the training picture nearest to each of `x` `(N, C, H, W)`.

    With `mirror` all training pictures are seen in a mirror.
    """

    def measured(pictures: Tensor) -> Tensor:
        return measure.of(pictures).flatten(1).double()

    own = measured(x)
    least = torch.full((len(x),), torch.inf, dtype=torch.float64)
    number = torch.zeros(len(x), dtype=torch.long)
    for start in range(0, len(training), CHUNK):
        part = training[start : start + CHUNK]
        distance, place = torch.cdist(own, measured(part.flip(-1) if mirror else part)).min(1)
        closer = distance < least
        least, number = torch.where(closer, distance, least), torch.where(closer, start + place, number)
    return measure.unit * least, number


def table(
    samples: Tensor, held: Tensor, training: Tensor, measures: Sequence[Measure], mirrored: bool = False
) -> list[str]:
    """Markdown: a row for each measure, and with `mirrored` one more that counts mirror images, too."""
    columns = [f"{len(x)} {kind}: least, median" for x, kind in ((samples, "samples"), (held, "held-out pictures"))]
    lines = [f"| nearest of {len(training)} training pictures | {' | '.join(columns)} |", "|---|---|---|"]
    pictures = torch.cat([samples, held])  # together: measuring the training pictures is what takes time
    for measure in measures:
        distance, _ = nearest(pictures, training, measure)
        rows = {measure.title: distance}
        if mirrored:
            seen, _ = nearest(pictures, training, measure, mirror=True)
            rows[f"{measure.title}, of them and their mirror images"] = torch.minimum(distance, seen)
        for title, found in rows.items():
            parts = found.split([len(samples), len(held)])
            lines.append(f"| {title} | {' | '.join(f'{d.min():.3f}, {d.median():.3f}' for d in parts)} |")
    return lines
