"""Langevin dynamics where the answer is known: mode weights, moments and distance against denoiser calls, as tables:

    python benchmarks/langevin.py --out runs/langevin.md

Priors with exact scores: one Gaussian, and two Gaussians 17 standard deviations apart with weights 0.3 and 0.7, on 16
pixels. Chains start at mid-grey plus noise of the first sigma, and end with a denoising step. Distance: sliced
Wasserstein to as many exact draws, in units of a component's standard deviation, beside its floor. `fixed` is Langevin at
the one sigma given; the others anneal from 2 to 0.002. A minute on two idle cores.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from exactness import OneGenerator, sliced_wasserstein
from machine import header
from torch import Tensor

from gpnp_cli.denoisers.exact import GaussianMixture
from gpnp_cli.samplers.base import anneal
from gpnp_cli.samplers.diffusion import Edm
from gpnp_cli.samplers.gpnp import Gpnp, tracking_r
from gpnp_cli.samplers.langevin import Langevin
from gpnp_cli.samplers.rng import generator
from gpnp_cli.samplers.schedules import geometric, power

D, STD, HIGH, LOW = 16, 0.05, 2.0, 0.002


def priors() -> dict[str, GaussianMixture]:
    spread = STD**2 * torch.eye(D, dtype=torch.float64)
    apart = 0.85 / math.sqrt(D)  # per pixel: 17 standard deviations along the diagonal
    ends = torch.tensor([[0.5 - 0.7 * apart], [0.5 + 0.3 * apart]], dtype=torch.float64).expand(2, D)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    one = GaussianMixture(
        torch.ones(1, dtype=torch.float64), torch.full((1, D), 0.6, dtype=torch.float64), spread[None]
    )
    return {"one Gaussian": one, "two modes, 0.3 and 0.7": GaussianMixture(weights, ends, spread.expand(2, D, D))}


def run(kernel, sigmas, chains: int, seed: int, finish: bool) -> Tensor:
    rng = OneGenerator(seed, 1)
    x = 0.5 + sigmas[0] * rng.randn_like(torch.empty(chains, 1, 1, D, dtype=torch.float64))
    for last in anneal(kernel, x, sigmas, rng, finish):
        pass
    return last.state.x.flatten(1)


def samplers(prior: GaussianMixture, nfe: int) -> dict[str, tuple]:
    """Kernel, levels and whether a finishing step follows, each of `nfe` denoiser calls."""
    annealed = geometric(HIGH, LOW, nfe - 1)
    half = max(2, (nfe + 1) // 2)
    return {
        f"Langevin, fixed sigma {STD:g}, beta 0.25": (Langevin(prior, None, 0.25), (STD,) * (nfe - 1), True),
        "annealed Langevin, beta 0.1": (Langevin(prior, None, 0.1), annealed, True),
        "annealed Langevin, beta 0.25": (Langevin(prior, None, 0.25), annealed, True),
        "annealed Langevin, beta 1 (denoise, add sqrt(2) sigma noise)": (Langevin(prior, None, 1.0), annealed, True),
        "gpnp without data, beta 0.25, r auto": (Gpnp(prior, None, 0.25, tracking_r(annealed, 0.25)), annealed, True),
        "diffusion (EDM, ODE, Heun)": (Edm(prior), power(HIGH, LOW, half), False),
        "diffusion (EDM, churn 0.1, Heun)": (Edm(prior, 0.1), power(HIGH, LOW, half), False),
    }


def table(name: str, prior: GaussianMixture, counts: list[int], chains: int) -> list[str]:
    truth, other = (prior.draw(chains, generator(seed, 9)) for seed in (0, 1))
    floor = sliced_wasserstein(truth, other) / STD
    lines = [f"## {name}", "", f"{chains} chains, floor {floor:.3f}.", ""]
    two = len(prior.weights) > 1
    what = ", weight of the second mode" if two else ""
    lines += [
        f"Distance{what} and the std within it, relative to the truth's.",
        "",
        f"| sampler | {' | '.join(f'{n} calls' for n in counts)} |",
        "|---|" + "---|" * len(counts),
    ]
    rows: dict[str, list[str]] = {}
    for n in counts:
        for sampler, (kernel, sigmas, finish) in samplers(prior, n).items():
            x = run(kernel, sigmas, chains, 2, finish)
            high = x.mean(1) > prior.means.mean() if two else torch.ones(len(x), dtype=torch.bool)
            spread = f"{float((x[high] - prior.means[-1]).std()) / STD:.2f}" if int(high.sum()) > 1 else "-"
            weight = f", {float(high.double().mean()):.2f}" if two else ""
            rows.setdefault(sampler, []).append(f"{sliced_wasserstein(x, truth) / STD:.2f}{weight}, {spread}")
    return lines + [f"| {sampler} | {' | '.join(cells)} |" for sampler, cells in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=1000)
    parser.add_argument("--nfe", type=int, nargs="+", default=[20, 50, 100, 200, 500])
    parser.add_argument("--out", type=Path, help="write the tables to this Markdown file too")
    args = parser.parse_args()
    parts = [["# Langevin dynamics on known priors", "", header()]]
    parts += [table(name, prior, args.nfe, args.chains) for name, prior in priors().items()]
    text = "\n\n".join("\n".join(lines) for lines in parts) + "\n"
    sys.stdout.write(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
