"""What several samplers are tested on: a Gaussian prior of 16 pixels with a posterior in closed form, and a mixture."""

import math
from typing import NamedTuple

import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from gpnp_cli.denoisers.exact import GaussianMixture
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.rng import UnitVectors, generator

SHAPE, D = (1, 4, 4), 16


class Silence:
    randn_like = staticmethod(torch.zeros_like)


class GaussianProblem(NamedTuple):
    """Prior N(mean, covariance) on images of `SHAPE`, half of the pixels observed with noise `sigma_y`."""

    mean: Tensor
    covariance: Tensor
    known: Tensor
    model: ForwardModel

    def prior(self, sigma: float = 0.0) -> GaussianMixture:
        """The prior blurred by sigma."""
        covariance = self.covariance + sigma**2 * torch.eye(D, dtype=torch.float64)
        return GaussianMixture(torch.ones(1, dtype=torch.float64), self.mean[None], covariance[None])

    def posterior(self, sigma: float = 0.0, sigma_y: float | None = None) -> tuple[Tensor, Tensor]:
        """Mean and covariance given the data, under the prior blurred by sigma."""
        A, y = torch.eye(D, dtype=torch.float64)[self.known], self.model.y.flatten()[self.known]
        exact = self.prior(sigma).posterior(A, y, self.model.sigma_y if sigma_y is None else sigma_y)
        return exact.means[0], exact.covariances[0]


@pytest.fixture(scope="session")
def gaussian() -> GaussianProblem:
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    known = torch.zeros(D, dtype=torch.bool).index_fill(0, torch.tensor([0, 2, 3, 5, 8, 10, 13, 15]), True)
    y = torch.rand(D, generator=generator(5), dtype=torch.float64) * known
    model = ForwardModel(Mask(known.reshape(SHAPE)), y.reshape(1, *SHAPE), 0.1)
    covariance = 0.2**2 * torch.exp(-torch.cdist(grid, grid) / 1.5)
    return GaussianProblem(torch.linspace(0.2, 0.8, D, dtype=torch.float64), covariance, known, model)


class Affine(NamedTuple):
    """A step z -> M z + b + L w, w white."""

    M: Tensor
    b: Tensor
    L: Tensor

    def stationary(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the chain that repeats the step."""
        mean = torch.linalg.solve(torch.eye(len(self.b), dtype=self.b.dtype) - self.M, self.b)
        return mean, torch.from_numpy(solve_discrete_lyapunov(self.M.numpy(), (self.L @ self.L.T).numpy()))


@pytest.fixture(scope="session")
def affine():
    """`affine(f)`: the parts of f(x, rng), x `(N, *SHAPE)`, affine in x and in at most ten blocks of noise."""

    def affine(f) -> Affine:
        points = torch.cat([torch.eye(D, dtype=torch.float64), torch.zeros(1, D, dtype=torch.float64)])
        out = f(points.reshape(-1, *SHAPE), Silence()).flatten(1)
        rng = UnitVectors()
        moved = f(torch.zeros(10 * D + 1, *SHAPE, dtype=torch.float64), rng).flatten(1)
        return Affine((out[:-1] - out[-1]).T, out[-1], (moved[: rng.used] - moved[-1]).T)

    return affine


@pytest.fixture(scope="session")
def one_generator():
    """`one_generator(seed)`: noise for thousands of tiny chains at once."""

    class OneGenerator:
        def __init__(self, seed: int) -> None:
            self.generator = generator(seed)

        def randn_like(self, x: Tensor) -> Tensor:
            return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)

    return OneGenerator


@pytest.fixture(scope="session")
def two_modes() -> GaussianMixture:
    """A picture of two pixels near (0.2, 0.2) with weight 0.3, or near (0.8, 0.8), 17 standard deviations away."""
    means = torch.tensor([[0.2, 0.2], [0.8, 0.8]], dtype=torch.float64)
    covariances = (0.05**2 * torch.eye(2, dtype=torch.float64)).expand(2, 2, 2)
    return GaussianMixture(torch.tensor([0.3, 0.7], dtype=torch.float64), means, covariances)


@pytest.fixture(scope="session")
def share_high():
    """The share of `(N, 1, 1, 2)` states near the second mode, and its standard error under weight 0.7."""
    return lambda x: (float((x.mean((1, 2, 3)) > 0.5).double().mean()), math.sqrt(0.3 * 0.7 / len(x)))
