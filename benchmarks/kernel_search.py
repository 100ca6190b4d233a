"""What `gpnp blind-deblur` finds in pictures that its settings may be chosen by: photographs for training, never for tests.

    python benchmarks/kernel_search.py PHOTOS --out runs/kernel_search.md             # near-real: shakes that vary, coloured noise
    python benchmarks/kernel_search.py PHOTOS --soft --out runs/kernel_search.md      # and as soft as a camera's pixels are
    python benchmarks/kernel_search.py PHOTOS --noisy --out runs/kernel_search.md     # 1 % white noise, shakes of up to 51 pixels
    python benchmarks/kernel_search.py PHOTOS --noisy --part 390                      # in a part of each crop, instead of all of it
    python benchmarks/kernel_search.py PHOTOS --soft --side 740 --window 65           # larger crops, and a wider window

Crops of grey photographs, blurred without borders. For every search its kernel's excess error, from the edges and after
GPnP-EM: how much larger, in dB, the error of a Wiener filter with that kernel is than with the true one, for pictures
with the mean spectrum of photographs, at the best shift and the best of four noise levels. 0 is as good as the truth.
Then that of the kernel which the criterion chooses among all, and of the best of all. Kernels that vary across the
picture are compared with the one in its middle.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from levin import EXTENTS, shake
from machine import header
from torch import Tensor

from gpnp_cli.cli.blind_deblurring import (
    NOISY,
    NOISY_ITERATIONS,
    NOISY_SEARCHES,
    REFINED_ENERGY,
    REGULARISERS,
    SEARCHES,
    Evidence,
)
from gpnp_cli.denoisers.unet import load_default
from gpnp_cli.forward.blur import Blur
from gpnp_cli.forward.informative import richest_window
from gpnp_cli.forward.kernel_fit import FreeForm, SmallEnergy
from gpnp_cli.imageio import read_picture
from gpnp_cli.samplers.em import Schedule, edges_first, refine
from gpnp_cli.samplers.rng import ChainRng
from gpnp_cli.training.data import luma

SUFFIXES = (".jpg", ".jpeg", ".png")
DETAIL = 0.015  # mean difference of neighbours, at least: smooth crops tell nothing
SIDE, NOISY_SIDE = 255, 500  # pixels of a blurred crop, and of a noisy one
WINDOW, NOISY_WINDOW = 31, 63  # that kernels are looked for in
SIGMAS = (0.005, 0.01, 0.02, 0.04)  # that the filter may assume; the noise is the first
TORUS = 256

Searches = Sequence[tuple[float, float, float]]


class Crop(NamedTuple):
    """A blurred crop `(1, 1, H, W)`, the true kernel `(k, k)`, and the noise level."""

    y: Tensor
    kernel: np.ndarray
    noise: float


def crops(photos: Path, count: int, side: int, noisy: bool, soft: bool, seed: int) -> Iterator[Crop]:
    """Photographs made smaller, hence sharp, are what is blurred; with `soft` they are as large as they were, and softened."""
    rng = np.random.Generator(np.random.PCG64(seed))
    paths = sorted(p for p in photos.rglob("*") if p.suffix.lower() in SUFFIXES)
    made = 0
    for i in rng.permutation(len(paths)):
        if made == count:
            return
        extent = EXTENTS[made % 4] if noisy else int(rng.integers(9, 25))
        kernel = shake(rng, extent)
        if not noisy:
            kernel = warped(np.pad(kernel, 4), blur=rng.uniform(0.5, 0.9))
        x = luma(torch.from_numpy(read_picture(paths[i]).pixels)[None])
        if soft:
            x = blurred(x, warped(np.pad([[1.0]], 3), blur=rng.uniform(0.6, 1.0)))
        else:
            x = F.interpolate(x, scale_factor=rng.uniform(0.65, 0.9), mode="bilinear", antialias=True)
        need = side + kernel.shape[0] - 1
        if min(x.shape[2:]) < need:
            continue
        row, column = (int(rng.integers(0, n - need + 1)) for n in x.shape[2:])
        x = x[..., row : row + need, column : column + need]
        if float(x.diff(dim=3).abs().mean()) < DETAIL:
            continue
        if noisy:
            y, noise = blurred(x, kernel), 0.0067  # 1 % in each of three colours
            added = torch.from_numpy(rng.normal(0, noise, y.shape))
        else:
            turn, growth, noise = rng.uniform(0, 2), rng.uniform(0, 0.03), rng.uniform(0.002, 0.005)
            left, right = (blurred(x, warped(kernel, s * turn, 1 + s * growth)) for s in (-1, 1))
            ramp = torch.linspace(0, 1, side, dtype=x.dtype)
            y = (1 - ramp) * left + ramp * right
            white = torch.from_numpy(rng.normal(size=(1, 1, side + 2, side + 2)))
            added = F.avg_pool2d(white, 3, stride=1, divisor_override=1) * 0.15 + white[..., 1:-1, 1:-1]
            added *= noise / added.std()
        made += 1
        yield Crop(((255 * (y + added)).round() / 255).clamp(0, 1).float(), kernel, noise)


def warped(kernel: np.ndarray, degrees: float = 0.0, scale: float = 1.0, blur: float = 0.0) -> np.ndarray:
    """The kernel turned and scaled about its centre, and blurred by a Gaussian of this std."""
    a, values = np.deg2rad(degrees), torch.from_numpy(kernel)[None, None]
    turn = torch.tensor([[[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0]]]) / scale
    out = F.grid_sample(values, F.affine_grid(turn, values.shape, align_corners=True), align_corners=True)
    if blur:
        p = torch.exp(-(torch.arange(-3, 4, dtype=out.dtype) ** 2) / (2 * blur**2))
        out = F.conv2d(out, torch.outer(p, p)[None, None], padding=3)
    return (out / out.sum())[0, 0].numpy()


def blurred(x: Tensor, kernel: np.ndarray) -> Tensor:
    """What a camera sees of `x` `(1, 1, H, W)`: no pixel that the blur brings in from beyond it."""
    height, width = (side - k + 1 for side, k in zip(x.shape[2:], kernel.shape, strict=True))
    return Blur(torch.from_numpy(kernel), (1, height, width)).forward(x)


class Wiener:
    """The excess error of kernels over `truth`."""

    def __init__(self, truth: np.ndarray) -> None:
        f = np.fft.fftfreq(TORUS)
        self.rows, self.columns = np.meshgrid(f, f, indexing="ij")
        power = 1 / (self.rows**2 + self.columns**2 + 1e-4)
        self.power = power * (0.05 * TORUS**2 / power.sum())  # pixels' variance 0.05
        self.truth = self.spectrum(truth)
        self.least = self.error(self.truth, SIGMAS[0])

    def spectrum(self, kernel: np.ndarray) -> np.ndarray:
        placed = np.zeros((TORUS, TORUS))
        placed[: kernel.shape[0], : kernel.shape[1]] = kernel
        return np.fft.fft2(np.roll(placed, [-(side // 2) for side in kernel.shape], (0, 1)))

    def error(self, guess: np.ndarray, sigma: float) -> float:
        """The mean squared error of the filter for `guess` and `sigma`."""
        wiener = guess.conj() * self.power / (np.abs(guess) ** 2 * self.power + sigma**2)
        lost = np.abs(1 - wiener * self.truth) ** 2 * self.power
        return float((lost + np.abs(wiener) ** 2 * SIGMAS[0] ** 2).mean())

    def excess(self, kernel: Tensor) -> float:
        guess = self.spectrum(kernel.double().numpy())
        likeness = np.fft.ifft2(self.truth * guess.conj() * self.power).real
        whole = [n - TORUS * (n > TORUS // 2) for n in divmod(int(likeness.argmax()), TORUS)]
        quarters = np.arange(-2, 3) / 4
        shifts = ((whole[0] + i, whole[1] + j) for i in quarters for j in quarters)
        moved = (guess * np.exp(-2j * np.pi * (self.rows * i + self.columns * j)) for i, j in shifts)
        return 10 * np.log10(min(self.error(each, sigma) for each in moved for sigma in SIGMAS) / self.least)


@torch.inference_mode()
def measure(crop: Crop, searches: Searches, part: int, window: int, iterations: int) -> list[tuple[float, float]]:
    """(criterion, excess) of each search's two kernels, in turn, looked for in a `part` of that many pixels' side."""
    rows, columns = richest_window(crop.y, torch.ones(crop.y.shape[2:], dtype=torch.bool), part)
    y, size = crop.y[..., rows, columns], (window, window)
    known = torch.ones(y.shape[2:], dtype=torch.bool)
    evidence = Evidence(load_default(1, None, "cpu", torch.bfloat16), y, known, crop.noise)
    usual = [REGULARISERS["sparse"], REGULARISERS["connected"]]
    second = FreeForm([SmallEnergy(REFINED_ENERGY), *usual])
    wiener, found = Wiener(crop.kernel), []
    for number, (weight, decay, energy) in enumerate(searches):
        first = FreeForm([SmallEnergy(energy), *usual])
        schedule = Schedule(iterations, weight=weight, decay=decay, extremes=crop.noise <= NOISY)
        *_, edges = edges_first(y, known, size, lambda scale, fit=first: fit, schedule)
        rng = ChainRng(number, 1)
        *_, last = refine(evidence.denoiser, y, known, edges, second, schedule, crop.noise, rng)
        found += [(evidence.misfit(step.state.h), wiener.excess(step.state.h)) for step in (edges, last)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photographs that are not for tests")
    parser.add_argument("--crops", type=int, default=14)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--noisy", action="store_true")
    kind.add_argument("--soft", action="store_true")
    parser.add_argument("--side", type=int, help="of a blurred crop, in pixels")
    parser.add_argument("--part", type=int, help="the side of the part that is searched; all of the crop by default")
    parser.add_argument("--window", type=int, help="the side of the window that kernels are looked for in")
    parser.add_argument("--iterations", type=int, help="of GPnP-EM, instead of those that gpnp takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    searches, iterations = (NOISY_SEARCHES, NOISY_ITERATIONS) if args.noisy else (SEARCHES, Schedule.iterations)
    iterations = args.iterations or iterations
    side = args.side or (NOISY_SIDE if args.noisy else SIDE)
    window = args.window or (NOISY_WINDOW if args.noisy else WINDOW)
    titles = [f"{weight:g}, {decay:g}, {energy:g}" for weight, decay, energy in searches]
    lines = [header(), "", f"| crop | {' | '.join(titles)} | chosen | best |", "|---|" + "---|" * (len(titles) + 2)]
    print("\n".join(lines), flush=True)
    chosen, best = [], []
    for number, crop in enumerate(crops(args.photos, args.crops, side, args.noisy, args.soft, args.seed)):
        rows = measure(crop, searches, args.part or side, window, iterations)
        excess = [value for _, value in rows]
        chosen.append(min(rows)[1])
        best.append(min(excess))
        pairs = [f"{a:.2f}, {b:.2f}" for a, b in zip(excess[::2], excess[1::2], strict=True)]
        lines.append(f"| {number} | {' | '.join(pairs)} | {chosen[-1]:.2f} | {best[-1]:.2f} |")
        print(lines[-1], flush=True)
    blanks = " | ".join("" for _ in titles)
    lines.append(f"| mean | {blanks} | {statistics.mean(chosen):.2f} | {statistics.mean(best):.2f} |")
    print(lines[-1])
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
