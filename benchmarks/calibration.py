"""How honest the samples' spread is, and what it costs: coverage of the intervals, for any settings.

    python benchmarks/calibration.py FOLDER --task deblur --kernel disk:4 --noise 0.01 --chains 19
    python benchmarks/calibration.py FOLDER --task super-resolve --scale 2 --settings balanced r=1,iterations=200

K chains per picture (its central --crop pixels). Columns: PSNR of one sample and of the mean of all K; calibration
ratio (variance of the samples over the squared error of their mean, corrected for K; 1 is ideal); and how often the
truth lies in the pixelwise 50, 80, 90 and 95 % intervals. A setting is key=value,... of the sampler's keys;
method=pnp gives the single estimate's PSNR to compare with.

Coverage for few samples: quantiles of K samples are no intervals of the level they are called by (the 5 % and 95 %
quantiles of 3 samples are their extremes, which hold one more draw with probability 1/2, not 0.9). But if truth and
samples are draws of one law, whatever it is, the truth's rank among them is uniform: the interval between the j-th
smallest and the j-th largest sample holds it with probability (K + 1 - 2j) / (K + 1). A level between two of those is
that of a coin deciding between both intervals, so its coverage is interpolated without any bias. Levels above
(K - 1) / (K + 1) need a law: Student's t interval mean +- t sqrt(1 + 1/K) s, exact for Gaussian pixels; the table
marks them with t. 19 chains give 90 % without, 39 give 95 %.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import header
from problems import Problem, deblurring, enlarging, inpainting, parse_setting, pictures, restore
from scipy.stats import t as student

from gpnp_cli import build
from gpnp_cli.config import Model
from gpnp_cli.coverage import calibration_ratio, coverage
from gpnp_cli.kernels import parse_kernel

LEVELS = (0.5, 0.8, 0.9, 0.95)
DEFAULTS = ("preset=balanced", "preset=calibrated", "preset=published", "method=pnp")


def problem(args: argparse.Namespace, truth: np.ndarray, seed: int) -> Problem:
    if args.task == "inpaint":
        return inpainting(truth, args.mask, args.noise, seed)
    if args.task == "deblur":
        return deblurring(truth, parse_kernel(args.kernel, 10**6).values, args.noise, seed)
    return enlarging(truth, args.scale, args.noise, seed)


def held(draws: np.ndarray, truth: np.ndarray) -> dict[float, float]:
    """Coverage of the intervals of `LEVELS`; `draws` `(K, ...)`."""
    count, ranks = len(draws), coverage(draws, truth)[::-1]  # from the narrowest
    nominal, found = [0.0, *(c.nominal for c in ranks)], [0.0, *(c.found for c in ranks)]
    shares = {level: float(np.interp(level, nominal, found)) for level in LEVELS if level <= nominal[-1] + 1e-9}
    mean, width = draws.mean(0), np.sqrt(1 + 1 / count) * draws.std(0, ddof=1)
    for level in LEVELS:
        if level not in shares:
            inside = np.abs(truth - mean) <= student.ppf((1 + level) / 2, count - 1) * width
            shares[level] = float(inside.mean())
    return shares


def measure(found: Problem, setting, denoiser, chains: int) -> dict[str, float]:
    draws, nfe = restore(found, setting, denoiser, chains)
    where = slice(None) if found.missing is None else (slice(None), found.missing)
    truth, draws = found.truth[where], np.stack([draw[where] for draw in draws])
    row = {"nfe": nfe, "mean": np.square(draws.mean(0) - truth).mean()}
    if len(draws) > 1:
        row |= {"sample": np.square(draws - truth).mean(), "ratio": calibration_ratio(draws, truth)}
        row |= held(draws, truth)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", choices=["inpaint", "deblur", "super-resolve"], default="inpaint")
    parser.add_argument("--mask", default="random:0.1", help="inpaint")
    parser.add_argument("--kernel", default="disk:4", help="deblur")
    parser.add_argument("--scale", type=int, default=2, help="super-resolve")
    parser.add_argument("--noise", type=float, help="default: 0 for inpaint, else 0.01")
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--pictures", type=int, help="only the first so many")
    parser.add_argument("--settings", nargs="+", default=DEFAULTS)
    parser.add_argument("--denoiser", default="default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.noise is None:
        args.noise = 0.0 if args.task == "inpaint" else 0.01
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device("cpu")
    model = Model(denoiser=args.denoiser)
    denoisers: dict[int, object] = {}
    chosen = list(pictures(args.folder, args.crop).values())[: args.pictures]
    beyond = (args.chains - 1) / (args.chains + 1)
    names = [f"{100 * level:g} %{'' if level <= beyond + 1e-9 else ' (t)'}" for level in LEVELS]
    lines = [header(), ""]
    lines += [f"{args.task}: {len(chosen)} pictures of {args.crop}x{args.crop}, {args.chains} chains.", ""]
    lines += [f"| setting | NFE | PSNR of a sample | of the mean | calibration ratio | {' | '.join(names)} |"]
    lines += ["|---|---|---|---|---|" + "---|" * len(LEVELS)]
    print("\n".join(lines), flush=True)
    for text in args.settings:
        rows = []
        for seed, truth in enumerate(chosen):
            if len(truth) not in denoisers:
                prior = build.build_prior(model, len(truth), device, build.fast_dtype(device))
                denoisers[len(truth)] = prior.denoiser
            setting = parse_setting(text, args.task)
            rows.append(measure(problem(args, truth, seed), setting, denoisers[len(truth)], args.chains))

        def decibel(key: str, rows: list[dict] = rows) -> str:
            return f"{np.mean([-10 * np.log10(row[key]) for row in rows]):.2f}" if key in rows[0] else ""

        shares = [f"{100 * np.mean([row[level] for row in rows]):.1f}" if level in rows[0] else "" for level in LEVELS]
        ratio = f"{np.mean([row['ratio'] for row in rows]):.2f}" if "ratio" in rows[0] else ""
        cells = [text, str(rows[0]["nfe"]), decibel("sample"), decibel("mean"), ratio, *shares]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
