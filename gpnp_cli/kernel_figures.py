"""Pictures of a blur kernel, and of how it was found. numpy and Pillow only."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .figures import Tile, colour_map, contact_sheet

SIDE = 256  # pixels, about, of a kernel that is shown
FRAME_SIDE = 480  # at most, of an animation
FRAME_MS = 120


@dataclass(frozen=True)
class Snapshot:
    """The search at one moment: `share` of its iterations done, `picture` `(1, H, W)` at its resolution, `kernel` `(h, w)`."""

    share: float
    picture: np.ndarray
    kernel: np.ndarray


def kernel_picture(kernel: np.ndarray) -> np.ndarray:
    """`kernel` `(h, w)` as uint8 `(H, W, 3)`: white is its largest entry; a square block for each."""
    return np.repeat(_blocks((255 * kernel / kernel.max() + 0.5).astype(np.uint8))[:, :, None], 3, 2)


def spread_tile(spread: np.ndarray) -> Tile:
    """The standard deviation of a kernel's entries, as a tile; its scale ends at the largest one."""
    top = float(spread.max())
    return Tile("kernel's spread", _blocks(colour_map(spread, top or 1.0)), f"up to {top:.2g} over the searches")


def _blocks(pixels: np.ndarray) -> np.ndarray:
    factor = max(1, SIDE // max(pixels.shape[:2]))
    return pixels.repeat(factor, 0).repeat(factor, 1)


def snapshot_strip(snapshots: Sequence[Snapshot], title: str, notes: Sequence[str] = ()) -> np.ndarray:
    """The pictures in a row, their kernels below."""
    size = max((s.picture.shape[1:] for s in snapshots), key=lambda shape: shape[0] * shape[1])
    pictures = [
        Tile(f"{100 * s.share:.0f} %", _enlarged(s.picture, size), f"{s.picture.shape[2]}x{s.picture.shape[1]} pixels")
        for s in snapshots
    ]
    kernels = [
        Tile("kernel", kernel_picture(s.kernel), f"{s.kernel.shape[1]}x{s.kernel.shape[0]} pixels") for s in snapshots
    ]
    return contact_sheet([*pictures, *kernels], title, notes)


def _enlarged(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`picture` `(C, H, W)` on `size`, each pixel a rectangle."""
    rows, columns = (np.arange(n) * old // n for n, old in zip(size, picture.shape[1:], strict=True))
    return picture[:, rows[:, None], columns]


def animation(snapshots: Sequence[Snapshot], format: str) -> bytes:
    """An endless animation, `gif` or `webp`: the pictures, all of the last one's size, the kernel in a corner."""
    height, width = snapshots[-1].picture.shape[1:]
    scale = min(1.0, FRAME_SIDE / max(height, width))
    size = max(1, round(scale * height)), max(1, round(scale * width))
    inset = max(8, min(size) // 4)
    frames = []
    for s in snapshots:
        frame = Image.fromarray((255 * _enlarged(s.picture, size)[0].clip(0, 1) + 0.5).astype(np.uint8))
        kernel = Image.fromarray(kernel_picture(s.kernel)[:, :, 0])
        frame.paste(kernel.resize((inset, inset * kernel.height // kernel.width), Image.Resampling.NEAREST), (0, 0))
        frames.append(frame)
    buffer = io.BytesIO()
    lengths = [FRAME_MS] * (len(frames) - 1) + [10 * FRAME_MS]
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], duration=lengths, loop=0)
    return buffer.getvalue()
