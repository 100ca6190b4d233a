"""Half-quadratic splitting on a Gaussian prior, where every iterate is linear algebra."""

import pytest
import torch
from torch import Tensor

from gpnp_cli.denoisers.exact import GaussianMixture
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.blur import Blur
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import State, anneal, collect
from gpnp_cli.samplers.pnp import Pnp, Silence
from gpnp_cli.samplers.rng import ChainRng, generator
from gpnp_cli.samplers.schedules import geometric

SIGMA_Y, WEIGHT = 0.05, 0.23
KERNEL = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.4, 0.3]], dtype=torch.float64)
A = Blur(KERNEL, (1, 4, 3), tolerance=1e-13)
D = 25
IDENTITY = torch.eye(D, dtype=torch.float64)
DENSE = A.forward(IDENTITY.reshape(D, *A.x_shape)).flatten(1).T
Y = torch.rand(1, 1, 4, 3, generator=generator(1), dtype=torch.float64)
START = torch.rand(1, *A.x_shape, generator=generator(2), dtype=torch.float64)
GRID = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)).double()
COVARIANCE = 0.2**2 * torch.exp(-torch.cdist(GRID, GRID) / 1.5)
MEAN = torch.linspace(0.2, 0.8, D, dtype=torch.float64)
PRIOR = GaussianMixture(torch.ones(1, dtype=torch.float64), MEAN[None], COVARIANCE[None])
MODEL = ForwardModel(A, Y, SIGMA_Y)


def affine(sigma: float) -> tuple[Tensor, Tensor]:
    """One iteration as z -> M z + b, from the paper's formulas with dense matrices."""
    rho = WEIGHT * SIGMA_Y**2 / sigma**2
    solve = torch.linalg.inv(DENSE.T @ DENSE + rho * IDENTITY)
    shrink = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma**2 * IDENTITY)
    return rho * shrink @ solve, shrink @ (solve @ DENSE.T @ Y.flatten() - MEAN) + MEAN


def test_every_iterate_is_the_papers():
    sigmas, z = geometric(0.192, SIGMA_Y, 8), START.flatten()
    for step in anneal(Pnp(PRIOR, MODEL), START, sigmas, Silence(), False):
        M, b = affine(step.sigma)
        z = M @ z + b
        torch.testing.assert_close(step.state.x.flatten(), z, rtol=0, atol=1e-10)
    assert step.iteration == step.nfe == 8
    assert (z - START.flatten()).abs().max() > 0.1


def test_iterations_at_one_sigma_end_at_the_fixed_point():
    M, b = affine(0.1)
    *_, last = anneal(Pnp(PRIOR, MODEL), START, [0.1] * 400, Silence(), False)
    torch.testing.assert_close(last.state.x.flatten(), torch.linalg.solve(IDENTITY - M, b), rtol=0, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.192, 0.01])
@pytest.mark.parametrize("weight", [0.23, 2.0])
def test_the_data_step_is_a_minimum(sigma, weight):
    """The gradient of ||y - A x||^2 + rho ||x - z||^2 vanishes at what the denoiser is given."""
    seen = []
    kernel = Pnp(lambda v, s: seen.append(v) or v, MODEL, weight)
    kernel.step(State(START), sigma)
    x = seen[0].clone().requires_grad_()
    rho = weight * SIGMA_Y**2 / sigma**2
    ((Y - A.forward(x)).square().sum() + rho * (x - START).square().sum()).backward()
    assert x.grad.abs().max() < 1e-10
    assert (x - START).abs().max() > 1e-3


def test_the_finish_meets_exact_data():
    known = torch.arange(D).reshape(1, 5, 5) % 3 == 0
    y = torch.where(known, START, 0)
    steps = anneal(Pnp(PRIOR, ForwardModel(Mask(known), y, 0.0)), torch.full_like(y, 0.5), (0.1, 0.01), Silence(), True)
    *_, before, last = steps
    assert torch.equal(last.state.x[:, known], y[:, known]) and not torch.equal(before.state.x, last.state.x)
    assert torch.equal(last.state.x[:, ~known], before.state.x[:, ~known])
    assert (last.nfe, last.iteration) == (2, 3)


def test_nothing_is_random():
    ends = [
        collect(anneal(Pnp(PRIOR, MODEL), START, geometric(0.2, 0.05, 3), ChainRng(seed, 1), False), 2).draws
        for seed in range(2)
    ]
    assert torch.equal(*ends)
    assert not Silence().randn_like(START).any() and len(Silence().generators) == 1


def test_weight_must_be_positive():
    with pytest.raises(ValueError, match="weight must be positive"):
        Pnp(PRIOR, MODEL, 0.0)
