"""Blind deblurring measured: on the pictures of Levin et al. and on shaken photographs, in the protocol of that paper.

    python benchmarks/levin.py LEVIN_FOLDER --out runs/levin.md
    python benchmarks/levin.py LEVIN_FOLDER --iterations 10 20 40 80     # the curve of PSNR against time
    python benchmarks/levin.py --shaken PHOTOS --out runs/shaken.md      # colour, four shakes each, 1 % noise
    python benchmarks/levin.py --large PHOTO --method pnp --steps 8      # 12 megapixels: a photograph and its mirror images
    python benchmarks/levin.py --sharp PICTURE... --method pnp           # no blur in, no harm out

LEVIN_FOLDER holds imI_kernelJ_img.png, gt/imI.png and kernels_trueconv.npz (k1, k2, ...). Nothing of the truth but the
score enters: window of the kernel, noise and settings are the command's defaults. The estimate is moved by quarter pixels
within 10 pixels to where it fits the truth best, 15 border pixels are cut off, and PSNR and SSIM are taken. The error
ratio compares with the same non-blind pass given the true kernel: the ratio of the errors' norms, and of their squares.
Times are those of the whole command, start-up and files included. Of pictures larger than 1000 pixels the middle is scored.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import header
from PIL import Image

from gpnp_cli.alignment import aligned
from gpnp_cli.imageio import read_picture
from gpnp_cli.metrics import psnr, ssim

EXTENTS = (15, 27, 39, 51)  # pixels, of the four shakes
NOISE = 0.01
LARGE, LARGE_EXTENT, LARGE_NOISE = (3000, 4000), 25, 0.004
SCORED = 1000  # the side of the middle that is scored of larger pictures


@dataclass(frozen=True)
class Case:
    """A blurred picture's file, its truth `(C, H, W)` and true kernel."""

    name: str
    path: Path
    truth: np.ndarray
    kernel: np.ndarray


def levin(folder: Path) -> Iterator[Case]:
    kernels = np.load(folder / "kernels_trueconv.npz")
    for path in sorted(folder.glob("im*_kernel*_img.png")):
        picture, kernel = re.match(r"(im\d+)_kernel(\d+)_img", path.name).groups()
        yield Case(path.stem, path, read_picture(folder / "gt" / f"{picture}.png").pixels, kernels[f"k{kernel}"])


def shaken(photos: Path, folder: Path, count: int) -> Iterator[Case]:
    """The first `count` photographs, each blurred without its borders by four shakes; 8-bit files in `folder`."""
    for i, path in enumerate(sorted(photos.glob("*.png"))[:count]):
        pixels = read_picture(path).pixels
        for j, extent in enumerate(EXTENTS):
            yield blurred(f"{path.stem}_shake{j + 1}", pixels, extent, [i, j], NOISE, folder)


def large(photo: Path, folder: Path) -> Iterator[Case]:
    """12 megapixels with detail of one pixel: a photograph continued by its mirror images, shaken."""
    pixels = read_picture(photo).pixels
    more = [(0, max(0, side + 2 * LARGE_EXTENT - n)) for side, n in zip(LARGE, pixels.shape[1:], strict=True)]
    pixels = np.pad(pixels, [(0, 0), *more], mode="symmetric")
    yield blurred(f"{photo.stem}_large", pixels, LARGE_EXTENT, [0, 12], LARGE_NOISE, folder)


def blurred(name: str, pixels: np.ndarray, extent: int, seed: list[int], noise: float, folder: Path) -> Case:
    """`pixels` `(C, H, W)` shaken and noisy, without the border that needs pixels beyond."""
    kernel = shake(np.random.Generator(np.random.PCG64(seed)), extent)
    r = kernel.shape[0] // 2
    size = tuple(side + kernel.shape[0] - 1 for side in pixels.shape[1:])
    product = np.fft.rfft2(pixels, size) * np.fft.rfft2(kernel, size)
    seen = np.fft.irfft2(product, size)[:, 2 * r : pixels.shape[1], 2 * r : pixels.shape[2]]
    seen = seen + np.random.Generator(np.random.PCG64([*seed, 1])).normal(0, noise, seen.shape)
    file = folder / f"{name}.png"
    values = np.rint(255 * seen.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(values if values.shape[2] == 3 else values[:, :, 0]).save(file)
    return Case(name, file, pixels[:, r : pixels.shape[1] - r, r : pixels.shape[2] - r], kernel)


def sharp(path: Path) -> Case:
    """A picture that is not blurred: its own truth."""
    return Case(path.stem, path, read_picture(path).pixels, np.ones((1, 1)))


def shake(rng: np.random.Generator, extent: int, points: int = 2000) -> np.ndarray:
    """The path of a shaken camera, `extent` pixels wide or high, as a kernel with its centre of mass in the middle.

    A point moves with slowly turning direction, rarely starts anew in another one, and is pulled back to where it began.
    """
    at, path = np.zeros(2), []
    direction = rng.normal(size=2)
    for _ in range(points):
        direction = direction + 0.025 * rng.normal(size=2) - 3e-5 * at
        if rng.random() < 0.001:
            direction = rng.normal(size=2)
        direction /= np.linalg.norm(direction)
        at = at + direction
        path.append(at)
    path = np.array(path)
    path = (path - path.min(0)) * ((extent - 1) / np.ptp(path, axis=0).max())
    path -= np.rint(path.mean(0))
    r = int(np.abs(path).max()) + 1
    kernel = np.zeros((2 * r + 1, 2 * r + 1))
    cell = np.floor(path).astype(int)
    part = path - cell
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1])
            np.add.at(kernel, (cell[:, 0] + r + down, cell[:, 1] + r + right), share)
    return kernel / kernel.sum()


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The largest normalised correlation of two kernels over all shifts by whole pixels: 1 for equal ones."""
    size = tuple(m + n for m, n in zip(a.shape, b.shape, strict=True))
    product = np.fft.irfft2(np.fft.rfft2(a, size) * np.fft.rfft2(b, size).conj(), size)
    return float(product.max() / np.linalg.norm(a) / np.linalg.norm(b))


def run(command: str, case: Case, folder: Path, *options: str) -> tuple[np.ndarray, float, dict]:
    """(result, seconds, manifest) of one `gpnp` command on the case, as a process of its own."""
    begun = time.perf_counter()
    arguments = [sys.executable, "-m", "gpnp_cli", command, case.path, "-o", folder, "-f", "-q", *options]
    subprocess.run([str(a) for a in arguments], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    manifest = json.loads((folder / f"{case.path.stem}.{command}.gpnp.json").read_text("utf-8"))
    return read_picture(folder / f"{case.path.stem}.{command}.png").pixels, seconds, manifest


def measure(case: Case, folder: Path, blind: list[str], both: list[str]) -> dict[str, float]:
    """One row: blind, and if there is a blur with the true kernel, too."""
    found, seconds, told = run("blind-deblur", case, folder, *both, *blind, "--save", "mean,kernel")
    kernel = np.load(folder / f"{case.path.stem}.blind-deblur.kernel-raw.npy")
    mine, target = aligned(middle(found), middle(case.truth))
    row = {
        "psnr": psnr(mine, target),
        "ssim": ssim(mine, target),
        "likeness": likeness(kernel, case.kernel),
        "size": max(kernel.shape),
        "sigma_y": told["sigma_y"],
        "seconds": seconds,
    }
    if case.kernel.size == 1:
        return row
    file = folder / "true.npy"
    np.save(file, case.kernel)
    # at the noise level that the picture itself shows: that of the search holds the kernel's error, too
    best, _, _ = run("deblur", case, folder, *both, "--kernel", str(file), "--save", "mean")
    theirs, _ = aligned(middle(best), middle(case.truth))
    squared = float(np.square(mine - target).sum() / np.square(theirs.clip(0, 1) - target).sum())
    return row | {"true": psnr(theirs, target), "ratio": squared**0.5, "squared": squared}


def middle(pixels: np.ndarray) -> np.ndarray:
    """The part of `pixels` `(C, H, W)` that is scored."""
    rows, columns = (slice(max(0, n - SCORED) // 2, (n + min(n, SCORED)) // 2) for n in pixels.shape[1:])
    return pixels[:, rows, columns]


COLUMNS = {
    "psnr": ("PSNR", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "true": ("PSNR, true kernel", ".2f"),
    "ratio": ("error ratio, norms", ".2f"),
    "squared": ("squared", ".2f"),
    "likeness": ("kernel similarity", ".3f"),
    "size": ("kernel", ".0f"),
    "sigma_y": ("sigma_y", ".4f"),
    "seconds": ("s", ".0f"),
}


def line(name: str, row: dict[str, float]) -> str:
    cells = (format(row[key], form) if key in row else "" for key, (_, form) in COLUMNS.items())
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("folder", type=Path, nargs="?", help="the pictures of Levin et al.")
    source.add_argument("--shaken", type=Path, metavar="PHOTOS", help="a folder of intact photographs instead")
    source.add_argument("--large", type=Path, metavar="PHOTO", help="one intact photograph instead")
    source.add_argument("--sharp", type=Path, nargs="+", metavar="PICTURE", help="pictures to be left as they are")
    parser.add_argument("--photos", type=int, default=6, help="how many of them")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name begins so")
    parser.add_argument("--iterations", type=int, nargs="*", default=[], help="of the search: one table each")
    parser.add_argument("--method", default="gpnp", help="of the non-blind pass, with either kernel")
    parser.add_argument("--steps", type=int, help="of the non-blind pass")
    parser.add_argument("--denoiser", default="default")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    both = ["--method", args.method, "--denoiser", args.denoiser, "--seed", args.seed]
    both += ["--iterations", str(args.steps)] if args.steps else []
    lines = [header(), ""]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.large:
            cases = list(large(args.large, folder))
        elif args.sharp:
            cases = [sharp(path) for path in args.sharp]
        else:
            cases = list(levin(args.folder) if args.folder else shaken(args.shaken, folder, args.photos))
        cases = [c for c in cases if not args.only or c.name.startswith(tuple(args.only))]
        for iterations in args.iterations or [None]:
            blind = ["--search-iterations", str(iterations)] if iterations else []
            if args.shaken:
                blind += ["--kernel-size", "auto"]
            rows = []
            lines += [f"Search iterations: {iterations or 'default'}.", ""]
            lines += ["| case | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
            lines += ["|---|" + "---|" * len(COLUMNS)]
            for case in cases:
                rows.append(measure(case, folder, blind, both))
                lines.append(line(case.name, rows[-1]))
                print(lines[-1], flush=True)
            lines.append(line("mean", {key: statistics.mean(row[key] for row in rows) for key in rows[0]}))
            lines.append(line("worst", {key: worst(key, [row[key] for row in rows]) for key in rows[0]}))
            lines.append("")
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


def worst(key: str, values: list[float]) -> float:
    return min(values) if key in ("psnr", "ssim", "true", "likeness") else max(values)


if __name__ == "__main__":
    main()
