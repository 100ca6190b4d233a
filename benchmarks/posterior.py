"""Posterior samplers where the posterior is known, at equal numbers of denoiser calls, as a Markdown table:

    python benchmarks/posterior.py --out runs/posterior.md

The prior is a mixture of 25 Gaussians in 16 dimensions and the measurements are linear, as in the problems by which
posterior samplers are usually compared (Cardoso et al., "Monte Carlo guided diffusion for Bayesian linear inverse
problems", ICLR 2024): means on a 5 x 5 grid repeated along the dimensions, eight standard deviations apart; random
component weights; a random matrix with singular values drawn from (0, 1); random noise levels. Denoiser and posterior
are exact, so that nothing but the sampler errs. The figure is the sliced Wasserstein distance between the chains' last
states and as many exact draws, mean over the problems, in units of a component's standard deviation; its floor is that
between two exact samples. That of dps was tuned in its favour on other problems of this kind; the others are
the defaults. Two idle cores take about four minutes.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from exactness import OneGenerator, sliced_wasserstein
from machine import header
from torch import Tensor

from gpnp_cli.denoisers.exact import GaussianMixture
from gpnp_cli.forward.base import ForwardModel, LinearOperator
from gpnp_cli.samplers.base import anneal
from gpnp_cli.samplers.diffpir import DiffPir
from gpnp_cli.samplers.dps import Dps
from gpnp_cli.samplers.gpnp import Gpnp, tracking_r
from gpnp_cli.samplers.langevin import Langevin
from gpnp_cli.samplers.rng import generator
from gpnp_cli.samplers.schedules import geometric
from gpnp_cli.samplers.split_gibbs import SplitGibbs

D, STEP, STD = 16, 0.2, 0.025  # pixels, distance of neighbouring means along an axis, std of a component
SIGMA_MAX, SIGMA_MIN = 2.0, 0.002
ZETA = 30.0  # of dps: the best of 1, 3, 10, 30, 60, 100 at 100 calls, on three other problems of this kind
STEPS = 2  # of an inner diffusion of split-gibbs: 5 calls


class Matrix(LinearOperator):
    """A dense matrix `(M, D)` on images `(1, 1, D)`."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.x_shape, self.y_shape = matrix, (1, 1, matrix.shape[1]), (1, 1, matrix.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        return y @ self.matrix

    def prox(self, v: Tensor, y: Tensor, gamma: float, sigma_y: float) -> Tensor:
        A = self.matrix
        gram = A @ A.T + (sigma_y / gamma) ** 2 * torch.eye(len(A), dtype=A.dtype)
        return v + torch.linalg.solve(gram, (y - self.forward(v))[..., None])[..., 0] @ A


def problem(seed: int) -> tuple[GaussianMixture, ForwardModel]:
    """A random mixture and data of one draw of it: 1, 2 or 4 measurements in turn."""
    rng = generator(seed, 100)
    grid = torch.cartesian_prod(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0)).double()
    means = 0.5 + STEP * grid.repeat(1, D // 2)
    weights = torch.rand(len(means), generator=rng, dtype=torch.float64)
    prior = GaussianMixture(weights, means, (STD**2 * torch.eye(D, dtype=torch.float64)).expand(len(means), D, D))
    m = (1, 2, 4)[seed % 3]
    u, _, v = torch.linalg.svd(torch.randn(m, D, generator=rng, dtype=torch.float64), full_matrices=False)
    A = u @ torch.diag(torch.rand(m, generator=rng, dtype=torch.float64).clamp_min(0.1)) @ v
    sigma_y = STD * (0.1 + float(torch.rand(1, generator=rng, dtype=torch.float64)))
    y = prior.draw(1, rng) @ A.T + sigma_y * torch.randn(1, m, generator=rng, dtype=torch.float64)
    return prior, ForwardModel(Matrix(A), y.reshape(1, 1, 1, m), sigma_y)


def run(kernel, sigmas: Sequence[float], finish: bool, chains: int, rng: OneGenerator) -> Tensor:
    """Last states `(chains, D)`."""
    x = 0.5 + sigmas[0] * rng.randn_like(torch.empty(chains, 1, 1, D, dtype=torch.float64))
    for last in anneal(kernel, x, sigmas, rng, finish):
        pass
    return last.state.x.flatten(1)


Method = Callable[[GaussianMixture, ForwardModel, int, int, OneGenerator], Tensor]


def gpnp(exact: bool, r: float | str, beta: float = 0.25) -> Method:
    def draw(prior, model, nfe, chains, rng):
        sigmas = geometric(SIGMA_MAX, SIGMA_MIN, nfe - 1)
        weight = tracking_r(sigmas, beta) if r == "auto" else r
        return run(Gpnp(prior, model, beta, weight, exact), sigmas, True, chains, rng)

    return draw


def langevin(beta: float) -> Method:
    def draw(prior, model, nfe, chains, rng):
        return run(Langevin(prior, model, beta), geometric(SIGMA_MAX, SIGMA_MIN, nfe - 1), True, chains, rng)

    return draw


def split_gibbs(prior, model, nfe, chains, rng):
    kernel = SplitGibbs(prior, model, STEPS)
    return run(kernel, geometric(SIGMA_MAX, SIGMA_MIN, (nfe - 1) // kernel.calls), True, chains, rng)


def dps(zeta: float) -> Method:
    def draw(prior, model, nfe, chains, rng):
        return run(Dps(prior, model, zeta), geometric(SIGMA_MAX, SIGMA_MIN, nfe), False, chains, rng)

    return draw


def diffpir(weight: float, zeta: float) -> Method:
    def draw(prior, model, nfe, chains, rng):
        return run(DiffPir(prior, model, weight, zeta), geometric(SIGMA_MAX, SIGMA_MIN, nfe), False, chains, rng)

    return draw


METHODS: dict[str, Method] = {
    "gpnp, exact, r = 1": gpnp(True, 1.0),
    "gpnp, exact, r = 1.3": gpnp(True, 1.3),
    "gpnp, exact, r = auto": gpnp(True, "auto"),
    "gpnp, exact, r = 1, beta = 1": gpnp(True, 1.0, 1.0),
    "gpnp, approximate, r = 1": gpnp(False, 1.0),
    "gpnp, approximate, r = 1.3 (published)": gpnp(False, 1.3),
    f"split-gibbs, {2 * STEPS + 1} calls a step": split_gibbs,
    "annealed Langevin, beta = 0.25": langevin(0.25),
    "annealed Langevin, beta = 1": langevin(1.0),
    f"dps, zeta = {ZETA:g}": dps(ZETA),
    "diffpir, weight = 1, zeta = 1": diffpir(1.0, 1.0),
    "diffpir, weight = 7, zeta = 0.3 (its paper's)": diffpir(7.0, 0.3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=400)
    parser.add_argument("--problems", type=int, default=3)
    parser.add_argument("--nfe", type=int, nargs="+", default=[50, 100, 500])
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file too")
    args = parser.parse_args()
    begun = time.perf_counter()
    problems = [problem(seed) for seed in range(args.problems)]
    posteriors = [prior.posterior(model.A.matrix, model.y.flatten(), model.sigma_y) for prior, model in problems]
    truths = [exact.draw(args.chains, generator(seed, 101)) for seed, exact in enumerate(posteriors)]
    others = [exact.draw(args.chains, generator(seed, 102)) for seed, exact in enumerate(posteriors)]
    floor = statistics.mean(sliced_wasserstein(a, b) / STD for a, b in zip(truths, others, strict=True))
    priors = [prior.draw(args.chains, generator(seed, 103)) for seed, (prior, _) in enumerate(problems)]
    blind = statistics.mean(sliced_wasserstein(a, b) / STD for a, b in zip(truths, priors, strict=True))
    lines = [
        "# Exactness of posterior samplers at equal numbers of denoiser calls",
        "",
        f"{header()}",
        "",
        f"{args.problems} problems, {args.chains} chains each. Floor {floor:.2f}; draws from the prior {blind:.1f}.",
        "",
        f"| method | {' | '.join(f'{n} calls' for n in args.nfe)} |",
        "|---|" + "---|" * len(args.nfe),
    ]
    for name, draw in METHODS.items():
        cells = []
        for nfe in args.nfe:
            found = [
                sliced_wasserstein(draw(*each, nfe, args.chains, OneGenerator(0, seed)), truth) / STD
                for seed, (each, truth) in enumerate(zip(problems, truths, strict=True))
            ]
            cells.append(f"{statistics.mean(found):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join([*lines, "", f"{time.perf_counter() - begun:.0f} s"]) + "\n"
    sys.stdout.write(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
