"""Blur kernels: `gaussian`, `motion`, `disk`, or a file.

A kernel is a float64 array `(kh, kw)`, not negative, summing to 1; its centre is element (kh // 2, kw // 2).
"""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import GpnpError, InputError, UsageError
from .imageio import read_picture

FORMS = (
    "gaussian:STD, motion:LENGTH,DEGREES, disk:RADIUS, or a file (PNG, TIFF, NPY, or ARRAY in an NPZ: FILE.npz:ARRAY)"
)
LARGEST = 1000.0  # pixels; no blur that can be undone is larger
SUBPIXELS = 16  # per side, to find how much of a pixel a disk covers


@dataclass(frozen=True, eq=False)
class BlurKernel:
    """`values` as above; `path` is the file they came from; `notes` are sentences the user should see."""

    values: np.ndarray
    path: Path | None = None
    notes: tuple[str, ...] = ()


def gaussian(std: float) -> np.ndarray:
    """exp(-|p|^2 / 2 std^2) at the pixel centres, cut at 4 std."""
    p = np.arange(-math.ceil(4 * std), math.ceil(4 * std) + 1)
    profile = np.exp(-0.5 * (p / std) ** 2)
    return unit(np.outer(profile, profile))


def motion(length: float, degrees: float) -> np.ndarray:
    """A straight, steady motion: each pixel's share of a line `length` long, `degrees` anticlockwise from rightwards."""
    ends, low, high = [], -length / 2, length / 2
    for slope in (-math.sin(math.radians(degrees)), math.cos(math.radians(degrees))):  # rows grow downwards
        slope = slope if abs(slope) > 1e-12 else 1e-12
        radius = max(0, math.ceil(abs(slope) * length / 2 - 0.5 - 1e-9))
        edges = (np.arange(-radius, radius + 2) - 0.5) / slope  # where along the line the pixels' borders are
        ends.append((np.minimum(edges[1:], edges[:-1]), np.maximum(edges[1:], edges[:-1])))
    (top, bottom), (left, right) = ends
    enter = np.maximum(np.maximum.outer(top, left), low)
    leave = np.minimum(np.minimum.outer(bottom, right), high)
    return unit(np.maximum(leave - enter, 0))


def disk(radius: float) -> np.ndarray:
    """A lens out of focus: the share of each pixel that a disk covers."""
    n = max(0, math.ceil(radius - 0.5))
    p = (np.arange((2 * n + 1) * SUBPIXELS) + 0.5) / SUBPIXELS - n - 0.5
    inside = p[:, None] ** 2 + p**2 <= radius**2
    return unit(inside.reshape(2 * n + 1, SUBPIXELS, 2 * n + 1, SUBPIXELS).mean((1, 3)))


def unit(values: np.ndarray) -> np.ndarray:
    """`values` divided by their sum."""
    return values / values.sum()


def parse_kernel(text: str, max_pixels: int) -> BlurKernel:
    """The kernel that `text` names; raises `UsageError` for anything that is none, since no picture can do without."""
    kind, _, rest = text.partition(":")
    if kind in ("gaussian", "motion", "disk"):
        return BlurKernel(_parse_drawn(text, kind, rest))
    path, member = Path(text).expanduser(), None
    if not os.path.lexists(path) and (parts := re.fullmatch(r"(.+\.npz):(.+)", text, re.IGNORECASE | re.DOTALL)):
        path, member = Path(parts[1]).expanduser(), parts[2]
    if not text or not os.path.lexists(path):
        raise UsageError(f"--kernel {text}: neither a file nor a kernel form", hint=f"use {FORMS}")
    return _checked(_read(path, member, max_pixels), path, text)


def _parse_drawn(text: str, kind: str, rest: str) -> np.ndarray:
    try:
        numbers = [float(part) for part in rest.split(",")]
    except ValueError:
        numbers = []
    sizes, angles = numbers[:1], numbers[1:]
    good = (
        len(angles) == (kind == "motion") and all(0 < n <= LARGEST for n in sizes) and all(map(math.isfinite, angles))
    )
    if not good or not numbers:
        example = {
            "gaussian": "gaussian:1.6 (standard deviation in pixels)",
            "motion": "motion:15,30 (length in pixels, degrees anticlockwise from the horizontal)",
            "disk": "disk:4 (radius in pixels)",
        }[kind]
        raise UsageError(f"--kernel {text}: not a {kind} kernel", hint=f"write for example {example}")
    return {"gaussian": gaussian, "motion": motion, "disk": disk}[kind](*numbers)


def _read(path: Path, member: str | None, max_pixels: int) -> np.ndarray:
    """The numbers in a kernel file, `(kh, kw)` or `(kh, kw, channels)`, as they are."""
    if path.suffix.lower() in (".npy", ".npz"):
        return _read_numpy(path, member)
    if path.suffix.lower() in (".tif", ".tiff") and path.is_file():
        import tifffile

        try:
            values = tifffile.imread(path)
        except Exception as error:
            raise UsageError(f"--kernel {path}: is damaged, or no TIFF file") from error
        if values.dtype.kind == "f":  # read_picture takes floats for pixels, which must lie in [0, 1]
            return values
    try:
        return read_picture(path, max_pixels).pixels.transpose(1, 2, 0)
    except GpnpError as error:
        raise UsageError(f"--kernel {error.message}") from error


def _read_numpy(path: Path, member: str | None) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if member is None and len(names) == 1:
                member = names[0]
            if member in names:
                return loaded[member]
    except Exception as error:
        reason = getattr(error, "strerror", None) or "is damaged, or no NumPy file of numbers"
        raise UsageError(f"--kernel {path}: {reason}") from error
    known = ", ".join(names[:20]) or "nothing"
    what = "holds several arrays" if member is None else f"holds no array {member}"
    example = f"name one as {path}:{names[0]}; " if names else ""
    raise UsageError(f"--kernel {path}: {what}", hint=f"{example}it holds {known}")


def _checked(values: np.ndarray, path: Path, text: str) -> BlurKernel:
    """The kernel in the array of a file; `UsageError` for what no kernel can be."""
    notes = []

    def refuse(what: str, hint: str | None = None) -> UsageError:
        return UsageError(f"--kernel {text}: {what}", hint=hint)

    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif" or values.size == 0:
        raise refuse("holds no numbers")
    if values.ndim == 3 and values.shape[2] in (1, 3):
        if (values != values[:, :, :1]).any() and not np.isnan(values.astype(float)).any():
            raise refuse("its colour channels differ, but all channels are blurred alike", "save it as a grey picture")
        values = values[:, :, 0]
    if values.ndim != 2:
        raise refuse(f"holds an array of shape {values.shape}; a kernel is (height, width)")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise refuse("holds values that are not numbers (NaN or infinite)")
    if values.min() < 0:
        raise refuse(f"holds negative values (down to {values.min():.3g})", "a blur kernel says where light goes")
    with np.errstate(over="ignore"):
        total = values.sum()
    if not total > 0 or not math.isfinite(total):
        raise refuse("is zero everywhere" if total == 0 else "holds values that are too large")
    if abs(total - 1) > 1e-3:
        notes.append(f"kernel {path} sums to {total:.4g}: divided by that")
    height, width = values.shape
    if height % 2 == 0 or width % 2 == 0:
        notes.append(
            f"kernel {path} has an even side ({width}x{height}): its centre is row {height // 2}, column {width // 2}, "
            "counted from 0"
        )
    return BlurKernel(values / total, path, tuple(notes))


def check_fits(kernel: BlurKernel, height: int, width: int, name: str) -> None:
    """`InputError` if the kernel is larger than a picture of this size."""
    kh, kw = kernel.values.shape
    if kh > height or kw > width:
        raise InputError(
            f"{name}: the kernel ({kw}x{kh}) is larger than the picture ({width}x{height})",
            hint="crop the kernel to where it is not zero, or take a larger picture",
        )
