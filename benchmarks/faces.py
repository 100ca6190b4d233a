"""What a prior of whole pictures gives: faces with a hole in the middle, and faces out of nothing.

    python benchmarks/faces.py HELD_OUT --denoiser runs/faces-64/denoiser.safetensors --out runs/faces.md --sheets runs

HELD_OUT are square pictures of the trained kind which no training has seen; they are shrunk to the prior's size. The
hole is the middle square of 3/8 of the side (48 of 128 pixels, 24 of 64). Rows of the table, `--rows NAME=SAMPLES ...`:

    own          the prior with the settings that its file carries: what `gpnp inpaint` does
    balanced     the prior with the schedule of the other priors (`--preset balanced`)
    calibrated   the prior with `--preset calibrated`
    pnp          one estimate by half-quadratic splitting, no samples
    default      the shipped `default` prior, as `gpnp inpaint` uses it
    default-pnp  one estimate with that

Every row is written to `--out` as soon as it is measured, and its sheets to `--sheets`.

Inside the hole: PSNR of the mean of all K samples and of one sample; difference, the rms of one sample minus another,
over that of two held-out pictures; coverage, how often the truth lies between the lowest and the highest sample, which is
(K - 1) / (K + 1) for draws from the posterior (its rank is then even among K + 1), so 90 % of 19 and 50 % of 3;
calibration, the samples' variance times (1 + 1/K) over the squared error of their mean, 1 for the posterior.

KID (Binkowski et al. 2018, unbiased, cubic kernel) of whole pictures against HELD_OUT, times 1000. Its features are not
Inception's, whose weights are not at hand, but those of the shipped `default` denoiser (sigma 0.05): channel means of
each level over quadrants of the picture, scaled to unit variance over HELD_OUT. So the figures compare rows of this
table, not those of other papers. The row `HELD_OUT, halves` is one half against the other: what no sampler can beat.

With `--training`, the folder that the prior was trained on: the distance from 32 unconditional samples (GPnP) to their
nearest training pictures, and of as many held-out pictures to theirs, in pixels (rms) and in these features, as they are
and together with their mirror images (see memorisation.py).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from machine import header
from memorisation import Measure, rms_of_pixels, table
from PIL import Image
from torch import Tensor

from gpnp_cli import build
from gpnp_cli import config as cfg
from gpnp_cli.denoisers.unet import NetworkDenoiser, load_default
from gpnp_cli.errors import UsageError
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
SHOWN, FREE_SHOWN = 8, 20  # held-out pictures, and unconditional samples, on a sheet
ROWS = ("own=19", "balanced=19", "calibrated=3", "pnp", "default=3", "default-pnp")


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


class Report:
    """Markdown that is written line by line: on stdout and, if `path` is given, in a file that is complete up to here."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path:
            path.write_text("", encoding="utf-8")

    def __call__(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines)
        print(text, end="", flush=True)
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)


@dataclass(frozen=True)
class Filling:
    """A row of the first table; `short` is its name on the command line."""

    short: str
    name: str
    denoiser: str
    sampler: cfg.Sampler

    @classmethod
    def parse(cls, text: str, prior: str) -> Self:
        """From `NAME=SAMPLES` or `NAME` (one sample); `prior` is what `--denoiser` says. Raises `KeyError`, `ValueError`, `UsageError`."""
        short, _, samples = text.partition("=")
        own = cfg.in_words(cfg.carried(prior)) or "nothing of its own"
        name = Path(prior).name
        title, denoiser, flags = {
            "own": (f"{name} with {own}", prior, {}),
            "balanced": (f"{name}, balanced", prior, {"sampler.preset": "balanced"}),
            "calibrated": (f"{name}, calibrated", prior, {"sampler.preset": "calibrated"}),
            "pnp": (f"{name}, pnp", prior, {"sampler.method": "pnp"}),
            "default": ("default", "default", {}),
            "default-pnp": ("default, pnp", "default", {"sampler.method": "pnp"}),
        }[short]
        given = {"model.denoiser": denoiser, "sampler.samples": int(samples or 1), **flags}
        return cls(short, title, denoiser, cfg.resolve("inpaint", given, env={}).config.sampler)


def measured(row: Filling, draws: Tensor, truth: Tensor, box: tuple) -> list[str]:
    """What the table tells of `draws` `(N, K, C, H, W)` in the hole `box`, before KID and time."""
    k, mean = row.sampler.samples, draws.mean(1)
    cells = [str(k), f"{psnr(mean[box], truth[box]):.2f}", f"{psnr(draws[:, 0][box], truth[box]):.2f}"]
    if k == 1:
        return [*cells, "-", "-", "-"]
    typical = rms(truth[box] - truth.roll(1, 0)[box])
    different = rms(draws[:, 0][box] - draws[:, 1][box]) / typical
    seen, true = (draws[box] * 255).round(), (truth[box] * 255).round()
    coverage = ((seen.amin(1) <= true) & (true <= seen.amax(1))).double().mean()
    ratio = float(draws[box].var(1).mean() * (1 + 1 / k) / (mean[box] - truth[box]).square().mean())
    return [*cells, f"{different:.2f}", f"{100 * coverage:.0f} %", f"{ratio:.2f}"]


def inpainting(
    truth: Tensor,
    denoisers: dict[str, Callable],
    rows: list[Filling],
    features: Features,
    tell: Report,
    show: Callable[[Filling, Tensor, np.ndarray], None],
) -> None:
    """The table, a row at a time; `show` gets each row, its draws `(N, K, C, H, W)` and the hole `(H, W)`."""
    side = truth.shape[-1]
    hole = middle(side)
    box = (..., hole, hole)
    missing = torch.zeros(1, side, side, dtype=torch.bool)
    missing[box] = True
    reference = features(truth)
    tell(
        f"Hole of {hole.stop - hole.start}x{hole.stop - hole.start} pixels in {len(truth)} pictures of {side}x{side}.",
        "",
        "| | samples | PSNR of the mean | of a sample | difference | coverage | calibration | KID | s for 3 of one |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    for row in rows:
        begun, count = time.perf_counter(), row.sampler.samples
        with torch.inference_mode():
            draws = fill(truth, ~missing, denoisers[row.denoiser], row.sampler)
        seconds = (time.perf_counter() - begun) / len(truth) / count * min(3, count)
        cells = measured(row, draws, truth, box)
        cells += [f"{kid(features(draws[:, 0]), reference):.2f}", f"{seconds:.2f}"]
        tell(f"| {row.name} | {' | '.join(cells)} |")
        show(row, draws, missing[0].numpy())
    tell(f"| HELD_OUT, halves | | | | 1 | | | {halves(reference):.2f} | |")


def unconditional(
    denoiser: NetworkDenoiser,
    shape: torch.Size,
    sigma_max: float,
    calls: list[int],
    features: Features,
    truth: Tensor,
    tell: Report,
) -> dict[str, Tensor]:
    """KID of as many draws as there are held-out pictures, by sampler and denoiser calls; the last draws by sampler."""
    low, reference, drawn = 0.005, features(truth), {}
    tell(
        f"KID of {len(truth)} unconditional samples from sigma {sigma_max:g} to {low:g}, by denoiser calls.",
        "",
        f"| | {' | '.join(map(str, calls))} |",
        "|---|" + "---|" * len(calls),
    )
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
        tell(f"| {name} | {' | '.join(cells)} |")
    tell(f"| HELD_OUT, halves | {halves(reference):.2f} |" + " |" * (len(calls) - 1))
    return drawn


def sheets(folder: Path, name: str, title: str, groups: list[list[Tile]], each: int) -> None:
    """Contact sheets NAME-01.png, ... of `each` groups of tiles, of all groups."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(groups), each), start=1):
        tiles = [tile for group in groups[start : start + each] for tile in group]
        Image.fromarray(contact_sheet(tiles, title)).save(folder / f"{name}-{number:02}.png")


def filled(truth: Tensor, draws: Tensor, missing: np.ndarray) -> list[list[Tile]]:
    """For each held-out picture: truth, what is left of it, and up to three samples."""
    groups = []
    for number, (picture, samples) in enumerate(zip(truth.numpy(), draws.numpy(), strict=True), start=1):
        tiles = [Tile(f"{number}: truth", picture), Tile(f"{number}: damaged", show_missing(picture, missing))]
        groups.append(tiles + [Tile(f"{number}: sample {k}", x) for k, x in enumerate(samples[:3], start=1)])
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--denoiser", required=True, help="a prior of whole pictures: a name, or a file")
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="NAME[=SAMPLES]", help="see above")
    parser.add_argument("--training", type=Path, help="the pictures it was trained on, for the check of memorisation")
    parser.add_argument("--top", type=float, default=10.0, help="first noise level of unconditional samples")
    parser.add_argument("--calls", type=int, nargs="*", default=[20, 50, 100, 200])
    parser.add_argument("--count", type=int, help="use so many pictures only")
    parser.add_argument("--parts", nargs="+", choices=["holes", "free"], default=["holes", "free"])
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets: all pictures, on as many as it takes")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    try:
        rows = [Filling.parse(text, args.denoiser) for text in args.rows]
    except (KeyError, ValueError, UsageError) as error:
        parser.error(f"--rows: {error}")
    first = read_picture(expand_inputs([str(args.folder)])[0].path).pixels
    device, dtype = torch.device("cpu"), build.fast_dtype("cpu")
    names = dict.fromkeys([args.denoiser, *(row.denoiser for row in rows)])
    denoisers = {
        name: build.build_prior(cfg.Model(denoiser=name), len(first), device, dtype).denoiser for name in names
    }
    mine = denoisers[args.denoiser]
    if mine.image_size is None:
        parser.error("--denoiser must be a prior of whole pictures")
    truth = read(args.folder, mine.image_size, args.count)
    features, tell = Features(truth), Report(args.out)

    def show(row: Filling, draws: Tensor, missing: np.ndarray) -> None:
        if args.sheets:
            sheets(args.sheets, f"filled-{row.short}", row.name, filled(truth, draws, missing), SHOWN)

    tell(header())
    if "holes" in args.parts:
        tell("")
        inpainting(truth, denoisers, rows, features, tell, show)
    if "free" in args.parts:
        tell("")
        sampled = unconditional(mine, truth.shape[1:], args.top, args.calls, features, truth, tell)
        if args.sheets:
            for number, (name, x) in enumerate(sampled.items()):
                tiles = [[Tile(f"{k}", one)] for k, one in enumerate(x.numpy(), start=1)]
                sheets(args.sheets, f"free-{number}", name, tiles, FREE_SHOWN)
        if args.training:
            training = read(args.training, mine.image_size, None)
            free, measures = (
                sampled["GPnP without data"][:MEMORY],
                [rms_of_pixels(truth), Measure("features", features)],
            )
            tell("", *table(free, truth[:MEMORY], training, measures, mirrored=True))


if __name__ == "__main__":
    main()
