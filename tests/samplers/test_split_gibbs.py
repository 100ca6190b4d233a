"""Split Gibbs on a Gaussian prior, by linear algebra: what its inner diffusion leaves out, and what that does to the chain."""

import itertools

import pytest
import torch

from gpnp_cli.denoisers.exact import GaussianPixels
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import State, anneal
from gpnp_cli.samplers.diffusion import ancestral
from gpnp_cli.samplers.gpnp import Gpnp
from gpnp_cli.samplers.rng import ChainRng
from gpnp_cli.samplers.schedules import geometric
from gpnp_cli.samplers.split_gibbs import SplitGibbs

SIGMA = 0.1


@pytest.mark.parametrize("sigma", [0.05, 0.2])
def test_the_inner_diffusion_draws_the_picture_given_its_noisy_version(gaussian, affine, sigma):
    """Mean exactly at every z; covariance nearly, and nearer than by DDPM's own steps with as many calls."""
    prior = gaussian.prior()
    C, identity = gaussian.covariance, torch.eye(16, dtype=torch.float64)
    gain = C @ torch.linalg.inv(C + sigma**2 * identity)
    exact = C - gain @ C

    def error(draw) -> float:
        parts = affine(draw)
        torch.testing.assert_close(parts.M, gain, rtol=0, atol=1e-12)
        torch.testing.assert_close(parts.b, gaussian.mean - gain @ gaussian.mean, rtol=0, atol=1e-12)
        return float((parts.L @ parts.L.T - exact).norm() / exact.norm())

    def plain(z, rng):
        """Five calls without the correction."""
        levels = geometric(sigma, sigma / 5, 5)
        for level, tau in itertools.pairwise(levels):
            z = ancestral(z, prior(z, level), level, tau, rng)
        return prior(z, levels[-1])

    kernels = {steps: SplitGibbs(prior, gaussian.model, steps) for steps in (2, 8)}
    few, many = (error(lambda z, rng, k=k: k.draw(z, sigma, rng)) for k in kernels.values())
    assert few < 0.4 * error(plain)
    assert many < 0.1  # what the last level leaves out


def test_the_chain_keeps_the_posterior_of_the_blurred_prior(gaussian, affine):
    """And is closer to it than GPnP's at as many calls per step, since no step size is involved."""
    mean, covariance = gaussian.posterior(SIGMA)

    def error(kernel) -> float:
        found, spread = affine(lambda x, rng: kernel.step(State(x), SIGMA, rng)[0].x).stationary()
        torch.testing.assert_close(found, mean, rtol=0, atol=1e-9)
        return float((spread - covariance).norm() / covariance.norm())

    few, many = (error(SplitGibbs(gaussian.prior(), gaussian.model, steps)) for steps in (2, 8))
    assert many < few < 0.05 and many < 0.02
    assert few < 0.3 * error(Gpnp(gaussian.prior(), gaussian.model, beta=1.0))


def test_calls_are_counted_and_exact_data_met():
    known = torch.tensor([[[True, False, True]]])
    y = torch.tensor([0.1, 0.0, 0.9]).reshape(1, 1, 1, 3)
    seen = []

    class Watched(GaussianPixels):
        def __call__(self, v, sigma):
            seen.append(sigma)
            return super().__call__(v, sigma)

    kernel = SplitGibbs(Watched(), ForwardModel(Mask(known), y, 0.0), steps=2)
    *_, last = anneal(kernel, torch.full((2, 1, 1, 3), 0.5), geometric(0.5, 0.01, 6), ChainRng(0, 2), True)
    assert last.nfe == len(seen) == 6 * 5 + 1
    assert seen[:5:2] == pytest.approx(geometric(0.5, 0.1, 3)) and seen[1:4:2] == pytest.approx(seen[2:5:2])
    assert torch.equal(last.state.x[:, known], y[:, known].expand(2, -1))


def test_the_inner_levels_stay_in_the_denoisers_range():
    seen = []

    class Limited(GaussianPixels):
        sigma_range = (0.02, 1.0)

        def __call__(self, v, sigma):
            seen.append(sigma)
            return super().__call__(v, sigma)

    kernel = SplitGibbs(Limited(), ForwardModel(Mask(torch.ones(1, 1, 2).bool()), torch.zeros(1, 1, 1, 2), 0.1), 1)
    kernel.draw(torch.zeros(1, 1, 1, 2), 0.05, ChainRng(0, 1))
    kernel.draw(torch.zeros(1, 1, 1, 2), 0.01, ChainRng(0, 1))
    assert min(seen[:3]) == pytest.approx(0.02) and seen[3:] == pytest.approx([0.01] * 3)


def test_no_step_is_refused(gaussian):
    with pytest.raises(ValueError, match="at least one step"):
        SplitGibbs(gaussian.prior(), gaussian.model, 0)
