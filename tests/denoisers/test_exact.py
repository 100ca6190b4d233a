"""The closed-form denoisers, on which the samplers' proofs rest: checked against other formulas for the same thing."""

import math

import pytest
import torch
from torch import Tensor

from gpnp_cli.denoisers.base import Denoiser, score
from gpnp_cli.denoisers.exact import GaussianMixture, GaussianPixels, load_gaussian
from gpnp_cli.errors import UsageError
from gpnp_cli.samplers.rng import generator

SHAPE, D = (2, 1, 3), 6


def random_mixture(components: int = 3) -> GaussianMixture:
    rng = generator(3)
    roots = 0.3 * torch.randn(components, D, D, generator=rng, dtype=torch.float64)
    means = torch.rand(components, D, generator=rng, dtype=torch.float64)
    return GaussianMixture(torch.tensor([1.0, 2.0, 3.0]).double()[:components], means, roots @ roots.mT)


def log_density(prior: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    """log p of the prior blurred by sigma, by torch.distributions."""
    blurred = prior.covariances + sigma**2 * torch.eye(D, dtype=x.dtype)
    parts = torch.distributions.MultivariateNormal(prior.means, blurred).log_prob(x.flatten(1)[:, None])
    return torch.logsumexp(parts + prior.weights.log(), dim=1)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("components", [1, 3])
def test_mixture_denoiser_is_tweedies_formula(sigma, components):
    prior = random_mixture(components)
    v = torch.rand(5, *SHAPE, generator=generator(4), dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(log_density(prior, v, sigma).sum(), v)
    v = v.detach()
    torch.testing.assert_close(prior(v, sigma), v + sigma**2 * gradient, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(score(prior, v, sigma), gradient, rtol=1e-7, atol=1e-9)


def test_mixture_denoiser_is_the_posterior_mean_for_the_identity():
    prior, sigma = random_mixture(), 0.2
    v = torch.rand(1, *SHAPE, generator=generator(4), dtype=torch.float64)
    posterior = prior.posterior(torch.eye(D, dtype=torch.float64), v.flatten(), sigma)
    mean = posterior.weights @ posterior.means
    torch.testing.assert_close(prior(v, sigma).flatten(), mean, rtol=0, atol=1e-12)


def test_gaussian_pixels_are_a_mixture_of_one():
    one = GaussianMixture(
        torch.ones(1).double(), torch.full((1, D), 0.4).double(), 0.3**2 * torch.eye(D).double()[None]
    )
    v = torch.rand(4, *SHAPE, generator=generator(4), dtype=torch.float64)
    pixels = GaussianPixels(float(torch.tensor(0.4)), 0.3)
    torch.testing.assert_close(pixels(v, 0.2), one(v, 0.2), rtol=0, atol=1e-7)
    assert pixels(torch.full_like(v, 2.0), 0.3).flatten()[0] == pytest.approx((0.4 + 2.0) / 2)


@pytest.mark.parametrize("denoiser", [GaussianPixels(), random_mixture()], ids=["pixels", "mixture"])
def test_protocol_dtype_and_sigma_per_image(denoiser):
    assert isinstance(denoiser, Denoiser) and denoiser.channels is None
    v = torch.rand(3, *SHAPE, generator=generator(4))
    assert denoiser(v, 0.1).dtype == torch.float32 and denoiser(v.double(), 0.1).dtype == torch.float64
    assert denoiser(v, 0.1).shape == v.shape
    levels = torch.tensor([0.1, 0.5, 2.0])
    alone = torch.cat([denoiser(v[k : k + 1], float(levels[k])) for k in range(3)])
    torch.testing.assert_close(denoiser(v, levels), alone)


@pytest.mark.parametrize("denoiser", [GaussianPixels(0.3, 0.2), random_mixture()], ids=["pixels", "mixture"])
def test_limits_of_sigma(denoiser):
    v = torch.rand(2, *SHAPE, generator=generator(4), dtype=torch.float64)
    torch.testing.assert_close(denoiser(v, 1e-9), v, rtol=0, atol=1e-9)
    blind = denoiser(v, 1e9)
    mean = torch.full_like(v, 0.3)
    if isinstance(denoiser, GaussianMixture):
        mean = (denoiser.weights @ denoiser.means).reshape(1, *SHAPE).expand_as(v)
    torch.testing.assert_close(blind, mean, rtol=0, atol=1e-7)


def test_posterior_is_bayes_rule():
    """log p(x) + log p(y | x) and the posterior's log density differ by the same constant everywhere."""
    prior, sigma_y = random_mixture(), 0.3
    A = torch.randn(4, D, generator=generator(5), dtype=torch.float64)
    y = torch.randn(4, generator=generator(6), dtype=torch.float64)
    posterior = prior.posterior(A, y, sigma_y)
    assert posterior.weights.sum() == pytest.approx(1)
    x = torch.randn(50, D, generator=generator(7), dtype=torch.float64)
    likelihood = -(y - x @ A.T).square().sum(1) / (2 * sigma_y**2)
    evidence = log_density(prior, x, 0.0) + likelihood - log_density(posterior, x, 0.0)
    torch.testing.assert_close(evidence, evidence[:1].expand(50), rtol=0, atol=1e-6)


def test_posterior_of_noiseless_data_is_on_the_data():
    prior = random_mixture()
    A = torch.eye(D, dtype=torch.float64)[:2]
    y = torch.tensor([0.2, 0.7], dtype=torch.float64)
    draws = prior.posterior(A, y, 0.0).draw(100, generator(8))
    torch.testing.assert_close(draws @ A.T, y.expand(100, 2), rtol=0, atol=1e-6)
    assert draws[:, 2:].std(0).min() > 1e-3


def test_draws_have_the_mixtures_moments():
    prior, n = random_mixture(), 20_000
    x = prior.draw(n, generator(9))
    mean = prior.weights @ prior.means
    gaps = prior.means - mean
    covariance = torch.einsum("k,kij->ij", prior.weights, prior.covariances + gaps[:, :, None] * gaps[:, None])
    std = covariance.diagonal().sqrt()
    assert ((x.mean(0) - mean) / (std / math.sqrt(n))).abs().max() < 4.5
    products = (x - mean)[:, :, None] * (x - mean)[:, None]
    standard_error = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - covariance) / standard_error).abs().max() < 4.5


def test_gaussian_by_name():
    assert load_gaussian() == GaussianPixels(0.5, 0.25)
    assert load_gaussian(argument="0.3, 0.1") == GaussianPixels(0.3, 0.1)


@pytest.mark.parametrize("argument", ["0.5", "a,b", "0.5,0", "0.5,-1", "nan,1", "0.5,inf", "1,2,3"])
def test_malformed_names_are_refused(argument):
    with pytest.raises(UsageError, match="gaussian:") as caught:
        load_gaussian(argument=argument)
    assert "0.5,0.25" in caught.value.hint
