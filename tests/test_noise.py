"""The noise estimate: right on white noise, equal to scikit-image's, blind to smooth content."""

import math

import pytest
import torch

from gpnp_cli.noise import estimate_sigma


def noise(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.005, 0.1, 0.5])
def test_white_noise_within_monte_carlo_error(sigma):
    estimates = estimate_sigma(0.5 + sigma * noise((16, 1, 64, 64)))
    standard_error = estimates.std() / 4
    assert abs(estimates.mean() - sigma) < 4 * standard_error
    # the median of n absolute normals has relative standard error 1.166 / sqrt(n)
    assert estimates.std() / sigma == pytest.approx(1.166 / math.sqrt(31 * 31), rel=0.5)


def test_ramps_and_constants_do_not_count():
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(1, 1, 64, 64) + torch.linspace(0, 1, 64)[:, None]
    assert estimate_sigma(ramp).item() < 1e-12
    assert estimate_sigma(torch.full((1, 3, 8, 8), 0.3)).item() == 0


def test_saturated_areas_are_left_out():
    image = 0.3 + 0.05 * noise((1, 1, 64, 64))
    image[..., :40] = 1.0
    assert estimate_sigma(image).item() == pytest.approx(0.05, rel=4 * 1.166 / math.sqrt(31 * 12))


def test_each_picture_has_its_own_estimate_averaged_over_channels():
    levels = torch.tensor([0.02, 0.2], dtype=torch.float64)
    images = levels[:, None, None, None] * noise((2, 3, 64, 64))
    together = estimate_sigma(images)
    assert together.shape == (2,)
    per_channel = [estimate_sigma(images[:1, c : c + 1]).item() for c in range(3)]
    assert together[0].item() == pytest.approx(sum(per_channel) / 3)


def test_tiny_pictures_have_no_estimate():
    assert math.isnan(estimate_sigma(torch.zeros(1, 1, 3, 9)).item())


def test_equals_scikit_image():
    pytest.importorskip("pywt")
    skimage = pytest.importorskip("skimage.restoration")
    image = torch.linspace(0, 1, 96, dtype=torch.float64).expand(96, 96) ** 2 + 0.05 * noise((96, 96))
    ours = estimate_sigma(image[None, None]).item()
    theirs = float(skimage.estimate_sigma(image.numpy()))
    # the same estimator up to the border: 49x49 coefficients there, 47x47 here, on a shifted grid
    assert ours == pytest.approx(theirs, rel=3 * 1.166 * math.sqrt(2) / 47)
