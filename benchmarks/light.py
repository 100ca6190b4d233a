"""What it costs to take pixel values for light, and clipped pixels for what they say, where a camera has blurred.

    python benchmarks/light.py PHOTOS --count 8 --out runs/light.md

Grey crops of photographs, shaken in light (sRGB's curve undone), with and without more exposure than fits (times 2 in
light, clipped at white), 8 bits, noise of std 0.004. The half-quadratic splitting's estimate with the true kernel at the
noise level that the data show, PSNR: on pixels as they are, on light, and on light without believing clipped pixels.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from levin import shake
from machine import header
from torch import Tensor

from gpnp_cli.cli.deblurring import NOISE_FLOOR
from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.denoisers.unet import load_default
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.blur import Blur
from gpnp_cli.forward.informative import believable
from gpnp_cli.imageio import read_picture
from gpnp_cli.metrics import psnr
from gpnp_cli.noise import estimate_sigma
from gpnp_cli.samplers.base import anneal
from gpnp_cli.samplers.pnp import Pnp, Silence
from gpnp_cli.samplers.schedules import geometric
from gpnp_cli.tone import from_light, to_light
from gpnp_cli.training.data import luma

SIDE, EXTENT, NOISE, GAIN = 180, 17, 0.004, 2.0


def crops(
    photos: Path, count: int, side: int, shorter: float, convert: Callable[[Tensor], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The middle `side` pixels of `count` photographs whose `shorter` side is that long, converted `(1, C, side, side)`."""
    paths = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for path in paths[:: max(1, len(paths) // count)][:count]:
        x = convert(torch.from_numpy(read_picture(path).pixels)[None])
        size = tuple(round(shorter * n / min(x.shape[2:])) for n in x.shape[2:])
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        top, left = ((n - side) // 2 for n in x.shape[2:])
        yield path.stem, x[..., top : top + side, left : left + side]


def noise_level(y: Tensor) -> float:
    """That the finest detail shows, at least the floor."""
    return max(NOISE_FLOOR, float(estimate_sigma(y)))


def estimate(denoiser: Denoiser, A: Blur, y: Tensor, sigma_y: float) -> Tensor:
    """Of the picture inside the frame."""
    sigmas = geometric(0.19, max(0.004, sigma_y), 30)
    *_, last = anneal(Pnp(denoiser, ForwardModel(A, A.believed(y), sigma_y)), A.extend(y), sigmas, Silence(), False)
    return A.crop(last.state.x)


@torch.inference_mode()
def measure(denoiser: Denoiser, x: Tensor, seed: int, gain: float) -> list[float]:
    """PSNR of the blurred picture and of the three estimates, and the share of clipped pixels."""
    rng = np.random.Generator(np.random.PCG64(seed))
    kernel = torch.from_numpy(shake(rng, EXTENT))
    shape = (1, *(side - kernel.shape[0] + 1 for side in x.shape[2:]))
    A = Blur(kernel, shape)
    blurred = from_light(A.forward(gain * to_light(x)))
    noise = torch.from_numpy(rng.normal(0, NOISE, blurred.shape)).float()
    y = (255 * (blurred + noise).clamp(0, 1)).round() / 255
    truth = from_light(gain * to_light(A.crop(x))).clamp(0, 1)
    light = to_light(y)
    masked = Blur(kernel, shape, known=believable(light, tuple(kernel.shape)))
    found = (
        y,
        estimate(denoiser, A, y, noise_level(y)),
        from_light(estimate(denoiser, A, light, noise_level(light))),
        from_light(estimate(denoiser, masked, light, noise_level(light))),
    )
    return [psnr(each[0].clamp(0, 1).numpy(), truth[0].numpy()) for each in found] + [
        100 * float((y >= 1).float().mean())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    denoiser = load_default(1, None, "cpu", torch.bfloat16)
    titles = "| crop | white, % | blurred | pixels | light | light, white not believed |"

    def cases(gain: float) -> Iterator[tuple[str, list[float]]]:
        for seed, (stem, x) in enumerate(crops(args.photos, args.count, SIDE, SIDE, luma)):
            yield stem, measure(denoiser, x, seed, gain)

    tabulate(titles, [("as exposed", cases(1.0)), ("overexposed", cases(GAIN))], line, args.out)


def tabulate(
    titles: str,
    groups: Iterable[tuple[str, Iterable[tuple[str, list[float]]]]],
    line: Callable[[str, list[float]], str],
    out: Path | None,
) -> None:
    """Print each group's rows as they are measured, and their mean; in the end all of it into the file `out`."""
    lines = [header(), "", titles, "|" + "---|" * (titles.count("|") - 1)]
    print("\n".join(lines), flush=True)
    for group, cases in groups:
        rows = []
        for name, row in cases:
            rows.append(row)
            lines.append(line(f"{name}, {group}", row))
            print(lines[-1], flush=True)
        lines.append(line(f"mean, {group}", [statistics.mean(column) for column in zip(*rows, strict=True)]))
        print(lines[-1], flush=True)
    if out:
        out.write_text("\n".join(lines) + "\n")


def line(name: str, row: list[float]) -> str:
    *scores, white = row
    return f"| {name} | {white:.1f} | {' | '.join(f'{score:.2f}' for score in scores)} |"


if __name__ == "__main__":
    main()
