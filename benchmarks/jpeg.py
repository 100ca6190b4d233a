"""What it is worth to know how a JPEG was compressed, when its blur is undone and its noise is estimated.

    python benchmarks/jpeg.py PHOTOS --count 6 --out runs/jpeg.md

Colour crops of photographs, shaken, noise of std 0.004, saved by Pillow with several qualities (colours at half the
resolution). The half-quadratic splitting's estimate with the true kernel, PSNR, at the noise level that the finest detail
shows, at that together with the compression's error as its step sizes tell it (what `gpnp deblur` takes), and at the best
of fixed levels, which only the truth knows.
"""

import argparse
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from levin import shake
from light import crops, estimate, noise_level, tabulate
from PIL import Image
from torch import Tensor

from gpnp_cli.cli.deblurring import CHANNELS
from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.denoisers.unet import load_default
from gpnp_cli.forward.blur import Blur
from gpnp_cli.jpeg import coding_error
from gpnp_cli.metrics import psnr
from gpnp_cli.training.data import luma

SIDE, EXTENT, NOISE = 200, 13, 0.004
QUALITIES = (95, 85, 75)
LEVELS = (0.003, 0.0045, 0.007, 0.01, 0.015)


def in_colour(x: Tensor) -> Tensor:
    return x.expand(-1, 3, -1, -1)


def saved(y: Tensor, quality: int) -> tuple[Tensor, np.ndarray]:
    """`y` `(1, 3, H, W)` after a JPEG file, and the step sizes of its brightness."""
    file = io.BytesIO()
    Image.fromarray((255 * y[0].clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()).save(
        file, "JPEG", quality=quality
    )
    image = Image.open(file)
    pixels = torch.from_numpy(np.asarray(image).astype(np.float32) / 255)
    return pixels.permute(2, 0, 1)[None], np.reshape(image.quantization[0], (8, 8))


@torch.inference_mode()
def measure(denoiser: Denoiser, x: Tensor, seed: int, quality: int) -> list[float]:
    """Three noise levels and the PSNR at each: two as they are estimated, and the best of the fixed ones."""
    rng = np.random.Generator(np.random.PCG64(seed))
    kernel = torch.from_numpy(shake(rng, EXTENT))
    A = Blur(kernel, (3, *(side - kernel.shape[0] + 1 for side in x.shape[2:])))
    seen = A.forward(x)
    y, steps = saved(seen + torch.from_numpy(rng.normal(0, NOISE, seen.shape)).float(), quality)
    truth = A.crop(x)[0].numpy()

    def score(sigma_y: float) -> float:
        return psnr(estimate(denoiser, A, y, sigma_y)[0].clamp(0, 1).numpy(), truth)

    alone = noise_level(y)
    both = math.hypot(alone, coding_error(luma(y)[0, 0].numpy(), steps) / CHANNELS)
    best, level = max((score(level), level) for level in LEVELS)
    return [alone, score(alone), both, score(both), level, best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    denoiser = load_default(3, None, "cpu", torch.bfloat16)

    def cases(quality: int) -> Iterator[tuple[str, list[float]]]:
        for seed, (stem, x) in enumerate(crops(args.photos, args.count, SIDE, 1.5 * SIDE, in_colour)):
            yield stem, measure(denoiser, x, seed, quality)

    titles = "| crop, quality | detail alone | PSNR | with compression | PSNR | best of levels | PSNR |"
    tabulate(titles, [(str(quality), cases(quality)) for quality in QUALITIES], line, args.out)


def line(name: str, row: list[float]) -> str:
    cells = " | ".join(f"{sigma:.4f} | {score:.2f}" for sigma, score in zip(row[::2], row[1::2], strict=True))
    return f"| {name} | {cells} |"


if __name__ == "__main__":
    main()
