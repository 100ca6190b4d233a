"""Reverse diffusion: EDM's sampler and the ancestral step, on priors for which both are known in closed form."""

import math

import pytest
import torch

from gpnp_cli.denoisers.exact import GaussianPixels
from gpnp_cli.samplers.base import iterate
from gpnp_cli.samplers.diffusion import Edm, ancestral
from gpnp_cli.samplers.pnp import Silence
from gpnp_cli.samplers.rng import ChainRng
from gpnp_cli.samplers.schedules import power

MEAN, STD = 0.4, 0.1


def end(kernel, x, sigmas, rng=None):
    *_, last = iterate(kernel, kernel.init(x), sigmas, rng or Silence())
    return last


def test_heuns_rule_follows_the_ode_to_second_order():
    """For N(mean, std^2) the ODE's solution is mean + (x - mean) sqrt((std^2 + tau^2) / (std^2 + sigma^2))."""
    x = torch.linspace(-2, 3, 5, dtype=torch.float64).reshape(1, 1, 1, 5)
    low = 0.05
    exact = MEAN + (x - MEAN) * math.sqrt((STD**2 + low**2) / (STD**2 + 2.0**2))
    errors = {}
    for heun in (True, False):
        for n in (20, 40):
            last = end(Edm(GaussianPixels(MEAN, STD), heun=heun), x, power(2.0, low, n))
            errors[heun, n] = float((last.state.noisy - exact).abs().max())
            assert last.nfe == (2 * n - 1 if heun else n)
            expected = GaussianPixels(MEAN, STD)(last.state.noisy, low)
            torch.testing.assert_close(last.state.x, expected, rtol=0, atol=1e-15)  # what is returned is denoised
    assert errors[True, 20] / errors[True, 40] == pytest.approx(4, rel=0.25)
    assert errors[False, 20] / errors[False, 40] == pytest.approx(2, rel=0.25)
    assert errors[True, 40] < 1e-3 < errors[False, 40]


@pytest.mark.parametrize("churn", [0.0, 0.2])
def test_draws_have_the_priors_moments(churn, one_generator):
    n, rng = 40_000, one_generator(1)
    start = 0.5 + 2.0 * rng.randn_like(torch.empty(1, 1, 1, n, dtype=torch.float64))
    x = end(Edm(GaussianPixels(MEAN, STD), churn), start, power(2.0, 0.002, 100), rng).state.x
    # the start's law, N(0.5, 2^2), is not quite the blurred prior: its mean is off by 0.1 std / 2 = 0.005
    assert abs(float(x.mean()) - MEAN) < 0.006 + 4 * STD / math.sqrt(n)
    assert float(x.std()) / STD == pytest.approx(1, abs=0.01 + 4 / math.sqrt(2 * n))


def test_both_modes_get_their_weight(two_modes, one_generator, share_high):
    rng = one_generator(2)
    start = 0.5 + 2.0 * rng.randn_like(torch.empty(4000, 1, 1, 2, dtype=torch.float64))
    x = end(Edm(two_modes), start, power(2.0, 0.002, 40), rng).state.x
    share, error = share_high(x)
    assert abs(share - 0.7) < 4 * error + 0.03  # the start is centred on 0.5, not on the prior's mean 0.62
    assert float((x[x.mean((1, 2, 3)) > 0.5] - 0.8).std()) == pytest.approx(0.05, rel=0.06)


def test_churn_lifts_the_level_and_the_ode_draws_no_noise():
    class Counting(ChainRng):
        calls = 0

        def randn_like(self, x):
            self.calls += 1
            return super().randn_like(x)

    for churn, calls in ((0.0, 0), (0.3, 5)):
        rng = Counting(0, 1)
        last = end(Edm(GaussianPixels(), churn), torch.full((1, 1, 2, 2), 0.7), power(1.0, 0.1, 5), rng)
        assert rng.calls == calls
        assert last.state.sigma == pytest.approx(0.1 * (1 + churn))
    with pytest.raises(ValueError, match="churn must be in"):
        Edm(GaussianPixels(), -0.1)


def test_the_ancestral_step_is_bayes_rule():
    """x_tau given x_sigma and x0: condition the joint normal law of two noisy versions of x0 by hand."""
    sigma, tau, x0 = 0.8, 0.3, 0.25
    # x_tau = x0 + tau a, x_sigma = x_tau + sqrt(sigma^2 - tau^2) b
    gain = tau**2 / sigma**2
    x = torch.full((1, 1, 1, 200_000), 1.1, dtype=torch.float64)
    drawn = ancestral(x, torch.full_like(x, x0), sigma, tau, ChainRng(3, 1))
    std = math.sqrt(tau**2 - gain * tau**2)
    assert abs(float(drawn.mean()) - (x0 + gain * (1.1 - x0))) < 4 * std / math.sqrt(x.numel())
    assert float(drawn.std()) == pytest.approx(std, rel=0.01)
    still = ancestral(x, torch.zeros_like(x), sigma, sigma, ChainRng(3, 1))
    torch.testing.assert_close(still, x)
