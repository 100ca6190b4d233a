"""Which sampler settings are calibrated, and at what cost: the measurements behind the default preset.

    python benchmarks/presets.py FOLDER --denoiser default --out runs/presets.md

For every picture (its central --crop pixels) and mask, K chains per setting. Reported: PSNR of single samples
and of their mean, the calibration ratio (variance of the samples over the squared error of their mean, times
K / (K + 1) because the truth is one more draw; 1 is ideal), and how often the truth lies in the pixelwise range
of the K samples (ideal: (K - 1) / (K + 1)). Only missing pixels count.
"""

import argparse
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
from gpnp_cli.samplers.base import anneal, collect
from gpnp_cli.samplers.rng import ChainRng

SETTINGS = {
    "balanced (default)": {},
    "calibrated": {"preset": "calibrated"},
    "published": {"preset": "published"},
    "balanced, r = 1": {"r": 1.0},
    "balanced, r = auto": {"r": "auto"},
    "balanced, beta = 0.1": {"beta": 0.1},
    "balanced, beta = 0.5": {"beta": 0.5},
    "balanced, 50 iterations": {"iterations": 50},
    "balanced, 200 iterations": {"iterations": 200},
    "balanced, sigma_max = 0.5": {"sigma_max": 0.5},
    "balanced, init = noise": {"init": "noise", "sigma_max": 0.5},
    "balanced, final = state": {"final": "state"},
}


def centre(pixels: np.ndarray, side: int) -> np.ndarray:
    top, left = ((n - side) // 2 for n in pixels.shape[1:])
    return np.ascontiguousarray(pixels[:, top : top + side, left : left + side])


def run(truth: np.ndarray, spec: str, sampler: Sampler, denoiser, chains: int) -> dict[str, float]:
    missing = parse_mask(spec).draw(*truth.shape[1:])
    known = torch.from_numpy(~missing)[None]
    y = torch.where(known, torch.from_numpy(truth)[None], 0)
    rng = ChainRng(0, chains)
    with torch.inference_mode():
        kernel = build.kernel(sampler, denoiser, ForwardModel(Mask(known, len(truth)), y, 0.0))
        start = build.first_states(sampler, y, known, rng)
        steps = anneal(kernel, start, build.schedule(sampler), rng, sampler.final == "denoise")
        chain = collect(steps, burn_in=sampler.iterations + (sampler.final == "denoise") - 1)
    x = chain.draws[:, 0].clamp(0, 1).numpy()[..., missing]  # (K, C, missing)
    hidden = truth[:, missing]
    mean = x.mean(0)
    error = ((mean - hidden) ** 2).mean()
    return {
        "sample": ((x - hidden) ** 2).mean(),
        "mean": error,
        "variance": x.var(0, ddof=1).mean() * (1 + 1 / chains),
        "inside": ((hidden >= x.min(0)) & (hidden <= x.max(0))).mean(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--denoiser", default="default")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--masks", nargs="+", default=["random:0.1", "rect"])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pictures = [centre(read_picture(path).pixels, args.crop) for path in sorted(args.folder.glob("*.png"))]
    denoiser = build.build_prior(
        Model(denoiser=args.denoiser), 3, torch.device("cpu"), build.fast_dtype("cpu")
    ).denoiser
    lines = [header(), ""]
    lines += [f"{len(pictures)} pictures of {args.crop}x{args.crop}, {args.chains} chains; missing pixels only.", ""]
    lines += [
        "| mask | setting | PSNR of a sample | PSNR of the mean | calibration ratio | truth inside the samples' range (ideal) |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for mask in args.masks:
        for name in args.settings:
            sampler = Sampler(**SETTINGS[name])
            rows = [run(truth, mask, sampler, denoiser, args.chains) for truth in pictures]
            decibel = {key: np.mean([-10 * np.log10(row[key]) for row in rows]) for key in ("sample", "mean")}
            ratio = np.mean([row["variance"] for row in rows]) / np.mean([row["mean"] for row in rows])
            inside = np.mean([row["inside"] for row in rows])
            ideal = (args.chains - 1) / (args.chains + 1)
            lines.append(
                f"| {mask} | {name} | {decibel['sample']:.2f} | {decibel['mean']:.2f} | {ratio:.2f} "
                f"| {100 * inside:.1f} % ({100 * ideal:.1f} %) |"
            )
            print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
