"""The diagnostics: known Jacobians, known errors."""

import math

import pytest
import torch

from gpnp_cli.denoisers.check import check, jacobian_asymmetry, psnr


class Linear:
    """v -> M v on the flattened picture."""

    channels, sigma_range = None, (0.0, math.inf)

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix = matrix

    def __call__(self, v, sigma):
        return (v.flatten(1) @ self.matrix.T).reshape(v.shape)


def matrix(seed: int = 0, size: int = 24) -> torch.Tensor:
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_symmetric_jacobian_has_no_asymmetry():
    m = matrix()
    v = torch.zeros(1, 1, 4, 6, dtype=torch.float64)
    assert jacobian_asymmetry(Linear(m + m.T), v, 0.1) < 1e-12


def test_asymmetry_estimates_the_ratio_of_frobenius_norms():
    m = matrix()
    j = m - torch.eye(24, dtype=torch.float64)
    v = torch.zeros(1, 1, 4, 6, dtype=torch.float64)
    exact = ((j - j.T).norm() / ((j.norm() ** 2 + j.T.norm() ** 2) / 2).sqrt()).item()
    single = torch.tensor([jacobian_asymmetry(Linear(m), v, 0.1, probes=50, seed=s) for s in range(20)])
    error = single.std() / 20**0.5
    assert abs(single.mean().item() - exact) < 4 * error


class Offset:
    channels, sigma_range = None, (0.0, math.inf)

    def __call__(self, v, sigma):
        return v + 0.25


def test_report_measures_noise_and_bias():
    images = [torch.full((1, 1, 64, 64), 0.5), torch.full((1, 1, 40, 64), 0.4)]
    low, high = check(Offset(), images, [0.01, 0.02])
    assert (low.sigma, high.sigma) == (0.01, 0.02)
    # mean of 2 x N noise pixels: standard error sigma / sqrt(pixels) / sqrt(2)
    assert abs(low.bias - 0.25) < 4 * 0.01 / math.sqrt(40 * 64) / math.sqrt(2)
    expected = -10 * math.log10(0.25**2 + 0.02**2)
    assert high.psnr == pytest.approx(expected, abs=0.05)
    assert low.asymmetry == 0


def test_bm3d_like_denoisers_report_no_asymmetry():
    class Blind(Offset):
        differentiable = False

    (report,) = check(Blind(), [torch.zeros(1, 1, 8, 8)], [0.1])
    assert report.asymmetry is None


def test_psnr_clips_the_estimate_only():
    assert psnr(torch.full((1, 1, 2, 2), 1.7), torch.full((1, 1, 2, 2), 0.9)) == pytest.approx(20.0, abs=1e-4)
