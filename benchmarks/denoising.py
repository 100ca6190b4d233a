"""PSNR of a denoiser on folders of pictures, beside the published figures of others.

    python benchmarks/denoising.py FOLDER... --denoiser default --out runs/denoising.md

Gaussian noise of known sigma is added to the intact picture, not clipped, not rounded; the result is clipped. Each
folder's mean over its pictures. Published means (same protocol) are quoted for the sets that have them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import header

from gpnp_cli import build
from gpnp_cli.config import Model
from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.imageio import read_picture
from gpnp_cli.metrics import psnr
from gpnp_cli.samplers.rng import generator

PUBLISHED = {  # dB at sigma * 255 = 15, 25, 50
    "cbsd68": {"BM3D": (33.52, 30.71, 27.38), "DnCNN": (33.90, 31.24, 27.95), "DRUNet": (34.30, 31.69, 28.51)},
    "set12": {"BM3D": (32.37, 29.97, 26.72), "DnCNN": (32.86, 30.44, 27.18), "DRUNet": (33.25, 30.94, 27.90)},
}
SIGMAS = (15 / 255, 25 / 255, 50 / 255)


ENDS = """Both ends of the range. At sigma 0.002 the output must stay near the input: rms distance moved, and what
is left of the noise, both over sigma. At sigma 2 nothing but the average colour can be known: PSNR of the output, and
of the whole set's mean colour in its place, in dB."""


def ends(name: str, denoiser: Denoiser, pictures: list[np.ndarray], device: torch.device) -> str:
    """A row on how the denoiser behaves at sigma 0.002 and 2."""
    mean = np.mean([truth.mean((1, 2)) for truth in pictures], axis=0)[:, None, None]
    moved, left, far, flat = [], [], [], []
    with torch.inference_mode():
        for i, truth in enumerate(pictures):
            x, noise = torch.from_numpy(truth), torch.randn(truth.shape, generator=generator(0, i))
            y = x + 0.002 * noise
            out = denoiser(y[None].to(device), 0.002)[0].cpu().numpy()
            moved.append(np.square(out - y.numpy()).mean())
            left.append(np.square(out - truth).mean())
            out = denoiser((x + 2 * noise)[None].to(device), 2.0)[0].cpu().numpy()
            far.append(psnr(out, truth))
            flat.append(psnr(np.broadcast_to(mean, truth.shape), truth))
    near = [np.sqrt(np.mean(values)) / 0.002 for values in (moved, left)]
    return f"| {name} | {near[0]:.2f} | {near[1]:.2f} | {np.mean(far):.2f} | {np.mean(flat):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--denoiser", default="default")
    parser.add_argument("--extra", type=float, nargs="*", default=[], help="more sigmas, on the [0, 1] scale")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device, _ = build.choose_device(args.device)
    dtype = build.fast_dtype(device)
    sigmas = [*SIGMAS, *args.extra]
    names = [f"{255 * s:g}" for s in SIGMAS] + [f"{255 * s:.3g} (sigma {s:g})" for s in args.extra]
    lines = [
        header(),
        "",
        f"PSNR in dB at sigma * 255 = {', '.join(names)}; bias is the mean of output minus truth.",
        "",
    ]
    lines += [f"| set | denoiser | {' | '.join(names)} | largest bias |", "|---|---|" + "---|" * (len(names) + 1)]
    lines_of_ends: list[str] = []
    for folder in args.folders:
        for name, row in PUBLISHED.get(folder.name, {}).items():
            lines.append(
                f"| {folder.name} | {name} (published) | {' | '.join(f'{v:.2f}' for v in row)} |"
                + " |" * (len(args.extra) + 1)
            )
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".tif", ".jpg", ".bmp"))
        scores, bias = np.zeros((len(paths), len(sigmas))), np.zeros((len(paths), len(sigmas)))
        for i, path in enumerate(paths):
            truth = read_picture(path).pixels
            if i == 0:
                denoiser = build.build_prior(Model(denoiser=args.denoiser), len(truth), device, dtype).denoiser
            noise = torch.randn(truth.shape, generator=generator(0, i))
            x = torch.from_numpy(truth)
            with torch.inference_mode():
                for j, sigma in enumerate(sigmas):
                    out = denoiser((x + sigma * noise)[None].to(device), sigma)[0].cpu().numpy()
                    scores[i, j], bias[i, j] = psnr(out, truth), (out - truth).mean()
        worst = np.abs(bias.mean(0)).max()
        lines.append(
            f"| {folder.name} ({len(paths)}) | {Path(args.denoiser).name} | {' | '.join(f'{v:.2f}' for v in scores.mean(0))} | {255 * worst:.2f}/255 |"
        )
        print(lines[-1], flush=True)
        lines_of_ends.append(ends(folder.name, denoiser, [read_picture(path).pixels for path in paths], device))
    lines += [
        "",
        ENDS,
        "",
        "| set | 0.002: moved | left | 2: output | mean colour |",
        "|---|---|---|---|---|",
        *lines_of_ends,
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
