"""What a prior of whole pictures gives: faces with a hole in the middle, and faces out of nothing.

    python benchmarks/faces.py HELD_OUT --denoiser runs/faces-64/denoiser.safetensors --out runs/faces.md --sheets runs

HELD_OUT are square pictures of the trained kind which no training has seen; they are shrunk to the prior's size. The
hole is the middle square of 3/8 of the side (48 of 128 pixels, 24 of 64). The prior is compared with the shipped
`default` by the same sampler, and with single estimates (`pnp`).

Inside the hole: PSNR of the mean of all K samples and of one sample; difference, the rms of one sample minus another,
over that of two held-out pictures; coverage, how often the truth lies between the lowest and the highest sample, which is
(K - 1) / (K + 1) for draws from the posterior (its rank is then even among K + 1), so 90 % of 19 and 50 % of 3;
calibration, the samples' variance times (1 + 1/K) over the squared error of their mean, 1 for the posterior.

KID (Binkowski et al. 2018, unbiased, cubic kernel) of whole pictures against HELD_OUT, times 1000. Its features are not
Inception's, whose weights are not at hand, but those of the shipped `default` denoiser (sigma 0.05): channel means of
each level over quadrants of the picture, scaled to unit variance over HELD_OUT. So the figures compare rows of this
table, not those of other papers. The row `HELD_OUT, halves` is one half against the other: what no sampler can beat.

With `--training`, the folder that the prior was trained on: the distance from 32 unconditional samples (GPnP) to their
nearest training pictures, and of as many held-out pictures to theirs, in pixels (rms) and in these features. Samples that
repeat training pictures would lie nearer.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from machine import header
from torch import Tensor

from gpnp_cli import build
from gpnp_cli import config as cfg
from gpnp_cli.denoisers.unet import NetworkDenoiser, load_default
from gpnp_cli.figures import Tile, contact_sheet, show_missing
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.imageio import read_picture
from gpnp_cli.inputs import expand_inputs
from gpnp_cli.samplers.base import Kernel, anneal, collect
from gpnp_cli.samplers.diffusion import Edm
from gpnp_cli.samplers.gpnp import Gpnp, tracking_r
from gpnp_cli.samplers.langevin import Langevin
from gpnp_cli.samplers.rng import ChainRng, generator
from gpnp_cli.samplers.schedules import geometric, power

MEMORY = 32  # samples whose nearest training pictures are looked for
PIXELS = 1_000_000  # of all chains that run as one batch


def read(folder: Path, side: int, count: int | None) -> Tensor:
    """The pictures of a folder, `(N, C, side, side)` in [0, 1]."""
    paths = [item.path for item in expand_inputs([str(folder)])]
    pictures = [torch.from_numpy(read_picture(path).pixels)[None] for path in paths[:count]]
    return torch.cat([F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(0, 1) for x in pictures])


class Features:
    """See the module's text: `(N, C, H, W)` to `(N, D)`."""

    def __init__(self, reference: Tensor) -> None:
        self.denoiser = load_default()
        net, self.seen = self.denoiser.model.net, []
        for level in (*net.encoder, net.body):
            level[-1].register_forward_hook(lambda module, given, out: self.seen.append(F.adaptive_avg_pool2d(out, 2)))
        raw = self._raw(reference)
        self.mean, self.std = raw.mean(0), raw.std(0).clamp_min(1e-6)

    def _raw(self, x: Tensor) -> Tensor:
        rows = []
        for part in x.split(max(1, PIXELS // x[0].numel())):
            self.seen.clear()
            with torch.inference_mode():
                self.denoiser(part, 0.05)
            rows.append(torch.cat([seen.flatten(1) for seen in self.seen], 1))
        return torch.cat(rows).double()

    def __call__(self, x: Tensor) -> Tensor:
        return (self._raw(x) - self.mean) / self.std


def kid(a: Tensor, b: Tensor) -> float:
    """1000 times the unbiased squared maximum mean discrepancy of two sets of features, kernel (a.b / D + 1)^3."""

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u @ v.T / u.shape[1] + 1) ** 3

    def within(u: Tensor) -> Tensor:
        k = kernel(u, u)
        return (k.sum() - k.trace()) / (len(u) * (len(u) - 1))

    return 1000 * float(within(a) + within(b) - 2 * kernel(a, b).mean())


def halves(reference: Tensor) -> float:
    """`kid` of one half against the other, at random: folders have an order."""
    a, b = reference[torch.randperm(len(reference), generator=generator(5))].chunk(2)
    return kid(a, b)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def psnr(estimate: Tensor, truth: Tensor) -> float:
    """Mean over the pictures, in dB."""
    return float((-10 * (estimate - truth).square().flatten(1).mean(1).clamp_min(1e-10).log10()).mean())


def batches(total: int, pixels: int) -> Iterator[list[int]]:
    size = max(1, PIXELS // pixels)
    for start in range(0, total, size):
        yield list(range(start, min(start + size, total)))


def final(kernel: Kernel, start: Tensor, sigmas: tuple[float, ...], rng: ChainRng, finish: bool) -> Tensor:
    """The last states, `(N, C, H, W)`."""
    chain = collect(anneal(kernel, start, sigmas, rng, finish), burn_in=len(sigmas) + finish - 1)
    return chain.draws[:, 0].clamp(0, 1)


def fill(truth: Tensor, known: Tensor, denoiser: Callable, sampler: cfg.Sampler) -> Tensor:
    """`sampler.samples` draws of each picture's hole, `(N, K, C, H, W)`."""
    count, sigmas = sampler.samples, build.schedule(sampler)
    draws = []
    for chains in batches(len(truth) * count, truth[0].numel()):
        y = torch.where(known, truth[[chain // count for chain in chains]], 0)
        model, rng = ForwardModel(Mask(known, truth.shape[1]), y, 0.0), ChainRng(0, chains)
        start = build.first_states(sampler, y, known, rng)
        finish = sampler.method == "pnp" or sampler.final == "denoise"
        draws.append(final(build.kernel(sampler, denoiser, model), start, sigmas, rng, finish))
    return torch.cat(draws).reshape(len(truth), count, *truth.shape[1:])


def middle(side: int) -> slice:
    """The rows, and the columns, of the hole."""
    low = side // 2 - 3 * side // 16
    return slice(low, low + 3 * side // 8)


@dataclass(frozen=True)
class Filling:
    """A row of the first table."""

    name: str
    denoiser: str
    options: dict


def inpainting(
    truth: Tensor, denoisers: dict[str, Callable], rows: list[Filling], features: Features
) -> tuple[list[str], dict[str, Tensor]]:
    """The table, and the draws by row."""
    side = truth.shape[-1]
    rows_of_hole = middle(side)
    hole, box = rows_of_hole.stop - rows_of_hole.start, (..., rows_of_hole, rows_of_hole)
    missing = torch.zeros(1, side, side, dtype=torch.bool)
    missing[box] = True
    reference, drawn = features(truth), {}
    typical = rms(truth[box] - truth.roll(1, 0)[box])
    lines = [
        f"Hole of {hole}x{hole} pixels in {len(truth)} pictures of {side}x{side}.",
        "",
        "| | samples | PSNR of the mean | of a sample | difference | coverage | calibration | KID | s for 3 of one |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sampler = cfg.Sampler(**row.options)
        begun = time.perf_counter()
        with torch.inference_mode():
            draws = fill(truth, ~missing, denoisers[row.denoiser], sampler)
        seconds = (time.perf_counter() - begun) / len(truth) / sampler.samples * min(3, sampler.samples)
        drawn[row.name], mean = draws, draws.mean(1)
        cells = [
            str(sampler.samples),
            f"{psnr(mean[box], truth[box]):.2f}",
            f"{psnr(draws[:, 0][box], truth[box]):.2f}",
        ]
        if sampler.samples > 1:
            k = sampler.samples
            different = rms(draws[:, 0][box] - draws[:, 1][box]) / typical
            seen, true = (draws[box] * 255).round(), (truth[box] * 255).round()
            coverage = ((seen.amin(1) <= true) & (true <= seen.amax(1))).double().mean()
            ratio = float(draws[box].var(1).mean() * (1 + 1 / k) / (mean[box] - truth[box]).square().mean())
            cells += [f"{different:.2f}", f"{100 * coverage:.0f} %", f"{ratio:.2f}"]
        else:
            cells += ["-", "-", "-"]
        cells += [f"{kid(features(draws[:, 0]), reference):.2f}", f"{seconds:.2f}"]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines.append(f"| HELD_OUT, halves | | | | 1 | | | {halves(reference):.2f} | |")
    return lines, drawn


def unconditional(
    denoiser: NetworkDenoiser, shape: torch.Size, sigma_max: float, calls: list[int], features: Features, truth: Tensor
) -> tuple[list[str], dict[str, Tensor]]:
    """KID of as many draws as there are held-out pictures, by sampler and denoiser calls; the last draws by sampler."""
    low, reference, drawn = 0.005, features(truth), {}
    lines = [
        f"KID of {len(truth)} unconditional samples from sigma {sigma_max:g} to {low:g}, by denoiser calls.",
        "",
        f"| | {' | '.join(map(str, calls))} |",
        "|---|" + "---|" * len(calls),
    ]
    for name in ("annealed Langevin", "GPnP without data", "EDM, Heun"):
        cells = []
        for nfe in calls:
            kernel: Kernel
            finish = name != "EDM, Heun"
            if finish:
                sigmas = geometric(sigma_max, low, nfe - 1)
                kernel = Langevin(denoiser, None, 0.25)
                if name.startswith("GPnP"):
                    kernel = Gpnp(denoiser, None, 0.25, tracking_r(sigmas, 0.25))
            else:
                kernel, sigmas = Edm(denoiser), power(sigma_max, low, (nfe + 1) // 2)
            draws = []
            for chains in batches(len(truth), truth[0].numel()):
                rng = ChainRng(1, chains)
                start = 0.5 + sigma_max * rng.randn_like(torch.empty(len(chains), *shape))
                with torch.inference_mode():
                    draws.append(final(kernel, start, sigmas, rng, finish))
            drawn[name] = torch.cat(draws)
            cells.append(f"{kid(features(drawn[name]), reference):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines.append(f"| HELD_OUT, halves | {halves(reference):.2f} |" + " |" * (len(calls) - 1))
    return lines, drawn


def memorised(free: Tensor, truth: Tensor, training: Tensor, features: Features) -> list[str]:
    """The table of distances to the nearest training picture."""
    lines = [
        "| nearest training picture | samples: least, median | held-out pictures: least, median |",
        "|---|---|---|",
    ]
    for title, measured, unit in (
        ("rms of pixels", lambda x: x, truth[0].numel() ** -0.5),
        ("features", features, 1.0),
    ):
        known = measured(training).flatten(1).double()
        cells = []
        for x in (free, truth):
            distance = unit * torch.cdist(measured(x).flatten(1).double(), known).amin(1)
            cells.append(f"{distance.min():.3f}, {distance.median():.3f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def sheet(path: Path, title: str, tiles: list[Tile]) -> None:
    from PIL import Image

    Image.fromarray(contact_sheet(tiles, title)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--denoiser", required=True, help="a prior of whole pictures: a name, or a file")
    parser.add_argument("--sigma-max", type=float, nargs="*", default=[1.0, 2.0], help="starts to compare with 0.25")
    parser.add_argument("--samples", type=int, default=19, help="draws of each hole, of the sampler's default setting")
    parser.add_argument("--others", type=int, default=3, help="draws of each hole, of the other settings")
    parser.add_argument("--training", type=Path, help="the pictures it was trained on, for the check of memorisation")
    parser.add_argument("--top", type=float, default=10.0, help="first noise level of unconditional samples")
    parser.add_argument("--calls", type=int, nargs="*", default=[20, 50, 100, 200])
    parser.add_argument("--count", type=int, help="use so many pictures only")
    parser.add_argument("--parts", nargs="+", choices=["holes", "free"], default=["holes", "free"])
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    first = read_picture(expand_inputs([str(args.folder)])[0].path).pixels
    device, dtype = torch.device("cpu"), build.fast_dtype("cpu")
    mine = build.build_prior(cfg.Model(denoiser=args.denoiser), len(first), device, dtype).denoiser
    if mine.image_size is None:
        parser.error("--denoiser must be a prior of whole pictures")
    truth = read(args.folder, mine.image_size, args.count)
    default = build.build_prior(cfg.Model(), len(first), device, dtype).denoiser
    features = Features(truth)
    name, many = Path(args.denoiser).name, {"samples": args.others}
    rows = [Filling(f"{name}, gpnp balanced (sigma from 0.25)", "mine", {"samples": args.samples})]
    rows.append(Filling("default, gpnp balanced", "default", many))
    rows += [Filling(f"{n}, pnp", which, {"method": "pnp"}) for n, which in ((name, "mine"), ("default", "default"))]
    for sigma in args.sigma_max:
        options = {**many, "sigma_max": sigma, "r": "auto"}
        rows.append(Filling(f"{name}, gpnp balanced, sigma from {sigma:g}, r auto", "mine", options))
    rows.append(Filling(f"{name}, gpnp calibrated", "mine", {**many, "preset": "calibrated"}))
    lines, draws, sampled = [header()], {}, {}
    if "holes" in args.parts:
        table, draws = inpainting(truth, {"mine": mine, "default": default}, rows, features)
        lines += ["", *table]
    if "free" in args.parts:
        table, sampled = unconditional(mine, truth.shape[1:], args.top, args.calls, features, truth)
        lines += ["", *table]
        if args.training:
            training = read(args.training, mine.image_size, None)
            free = sampled["GPnP without data"][:MEMORY]
            lines += ["", *memorised(free, truth[:MEMORY], training, features)]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        for number, (row, x) in enumerate(draws.items()):
            tiles = []
            missing = np.zeros(truth.shape[2:], bool)
            missing[middle(len(missing)), middle(len(missing))] = True
            for i in range(min(8, len(truth))):
                tiles += [Tile("truth", truth[i].numpy()), Tile("damaged", show_missing(truth[i].numpy(), missing))]
                tiles += [Tile(f"sample {k + 1}", one.numpy()) for k, one in enumerate(x[i, :3])]
            sheet(args.sheets / f"filled-{number}.png", row, tiles)
        for number, (row, x) in enumerate(sampled.items()):
            tiles = [Tile(f"{k + 1}", one.numpy()) for k, one in enumerate(x[:20])]
            sheet(args.sheets / f"free-{number}.png", row, tiles)


if __name__ == "__main__":
    main()
