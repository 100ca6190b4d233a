"""Annealed GPnP on Gaussian mixtures, whose posterior is known: sliced Wasserstein distance to exact draws.

The distance between two independent exact samples of the same size is the floor. The annealed chain does
not reach it: mode weights freeze while sigma is still large (see benchmarks/exactness.py for the figures).
"""

import math

import pytest
import torch
from torch import Tensor

from gpnp_cli.denoisers.exact import GaussianMixture
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import anneal
from gpnp_cli.samplers.gpnp import Gpnp
from gpnp_cli.samplers.rng import generator
from gpnp_cli.samplers.schedules import geometric

SIGMA_Y = 0.1


class OneGenerator:
    """Noise for thousands of tiny chains at once."""

    def __init__(self, seed: int) -> None:
        self.generator = generator(seed)

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


def two_pixels() -> tuple[GaussianMixture, ForwardModel]:
    """Three modes; the first pixel is seen, which leaves two of them likely for the second."""
    weights, means = torch.tensor([0.40, 0.35, 0.25]), torch.tensor([[0.35, 0.20], [0.30, 0.75], [0.70, 0.50]])
    covariances = torch.tensor(
        [[[0.010, 0.006], [0.006, 0.010]], [[0.008, -0.004], [-0.004, 0.006]], [[0.010, 0.000], [0.000, 0.020]]]
    )
    y = torch.tensor([0.45, 0.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    prior = GaussianMixture(weights.double(), means.double(), covariances.double())
    return prior, ForwardModel(Mask(torch.tensor([[[True, False]]])), y, SIGMA_Y)


def sixteen_pixels() -> tuple[GaussianMixture, ForwardModel]:
    """Vertical gradient, horizontal gradient or checkerboard, each with smooth deviations; a quarter is seen."""
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    row, column = grid.T / 3
    means = torch.stack([0.3 + 0.4 * row, 0.7 - 0.4 * column, 0.35 + 0.3 * (grid.sum(1) % 2)])
    covariance = 0.1**2 * torch.exp(-torch.cdist(grid, grid) / 1.5)
    known = torch.zeros(16, dtype=torch.bool).index_fill(0, torch.tensor([0, 5, 6, 10]), True).reshape(1, 4, 4)
    prior = GaussianMixture(torch.tensor([0.4, 0.3, 0.3]).double(), means, covariance.expand(3, -1, -1))
    return prior, ForwardModel(Mask(known), torch.where(known, 0.5, 0.0).double()[None], SIGMA_Y)


def exact_posterior(prior: GaussianMixture, model: ForwardModel) -> GaussianMixture:
    known = model.A.known.flatten()
    return prior.posterior(torch.eye(len(known), dtype=torch.float64)[known], model.y.flatten()[known], model.sigma_y)


def distance(a: Tensor, b: Tensor, directions: int = 100) -> float:
    """Sliced Wasserstein-2 distance of two equally large samples `(n, D)`."""
    axes = torch.randn(directions, a.shape[1], generator=generator(0), dtype=a.dtype)
    axes /= axes.norm(dim=1, keepdim=True)
    return float(((a @ axes.T).sort(0).values - (b @ axes.T).sort(0).values).square().mean().sqrt())


def sample(kernel: Gpnp, chains: int, n: int, seed: int) -> Tensor:
    rng = OneGenerator(seed)
    x = 0.5 + 0.5 * rng.randn_like(kernel.model.y.expand(chains, -1, -1, -1))
    for last in anneal(kernel, x, geometric(0.5, 0.005, n), rng, finish=False):
        pass
    return last.state.x.flatten(1)


def floor(posterior: GaussianMixture, n: int) -> tuple[float, float]:
    """Mean and standard deviation of the distance between two independent exact samples of size n."""
    rng = generator(1)
    distances = torch.tensor([distance(posterior.draw(n, rng), posterior.draw(n, rng)) for _ in range(20)])
    return float(distances.mean()), float(distances.std())


def moment_matched(posterior: GaussianMixture, n: int) -> Tensor:
    """Draws from the one Gaussian with the posterior's mean and covariance: what a unimodal sampler could do at best."""
    x = posterior.draw(20 * n, generator(2))
    one = GaussianMixture(torch.ones(1).double(), x.mean(0)[None], x.T.cov()[None])
    return one.draw(n, generator(3))


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
def test_annealed_chain_comes_close_to_the_posterior(exact):
    prior, model = two_pixels()
    posterior, n = exact_posterior(prior, model), 2000
    mean, std = floor(posterior, n)
    truth = posterior.draw(n, generator(4))
    bound = 4 * mean + 4 * std  # 0.042; the frozen weights alone give four times the floor at 100 iterations
    assert distance(sample(Gpnp(prior, model, exact=exact), n, 100, seed=1), truth) < bound
    assert distance(moment_matched(posterior, n), truth) > bound


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
@pytest.mark.parametrize("problem", [two_pixels, sixteen_pixels])
def test_longer_schedules_come_closer(problem, exact):
    prior, model = problem()
    posterior, n = exact_posterior(prior, model), 8000
    std = floor(posterior, n)[1]
    truth = posterior.draw(n, generator(4))
    kernel = Gpnp(prior, model, exact=exact)
    reached = [distance(sample(kernel, n, steps, seed=1), truth) for steps in (25, 100, 400)]
    assert reached[0] > reached[1] + 2 * math.sqrt(2) * std and reached[1] > reached[2]
    assert reached[2] < 0.03
