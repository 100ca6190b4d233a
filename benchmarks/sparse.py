"""Sparse interpolation: 10 % of the pixels kept, this project's default against the published method.

    python benchmarks/sparse.py IMAGE --cache runs/sparse --out runs/sparse.md

Published: GPnP with the BM3D prior, the approximate forward generator, r = 1.3, started at a radial-basis
interpolation (preset `published`). Both rows see the same 10 % of the pixels (mask of NumPy's legacy
generator, seed 0) and run on the same machine. BM3D takes seconds per call: 10 samples of 100 iterations are
hours of CPU time, so finished samples are kept in --cache and a stopped run goes on. Seconds per sample are
measured in one go at the end, from a few iterations of each row, with nothing else running.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from machine import header

from gpnp_cli import build
from gpnp_cli.config import Model, Sampler
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.imageio import read_picture
from gpnp_cli.masks import parse_mask
from gpnp_cli.metrics import psnr, ssim
from gpnp_cli.samplers.base import anneal
from gpnp_cli.samplers.rng import ChainRng

ROWS = {
    "published (BM3D, approximate, r = 1.3)": (Sampler(preset="published"), "bm3d"),
    "gpnp default": (Sampler(), "default"),
}


class Problem:
    """The picture, what is known of it, and how a row samples."""

    def __init__(self, image: Path, mask: str) -> None:
        self.truth = read_picture(image).pixels
        self.known = torch.from_numpy(~parse_mask(mask).draw(*self.truth.shape[1:]))[None]
        self.y = torch.where(self.known, torch.from_numpy(self.truth)[None], 0)
        self.model = ForwardModel(Mask(self.known, len(self.truth)), self.y, 0.0)

    def steps(self, sampler: Sampler, denoiser, chains: list[int], seed: int, iterations: int | None = None):
        rng = ChainRng(seed, chains)
        sigmas = build.schedule(sampler)[:iterations]
        start = build.first_states(sampler, self.y, self.known, rng)
        return anneal(build.kernel(sampler, denoiser, self.model), start, sigmas, rng, sampler.final == "denoise")


def draw(problem: Problem, row: str, samples: int, seed: int, cache: Path) -> np.ndarray:
    """`(samples, C, H, W)`; BM3D's one by one, kept as they are finished."""
    sampler, name = ROWS[row]
    prior = build.build_prior(Model(denoiser=name), len(problem.truth), torch.device("cpu"), build.fast_dtype("cpu"))
    draws = []
    for k in range(samples):
        path = cache / f"{name}-{prior.sha256 or ''}-{k}.npy"
        if not path.exists():
            with torch.inference_mode():
                steps = last_of(problem.steps(sampler, prior.denoiser, [k], seed))
            np.save(path, steps.state.x[0].numpy())
            print(f"{row}: sample {k}: {psnr(steps.state.x[0].numpy(), problem.truth):.2f} dB", flush=True)
        draws.append(np.load(path))
    return np.stack(draws)


def last_of(steps):
    """Run the chain, return its last step."""
    for step in steps:
        last = step
    return last


def seconds(problem: Problem, row: str, iterations: int) -> float:
    """Seconds per sample, from `iterations` steps of a single chain, for the row's full schedule."""
    sampler, name = ROWS[row]
    prior = build.build_prior(Model(denoiser=name), len(problem.truth), torch.device("cpu"), build.fast_dtype("cpu"))
    with torch.inference_mode():
        last_of(problem.steps(sampler, prior.denoiser, [0], 0, 1))
        begun = time.perf_counter()
        last = last_of(problem.steps(sampler, prior.denoiser, [0], 0, iterations))
        spent = time.perf_counter() - begun
    return spent / last.nfe * (sampler.iterations + (sampler.final == "denoise"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--mask", default="random:0.1")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--published-samples", type=int, help="fewer for the slow row; the table says how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row", choices=["published", "default"], help="only draw this row's samples, no table")
    parser.add_argument("--cache", type=Path, default=Path("runs/sparse"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    problem = Problem(args.image, args.mask)
    wanted = [row for row in ROWS if args.row is None or row.startswith(args.row) or row.endswith(args.row)]
    counts = {row: args.published_samples or args.samples if ROWS[row][1] == "bm3d" else args.samples for row in wanted}
    draws = {row: draw(problem, row, counts[row], args.seed, args.cache) for row in wanted}
    if args.row:
        return
    lines = [
        header(),
        "",
        f"Picture {args.image.name}, mask {args.mask}, {args.samples} samples, seed {args.seed}.",
        "",
    ]
    lines += [
        "| method | samples | PSNR of a sample (mean, range) | PSNR of their mean | SSIM of the mean | s per sample |",
        "|---|---|---|---|---|---|",
    ]
    for row, x in draws.items():
        single = [psnr(image, problem.truth) for image in x]
        mean = x.clip(0, 1).mean(0)
        took = seconds(problem, row, 2 if ROWS[row][1] == "bm3d" else 20)
        lines.append(
            f"| {row} | {len(x)} | {np.mean(single):.2f} ({min(single):.2f} to {max(single):.2f}) | {psnr(mean, problem.truth):.2f} "
            f"| {ssim(mean, problem.truth):.3f} | {took:.1f} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
