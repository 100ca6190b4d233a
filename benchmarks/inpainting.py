"""`gpnp inpaint` as a user runs it: time, overhead, memory, known pixels, and the seam.

    python benchmarks/inpainting.py IMAGE --out runs/inpainting.md

IMAGE is an intact colour picture. Every run is a process of its own, start-up included. Denoiser seconds are the
time inside the network's calls. The seam is the mean absolute step between a known pixel and its missing neighbour,
over that of the truth at the same places: 1 is ideal. Memory is the peak resident set of the process; a large picture
is made by mirroring IMAGE, and takes few iterations, since memory does not grow with their number.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CHILD = """
import sys, time
from gpnp_cli.denoisers import unet
from gpnp_cli.samplers import base
spent, call = 0.0, unet.NetworkDenoiser.__call__
sampling, collect = 0.0, base.collect
def timed_collect(*arguments, **options):
    global sampling
    begun = time.perf_counter()
    chain = collect(*arguments, **options)
    sampling += time.perf_counter() - begun
    return chain
base.collect = timed_collect
def timed(self, v, sigma):
    global spent
    begun = time.perf_counter()
    out = call(self, v, sigma)
    spent += time.perf_counter() - begun
    return out
unet.NetworkDenoiser.__call__ = timed
from gpnp_cli.__main__ import main
begun = time.perf_counter()
try:
    main()
finally:
    print(spent, sampling, file=open({path!r}, "w"))
"""


def run(*arguments: str) -> tuple[float, int]:
    """Wall seconds and peak memory in bytes of one process; fails loudly if the command does."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - begun, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def inpaint(folder: Path, image: Path, *options: str) -> tuple[float, float, float, int]:
    """(wall, inside the denoiser, in the sampling loop, peak bytes) of one `gpnp inpaint`."""
    times = folder / "times"
    script = CHILD.format(path=str(times))
    wall, peak = run("-c", script, "inpaint", str(image), "-o", str(folder / "out"), "-f", "-q", *options)
    inside, sampling = map(float, times.read_text().split())
    return wall, inside, sampling, peak


def seam(result: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> float:
    """Mean step across the mask's edge, relative to the truth's there."""
    steps = {}
    for name, x in (("result", result), ("truth", truth)):
        across = []
        for axis in (0, 1):
            edge = np.diff(missing.astype(int), axis=axis) != 0
            across.append(np.abs(np.diff(x, axis=axis))[edge].ravel())
        steps[name] = np.concatenate(across).mean()
    return float(steps["result"] / steps["truth"])


def load(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.float32) / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--large", type=int, nargs=2, default=[2048, 2048], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--large-iterations", type=int, default=3)
    parser.add_argument("--denoiser", default="default")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    prior = ("--denoiser", args.denoiser)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = Image.open(args.image).convert("RGB")
        left, top = ((side - 256) // 2 for side in picture.size)
        small = folder / "small.png"
        picture.crop((left, top, left + 256, top + 256)).save(small)

        helps = [run("-m", "gpnp_cli", "--help")[0] for _ in range(7)]
        rows.append(("`gpnp --help`, median of 7", f"{statistics.median(helps):.2f} s"))
        wall, inside, sampling, peak = inpaint(folder, small, *prior, "--mask", "rect")
        rows.append(("256x256 colour, 3 samples, defaults: whole process", f"{wall:.1f} s"))
        rows.append(("... inside the denoiser", f"{inside:.1f} s"))
        rows.append(("... of the sampling, outside the denoiser", f"{100 * (1 - inside / sampling):.1f} %"))
        rows.append(
            ("... of the process, outside the denoiser (imports, files, sheet)", f"{100 * (1 - inside / wall):.1f} %")
        )
        rows.append(("... peak memory", f"{peak / 2**30:.2f} GiB"))

        truth, missing = load(small), np.zeros((256, 256), bool)
        missing[96:160, 96:160] = True
        samples = [load(folder / "out" / f"small.inpaint.sample-{k:02}.png") for k in (1, 2, 3)]
        changed = max(np.abs(x - truth)[~missing].max() for x in samples)
        rows.append(("known pixels, noise 0: largest change", f"{255 * changed:.0f}/255"))
        rows.append(
            (
                "seam step over the truth's, mean of 3 samples",
                f"{np.mean([seam(x, truth, missing) for x in samples]):.2f}",
            )
        )
        sigma = 0.05
        inpaint(folder, small, *prior, "--mask", "rect", "--noise", str(sigma), "--simulate")
        damaged = load(folder / "out" / "small.inpaint.damaged.png")
        moved = [load(folder / "out" / f"small.inpaint.sample-{k:02}.png") - damaged for k in (1, 2, 3)]
        rms = np.sqrt(np.mean([(d[~missing] ** 2).mean() for d in moved]))
        rows.append((f"known pixels, noise {sigma}: rms distance to the data over the noise", f"{rms / sigma:.2f}"))

        height, width = args.large
        tile = np.asarray(picture)
        tile = np.concatenate([tile, tile[:, ::-1]], 1)
        tile = np.concatenate([tile, tile[::-1]], 0)
        repeat = (-(-height // tile.shape[0]), -(-width // tile.shape[1]), 1)
        large = folder / "large.png"
        Image.fromarray(np.tile(tile, repeat)[:height, :width]).save(large)
        wall, inside, _, peak = inpaint(
            folder, large, *prior, "--mask", "random:0.5", "-n", "1", "--iterations", str(args.large_iterations)
        )
        rows.append((f"{width}x{height} colour, 1 sample: peak memory", f"{peak / 2**30:.2f} GiB"))
        rows.append(("... per iteration", f"{inside / (args.large_iterations + 1):.1f} s"))
    from machine import header

    lines = [header(), "", f"Picture {args.image.name}.", "", "| measured | value |", "|---|---|"]
    text = "\n".join([*lines, *(f"| {what} | {value} |" for what, value in rows)]) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
