"""Large pictures and large batches in bounded memory: the same result, computed piece by piece."""

import itertools
import math

import torch
from torch import Tensor

from .base import Denoiser, per_image

AUTO_PIXELS = 4_200_000  # pixels per call: about 1.5 GB with the default network in bf16


class TiledDenoiser:
    """A denoiser applied to overlapping tiles, each cut out with its whole receptive field around it.

    Only the part of a tile that no border can have influenced is kept, so tiled and untiled results
    agree to rounding and there are no seams to blend. Tiles start at multiples of the network's stride.
    `tile`: the largest side of the kept part (at least the stride); None: the picture is cut only when it
    has more than `AUTO_PIXELS` pixels, into about as few parts as will do. Batches are split so that no
    call sees more pixels than that, or than one tile with its surroundings.
    """

    def __init__(self, denoiser: Denoiser, tile: int | None = None) -> None:
        self.denoiser = denoiser
        self.channels, self.sigma_range = denoiser.channels, denoiser.sigma_range
        self.stride = getattr(denoiser, "stride", 1)
        self.overlap = math.ceil(denoiser.receptive_field / self.stride) * self.stride
        self.tile = tile

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        n, _, height, width = v.shape
        rows, columns = self._cuts(height, width)
        limit = (self.tile + 2 * self.overlap) ** 2 if self.tile else AUTO_PIXELS
        group = max(1, limit // (self._reach(rows, height) * self._reach(columns, width)))
        if len(rows) == len(columns) == 1 and n <= group:
            return self.denoiser(v, sigma)
        shared = not isinstance(sigma, Tensor) or sigma.numel() == 1
        levels = None if shared else per_image(sigma, v).flatten()
        out = torch.empty_like(v)
        for i in range(0, n, group):
            part = slice(i, i + group)
            level = sigma if shared else levels[part]
            for top, bottom in rows:
                for left, right in columns:
                    y0, y1 = max(0, top - self.overlap), min(height, bottom + self.overlap)
                    x0, x1 = max(0, left - self.overlap), min(width, right + self.overlap)
                    done = self.denoiser(v[part, :, y0:y1, x0:x1], level)
                    out[part, :, top:bottom, left:right] = done[..., top - y0 : bottom - y0, left - x0 : right - x0]
        return out

    def _cuts(self, height: int, width: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The kept parts along each axis."""
        if self.tile:
            side = max(1, self.tile // self.stride)  # in strides
            rows, columns = (math.ceil(math.ceil(length / self.stride) / side) for length in (height, width))
            return self._split(height, rows), self._split(width, columns)
        rows, columns = 1, 1
        while True:
            a, b = self._split(height, rows), self._split(width, columns)
            smallest = rows * self.stride >= height and columns * self.stride >= width
            if smallest or self._reach(a, height) * self._reach(b, width) <= AUTO_PIXELS:
                return a, b
            if height / rows >= width / columns:
                rows += 1
            else:
                columns += 1

    def _reach(self, parts: list[tuple[int, int]], length: int) -> int:
        """The longest stretch that one of `parts` needs of an axis: itself and the overlap on both sides."""
        return max(min(length, end + self.overlap) - max(0, start - self.overlap) for start, end in parts)

    def _split(self, length: int, parts: int) -> list[tuple[int, int]]:
        """About equal parts of `length`, none empty, starting at multiples of the stride."""
        strides = math.ceil(length / self.stride)
        parts = min(parts, strides)
        edges = [min(length, strides * k // parts * self.stride) for k in range(parts + 1)]
        return list(itertools.pairwise(edges))
