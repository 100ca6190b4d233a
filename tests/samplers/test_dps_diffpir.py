"""DPS and DiffPIR step by step against their formulas, and how near they come to a known posterior."""

import math

import pytest
import torch

from gpnp_cli.denoisers.exact import GaussianPixels
from gpnp_cli.errors import UsageError
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.blur import Blur
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import iterate
from gpnp_cli.samplers.diffpir import DiffPir
from gpnp_cli.samplers.diffusion import Diffused
from gpnp_cli.samplers.dps import Dps, DpsState
from gpnp_cli.samplers.pnp import Silence
from gpnp_cli.samplers.rng import ChainRng, generator
from gpnp_cli.samplers.schedules import geometric


def noisy(chains: int = 3) -> torch.Tensor:
    return torch.rand(chains, 1, 4, 4, generator=generator(1), dtype=torch.float64)


def run(kernel, x, sigmas, rng):
    *_, last = iterate(kernel, kernel.init(x), sigmas, rng)
    return last


def test_the_push_of_dps_is_the_gradient_of_the_misfit(gaussian):
    """Against autograd through everything, the operator included, and against finite differences."""
    prior, x, sigma = gaussian.prior(), noisy(), 0.3
    kernel = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.4, 0.3]], dtype=torch.float64)
    A = Blur(kernel, (1, 3, 2), tolerance=1e-12)
    y = torch.rand(1, 1, 3, 2, generator=generator(2), dtype=torch.float64)
    sampler = Dps(prior, ForwardModel(A, y, 0.05))

    def misfit(v):
        return (y - A.forward(prior(v, sigma))).flatten(1).norm(dim=1)

    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(misfit(leaf).sum(), leaf)
    state, info = sampler.step(sampler.init(x), sigma, Silence())
    torch.testing.assert_close(state.push, -math.sqrt(6) * gradient, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.x, prior(x, sigma))
    assert info.nfe == 1 and not state.x.requires_grad and not state.push.requires_grad
    tiny = 1e-6 * state.push / state.push.norm()
    assert ((misfit(x + tiny) - misfit(x)) < 0).all()


def test_dps_steps_along_the_push(gaussian):
    """The ancestral step's mean, and zeta (sigma - tau) push; the push is none where the data are met exactly."""
    sampler = Dps(gaussian.prior(), gaussian.model, zeta=2.0)
    x = noisy()
    first, _ = sampler.step(sampler.init(x), 0.5, Silence())
    second, _ = sampler.step(first, 0.2, Silence())
    share = (0.2 / 0.5) ** 2
    expected = first.x + share * (x - first.x) + 2.0 * 0.3 * first.push
    torch.testing.assert_close(second.noisy, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(second.x, gaussian.prior()(expected, 0.2), rtol=0, atol=1e-12)
    met = ForwardModel(Mask(torch.zeros(1, 4, 4).bool()), torch.zeros(1, 1, 4, 4, dtype=torch.float64), 0.1)
    assert not Dps(gaussian.prior(), met).step(sampler.init(x), 0.5, Silence())[0].push.any()


def test_dps_works_where_gradients_are_switched_off(gaussian):
    sampler, x = Dps(gaussian.prior(), gaussian.model), noisy()
    expected = run(sampler, x, (0.5, 0.2), ChainRng(0, 3)).state
    with torch.inference_mode():
        found = run(sampler, x.clone(), (0.5, 0.2), ChainRng(0, 3)).state
    assert isinstance(found, DpsState)
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-12)


def test_dps_refuses_a_denoiser_without_gradient(gaussian):
    class Rounded(GaussianPixels):
        def __call__(self, v, sigma):
            return super().__call__(v, sigma).detach()

    sampler = Dps(Rounded(), gaussian.model)
    with pytest.raises(UsageError, match="follows the gradient") as caught:
        sampler.step(sampler.init(noisy()), 0.5, Silence())
    assert "diffpir" in caught.value.hint


def test_every_iterate_of_diffpir_is_the_papers(gaussian):
    """With dense matrices: minimise ||y - A x||^2 + rho ||x - x0||^2, rho = weight sigma_y^2 / sigma^2."""
    weight, zeta, prior, model = 5.0, 0.4, gaussian.prior(), gaussian.model
    A, y = torch.eye(16, dtype=torch.float64)[gaussian.known], model.y.flatten()[gaussian.known]
    noise = ChainRng(4, 1)
    x = noisy(1)
    estimate = implied = None
    for step in iterate(
        DiffPir(prior, model, weight, zeta), Diffused(x, x, None), geometric(0.8, 0.05, 6), ChainRng(4, 1)
    ):
        if estimate is not None:
            fresh = noise.randn_like(x)
            x = estimate + step.sigma * (math.sqrt(1 - zeta) * implied + math.sqrt(zeta) * fresh)
        rho = weight * model.sigma_y**2 / step.sigma**2
        x0 = prior(x, step.sigma).flatten()
        solved = torch.linalg.solve(A.T @ A + rho * torch.eye(16, dtype=torch.float64), A.T @ y + rho * x0)
        estimate = solved.reshape(x.shape)
        implied = (x - estimate) / step.sigma
        torch.testing.assert_close(step.state.x, estimate, rtol=0, atol=1e-11)
    assert step.nfe == 6


def test_diffpir_meets_exact_data():
    known = torch.tensor([[[True, False, True]]])
    y = torch.tensor([0.1, 0.0, 0.9]).reshape(1, 1, 1, 3)
    kernel = DiffPir(GaussianPixels(), ForwardModel(Mask(known), y, 0.0))
    x = run(kernel, torch.full((2, 1, 1, 3), 0.5), geometric(1.0, 0.01, 10), ChainRng(0, 2)).state.x
    assert torch.equal(x[:, known], y[:, known].expand(2, -1))


@pytest.mark.parametrize(
    ("make", "mean_error", "low", "high"),
    [
        (lambda p: DiffPir(p.prior(), p.model, 1.0, 1.0), 0.4, 0.4, 1.2),
        (lambda p: Dps(p.prior(), p.model, 1.0), 0.7, 0.4, 1.6),
    ],
    ids=["diffpir", "dps"],
)
def test_they_come_near_the_posterior_but_are_not_exact(gaussian, one_generator, make, mean_error, low, high):
    """Mean within a fraction of the posterior's std, and spread within a factor: what these methods promise at best."""
    mean, covariance = gaussian.posterior()
    rng, chains = one_generator(6), 2000
    start = 0.5 + 2.0 * rng.randn_like(torch.empty(chains, 1, 4, 4, dtype=torch.float64))
    x = run(make(gaussian), start, geometric(2.0, 0.005, 200), rng).state.x.flatten(1)
    std = covariance.diagonal().sqrt()
    assert float(((x.mean(0) - mean) / std).square().mean().sqrt()) < mean_error
    prior_error = float(((gaussian.mean - mean) / std).square().mean().sqrt())
    assert prior_error > 2 * mean_error  # the data were used
    assert low < float((x.std(0) / std).mean()) < high


@pytest.mark.parametrize("make", [lambda p: DiffPir(p.prior(), p.model), lambda p: Dps(p.prior(), p.model)])
def test_a_chain_does_not_depend_on_its_neighbours(gaussian, make):
    three = run(make(gaussian), noisy(), (0.8, 0.4, 0.2), ChainRng(7, 3)).state.x
    alone = run(make(gaussian), noisy()[2:], (0.8, 0.4, 0.2), ChainRng(7, [2])).state.x
    torch.testing.assert_close(three[2:], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("weight", "zeta"), [(0.0, 0.3), (-1.0, 0.3), (1.0, -0.1), (1.0, 1.1), (math.nan, 0.3)])
def test_impossible_numbers_of_diffpir_are_refused(gaussian, weight, zeta):
    with pytest.raises(ValueError, match="weight must be positive"):
        DiffPir(gaussian.prior(), gaussian.model, weight, zeta)
