"""Score matching: its minimiser is the MMSE denoiser, and the noise levels keep their bounds."""

import math

import pytest
import torch

from gpnp_cli.training.loss import SigmaLaw, denoising_loss, weight


class Affine(torch.nn.Module):
    """v -> v M^T + b for one noise level, on flattened pictures."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.eye(size, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, v, sigma, grey):
        return (v.flatten(1) @ self.matrix.T + self.bias).reshape(v.shape)


def test_the_minimiser_on_a_gaussian_prior_is_the_closed_form_denoiser():
    """Over affine maps and infinitely many draws the minimiser is m + C (C + sigma^2)^-1 (v - m)."""
    rng = torch.Generator().manual_seed(0)
    size, sigma, n = 4, 0.3, 10_000
    root = torch.randn(size, size, generator=rng, dtype=torch.float64) / 4
    mean = torch.rand(size, generator=rng, dtype=torch.float64)
    covariance = root @ root.T
    x = (mean + torch.randn(n, size, generator=rng, dtype=torch.float64) @ root.T).reshape(n, 1, 2, 2)
    noise = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    sigmas, grey = torch.full((n,), sigma, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    model = Affine(size)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=25, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = denoising_loss(model, x, sigmas, noise, grey).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(size, dtype=torch.float64))
    # standard error of a regression coefficient: residual spread over root n times the input's spread
    tolerance = 5 * sigma / math.sqrt(n) / (sigma**2 + covariance.diagonal().min()).sqrt().item()
    assert (model.matrix - gain).abs().max() < tolerance < 0.06
    assert (model.bias - (mean - gain @ mean)).abs().max() < 3 * tolerance
    assert (torch.eye(size) - gain).abs().max() > 5 * tolerance  # the start would have failed


def test_loss_is_one_number_per_image_weighted_by_its_sigma():
    x = torch.zeros(2, 1, 3, 3)
    sigma, noise = torch.tensor([0.1, 0.5]), torch.ones(2, 1, 3, 3)
    loss = denoising_loss(lambda v, s, g: v, x, sigma, noise, torch.zeros(2))
    assert torch.allclose(loss, weight(sigma) * sigma**2)
    assert torch.allclose(weight(sigma), torch.tensor([16 / 0.01, 76 / 0.25]))


@pytest.mark.parametrize("uniform", [0.0, 0.3, 1.0])
def test_sigmas_stay_in_bounds_and_reach_both_ends(uniform):
    law = SigmaLaw(low=0.01, high=1.0, focus=0.1, spread=2.0, uniform=uniform)
    sigma = law.draw(20_000, torch.Generator().manual_seed(0))
    assert sigma.min() >= law.low and sigma.max() <= law.high
    assert sigma.min() < 0.0101 and sigma.max() > 0.99


def test_law_mixes_a_log_normal_and_a_log_uniform_part():
    n = 40_000
    near = SigmaLaw(spread=0.5, uniform=0.0).draw(n, torch.Generator().manual_seed(1)).log()
    assert abs(near.mean() - math.log(0.09)) < 4 * 0.5 / math.sqrt(n)
    assert abs(near.std() - 0.5) < 4 * 0.5 / math.sqrt(2 * n)
    even = SigmaLaw(uniform=1.0).draw(n, torch.Generator().manual_seed(1)).log()
    low, high = math.log(0.0015), math.log(2.2)
    assert abs(even.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * n)
    mixed = SigmaLaw(spread=1e-3, uniform=0.3).draw(n, torch.Generator().manual_seed(1)).log()
    share = ((mixed - math.log(0.09)).abs() > 0.01).float().mean()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / n) + 0.003


def test_draws_are_the_generators():
    law = SigmaLaw()
    assert torch.equal(law.draw(5, torch.Generator().manual_seed(3)), law.draw(5, torch.Generator().manual_seed(3)))
