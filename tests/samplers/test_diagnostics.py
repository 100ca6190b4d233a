"""R-hat, autocorrelation and effective sample size against closed forms: AR(1), shifted chains, small sums by hand."""

import math

import pytest
import torch
from scipy.signal import lfilter
from torch import Tensor

from gpnp_cli.samplers.diagnostics import (
    annealed_rhat,
    autocorrelation,
    autocorrelation_time,
    effective_sample_size,
    rhat,
)
from gpnp_cli.samplers.rng import generator


def white(draws: int, chains: int, seed: int = 0) -> Tensor:
    return torch.randn(draws, chains, generator=generator(5, seed), dtype=torch.float64)


def ar1(phi: float, draws: int, chains: int, seed: int = 0) -> Tensor:
    """x_t = phi x_(t-1) + sqrt(1 - phi^2) w_t: variance 1, correlation phi^t, tau = (1 + phi) / (1 - phi)."""
    w = white(draws, chains, seed)
    rest, _ = lfilter([math.sqrt(1 - phi**2)], [1, -phi], w[1:].numpy(), axis=0, zi=phi * w[:1].numpy())
    return torch.cat([w[:1], torch.from_numpy(rest)])


def zigzag(levels: list[float], draws: int) -> Tensor:
    """Chains that alternate between level - 1 and level + 1."""
    sign = torch.ones(draws, 1, dtype=torch.float64)
    sign[1::2] = -1
    return torch.tensor(levels, dtype=torch.float64) + sign


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9])
def test_the_autocorrelation_time_of_ar1_is_known(phi):
    draws, chains = 20_000, 4
    tau = (1 + phi) / (1 - phi)
    found = autocorrelation_time(ar1(phi, draws, chains))
    # Sokal 1997, eq. 3.19: var(tau) ~ 2 (2 M + 1) tau^2 / n for a sum of M terms, here all that are not yet small
    terms = 1 if phi == 0 else math.log(0.005) / math.log(abs(phi))
    error = tau * math.sqrt(2 * (2 * terms + 1) / (draws * chains))
    assert abs(found - tau) < 4 * error
    assert effective_sample_size(ar1(phi, draws, chains)) == pytest.approx(draws * chains / found)


def test_the_autocorrelation_of_ar1_is_a_power():
    phi, draws, chains = 0.8, 20_000, 4
    error = math.sqrt((1 + phi**2) / (1 - phi**2) / (draws * chains))  # Bartlett's formula, at large distances
    rho = autocorrelation(ar1(phi, draws, chains))[:20]
    assert rho[0].item() == pytest.approx(1, abs=1e-12)
    assert (rho - phi ** torch.arange(20.0)).abs().max() < 4 * error


def test_autocorrelation_is_the_sum_over_pairs():
    x = ar1(0.6, 7, 3)
    centred = x - x.mean(0)
    within, between = x.var(0).mean(), x.mean(0).var()
    for lag in range(7):
        covariance = (centred[: 7 - lag] * centred[lag:]).sum(0).mean() / 6
        expected = 1 - (within - covariance) / (6 / 7 * within + between)
        assert autocorrelation(x)[lag] == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("levels", [[0.0, 0.0], [0.0, 1.0], [0.0, 3.0, 6.0], [2.0]])
@pytest.mark.parametrize("odd", [0, 1])
def test_rhat_of_shifted_chains_is_known(levels, odd):
    """W is that of +-1, n / (n - 1); each level counts twice, as first and as second half."""
    n = 20
    between = torch.tensor(levels * 2, dtype=torch.float64).var().item() if len(levels) > 1 else 0.0
    expected = math.sqrt((n - 1) / n * (1 + between))
    x = zigzag(levels, 2 * n + odd)
    assert rhat(x) == pytest.approx(expected, rel=1e-12)
    assert rhat(5 - 3 * x) == pytest.approx(expected, rel=1e-12)


def test_rhat_of_equal_chains_is_one_and_of_drifting_ones_is_not():
    x = white(1000, 4)
    # (R^2 - 1) n is 8 halves' F statistic minus one: below 3 with probability 0.999
    assert abs(rhat(x) ** 2 - 1) < 3 / 500
    drift = torch.linspace(0, 3, 1000, dtype=torch.float64)[:, None]
    # halves 1.5 apart, within which the drift adds 1.5^2 / 12 to the variance
    expected = math.sqrt(1 + 0.75**2 * 8 / 7 / (1 + 1.5**2 / 12))
    assert rhat(x + drift) == pytest.approx(expected, rel=0.03)


def test_a_common_drift_is_no_disagreement_of_annealed_chains():
    n, chains = 25, 3
    x = white(n, chains)
    drift = 100 * torch.logspace(0, -2, n, dtype=torch.float64)[:, None]
    assert annealed_rhat(x + drift) == pytest.approx(annealed_rhat(x), rel=1e-9)
    # n (R^2 - 1) + 1 is F with 2 and 48 degrees of freedom: below 7.5 with probability 0.998
    assert n * (annealed_rhat(x) ** 2 - 1) + 1 < 7.5
    shifted = x + torch.tensor([0.0, 4.0, 8.0])
    assert annealed_rhat(shifted) == pytest.approx(math.sqrt(1 + 16), rel=0.3)
    assert annealed_rhat(shifted + drift) == pytest.approx(annealed_rhat(shifted), rel=1e-9)


def test_annealed_rhat_is_unbiased_for_few_chains():
    """With two or three chains, the trend takes much of the variance along: W must not be too small."""
    for chains in (2, 3):
        found = [10 * (annealed_rhat(white(10, chains, seed)) ** 2 - 1) + 1 for seed in range(400)]
        # F with chains - 1 and 9 (chains - 1) degrees of freedom
        a, b = chains - 1, 9 * (chains - 1)
        mean, variance = b / (b - 2), 2 * b**2 * (a + b - 2) / (a * (b - 2) ** 2 * (b - 4))
        assert abs(sum(found) / 400 - mean) < 4 * math.sqrt(variance / 400)


def test_chains_that_disagree_hold_few_independent_draws():
    """Stuck at two levels: not many more than the two."""
    x = 0.01 * white(1000, 2) + torch.tensor([0.0, 1.0])
    assert effective_sample_size(x) < 4
    assert effective_sample_size(white(1000, 2)) > 1500


def test_what_does_not_vary():
    still = torch.full((10, 3), 0.7)
    assert rhat(still) == annealed_rhat(still) == 1
    assert math.isnan(effective_sample_size(still))
    levels = still + torch.arange(3)
    assert rhat(levels) == math.inf and annealed_rhat(levels) > 1e6
    assert math.isnan(annealed_rhat(white(10, 1)))


@pytest.mark.parametrize("measure", [rhat, autocorrelation_time, effective_sample_size])
def test_too_few_draws_are_refused(measure):
    with pytest.raises(ValueError, match=r"at least 4 draws, not \(3, 2\)"):
        measure(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="at least 4 draws"):
        measure(torch.zeros(9))
