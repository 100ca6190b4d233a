"""Training crops from folders of pictures of any size.

Every batch is a pure function of (seed, step, rank): a killed run resumes with exactly the batches
it would have seen. Decoded pictures are held as uint8 on the training device as far as the cache
allows; beyond that a window slides over a shuffled list and a thread decodes ahead of it.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, UsageError

CELL = 32  # side of the squares whose texture decides how often they are drawn


def held_out(names: Iterable[str], share: float) -> list[str]:
    """The names kept for validation, about `share` of them: those with the lowest hashes, in that order.

    Adding names moves none from one side to the other. With share > 0 both sides get at least one,
    training first.
    """
    places = {name: int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64 for name in names}
    order = sorted(places, key=places.__getitem__)
    count = sum(place < share for place in places.values())
    return order[: min(max(count, 1), len(order) - 1)] if share > 0 else []


def centre_crops(
    paths: Iterable[Path],
    read: Callable[[Path], np.ndarray],
    smallest: int,
    largest: int = 256,
    most: int = 32,
    halve: bool = False,
) -> tuple[Tensor | None, list[tuple[Path, str]]]:
    """The centres of the first `most` usable pictures, for validation; and (path, reason) of the unusable ones.

    float32 `(N, C, side, side)` in [0, 1], None if there is none; the side is that of the smallest picture,
    at most `largest`. Pictures below `smallest` are unusable. With `halve`, a picture that then still is
    large enough is shrunk first, which hides compression artefacts.
    """
    pictures, rejected = [], []
    for path in paths:
        if len(pictures) == most:
            break
        try:
            pixels = _checked(read(path), smallest)
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on without this file, and says so
            rejected.append((path, str(error)))
            continue
        x = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))[None] / 255
        pictures.append(F.avg_pool2d(x, 2) if halve and min(x.shape[2:]) >= 2 * smallest else x)
    if not pictures:
        return None, rejected
    side = min(largest, *(extent for x in pictures for extent in x.shape[2:]))
    crops = []
    for x in pictures:
        top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
        crops.append(x[:, :, top : top + side, left : left + side])
    return torch.cat(crops), rejected


@dataclass(frozen=True)
class Augmentation:
    """What is done to a crop; each part can be switched off where the data do not allow it."""

    scale_max: float = 4.0  # pictures are shrunk by a factor drawn log-uniformly from [1, scale_max]
    flip: bool = True  # left-right
    turn: bool = True  # quarter turns (and with flip, up-down)
    colour: bool = True  # gamma, gain and saturation
    texture: float = 0.7  # share of the crops drawn by gradient strength instead of evenly


@dataclass
class Decoded:
    """A picture on the device: `levels` are uint8 `(C, H, W)` at full and half size; `texture` `(h, w)` on the CPU."""

    levels: tuple[Tensor, Tensor]
    texture: np.ndarray  # mean gradient of each CELL x CELL square, the last row and column cut off by the border

    @property
    def bytes(self) -> int:
        return sum(level.numel() for level in self.levels)


def decode(pixels: np.ndarray, device: torch.device) -> Decoded:
    """`pixels` uint8 `(H, W, C)`, two pixels a side or more, to a `Decoded`."""
    full = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    half = F.avg_pool2d(full.float(), 2).round().byte()
    grey = pixels.mean(2, dtype=np.float32)
    slope = np.abs(np.diff(grey, axis=0))[:, 1:] + np.abs(np.diff(grey, axis=1))[1:]
    return Decoded((full.to(device), half.to(device)), _cell_means(slope))


def _cell_means(values: np.ndarray) -> np.ndarray:
    """Means over CELL x CELL squares, partial ones at the borders included."""
    rows, columns = (np.arange(0, extent, CELL) for extent in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
    counts = (np.diff(np.append(start, extent)) for start, extent in zip((rows, columns), values.shape, strict=True))
    return sums / np.outer(*counts)


def _checked(pixels: np.ndarray, size: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise InputError(f"{width}x{height} is smaller than the crop ({size})")
    return pixels


class CropSource:
    """Batches of crops from picture files.

    `read` maps a path to uint8 `(H, W, channels)` and raises for a bad file; bad and too small files
    are listed in `rejected` as (path, reason). Raises `UsageError` when nothing usable is left.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        read: Callable[[Path], np.ndarray],
        size: int,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        cache_bytes: int = 4 << 30,
        steps_per_swap: int = 4,
    ) -> None:
        self.read, self.size, self.augmentation = read, size, augmentation
        self.seed, self.device, self.steps_per_swap = seed, device, steps_per_swap
        self.rejected: list[tuple[Path, str]] = []
        self._held: dict[int, Decoded | None] = {}  # None: rejected, not to be tried again
        self._ahead: dict[int, Future] = {}
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="gpnp-decode")
        self._orders: dict[int, list[int]] = {}
        self._law_of: tuple[tuple[int, ...], np.ndarray, np.ndarray] | None = None
        self.paths: list[Path] = []
        room, tried = cache_bytes, 0
        for tried, path in enumerate(paths, start=1):
            # once the cache is full the rest is looked at when its turn comes: a huge folder starts at once
            if room > 0:
                picture = self._try(path)
                if picture is None:
                    continue
                room -= picture.bytes
                if room >= 0 or not self._held:
                    self._held[len(self.paths)] = picture
            self.paths.append(path)
        if not self.paths:
            raise self._nothing(tried)
        self.window = len(self._held)  # how many pictures are held at a time

    def _nothing(self, tried: int) -> UsageError:
        path, reason = self.rejected[0] if self.rejected else (None, "no files were given")
        return UsageError(f"no usable picture among {tried}", hint=f"{path}: {reason}" if path else reason)

    def _try(self, path: Path) -> Decoded | None:
        try:
            return decode(_checked(self.read(path), self.size), self.device)
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on without this file, and says so
            self.rejected.append((path, str(error)))
            return None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _position(self, k: int) -> int:
        """The picture at place k of the endless list of shuffled epochs."""
        epoch, place = divmod(k, len(self.paths))
        if epoch not in self._orders:
            if len(self._orders) > 2:
                self._orders.clear()
            order = np.random.Generator(np.random.PCG64([self.seed, 1, epoch])).permutation(len(self.paths))
            self._orders[epoch] = [int(i) for i in order]
        return self._orders[epoch][place]

    def _members(self, step: int) -> tuple[int, ...]:
        """Which pictures step `step` draws from, all held afterwards: every one if they fit the cache."""
        if self.window == len(self.paths):
            return tuple(range(self.window))
        start = step // self.steps_per_swap
        wanted = {self._position(start + j) for j in range(self.window)}
        for index in [i for i, picture in self._held.items() if picture and i not in wanted]:
            del self._held[index]
        for j in range(4):  # decode the next few while this batch is used
            index = self._position(start + self.window + j)
            if index not in self._held and index not in self._ahead:
                self._ahead[index] = self._pool.submit(self._try, self.paths[index])
        for index in sorted(wanted - self._held.keys()):
            ahead = self._ahead.pop(index, None)
            self._held[index] = ahead.result() if ahead else self._try(self.paths[index])
        members = tuple(sorted(i for i in wanted if self._held[i]))
        if not members:
            raise self._nothing(len(wanted))
        return members

    def _law(self, members: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Cumulative probability of the cells, even in area mixed with gradient strength; where each picture's begin."""
        if self._law_of is None or self._law_of[0] != members:
            textures = [self._held[i].texture for i in members]
            flat = np.concatenate([t.ravel() for t in textures]).astype(np.float64)
            share = self.augmentation.texture if flat.any() else 0.0
            weights = (1 - share) / len(flat) + share * flat / max(flat.sum(), 1e-300)
            self._law_of = members, np.cumsum(weights), np.cumsum([0] + [t.size for t in textures])
        return self._law_of[1:]

    def batch(self, step: int, n: int, rank: int = 0, groups: int = 4) -> Tensor:
        """Crops of `step`, float32 `(n, C, size, size)` in [0, 1] on the device; `groups` share one scale each."""
        rng = np.random.Generator(np.random.PCG64([self.seed, 2, step, rank]))
        members = self._members(step)
        groups = min(groups, n)
        counts = [n // groups + (g < n % groups) for g in range(groups)]
        x = torch.cat([self._group(count, members, rng) for count in counts])
        if self.augmentation.colour:
            x = recolour(x, torch.from_numpy(rng.random((n, 6), dtype=np.float32)).to(self.device))
        return x.to(memory_format=torch.channels_last)

    def _group(self, count: int, members: tuple[int, ...], rng: np.random.Generator) -> Tensor:
        law, offsets = self._law(members)
        picks = np.minimum(np.searchsorted(law, rng.random(count), side="right"), len(law) - 1)
        owners = np.searchsorted(offsets, picks, side="right") - 1
        pictures = [self._held[members[o]] for o in owners]
        limit = min(min(p.levels[0].shape[1:]) for p in pictures) / self.size  # the smallest must hold the crop
        scale = math.exp(rng.random() * math.log(max(1.0, min(self.augmentation.scale_max, limit))))
        level = 1 if scale >= 2 and all(min(p.levels[1].shape[1:]) >= self.size for p in pictures) else 0
        side = min(round(self.size * scale / 2**level), *(s for p in pictures for s in p.levels[level].shape[1:]))
        crops = []
        for picture, pick, owner in zip(pictures, picks, owners, strict=True):
            row, column = divmod(int(pick - offsets[owner]), picture.texture.shape[1])
            crops.append(self._crop(picture.levels[level], row, column, side, CELL >> level, rng))
        x = torch.stack(crops).float() / 255
        if side != self.size:
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp_(0, 1)
        return x

    def _crop(self, pixels: Tensor, row: int, column: int, side: int, cell: int, rng: np.random.Generator) -> Tensor:
        """A square around a random point of the cell, moved inside the picture, turned at random."""
        dy, dx, turn, flip = rng.random(4)
        y = min(max(int((row + dy) * cell) - side // 2, 0), pixels.shape[1] - side)
        x = min(max(int((column + dx) * cell) - side // 2, 0), pixels.shape[2] - side)
        crop = pixels[:, y : y + side, x : x + side]
        if self.augmentation.flip and flip < 0.5:
            crop = crop.flip(2)
        return torch.rot90(crop, int(turn * 4), (1, 2)) if self.augmentation.turn else crop


def luma(x: Tensor) -> Tensor:
    """Rec. 601 luma `(N, 1, H, W)` of RGB; a grey picture is its own."""
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def recolour(x: Tensor, u: Tensor) -> Tensor:
    """Random gamma, channel gains and saturation; `u` `(N, 6)` uniform numbers decide."""
    u = u[:, :, None, None]
    gamma = torch.exp2(u[:, 0:1] - 0.5)  # 0.71 to 1.41
    gains = 0.85 + 0.3 * u[:, 1:4] if x.shape[1] == 3 else 0.85 + 0.3 * u[:, 1:2]
    x = x.clamp(1e-4, 1) ** gamma * gains
    return torch.lerp(luma(x), x, 0.6 + 0.6 * u[:, 4:5]).clamp(0, 1)
