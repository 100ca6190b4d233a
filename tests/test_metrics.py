"""PSNR, SSIM and NRMSE: values known by hand, and scikit-image's where both are defined."""

import math
import time
import tracemalloc

import numpy as np
import pytest
import torch

from gpnp_cli import metrics
from gpnp_cli.errors import InputError
from gpnp_cli.metrics import nrmse, psnr, ssim


def pictures(shape, seed=0, sigma=0.1):
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.1, 0.9, shape[-1]) * np.linspace(0.5, 1, shape[-2])[:, None]
    truth = np.clip(ramp + 0.1 * rng.random(shape), 0, 1)
    return np.clip(truth + sigma * rng.standard_normal(shape), 0, 1), truth


def test_psnr_by_hand():
    truth = np.full((3, 4, 5), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0)
    half = truth.copy()
    half[:, ::2] += 0.1
    assert psnr(half, truth) == pytest.approx(20 + 10 * math.log10(2))
    assert psnr(truth, truth) == math.inf


def test_nrmse_by_hand():
    truth = np.zeros((1, 1, 2))
    truth[0, 0] = 0.3, 0.4
    estimate = truth.copy()
    estimate[0, 0] = 0.3, 0.5
    assert nrmse(estimate, truth) == pytest.approx(0.1 / 0.5)
    assert nrmse(truth, truth) == 0
    black = np.zeros((1, 2, 2))
    assert nrmse(black, black) == 0 and nrmse(black + 0.1, black) == math.inf


def test_ssim_by_hand():
    # constants have neither variance nor covariance: the luminance factor is all that is left
    truth, estimate = np.full((1, 16, 16), 0.2), np.full((1, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(estimate, truth) == pytest.approx(expected, abs=1e-12)
    both = np.concatenate([truth, estimate]), np.concatenate([truth, truth])
    assert ssim(*both) == pytest.approx((1 + expected) / 2, abs=1e-12)  # the mean over channels


def test_identical_pictures_have_ssim_one():
    _, truth = pictures((3, 40, 30))
    assert ssim(truth, truth) == 1.0


@pytest.mark.parametrize("shape", [(1, 11, 11), (1, 64, 48), (3, 37, 201), (3, 200, 33)])
def test_equal_to_scikit_image(shape):
    skimage = pytest.importorskip("skimage.metrics")
    estimate, truth = pictures(shape)
    theirs = skimage.structural_similarity(
        truth, estimate, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=0
    )
    assert 0.05 < theirs < 0.95  # the comparison has something to compare
    assert ssim(estimate, truth) == pytest.approx(theirs, abs=1e-12)
    assert psnr(estimate, truth) == pytest.approx(skimage.peak_signal_noise_ratio(truth, estimate, data_range=1))
    assert nrmse(estimate, truth) == pytest.approx(skimage.normalized_root_mse(truth, estimate))


def test_strips_do_not_show(monkeypatch):
    pair = pictures((2, 75, 40))
    whole = [metric(*pair) for metric in (psnr, ssim, nrmse)]
    monkeypatch.setattr(metrics, "_STRIP_PIXELS", 1)  # strips of 16 rows, the last one of 1
    assert [metric(*pair) for metric in (psnr, ssim, nrmse)] == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (20, 3), (10, 10)])
def test_small_pictures_are_mirrored_along_their_short_axes(size):
    estimate, truth = pictures((2, *size))
    # brute force: the window's moments at each admissible centre
    t = np.arange(-5, 6)
    w = np.exp(-(t**2) / (2 * 1.5**2))
    w = np.outer(w, w) / w.sum() ** 2
    pad = [(0, 0), *[(5, 5) if n < 11 else (0, 0) for n in size]]
    x, y = np.pad(estimate, pad, mode="symmetric"), np.pad(truth, pad, mode="symmetric")
    values = []
    for c in range(2):
        for i in range(x.shape[1] - 10):
            for j in range(x.shape[2] - 10):
                p, q = x[c, i : i + 11, j : j + 11], y[c, i : i + 11, j : j + 11]
                mp, mq = (w * p).sum(), (w * q).sum()
                vp, vq, cov = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum(), (w * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert len(values) == 2 * math.prod(n if n < 11 else n - 10 for n in size)
    assert ssim(estimate, truth) == pytest.approx(np.mean(values), abs=1e-10)


@pytest.mark.parametrize("metric", [psnr, ssim, nrmse])
def test_the_estimate_is_clipped_and_the_truth_is_not(metric):
    estimate, truth = pictures((1, 20, 20))
    far = 3 * estimate - 1
    assert metric(far, truth) == metric(np.clip(far, 0, 1), truth)
    assert metric(truth, far) != metric(truth, np.clip(far, 0, 1))


@pytest.mark.parametrize("metric", [psnr, ssim, nrmse])
def test_tensors_equal_arrays(metric):
    estimate, truth = (a.astype(np.float32) for a in pictures((3, 20, 20)))
    expected = metric(estimate, truth)
    assert metric(torch.from_numpy(estimate).requires_grad_(), torch.from_numpy(truth)) == expected
    assert metric(torch.from_numpy(estimate).bfloat16(), truth) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("metric", [psnr, ssim, nrmse])
def test_bad_arguments_are_named(metric):
    _, truth = pictures((3, 20, 21))
    with pytest.raises(InputError, match="3x20x20 and 3x20x21"):
        metric(truth[..., :-1], truth)
    with pytest.raises(InputError, match="uint8"):
        metric((truth * 255).astype(np.uint8), truth)
    broken = truth.copy()
    broken[0, 9, 9] = np.nan
    assert math.isnan(metric(broken, truth))


def test_a_large_picture_takes_moderate_time_and_memory():
    estimate, truth = (a.astype(np.float32) for a in pictures((1, 1500, 2000)))
    start = time.process_time()
    tracemalloc.start()
    ssim(estimate, truth), psnr(estimate, truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < truth.nbytes  # less than one more copy of a channel
    assert time.process_time() - start < 10  # 0.4 s on an idle core
