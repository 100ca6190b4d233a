"""BM3D as a denoiser: the library's own results, awkward pictures, chains over processes, no package."""

import importlib.util
import math

import numpy as np
import pytest
import torch

from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.denoisers.bm3d import Bm3dDenoiser
from gpnp_cli.denoisers.bm3d_worker import PROFILES
from gpnp_cli.errors import DivergenceError, EnvironmentProblem, UsageError

bm3d = pytest.importorskip("bm3d")  # no wheel on Linux-ARM


def picture(channels: int, side: int = 32) -> torch.Tensor:
    """A ramp with a bright square, `(1, channels, side, side)`."""
    ramp = torch.linspace(0.2, 0.7, side).expand(side, side).clone()
    ramp[side // 4 : side // 2, side // 4 : side // 2] = 0.9
    return torch.stack([ramp * (1 - 0.2 * c) for c in range(channels)])[None]


def noisy(x: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def denoiser():
    with Bm3dDenoiser(processes=1) as instance:
        assert isinstance(instance, Denoiser)
        yield instance


def library(v: torch.Tensor, sigma: float) -> np.ndarray:
    settings = bm3d.BM3DProfile()
    settings.num_threads = 1
    z = v[0].double().numpy().transpose(1, 2, 0)
    if v.shape[1] == 3:
        return bm3d.bm3d_rgb(z, sigma, settings).transpose(2, 0, 1)
    return bm3d.bm3d(z[..., 0], sigma, settings)[None]


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_library_on_an_ordinary_picture(denoiser, channels):
    v = noisy(picture(channels), 0.1)
    x0 = denoiser(v, 0.1)
    assert x0.shape == v.shape and x0.dtype == v.dtype
    np.testing.assert_allclose(x0[0].numpy(), library(v, 0.1), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 8, 8), (1, 1, 5, 31), (1, 3, 8, 9)])
def test_tiny_pictures_keep_their_size(denoiser, shape):
    v = noisy(torch.full(shape, 0.5), 0.05)
    x0 = denoiser(v, 0.05)
    assert x0.shape == v.shape and bool(torch.isfinite(x0).all())
    assert (x0 - 0.5).abs().max() <= (v - 0.5).abs().max()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_removes_noise_from_the_smallest_safe_picture(profile):
    x = picture(1, side=9)  # padded to the smallest size: the most delicate one for the library
    v = noisy(x, 0.1)
    x0 = Bm3dDenoiser(profile=profile, processes=1)(v, 0.1)
    assert (x0 - x).square().mean() < (v - x).square().mean()


def test_picture_without_contrast_comes_through(denoiser):
    flat = torch.full((1, 3, 24, 24), 0.4)
    torch.testing.assert_close(denoiser(flat, 0.1), flat, atol=1e-3, rtol=0)


def test_grey_picture_stored_as_colour_is_denoised(denoiser):
    x = picture(1).expand(1, 3, 32, 32)
    x0 = denoiser(noisy(x, 0.1), 0.1)  # its chroma is nothing but noise, which bm3d_rgb would divide by
    assert (x0 - x0.mean(1, keepdim=True)).square().mean().sqrt() < 0.1 / 4
    assert (x0 - x).square().mean() < 0.1**2 / 4


def test_picture_with_equal_channels_comes_out_with_equal_channels(denoiser):
    x0 = denoiser(noisy(picture(1), 0.1).expand(1, 3, 32, 32), 0.1)
    assert (x0 - x0.mean(1, keepdim=True)).abs().max() < 1e-3


def test_values_outside_the_unit_interval_are_not_clipped(denoiser):
    v = noisy(2 * picture(1) - 0.5, 0.05)
    x0 = denoiser(v, 0.05)
    assert x0.max() > 1.1 and x0.min() < 0


def test_very_small_sigma_returns_the_picture(denoiser):
    v = noisy(picture(1), 0.1)
    torch.testing.assert_close(denoiser(v, 1e-4), v, atol=2e-4, rtol=0)


def test_each_chain_has_its_own_sigma_and_does_not_depend_on_the_others_or_on_processes():
    x = picture(1)
    batch = torch.cat([noisy(x, 0.02, 1), noisy(x, 0.2, 2), noisy(x, 0.2, 3)])
    sigmas = torch.tensor([0.02, 0.2, 0.2])
    with Bm3dDenoiser(processes=2) as pooled:
        together = pooled(batch, sigmas)
        assert pooled._pool is not None
    assert pooled._pool is None
    alone = torch.cat([Bm3dDenoiser(processes=1)(batch[i : i + 1], float(sigmas[i])) for i in range(3)])
    assert torch.equal(together, alone)


def test_non_finite_pixels_are_refused_before_the_library_sees_them(denoiser):
    v = picture(1)
    v[0, 0, 3, 3] = math.nan
    with pytest.raises(DivergenceError, match="non-finite"):
        denoiser(v, 0.1)


def test_unknown_profile_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        Bm3dDenoiser(profile="best")
    assert "high" in caught.value.hint


def test_missing_package_says_what_to_install_and_the_licence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem) as caught:
        Bm3dDenoiser()
    assert caught.value.code == 3 and "non-commercial" in caught.value.hint


def test_licence_is_on_the_object(denoiser):
    assert "non-commercial" in denoiser.licence
