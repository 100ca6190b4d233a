"""Training crops from folders of pictures of any size.

Every batch is a pure function of (seed, step, rank): a killed run resumes with exactly the batches
it would have seen. Decoded pictures are held as uint8 on the training device as far as the cache
allows; beyond that a window slides over a shuffled list and a thread decodes ahead of it.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError

CELL = 32  # side of the squares whose texture decides how often they are drawn


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
    texture: np.ndarray

    @property
    def bytes(self) -> int:
        return sum(level.numel() for level in self.levels)


def decode(pixels: np.ndarray, device: torch.device) -> Decoded:
    """`pixels` uint8 `(H, W, C)` to a `Decoded`."""
    full = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    values = full.float()
    half = F.avg_pool2d(values, 2).round().byte() if min(full.shape[1:]) > 1 else full
    luma = values.mean(0, keepdim=True)
    slope = (luma.diff(dim=2).abs()[:, 1:] + luma.diff(dim=1).abs()[:, :, 1:])[None]
    cell = min(CELL, *slope.shape[2:])
    texture = F.avg_pool2d(slope, cell)[0, 0].numpy()
    return Decoded((full.to(device), half.to(device)), texture)


class CropSource:
    """Batches of crops from picture files.

    `read` maps a path to uint8 `(H, W, channels)` and raises for a bad file; bad and too small files
    are listed in `rejected` as (path, reason). Raises `UsageError` when nothing usable is left.
    """

    def __init__(
        self,
        paths: list[Path],
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
        self._cache: dict[int, Decoded] = {}
        self._ahead: dict[int, Future] = {}
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="gpnp-decode")
        self._orders: dict[int, list[int]] = {}
        self.paths, used = [], 0
        for path in paths:
            if used >= cache_bytes:  # the rest is looked at when its turn comes: a huge folder starts at once
                self.paths.append(path)
                continue
            picture = self._try(path)
            if picture is None:
                continue
            if used + picture.bytes <= cache_bytes:
                self._cache[len(self.paths)] = picture
                used += picture.bytes
            self.paths.append(path)
        if not self.paths:
            raise UsageError(f"no usable training picture: {len(paths)} found, all rejected", hint=self._first_reason())
        self.window = len(self._cache)
        if self.window < len(self.paths):
            self._cache.clear()  # from here on the window decides what is held
        self._laws: dict[tuple[int, ...], tuple] = {}

    def _first_reason(self) -> str | None:
        return f"{self.rejected[0][0]}: {self.rejected[0][1]}" if self.rejected else "give a folder of pictures"

    def _try(self, path: Path) -> Decoded | None:
        try:
            pixels = self.read(path)
        except Exception as error:  # any reason: the run goes on without this file, and says so
            self.rejected.append((path, str(error)))
            return None
        if min(pixels.shape[:2]) < self.size:
            self.rejected.append((path, f"{pixels.shape[1]}x{pixels.shape[0]} is smaller than the crop ({self.size})"))
            return None
        return decode(pixels, self.device)

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

    def _window(self, step: int) -> list[int]:
        """Which pictures step `step` draws from; all of them when they fit the cache."""
        if self.window >= len(self.paths):
            return list(range(len(self.paths)))
        start = step // self.steps_per_swap
        members = [self._position(start + j) for j in range(self.window)]
        for j in range(4):  # decode the next few while this batch is used
            index = self._position(start + self.window + j)
            if index not in self._cache and index not in self._ahead:
                self._ahead[index] = self._pool.submit(self._try, self.paths[index])
        keep = set(members)
        for index in [i for i in self._cache if i not in keep]:
            del self._cache[index]
        for index in keep:
            if index not in self._cache:
                ahead = self._ahead.pop(index, None)
                picture = ahead.result() if ahead else self._try(self.paths[index])
                if picture is not None:
                    self._cache[index] = picture
        return sorted(self._cache)

    def _law(self, members: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The probability of each (picture, cell): even in area, mixed with gradient strength."""
        key = tuple(members)
        if key not in self._laws:
            self._laws.clear()
            textures = [self._cache[i].texture for i in members]
            flat = np.concatenate([t.ravel() for t in textures])
            share = self.augmentation.texture
            weights = (1 - share) + share * flat / max(flat.mean(), 1e-6)
            offsets = np.cumsum([0] + [t.size for t in textures])
            self._laws[key] = (np.cumsum(weights / weights.sum()), offsets)
        return self._laws[key]

    def batch(self, step: int, n: int, rank: int = 0, groups: int = 4) -> Tensor:
        """Crops of `step`, float32 `(n, C, size, size)` in [0, 1] on the device; `groups` share one scale each."""
        rng = np.random.Generator(np.random.PCG64([self.seed, 2, step, rank]))
        members = self._window(step)
        law, offsets = self._law(members)
        groups = min(groups, n)
        counts = [n // groups + (g < n % groups) for g in range(groups)]
        x = torch.cat([self._group(count, members, law, offsets, rng) for count in counts])
        if self.augmentation.colour:
            x = recolour(x, torch.from_numpy(rng.random((n, 6), dtype=np.float32)).to(self.device))
        return x.to(memory_format=torch.channels_last)

    def _group(self, count: int, members: list[int], law: np.ndarray, offsets: np.ndarray, rng) -> Tensor:
        picks = np.minimum(np.searchsorted(law, rng.random(count)), len(law) - 1)
        owners = np.searchsorted(offsets, picks, side="right") - 1
        pictures = [self._cache[members[o]] for o in owners]
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

    def _crop(self, pixels: Tensor, row: int, column: int, side: int, cell: int, rng) -> Tensor:
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
