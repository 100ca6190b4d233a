"""The pictures that every restoring command writes: mean, samples, standard deviation, contact sheet."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import config as cfg
from ..errors import InputError, UsageError
from ..figures import Roi, Tile, contact_sheet, std_picture, std_tile
from ..imageio import Picture, picture_bytes, written_format
from ..inputs import EXTENSIONS
from ..metrics import nrmse, psnr, ssim
from .report import Report

FILE_FORMATS = {
    ".png": "png",
    ".tif": "tif",
    ".tiff": "tif",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
    ".bmp": "bmp",
}
LOSSLESS = {"jpg": "png", "webp": "png"}  # samples are compared with each other: no compression artefacts in them


def named_format(output: Path) -> str | None:
    """The format of the file that `--output` names; None if it names a folder."""
    suffix = output.suffix.lower()
    if suffix not in EXTENSIONS or output.is_dir():
        return None
    if suffix not in FILE_FORMATS:
        known = ", ".join(FILE_FORMATS)
        raise UsageError(f"--output {output}: pictures cannot be written as {suffix}", hint=f"use one of {known}")
    return FILE_FORMATS[suffix]


def chosen(picture: Picture, output: cfg.Destination, alpha: Any = "keep") -> str:
    """The format of the main result; raises `InputError` if this picture cannot be written so."""
    try:
        return written_format(picture, named_format(output.output) or output.format, output.bits, alpha)
    except UsageError as error:
        raise InputError(f"{picture.path}: {error.message}", error.hint) from error


def lossless(picture: Picture, output: cfg.Destination, alpha: Any = "keep") -> str:
    """The format of pictures that must not suffer from compression."""
    format = chosen(picture, output, alpha)
    return LOSSLESS.get(format, format)


def extension(picture: Picture, format: str) -> str:
    return "pgm" if format == "ppm" and len(picture.pixels) == 1 else format


@dataclass(frozen=True)
class Samples:
    """Draws of the posterior `(K, C, H, W)`, their mean and standard deviation `(C, H, W)`, float32; the mean in [0, 1].

    Without draws (K = 0) the mean is an estimate that came about otherwise, and the standard deviation says nothing.
    """

    draws: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @property
    def best(self) -> str:
        """What the main result is called in tables and records."""
        return "mean" if len(self.draws) else "estimate"


def png(pixels: np.ndarray) -> bytes:
    """uint8 `(H, W, 3)` as a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def raw(std: np.ndarray, kind: str) -> bytes:
    """`std` `(C, H, W)` as float32 NPY `(C, H, W)` or TIFF `(H, W[, C])`, on the [0, 1] scale."""
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, std)
    else:
        import tifffile

        kind = "minisblack" if len(std) == 1 else "rgb"
        tifffile.imwrite(
            buffer, std[0] if len(std) == 1 else np.ascontiguousarray(std.transpose(1, 2, 0)), photometric=kind
        )
    return buffer.getvalue()


def measure(estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PSNR in dB, SSIM and NRMSE against the truth."""
    return {"psnr": psnr(estimate, truth), "ssim": ssim(estimate, truth), "nrmse": nrmse(estimate, truth)}


def caption(scores: dict[str, float] | None) -> tuple[str, ...]:
    if scores is None:
        return ()
    return (f"PSNR {scores['psnr']:.2f} dB   SSIM {scores['ssim']:.3f}", f"NRMSE {scores['nrmse']:.4f}")


def table(report: Report, name: str, scores: dict[str, dict[str, float]]) -> None:
    """The scores on stderr, a row each."""
    report.note(f"{name:<24}  {'PSNR/dB':>8}  {'SSIM':>6}  {'NRMSE':>7}")
    for label, row in scores.items():
        report.note(f"  {label:<22}  {row['psnr']:8.2f}  {row['ssim']:6.3f}  {row['nrmse']:7.4f}")


def densest(weight: np.ndarray, h: int, w: int) -> Roi:
    """The window of height `h` and width `w` with the largest sum of `weight` `(H, W)`."""
    sums = np.pad(weight.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # integral image: all windows at once
    totals = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    y, x = np.unravel_index(totals.argmax(), totals.shape)
    return int(y), int(x), h, w


def score(
    samples: Samples, damaged: np.ndarray, truth: np.ndarray | None, before: str = "damaged"
) -> dict[str, dict[str, float]] | None:
    """The scores of the picture before (called `before`), each sample and the best; None if the truth is unknown."""
    if truth is None:
        return None
    scores = {before: measure(damaged, truth)}
    scores |= {f"sample-{k:02}": measure(draw, truth) for k, draw in enumerate(samples.draws, start=1)}
    return scores | {samples.best: measure(samples.mean, truth)}


def files(
    picture: Picture,
    samples: Samples,
    output: cfg.Output,
    shown: np.ndarray,
    title: str,
    notes: tuple[str, ...],
    scores: dict[str, dict[str, float]] | None,
    truth: np.ndarray | None,
    roi: Roi | None,
    alpha: Any = "keep",
    before: str = "damaged",
    more: Sequence[Tile] = (),
) -> list[tuple[str, str, Any]]:
    """What `output.save` asks for, as (kind, extension, encode); the first is the main result.

    `shown` is the damaged picture as the sheet shows it under the name `before`; `roi` the part that its details
    magnify. A single estimate stands for the mean and for the samples. `more` are further tiles of the sheet.
    """
    format, kept, scores = chosen(picture, output, alpha), lossless(picture, output, alpha), scores or {}

    def encode(pixels: np.ndarray, kind: str):
        return lambda: picture_bytes(picture, pixels, kind, output.bits, output.quality, alpha)[0]

    made = []
    if "mean" in output.save or ("samples" in output.save and not len(samples.draws)):
        made.append(("", extension(picture, format), encode(samples.mean, format)))
    if "samples" in output.save:
        for k, draw in enumerate(samples.draws, start=1):
            made.append((f"sample-{k:02}", extension(picture, kept), encode(draw, kept)))
    if len(samples.draws) > 1:  # one draw says nothing of the spread
        if "std" in output.save:
            made.append(("std", "png", lambda: png(std_picture(samples.std)[0])))
        if output.raw != "none":
            made.append(("std-raw", output.raw, lambda: raw(samples.std, output.raw)))
    if "sheet" in output.save:
        tiles = [Tile(before, shown, caption(scores.get(before)))]
        if truth is not None:
            tiles.append(Tile("truth", truth))
        best = f"mean of {len(samples.draws)} samples" if len(samples.draws) else samples.best
        tiles.append(Tile(best, samples.mean, caption(scores.get(samples.best))))
        if len(samples.draws) > 1:
            tiles.append(std_tile("standard deviation", samples.std))
            for k, draw in enumerate(samples.draws, start=1):
                tiles.append(Tile(f"sample {k}", draw, caption(scores.get(f"sample-{k:02}"))))
        tiles += more
        made.append(("sheet", "png", lambda: png(contact_sheet(tiles, title, notes, roi))))
    return made
