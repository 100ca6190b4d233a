"""GPnP on Gaussian priors, where everything is known: fixed sigma by linear algebra, the annealed chain by recursion."""

import math
from statistics import NormalDist

import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from gpnp_cli.denoisers.exact import GaussianMixture, GaussianPixels
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import State, anneal, iterate
from gpnp_cli.samplers.gpnp import Gpnp
from gpnp_cli.samplers.rng import ChainRng, UnitVectors, generator
from gpnp_cli.samplers.schedules import geometric

SHAPE, D = (1, 4, 4), 16
IDENTITY = torch.eye(D, dtype=torch.float64)
GRID = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
COVARIANCE = 0.2**2 * torch.exp(-torch.cdist(GRID, GRID) / 1.5)
MEAN = torch.linspace(0.2, 0.8, D, dtype=torch.float64)
KNOWN = torch.zeros(D, dtype=torch.bool).index_fill(0, torch.tensor([0, 2, 3, 5, 8, 10, 13, 15]), True)
Y = torch.rand(D, generator=generator(5), dtype=torch.float64) * KNOWN
SIGMA_Y = 0.1


def gaussian(covariance: Tensor) -> GaussianMixture:
    return GaussianMixture(torch.ones(1, dtype=torch.float64), MEAN[None], covariance[None])


def kernel(beta: float, r: float = 1.0, exact: bool = True) -> Gpnp:
    model = ForwardModel(Mask(KNOWN.reshape(SHAPE)), Y.reshape(1, *SHAPE), SIGMA_Y)
    return Gpnp(gaussian(COVARIANCE), model, beta, r, exact)


def blurred_posterior(sigma: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance given the data, the prior being N(MEAN, COVARIANCE + sigma^2 I)."""
    posterior = gaussian(COVARIANCE + sigma**2 * IDENTITY).posterior(IDENTITY[KNOWN], Y[KNOWN], SIGMA_Y)
    return posterior.means[0], posterior.covariances[0]


class Silence:
    randn_like = staticmethod(torch.zeros_like)


class OneGenerator:
    """Noise for thousands of tiny chains at once, where a generator for each would cost more than the chains."""

    def __init__(self, seed: int) -> None:
        self.generator = generator(seed)

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


def affine(step: Gpnp, sigma: float, shape: tuple[int, int, int] = SHAPE) -> tuple[Tensor, Tensor, Tensor]:
    """One step as x -> M x + b + L w, w white."""
    size = math.prod(shape)
    points = torch.cat([torch.eye(size, dtype=torch.float64), torch.zeros(1, size, dtype=torch.float64)])
    out = step.step(State(points.reshape(-1, *shape)), sigma, Silence())[0].x.flatten(1)
    b, M = out[-1], (out[:-1] - out[-1]).T
    rng = UnitVectors()
    out = step.step(State(torch.zeros(4 * size, *shape, dtype=torch.float64)), sigma, rng)[0].x.flatten(1)
    return M, b, (out[: rng.used] - out[-1]).T


def stationary(step: Gpnp, sigma: float) -> tuple[Tensor, Tensor, float]:
    """Mean, covariance and spectral radius of the chain at fixed sigma."""
    M, b, L = affine(step, sigma)
    covariance = torch.from_numpy(solve_discrete_lyapunov(M.numpy(), (L @ L.T).numpy()))
    return torch.linalg.solve(IDENTITY - M, b), covariance, float(torch.linalg.eigvals(M).abs().max())


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
@pytest.mark.parametrize("beta", [1.0, 0.25, 0.01])
@pytest.mark.parametrize("sigma", [0.2, 0.05])
def test_stationary_mean_is_the_blurred_posterior_mean(sigma, beta, exact):
    mean, _, radius = stationary(kernel(beta, exact=exact), sigma)
    assert radius < 1
    torch.testing.assert_close(mean, blurred_posterior(sigma)[0], rtol=0, atol=1e-10)


def covariance_error(beta: float, exact: bool) -> float:
    """Relative Frobenius distance of the stationary covariance from the blurred posterior's, at sigma = 0.05."""
    _, covariance, _ = stationary(kernel(beta, exact=exact), 0.05)
    target = blurred_posterior(0.05)[1]
    return float((covariance - target).norm() / target.norm())


def test_stationary_covariance_error_falls_linearly_with_beta():
    errors = [covariance_error(beta, exact=True) for beta in (0.25, 0.05, 0.01)]
    assert errors == pytest.approx([0.0105, 0.0021, 0.00042], rel=0.03)
    assert errors[0] / errors[1] == pytest.approx(5, rel=0.05) and errors[1] / errors[2] == pytest.approx(5, rel=0.01)


def test_the_published_generator_is_farther_off_at_every_step():
    """It adds more noise than the data allow, so that every variance is larger; the gap closes with beta too."""
    for beta in (0.25, 0.05, 0.01):
        assert covariance_error(beta, exact=False) > 1.35 * covariance_error(beta, exact=True)
        published, exact = (stationary(kernel(beta, exact=e), 0.05)[1] for e in (False, True))
        assert (published.diagonal() > exact.diagonal()).all()


def test_regularisation_tempers_the_prior():
    """r = 1.3 is the posterior under the blurred prior to the power 1.3, that is with its covariance / 1.3."""
    sigma, beta, r = 0.05, 0.001, 1.3
    mean, covariance, _ = stationary(kernel(beta, r), sigma)
    tempered = gaussian((COVARIANCE + sigma**2 * IDENTITY) / r)
    posterior = tempered.posterior(IDENTITY[KNOWN], Y[KNOWN], SIGMA_Y)
    torch.testing.assert_close(mean, posterior.means[0], rtol=0, atol=1e-10)
    target = posterior.covariances[0]
    assert (covariance - target).norm() / target.norm() < 1e-3


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
def test_chains_have_the_stationary_moments(exact):
    """The real thing, with noise: 1000 chains from far away, until the start has decayed to a tenth of the error."""
    sigma, beta, chains = 0.2, 0.25, 1000
    step = kernel(beta, exact=exact)
    mean, covariance, radius = stationary(step, sigma)
    std = covariance.diagonal().sqrt()
    steps = math.ceil(math.log(0.1 / math.sqrt(chains) * float(std.min()) / float(mean.norm())) / math.log(radius))
    start = State(torch.zeros(chains, *SHAPE, dtype=torch.float64))
    for last in iterate(step, start, [sigma] * steps, OneGenerator(1)):
        pass
    x = last.state.x.flatten(1)
    bound = NormalDist().inv_cdf(1 - 0.001 / (2 * (D + D * (D + 1) // 2)))  # of 152 numbers, one in a thousand runs
    z_mean = (x.mean(0) - mean) / (std / math.sqrt(chains))
    spread = (covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2) / (chains - 1)
    z_covariance = (x.T.cov() - covariance) / spread.sqrt()
    assert z_mean.abs().max() < bound
    assert z_covariance.abs().max() < bound
    # not a dull instrument: it can tell the stationary law from the one without blur
    sharp = blurred_posterior(1e-6)[1]
    assert ((x.T.cov() - sharp) / spread.sqrt()).abs().max() > 2 * bound


# --- the annealed chain on independent pixels N(1/2, s^2), the published schedule 0.5 -> 0.005 ---
# The figures below hold to the digit given for s from 0.1 to 0.15; the ones here are for s = 0.1.

S, SIGMA_MAX, SIGMA_MIN = 0.1, 0.5, 0.005
PIXEL = Mask(torch.zeros(1, 1, 1, dtype=torch.bool))  # one pixel, unobserved
UNSEEN = ForwardModel(PIXEL, torch.zeros(1, 1, 1, 1, dtype=torch.float64), 0.05)


def predicted_std(n: int, beta: float = 0.25, r: float = 1.0, finish: bool = False) -> float:
    """An unobserved pixel's std: v <- (1 - r beta sigma^2 / (s^2 + sigma^2))^2 v + 2 beta sigma^2, from sigma_max^2."""
    v = SIGMA_MAX**2
    for sigma in geometric(SIGMA_MAX, SIGMA_MIN, n):
        v = (1 - r * beta * sigma**2 / (S**2 + sigma**2)) ** 2 * v + 2 * beta * sigma**2
    return math.sqrt(v) * (S**2 / (S**2 + SIGMA_MIN**2) if finish else 1)


def read_off_std(n: int, beta: float = 0.25, r: float = 1.0, model: ForwardModel | None = UNSEEN) -> float:
    """The same from the code itself, without its formula: each step's M and L, composed."""
    v, step = SIGMA_MAX**2, Gpnp(GaussianPixels(0.5, S), model, beta, r)
    for sigma in geometric(SIGMA_MAX, SIGMA_MIN, n):
        M, _, L = affine(step, sigma, (1, 1, 1))
        v = float(M**2 * v + L @ L.T)
    return math.sqrt(v)


@pytest.mark.parametrize(
    ("n", "beta", "r", "percent"),
    [
        (50, 0.25, 1.0, 28),
        (100, 0.25, 1.0, 12),
        (200, 0.25, 1.0, 6),
        (400, 0.25, 1.0, 3),
        (1000, 0.25, 1.0, 1),
        (100, 0.5, 1.0, 6),
        (100, 0.25, 1.3, -4),  # tempering, -12 % in the limit, and freezing partly cancel
    ],
)
def test_known_bias_of_unobserved_pixels(n, beta, r, percent):
    std = read_off_std(n, beta, r)
    assert round(100 * (std / S - 1)) == percent
    assert std == pytest.approx(predicted_std(n, beta, r), rel=1e-12)


def test_drawing_from_the_prior_alone_is_having_no_data():
    assert read_off_std(100, model=None) == pytest.approx(read_off_std(100), rel=1e-12)


def test_tempered_limit_is_the_prior_to_the_power_r():
    assert predicted_std(20_000, r=1.3) / S == pytest.approx(1 / math.sqrt(1.3), rel=2e-3)


@pytest.mark.parametrize(
    ("n", "beta", "r"), [(50, 0.25, 1.0), (100, 0.25, 1.0), (200, 0.25, 1.0), (100, 0.5, 1.0), (100, 0.25, 1.3)]
)
def test_annealed_chain_has_that_bias(n, beta, r):
    """With noise: 4 chains of 64x64 pixels, 16,000 of them unobserved; both with and without the finishing step."""
    known = torch.zeros(1, 64, 64, dtype=torch.bool)
    known[0, 0] = True
    y = torch.where(known, 0.7, 0.0)[None]
    step = Gpnp(GaussianPixels(0.5, S), ForwardModel(Mask(known), y, 0.05), beta, r)
    rng = ChainRng(0, 4)
    x = 0.5 + SIGMA_MAX * rng.randn_like(torch.empty(4, 1, 64, 64))
    steps = list(anneal(step, x, geometric(SIGMA_MAX, SIGMA_MIN, n), rng, finish=True))
    for last, finish in ((steps[-2], False), (steps[-1], True)):
        unseen = last.state.x[:, ~known].double()
        count, std = unseen.numel(), predicted_std(n, beta, r, finish)
        assert abs(float(unseen.var() / std**2) - 1) < 4 * math.sqrt(2 / count)
        assert abs(float(unseen.mean()) - 0.5) < 4 * std / math.sqrt(count)


def test_finish_is_the_posterior_mean_of_the_last_state():
    """Tweedie's step, then the data's: unobserved pixels shrink towards the mean, noiseless known ones are y."""
    sigma, s = 0.1, 0.2
    known = torch.tensor([[[True, False, True]]])
    y, x = torch.tensor([[[[0.2, 0.0, 0.9]]]]).double(), torch.tensor([[[[0.3, 0.9, 0.6]]]]).double()
    x0 = 0.5 + s**2 / (s**2 + sigma**2) * (x - 0.5)
    for sigma_y in (0.0, 0.05):
        step = Gpnp(GaussianPixels(0.5, s), ForwardModel(Mask(known), y, sigma_y), beta=0.25)
        trust = 0.25 * sigma**2 / (0.25 * sigma**2 + sigma_y**2)
        expected = torch.where(known, trust * y + (1 - trust) * x0, x0)
        state, info = step.finish(State(x), sigma)
        torch.testing.assert_close(state.x, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(info.x0, x0, rtol=0, atol=1e-12)
        assert info.nfe == 1
    alone = Gpnp(GaussianPixels(0.5, s), None).finish(State(x), sigma)[0].x
    torch.testing.assert_close(alone, x0, rtol=0, atol=1e-12)


def test_step_is_the_papers_two_lines():
    """x <- (1 - r beta) x + r beta Denoise(x) + sqrt(beta) sigma W, then the forward generator at that point."""
    beta, r, sigma = 0.3, 1.2, 0.07
    step, x = kernel(beta, r), torch.rand(2, *SHAPE, generator=generator(8), dtype=torch.float64)
    new, info = step.step(State(x), sigma, ChainRng(4, 2))
    rng, gamma = ChainRng(4, 2), math.sqrt(beta) * sigma
    x0 = step.denoiser(x, sigma)
    v = (1 - r * beta) * x + r * beta * x0 + gamma * rng.randn_like(x)
    expected = step.model.generate(v, gamma, rng, exact=True)
    torch.testing.assert_close(new.x, expected, rtol=0, atol=1e-14)
    assert torch.equal(info.x0, x0) and info.nfe == 1
