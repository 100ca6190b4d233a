"""How exact the sampler is where the answer is known, as Markdown tables: python benchmarks/exactness.py --out FILE

No network and no pictures are needed; two idle cores take under three minutes.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from machine import header
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from gpnp_cli.denoisers.exact import GaussianMixture, GaussianPixels
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import State, anneal, iterate
from gpnp_cli.samplers.gpnp import Gpnp
from gpnp_cli.samplers.rng import UnitVectors, generator
from gpnp_cli.samplers.schedules import geometric

SIGMA_MAX, SIGMA_MIN = 0.5, 0.005
GRID = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
SMOOTH = torch.exp(-torch.cdist(GRID, GRID) / 1.5)  # correlation of neighbouring pixels


class OneGenerator:
    """Noise for thousands of tiny chains at once, where a generator for each would cost more than the chains."""

    def __init__(self, *seed: int) -> None:
        self.generator = generator(*seed)

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


class Silence:
    randn_like = staticmethod(torch.zeros_like)


def masked(shape: tuple[int, int, int], known: list[int], y: Tensor, sigma_y: float) -> ForwardModel:
    mask = torch.zeros(math.prod(shape), dtype=torch.bool).index_fill(0, torch.tensor(known), True)
    return ForwardModel(Mask(mask.reshape(shape)), (y * mask).reshape(1, *shape), sigma_y)


def posterior(prior: GaussianMixture, model: ForwardModel) -> GaussianMixture:
    known = model.A.known.flatten()
    return prior.posterior(torch.eye(len(known), dtype=torch.float64)[known], model.y.flatten()[known], model.sigma_y)


# --- the annealed chain on one unobserved pixel N(1/2, s^2) ---


def scalar_bias(chains: int, seed: int) -> list[str]:
    """The std an unobserved pixel ends with: by the recursion, and by a run."""
    s, pixels = 0.1, 25 * chains
    lines = [
        f"## Scalar Gaussian prior: what the schedule freezes in (s = {s}, sigma {SIGMA_MAX} to {SIGMA_MIN})",
        "",
        "The std of an unobserved pixel after annealing, relative to the truth.",
        f"The chain has {pixels} pixels: Monte-Carlo error {100 / math.sqrt(2 * pixels):.1f} %.",
        "",
        "| beta | r | N | closed form | chain | chain, finishing step |",
        "|---|---|---|---|---|---|",
    ]
    rows = [(0.25, 1.0, n) for n in (50, 100, 200, 400, 1000)] + [(0.5, 1.0, 100), (0.25, 1.3, 100), (0.25, 1.3, 1000)]
    for beta, r, n in rows:
        sigmas = geometric(SIGMA_MAX, SIGMA_MIN, n)
        v = SIGMA_MAX**2
        for sigma in sigmas:
            v = (1 - r * beta * sigma**2 / (s**2 + sigma**2)) ** 2 * v + 2 * beta * sigma**2
        rng = OneGenerator(seed, n)
        x = 0.5 + SIGMA_MAX * rng.randn_like(torch.empty(1, 1, 1, pixels))
        *_, last, finished = anneal(Gpnp(GaussianPixels(0.5, s), None, beta, r), x, sigmas, rng, finish=True)
        biases = [100 * (std / s - 1) for std in (math.sqrt(v), *(float(e.state.x.std()) for e in (last, finished)))]
        lines.append(f"| {beta} | {r} | {n} | " + " | ".join(f"{b:+.1f} %" for b in biases) + " |")
    return lines


# --- the chain at fixed sigma on a Gaussian prior ---


def affine(kernel: Gpnp, sigma: float, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """One step as x -> M x + b + L w, w white."""
    size = math.prod(shape)
    points = torch.cat([torch.eye(size, dtype=torch.float64), torch.zeros(1, size, dtype=torch.float64)])
    out = kernel.step(State(points.reshape(-1, *shape)), sigma, Silence())[0].x.flatten(1)
    M, b = (out[:-1] - out[-1]).T, out[-1]
    rng = UnitVectors()
    out = kernel.step(State(torch.zeros(4 * size, *shape, dtype=torch.float64)), sigma, rng)[0].x.flatten(1)
    return M, b, (out[: rng.used] - out[-1]).T


def lyapunov(chains: int, seed: int) -> list[str]:
    """Stationary moments: linear algebra against the blurred posterior, and a run against the linear algebra."""
    shape, size, sigma = (1, 4, 4), 16, 0.05
    identity, mean = torch.eye(size, dtype=torch.float64), torch.linspace(0.2, 0.8, size, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    y = torch.rand(size, generator=generator(5), dtype=torch.float64)
    model = masked(shape, [0, 2, 3, 5, 8, 10, 13, 15], y, 0.1)
    prior = GaussianMixture(one, mean[None], 0.2**2 * SMOOTH[None])
    target = posterior(GaussianMixture(one, mean[None], (0.2**2 * SMOOTH + sigma**2 * identity)[None]), model)
    lines = [
        f"## Gaussian prior, 16 pixels, 8 of them observed (sigma_y = {model.sigma_y}), sigma = {sigma} fixed",
        "",
        "Stationary moments by solving the linear and the Lyapunov equation of one step,",
        "against the exact posterior under the prior blurred by sigma.",
        f"Run: {chains} chains, the largest |z| of their means and covariances (152 numbers) against",
        "the Lyapunov solution; 4.5 is exceeded once in a thousand runs.",
        "",
        "| generator | beta | mean error | covariance error | largest z of a run |",
        "|---|---|---|---|---|",
    ]
    for exact in (True, False):
        for beta in (0.25, 0.05, 0.01):
            kernel = Gpnp(prior, model, beta, exact=exact)
            M, b, L = affine(kernel, sigma, shape)
            covariance = torch.from_numpy(solve_discrete_lyapunov(M.numpy(), (L @ L.T).numpy()))
            centre = torch.linalg.solve(identity - M, b)
            mean_error = float((centre - target.means[0]).abs().max())
            error = float((covariance - target.covariances[0]).norm() / target.covariances[0].norm())
            z = "-"  # small steps forget too slowly for a run here
            if beta == 0.25:
                radius = float(torch.linalg.eigvals(M).abs().max())
                steps = math.ceil(math.log(1e-4) / math.log(radius))
                start = State(torch.zeros(chains, *shape, dtype=torch.float64))
                for last in iterate(kernel, start, [sigma] * steps, OneGenerator(seed, int(exact))):
                    pass
                z = f"{largest_z(last.state.x.flatten(1), centre, covariance):.1f} ({steps} steps)"
            name = "exact" if exact else "approximate"
            lines.append(f"| {name} | {beta} | {mean_error:.0e} | {100 * error:.2f} % | {z} |")
    return lines


def largest_z(x: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """The largest z-score of the sample's means and covariances."""
    n, variance = len(x), covariance.diagonal()
    z_mean = (x.mean(0) - mean) / (variance / n).sqrt()
    z_covariance = (x.T.cov() - covariance) / ((variance[:, None] * variance + covariance**2) / (n - 1)).sqrt()
    return max(float(z_mean.abs().max()), float(z_covariance.abs().max()))


# --- the annealed chain on Gaussian mixtures ---


def two_pixels(sigma_y: float) -> tuple[GaussianMixture, ForwardModel]:
    """Three modes; the first pixel is seen, which leaves two of them likely for the second."""
    means = torch.tensor([[0.35, 0.20], [0.30, 0.75], [0.70, 0.50]], dtype=torch.float64)
    covariances = [[[0.010, 0.006], [0.006, 0.010]], [[0.008, -0.004], [-0.004, 0.006]], [[0.010, 0.0], [0.0, 0.020]]]
    weights = torch.tensor([0.40, 0.35, 0.25], dtype=torch.float64)
    prior = GaussianMixture(weights, means, torch.tensor(covariances, dtype=torch.float64))
    return prior, masked((1, 1, 2), [0], torch.tensor([0.45, 0.0], dtype=torch.float64), sigma_y)


def sixteen_pixels(sigma_y: float) -> tuple[GaussianMixture, ForwardModel]:
    """Vertical gradient, horizontal gradient or checkerboard, each with smooth deviations; a quarter is seen."""
    row, column = GRID.T / 3
    means = torch.stack([0.3 + 0.4 * row, 0.7 - 0.4 * column, 0.35 + 0.3 * (GRID.sum(1) % 2)])
    weights = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)
    prior = GaussianMixture(weights, means, (0.1**2 * SMOOTH).expand(3, -1, -1))
    return prior, masked((1, 4, 4), [0, 5, 6, 10], torch.full((16,), 0.5, dtype=torch.float64), sigma_y)


def sliced_wasserstein(a: Tensor, b: Tensor) -> float:
    """Sliced Wasserstein-2 distance of two equally large samples `(n, D)`, over 100 fixed directions."""
    axes = torch.randn(100, a.shape[1], generator=generator(0), dtype=a.dtype)
    axes /= axes.norm(dim=1, keepdim=True)
    return float(((a @ axes.T).sort(0).values - (b @ axes.T).sort(0).values).square().mean().sqrt())


def mode_weights(mixture: GaussianMixture, x: Tensor) -> Tensor:
    """The mean posterior probability of each component over the sample `x` `(n, D)`."""
    parts = torch.distributions.MultivariateNormal(mixture.means, mixture.covariances).log_prob(x[:, None])
    return torch.softmax(parts + mixture.weights.log(), dim=1).mean(0)


def mixtures(chains: int, seed: int) -> list[str]:
    """Sliced Wasserstein distance of annealed GPnP to exact posterior draws, and how wrong its mode weights are."""
    lines = [
        f"## Gaussian-mixture priors, three modes, {chains} chains (sigma {SIGMA_MAX} to {SIGMA_MIN}, beta = 0.25, r = 1)",
        "",
        "Sliced Wasserstein distance to exact posterior draws; its floor is that between two exact samples",
        "of the same size, mean ± standard deviation of 20 pairs. Then the largest error of a mode's weight;",
        "its floor is the Monte-Carlo error.",
        "",
        "| prior | sigma_y | N | exact | approximate | floor | weights, exact | weights, approximate | floor |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, make, sigma_y, counts in [
        ("2-D", two_pixels, 0.1, (100, 400, 1000)),
        ("2-D", two_pixels, 0.01, (100, 400)),
        ("16-D", sixteen_pixels, 0.1, (100, 400, 1000)),
    ]:
        prior, model = make(sigma_y)
        exact_posterior, rng = posterior(prior, model), generator(seed, 1)
        draws = [exact_posterior.draw(chains, rng) for _ in range(40)]
        pairs = torch.tensor([sliced_wasserstein(a, b) for a, b in zip(draws[::2], draws[1::2], strict=True)])
        largest = float(exact_posterior.weights.max())
        weight_floor = math.sqrt(largest * (1 - largest) / chains)
        for n in counts:
            distances, errors = [], []
            for exact in (True, False):
                noise = OneGenerator(seed, 2)
                x = 0.5 + SIGMA_MAX * noise.randn_like(model.y.expand(chains, -1, -1, -1))
                kernel = Gpnp(prior, model, exact=exact)
                for last in anneal(kernel, x, geometric(SIGMA_MAX, SIGMA_MIN, n), noise, finish=False):
                    pass
                x = last.state.x.flatten(1)
                distances.append(f"{sliced_wasserstein(x, draws[0]):.4f}")
                gap = mode_weights(exact_posterior, x) - exact_posterior.weights
                errors.append(f"{100 * float(gap.abs().max()):.1f} %")
            cells = [name, sigma_y, n, *distances, f"{pairs.mean():.4f} ± {pairs.std():.4f}", *errors]
            lines.append("| " + " | ".join(map(str, cells)) + f" | {100 * weight_floor:.1f} % |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, default=4000, help="chains per comparison (default 4000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the tables to this Markdown file too")
    options = parser.parse_args()
    start = time.perf_counter()
    sections = [part(options.chains, options.seed) for part in (scalar_bias, lyapunov, mixtures)]
    head = ["# Exactness", "", f"{header()}, {time.perf_counter() - start:.0f} s"]
    text = "\n\n".join("\n".join(lines) for lines in [head, *sections]) + "\n"
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
