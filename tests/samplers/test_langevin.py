"""Langevin and annealed Langevin where moments and mode weights are known."""

import math

import pytest
import torch

from gpnp_cli.denoisers.exact import GaussianPixels
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import State, anneal, iterate
from gpnp_cli.samplers.langevin import Langevin
from gpnp_cli.samplers.rng import ChainRng
from gpnp_cli.samplers.schedules import geometric

SIGMA = 0.05


def step(kernel, sigma=SIGMA):
    return lambda x, rng: kernel.step(State(x), sigma, rng)[0].x


def test_a_step_is_the_textbooks(gaussian):
    """x + epsilon s(x) + sqrt(2 epsilon) W, the score taken from the blurred density itself."""
    blurred = gaussian.prior(SIGMA)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaf = x.clone().requires_grad_(True)
    law = torch.distributions.MultivariateNormal(blurred.means[0], blurred.covariances[0])
    (score,) = torch.autograd.grad(law.log_prob(leaf.flatten(1)).sum(), leaf)
    epsilon = 0.4 * SIGMA**2
    noise = ChainRng(0, 3).randn_like(x)
    expected = x + epsilon * score + math.sqrt(2 * epsilon) * noise
    state, info = Langevin(gaussian.prior(), None, beta=0.4).step(State(x), SIGMA, ChainRng(0, 3))
    torch.testing.assert_close(state.x, expected, rtol=0, atol=1e-12)
    assert info.nfe == 1


def test_beta_one_denoises_and_adds_noise(gaussian):
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    state, _ = Langevin(gaussian.prior(), None, beta=1.0).step(State(x), 0.3, ChainRng(1, 2))
    expected = gaussian.prior()(x, 0.3) + math.sqrt(2) * 0.3 * ChainRng(1, 2).randn_like(x)
    torch.testing.assert_close(state.x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_chain_at_fixed_sigma_draws_what_it_says(gaussian, affine, conditional):
    """The prior blurred by sigma, with data as noisy as a state: exact mean, covariance up to an error linear in beta."""
    model = gaussian.model if conditional else None
    if conditional:
        mean, covariance = gaussian.posterior(SIGMA, math.hypot(gaussian.model.sigma_y, SIGMA))
    else:
        mean, covariance = gaussian.mean, gaussian.prior(SIGMA).covariances[0]
    errors = []
    for beta in (0.2, 0.02):
        found, spread = affine(step(Langevin(gaussian.prior(), model, beta))).stationary()
        torch.testing.assert_close(found, mean, rtol=0, atol=1e-9)
        errors.append(float((spread - covariance).norm() / covariance.norm()))
    assert errors[1] < 0.005 and errors[0] == pytest.approx(10 * errors[1], rel=0.3)


def test_a_run_has_the_moments_of_the_linear_algebra(gaussian, affine, one_generator):
    kernel, chains = Langevin(gaussian.prior(), gaussian.model, 0.5), 4000
    parts = affine(step(kernel))
    mean, covariance = parts.stationary()
    steps = math.ceil(math.log(1e-3) / math.log(float(torch.linalg.eigvals(parts.M).abs().max())))
    assert steps < 1000
    *_, last = iterate(kernel, State(torch.zeros(chains, 1, 4, 4).double()), [SIGMA] * steps, one_generator(3))
    x = last.state.x.flatten(1)
    z = (x.mean(0) - mean) / (covariance.diagonal() / chains).sqrt()
    spread = (x.var(0) / covariance.diagonal() - 1) / math.sqrt(2 / chains)
    assert z.abs().max() < 4.5 and spread.abs().max() < 4.5


def test_annealing_finds_both_modes_and_fixed_sigma_does_not(two_modes, one_generator, share_high):
    chains, n = 2000, 400
    rng = one_generator(4)
    kernel = Langevin(two_modes, None, 0.25)
    # as annealed chains start: at noise that hides the modes
    start = 0.5 + 2.0 * rng.randn_like(torch.empty(chains, 1, 1, 2, dtype=torch.float64))
    *_, annealed = anneal(kernel, start, geometric(2.0, 0.005, n), rng, finish=True)
    share, error = share_high(annealed.state.x)
    assert abs(share - 0.7) < 4 * error + 0.03  # the weights freeze while the schedule still moves: measured 0.69
    within = annealed.state.x[annealed.state.x.mean((1, 2, 3)) > 0.5] - 0.8
    assert float(within.std()) == pytest.approx(0.05, rel=0.1)
    # all chains begin in one mode, and stay there: the gap of low density is never crossed
    there = 0.2 + 0.05 * rng.randn_like(start)
    *_, fixed = anneal(kernel, there, [0.05] * n, rng, finish=True)
    assert share_high(fixed.state.x)[0] == 0.0
    # fixed sigma with chains that begin anywhere: weights are those of the start's basins, not the prior's
    *_, anywhere = anneal(kernel, start, [0.05] * n, rng, finish=True)
    assert abs(share_high(anywhere.state.x)[0] - 0.7) > 0.1


def test_exact_data_are_met_exactly_at_the_end():
    known = torch.tensor([[[True, False, True]]])
    y = torch.tensor([0.1, 0.0, 0.9]).reshape(1, 1, 1, 3)
    kernel = Langevin(GaussianPixels(), ForwardModel(Mask(known), y, 0.0), 0.5)
    *_, before, last = anneal(kernel, torch.full((2, 1, 1, 3), 0.5), geometric(0.5, 0.01, 20), ChainRng(0, 2), True)
    assert torch.equal(last.state.x[:, known], y[:, known].expand(2, -1))
    assert not torch.equal(before.state.x[:, known], y[:, known].expand(2, -1))
    assert last.nfe == 21


def test_a_chain_does_not_depend_on_its_neighbours(gaussian):
    kernel = Langevin(gaussian.prior(), gaussian.model)
    start = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    *_, three = anneal(kernel, start, geometric(0.5, 0.05, 5), ChainRng(7, 3), True)
    *_, alone = anneal(kernel, start[2:], geometric(0.5, 0.05, 5), ChainRng(7, [2]), True)
    torch.testing.assert_close(three.state.x[2:], alone.state.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.5, math.nan])
def test_impossible_steps_are_refused(beta):
    with pytest.raises(ValueError, match="beta must be in"):
        Langevin(GaussianPixels(), None, beta)
