"""Known blur: gpnp beside DPIR, DiffPIR and DPS with the same denoiser, real borders, time. Rerunnable and resumable.

    python benchmarks/deblurring.py --colour set3c --grey set12 --kernels kernels_12.npz levin09.npz \\
        --photographs kodak24 --cache runs/deblurring.jsonl --out runs/deblurring.md

Every finished case is a line of the cache: a run that was killed, or is asked for more, computes only what is missing
(delete the cache after a change of code). The tables hold what the cache has, and say of how many cases.

circular    every picture x kernel x noise 2.55/255 and 7.65/255; opposite edges touch. `pnp`: one estimate. `gpnp`:
            mean of 3, mean of 8 and single samples, of 8 chains. `gpnp-pair`: the mean of two antithetic ones.
            dpir, diffpir, dps: deepinv's, with the same denoiser; needs `pip install deepinv`, in an environment of its own. Its diffusion schedules begin far above the
            denoiser's largest noise level: there the picture is shrunk to that level (its own is all but lost).
gaussian    Gaussian kernels of std 1.6 and 2.0, 25x25, noise 2.55/255, circular, beside DPIR's published figures.
borders     valid convolution of photographs: PSNR over the whole frame, over its interior, and over the whole frame
            when the camera saw --margin pixels more on each side: the last two differ by what the border costs.
time        256x256 colour, 3 samples of 100 iterations, real border: seconds, and the forward model's share.

--subset N takes N of a part's cases, evenly spread, for each method.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from machine import header
from problems import Problem, centre, deblurring, kernels, pictures, restore
from torch import Tensor

from gpnp_cli import build
from gpnp_cli.config import CIRCULAR, DeblurSampler, Model
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.kernels import disk
from gpnp_cli.metrics import psnr

LEVELS = (2.55 / 255, 7.65 / 255)
PUBLISHED = {"set3c": (29.53, 27.52), "cbsd68": (28.86, 27.52)}  # Zhang et al. 2022, table 4: DPIR, std 1.6 and 2.0
METHODS = ("pnp", "gpnp", "gpnp-pair", "dpir", "diffpir", "dps")
OTHERS = ("dpir", "diffpir", "dps")
CHAINS = 8


class Cache:
    """Finished cases, one JSON object a line; `key` is what identifies them."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.rows = path, {}
        if path and path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row.pop("key")] = row

    def get(self, key: str, compute: Callable[[], dict]) -> dict:
        if key not in self.rows:
            begun = time.perf_counter()
            self.rows[key] = compute() | {"seconds": round(time.perf_counter() - begun, 2)}
            if self.path:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a") as file:
                    file.write(json.dumps({"key": key, **self.rows[key]}) + "\n")
            print(key, self.rows[key], flush=True)
        return self.rows[key]


@functools.cache
def denoiser_for(name: str, channels: int):
    device = torch.device("cpu")
    return build.build_prior(Model(denoiser=name), channels, device, build.fast_dtype(device)).denoiser


@functools.cache
def perceptual():
    """LPIPS (Zhang et al. 2018) with AlexNet, or None, loudly, where package or weights cannot be had."""
    try:
        import lpips

        return lpips.LPIPS(net="alex", verbose=False)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"NO LPIPS: {type(error).__name__}: {error}\nNO LPIPS: its columns stay empty", flush=True)
        return None


def lpips_of(x: np.ndarray, truth: np.ndarray) -> float | None:
    if perceptual() is None:
        return None
    a, b = (torch.from_numpy(image)[None].expand(-1, 3, -1, -1) * 2 - 1 for image in (x, truth))
    with torch.inference_mode():
        return float(perceptual()(a, b))


def ours(problem: Problem, method: str, denoiser, chains: int = CHAINS) -> dict:
    short = {"iterations": CIRCULAR} if method == "pnp" else {}  # as `gpnp deblur --border circular`
    if method == "gpnp-pair":
        draws, nfe = restore(problem, DeblurSampler(samples=2, antithetic=True), denoiser, 2)
        return {"psnr": psnr(draws.mean(0), problem.truth), "lpips": None, "nfe": 2 * nfe}
    draws, nfe = restore(problem, DeblurSampler(method=method, **short), denoiser, chains)
    if method == "pnp":
        return {"psnr": psnr(draws[0], problem.truth), "lpips": lpips_of(draws[0], problem.truth), "nfe": nfe}
    row = {f"psnr of mean of {k}": psnr(draws[:k].mean(0), problem.truth) for k in (3, chains) if k <= chains}
    samples = [psnr(draw, problem.truth) for draw in draws]
    return row | {"psnr": float(np.mean(samples)), "lpips": lpips_of(draws[0], problem.truth), "nfe": nfe}


def theirs(problem: Problem, method: str, denoiser, kernel: np.ndarray, calls: int) -> dict:
    """deepinv's DPIR, DiffPIR or DPS, `calls` denoiser calls for the last two, one sample."""
    import deepinv

    counted = [0]

    class Same(deepinv.models.Denoiser):
        """Our denoiser with deepinv's interface."""

        def forward(self, v: Tensor, sigma: float | Tensor, **_) -> Tensor:
            counted[0] += 1
            sigma, top = float(torch.as_tensor(sigma).flatten()[0]), denoiser.sigma_range[1]
            if sigma > top:
                v, sigma = 0.5 + (v - 0.5) * (top / sigma), top
            return denoiser(v.float(), sigma)

    A, y, sigma_y = problem.model.A, problem.model.y, problem.model.sigma_y
    physics = deepinv.physics.BlurFFT(
        img_size=A.x_shape,
        filter=torch.from_numpy(kernel)[None, None].float(),
        noise_model=deepinv.physics.GaussianNoise(sigma_y),
    )
    truth = torch.from_numpy(problem.truth)[None]
    if not torch.allclose(physics.A(truth), A.forward(truth), atol=1e-4):
        raise SystemExit("deepinv's convolution is not ours: the comparison would mean nothing")
    torch.manual_seed(0)
    fidelity = deepinv.optim.data_fidelity.L2()
    match method:
        case "dpir":
            with torch.no_grad():
                x = deepinv.optim.DPIR(sigma=sigma_y, denoiser=Same())(y, physics)
        case "diffpir":
            x = deepinv.sampling.DiffPIR(Same(), fidelity, sigma=sigma_y, max_iter=calls)(y, physics)
        case "dps":
            # guidance "norm", the default, is meant for 1000 steps and a weight of its own per problem: 17 dB with 100
            rng = torch.Generator().manual_seed(0)
            x = deepinv.sampling.DPS(Same(), num_steps=calls, guidance="annealed", rng=rng)(y, physics)
    x = x[0].detach().float().clamp(0, 1).numpy()
    return {"psnr": psnr(x, problem.truth), "lpips": lpips_of(x, problem.truth), "nfe": counted[0]}


def solve(args: argparse.Namespace, problem: Problem, method: str, kernel: np.ndarray) -> dict:
    denoiser = denoiser_for(args.denoiser, len(problem.truth))
    if method in OTHERS:
        return theirs(problem, method, denoiser, kernel, args.calls)
    return ours(problem, method, denoiser)


def some(cases: list, subset: int | None) -> list:
    """`subset` of the cases, evenly spread from the first to the last."""
    if subset is None or subset >= len(cases):
        return cases
    return [cases[round(i)] for i in np.linspace(0, len(cases) - 1, subset)]


def mean(rows: list[dict], key: str) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    return f"{np.mean(values):.{3 if key == 'lpips' else 2}f}" if values else ""


HEAD = "| PSNR: estimate or sample | mean of 3 | mean of 8 | LPIPS of one | calls | cases |"


def cells(rows: list[dict]) -> str:
    keys = ("psnr", "psnr of mean of 3", f"psnr of mean of {CHAINS}", "lpips")
    return " | ".join([*(mean(rows, key) for key in keys), str(rows[0]["nfe"]) if rows else "", str(len(rows))])


def circular(args: argparse.Namespace, cache: Cache) -> Iterator[str]:
    """Every method on the same cases; a method's mean is only comparable over the cases that all have."""
    yield f"| set | noise * 255 | method {HEAD}"
    yield "|---|---|---|" + "---|" * 6
    found = kernels(args.kernels)
    for folder in filter(None, (args.colour, args.grey)):
        for sigma_y in args.noise:
            cases = [(name, x, label, h) for name, x in pictures(folder).items() for label, h in found.items()]
            for method in args.methods:
                rows = []
                for name, x, label, h in some(cases, args.subset):
                    seed = sorted(found).index(label)
                    problem = functools.partial(deblurring, x, h, sigma_y, seed, "circular")
                    key = f"circular {args.denoiser} {folder.name}/{name} {label} {255 * sigma_y:g} {method}"
                    rows.append(cache.get(key, lambda p=problem, h=h, m=method: solve(args, p(), m, h)))
                yield f"| {folder.name} | {255 * sigma_y:g} | {method} | {cells(rows)} |"


def gaussian(args: argparse.Namespace, cache: Cache) -> Iterator[str]:
    yield f"| set | std | method {HEAD}"
    yield "|---|---|---|" + "---|" * 6
    for folder in filter(None, (args.colour, args.more)):
        for i, std in enumerate((1.6, 2.0)):
            p = np.arange(-12, 13)
            profile = np.exp(-0.5 * (p / std) ** 2)
            h = np.outer(profile, profile) / profile.sum() ** 2
            if folder.name in PUBLISHED:
                yield f"| {folder.name} | {std} | DPIR (published) | {PUBLISHED[folder.name][i]:.2f} |  |  |  | 8 |  |"
            for method in args.methods:
                rows = []
                for name, x in some(list(pictures(folder).items()), args.subset):
                    problem = functools.partial(deblurring, x, h, LEVELS[0], 0, "circular")
                    key = f"gaussian {args.denoiser} {folder.name}/{name} {std} {method}"
                    rows.append(cache.get(key, lambda p=problem, h=h, m=method: solve(args, p(), m, h)))
                yield f"| {folder.name} | {std} | {method} | {cells(rows)} |"


def borders(args: argparse.Namespace, cache: Cache) -> Iterator[str]:
    if not args.photographs:
        yield "(no --photographs)"
        return
    yield "| kernel | method | whole frame | interior | whole frame, seen with more around it | border's cost | cases |"
    yield "|---|---|---|---|---|---|---|"
    chosen = kernels(args.kernels)
    chosen = {label: chosen[label] for label in some(sorted(chosen), 2)} | {"disk:4": disk(4)}
    for label, h in chosen.items():
        for method in (method for method in args.methods if method not in OTHERS):
            rows = []
            for name, x in some(list(pictures(args.photographs).items()), args.subset):
                key = (
                    f"borders {args.denoiser} {args.photographs.name}/{name} {label} {method} {args.side}+{args.margin}"
                )
                rows.append(cache.get(key, lambda x=x, h=h, m=method: border_case(args, x, h, m)))
            values = [mean(rows, key) for key in ("whole", "interior", "wider")]
            cost = f"{float(values[2]) - float(values[0]):.2f}"
            yield f"| {label} | {method} | {' | '.join(values)} | {cost} | {len(rows)} |"


def border_case(args: argparse.Namespace, x: np.ndarray, h: np.ndarray, method: str) -> dict:
    """A frame of --side pixels, and the same frame restored from --margin more on each side."""
    denoiser, m = denoiser_for(args.denoiser, len(x)), args.margin
    results = []
    for side in (args.side, args.side + 2 * m):
        kh, kw = h.shape
        cut = centre(x, side + max(kh, kw) - 1)[:, : side + kh - 1, : side + kw - 1]
        problem = deblurring(cut, h, LEVELS[0], 0)
        draws, _ = restore(problem, DeblurSampler(method=method), denoiser, 3)
        results.append((draws.mean(0), problem.truth))
    (own, truth), (wide, _) = results
    inside = (slice(None), slice(m, -m), slice(m, -m))
    wide = wide[inside]
    return {"whole": psnr(own, truth), "interior": psnr(own[inside], truth[inside]), "wider": psnr(wide, truth)}


def timing(args: argparse.Namespace, cache: Cache) -> Iterator[str]:
    """Not cached: a time belongs to the machine of today."""
    folder = args.photographs or args.colour
    if not folder:
        yield "(no --photographs)"
        return
    spent = {"denoiser": 0.0, "forward model": 0.0}

    def timed(name: str, call: Callable) -> Callable:
        def run(*arguments, **options):
            begun = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                spent[name] += time.perf_counter() - begun

        return run

    yield "| 3 samples of 100 iterations, 256x256 colour, real border | seconds | denoiser | forward model / denoiser |"
    yield "|---|---|---|---|"
    x = next(iter(pictures(folder).values()))
    inner, generate, prox = denoiser_for(args.denoiser, len(x)), ForwardModel.generate, ForwardModel.prox
    found = kernels(args.kernels)
    largest = max(found, key=lambda label: found[label].size) if found else None
    for label, h in {"disk:4": disk(4), **({largest: found[largest]} if largest else {})}.items():
        for sigma_y in args.noise:
            spent.update(dict.fromkeys(spent, 0.0))
            kh, kw = h.shape
            problem = deblurring(x[:, : 255 + kh, : 255 + kw], h, sigma_y, 0)
            denoiser = timed("denoiser", inner)
            ForwardModel.generate, ForwardModel.prox = timed("forward model", generate), timed("forward model", prox)
            begun = time.perf_counter()
            try:
                restore(problem, DeblurSampler(), denoiser, 3)
            finally:
                ForwardModel.generate, ForwardModel.prox = generate, prox
            wall, share = time.perf_counter() - begun, spent["forward model"] / spent["denoiser"]
            yield (
                f"| kernel {label}, noise {255 * sigma_y:g}/255, {torch.get_num_threads()} threads | {wall:.1f} "
                f"| {spent['denoiser']:.1f} s | {100 * share:.1f} % |"
            )


PARTS = {"circular": circular, "gaussian": gaussian, "borders": borders, "time": timing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--colour", type=Path, help="folder of colour pictures (Set3C)")
    parser.add_argument("--grey", type=Path, help="folder of grey pictures (Set12)")
    parser.add_argument("--more", type=Path, help="another folder for the Gaussian kernels (CBSD68)")
    parser.add_argument("--photographs", type=Path, help="folder of photographs for borders and time")
    parser.add_argument("--kernels", type=Path, nargs="*", default=[], help="NPZ files")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--noise", type=float, nargs="+", default=LEVELS)
    parser.add_argument("--subset", type=int, help="of the cases, for each method; default: all")
    parser.add_argument("--calls", type=int, default=100, help="denoiser calls of diffpir and dps")
    parser.add_argument("--side", type=int, default=224, help="of the frame in borders")
    parser.add_argument("--margin", type=int, default=32, help="in borders")
    parser.add_argument("--denoiser", default="default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    cache, lines = Cache(args.cache), [header(), ""]
    for part in args.parts:
        lines += [f"**{part}**", "", *PARTS[part](args, cache), ""]
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
