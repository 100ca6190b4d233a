"""The denoising residual: its closed form for a Gaussian prior."""

import math

import pytest
import torch

from gpnp_cli.denoisers.exact import GaussianPixels
from gpnp_cli.denoisers.familiarity import relative_residual
from gpnp_cli.samplers.rng import generator


@pytest.mark.parametrize("offset", [0.0, 0.25, 2.0])
def test_a_gaussian_priors_residual(offset):
    """At x = m + d the residual is a sigma n - (1 - a) d with a = s^2 / (s^2 + sigma^2), s = 1/4, m = 1/2."""
    sigma = 0.2
    a = 0.0625 / (0.0625 + sigma**2)
    x = torch.full((3, 1, 64, 64), 0.5 + offset, dtype=torch.float64)
    found = relative_residual(GaussianPixels(), x, sigma, generator(0))
    assert found.shape == (3,) and found.std() > 0  # each picture has its own noise
    expected = math.hypot(a * sigma, (1 - a) * offset) / sigma
    assert found.numpy() == pytest.approx(expected, rel=4 / math.sqrt(2 * 64 * 64))
