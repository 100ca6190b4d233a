"""One sampler, several priors: three samples of a filled rectangle each, all parameters the same.

    python benchmarks/priors.py sample_images/harbour.png --side 160 --denoisers bm3d default --out docs/priors.png

IMAGE is intact; its central square is used, the rectangle is a quarter of each side. beta = 1/4, r = 1.3 and the schedule are those given by
--preset for every prior. Restorations that exist in --cache are taken from there, since BM3D needs minutes each.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from machine import header
from PIL import Image

from gpnp_cli.figures import Tile, contact_sheet
from gpnp_cli.imageio import read_picture


def restore(image: Path, denoiser: str, preset: str, cache: Path, seed: int) -> dict:
    """The manifest of `gpnp inpaint` with this prior; its files are beside it."""
    folder = cache / Path(denoiser).stem.replace(":", "-")
    options = ["--mask", "rect", "--simulate", "--preset", preset, "--denoiser", denoiser, "--seed", str(seed)]
    command = [sys.executable, "-m", "gpnp_cli", "inpaint", str(image), *options, "-o", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (manifest,) = folder.glob("*.gpnp.json")
    return {**json.loads(manifest.read_text()), "folder": folder}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--denoisers", nargs="+", default=["bm3d", "default"])
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/priors"))
    parser.add_argument("--out", type=Path, required=True, help="a PNG; the table goes beside it as .md")
    parser.add_argument("--side", type=int, default=256)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    with Image.open(args.image) as opened:
        left, top = ((length - args.side) // 2 for length in opened.size)
        square = args.cache / args.image.name
        opened.convert("RGB").crop((left, top, left + args.side, top + args.side)).save(square)
    lines = [header(), "", "| prior | PSNR of the three samples in dB | of their mean |", "|---|---|---|"]
    sheets = []
    for denoiser in args.denoisers:
        found = restore(square, denoiser, args.preset, args.cache, args.seed)
        scores, folder = found["metrics"], found["folder"]
        samples = sorted(folder.glob("*.sample-*.png"))
        single = [scores[f"sample-{k:02}"]["psnr"] for k in range(1, len(samples) + 1)]
        lines.append(f"| {denoiser} | {', '.join(f'{v:.2f}' for v in single)} | {scores['mean']['psnr']:.2f} |")
        tiles = [Tile("truth", read_picture(square).pixels)]
        for k, path in enumerate(samples, start=1):
            tiles.append(Tile(f"sample {k}", read_picture(path).pixels, f"{single[k - 1]:.2f} dB"))
        height, width = tiles[0].pixels.shape[1:]
        roi = (height * 3 // 8, width * 3 // 8, height // 4, width // 4)
        sheets.append(contact_sheet(tiles, f"prior: {Path(denoiser).stem}", (), roi))
    Image.fromarray(np.concatenate(sheets)).save(args.out)
    text = "\n".join(lines) + "\n"
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
