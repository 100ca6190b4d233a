"""What chains are worth: whether they agree (R-hat), how long they remember, how many independent draws they hold.

A series is one number per draw and chain, `(draws, chains)`. All but `annealed_rhat` assume stationary chains: discard
the burn-in first. Sources: Gelman et al., "Bayesian Data Analysis", 3rd ed., 2013, section 11.4; Vehtari et al.,
"Rank-normalization, folding, and localization: an improved R-hat", Bayesian Analysis 2021 (V below); Geyer, "Practical
Markov chain Monte Carlo", Statistical Science 1992.
"""

import math

import torch
from torch import Tensor


def rhat(series: Tensor) -> float:
    """Split R-hat (V, equations 1 to 4, without ranks): 1 where all halves of all chains tell the same; one chain will do.

    sqrt(((n - 1) / n W + B / n) / W), W the mean variance within the halves, B / n the variance of their means. Raises
    `ValueError` for fewer than 4 draws.
    """
    return _ratio(*_variances(_halves(series)))


def annealed_rhat(series: Tensor) -> float:
    """R-hat of chains that all change in the same way, as they do while sigma falls; NaN for one chain.

    What the chains have in common at each iteration is taken out: W is the mean square that remains in a two-way
    analysis of variance, iterations by chains. A large value is not a fault by itself: annealed chains freeze, each
    at its own draw. It says that the later iterations of one chain are not more draws, and that the differences
    between chains are not noise. Raises `ValueError` for fewer than 2 draws.
    """
    x = _checked(series, 2)
    n, chains = x.shape
    if chains == 1:
        return math.nan
    means = x.mean(0)
    rest = x - means - x.mean(1, keepdim=True) + x.mean()
    return _ratio(rest.square().sum() / ((n - 1) * (chains - 1)), means.var(), n)


def autocorrelation(series: Tensor) -> Tensor:
    """Correlation of draws t apart, `(draws,)` from t = 0, of all chains together (V, equation 10).

    1 - (W - mean over chains of their autocovariance at t) / (total variance): chains that disagree are correlated at
    any distance. NaN if nothing varies.
    """
    x = _checked(series, 2)
    within, between, n = _variances(x)
    total = (n - 1) / n * within + between
    centred = x - x.mean(0)
    power = torch.fft.rfft(centred, n=2 * n, dim=0).abs().square()  # twice the length: the ends do not meet
    covariance = torch.fft.irfft(power, n=2 * n, dim=0)[:n].mean(1) / n
    # V's autocovariances have n - 1 at lag 0: rho(0) is 1
    return 1 - (within - covariance * n / (n - 1)) / total if total > 0 else torch.full_like(covariance, math.nan)


def autocorrelation_time(series: Tensor) -> float:
    """tau = 1 + 2 (sum of the correlations at all distances): one independent draw per tau draws; NaN if nothing varies.

    The sum ends where noise takes over (Geyer's initial monotone sequence): sums of neighbouring correlations are
    positive and fall for a reversible chain. Chains are halved first, as for `rhat`. Raises `ValueError` for fewer than
    4 draws.
    """
    halves = _halves(series)
    rho = autocorrelation(halves)
    pairs = rho[: len(rho) // 2 * 2].reshape(-1, 2).sum(1)
    if bool(torch.isnan(pairs[0])):
        return math.nan
    negative = (pairs <= 0).nonzero()
    end = int(negative[0]) if len(negative) else len(pairs)
    tau = -1 + 2 * float(torch.cummin(pairs[: max(1, end)], 0).values.sum())
    # antithetic chains may beat independent draws, but the estimate is not trusted beyond this (V, section 3.2)
    return max(tau, 1 / math.log10(halves.numel()))


def effective_sample_size(series: Tensor) -> float:
    """How many independent draws the chains hold together: draws x chains / tau."""
    return series.numel() / autocorrelation_time(series)


def _checked(series: Tensor, least: int) -> Tensor:
    if series.ndim != 2 or series.shape[0] < least or series.shape[1] < 1:
        raise ValueError(f"need a series (draws, chains) with at least {least} draws, not {tuple(series.shape)}")
    return series.double()


def _halves(series: Tensor) -> Tensor:
    """`(draws // 2, 2 chains)`: first and second half of each chain; the middle one of an odd number is left out."""
    x = _checked(series, 4)
    n = len(x) // 2
    return torch.cat([x[:n], x[-n:]], dim=1)


def _variances(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """W, B / n and n; one chain has no B."""
    between = x.mean(0).var() if x.shape[1] > 1 else x.new_zeros(())
    return x.var(0).mean(), between, len(x)


def _ratio(within: Tensor, between: Tensor, n: int) -> float:
    """sqrt(((n - 1) / n W + B / n) / W); 1 if nothing varies, infinite if only the means do."""
    if between == 0 and within == 0:
        return 1.0
    return math.sqrt((n - 1) / n + float(between) / float(within)) if within > 0 else math.inf
