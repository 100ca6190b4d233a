"""The measure that settings of the kernel search are chosen by, and the crops it is taken on."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

MODULES = ("machine", "levin", "kernel_search")


@pytest.fixture
def search(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("kernel_search")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def kernel(search):
    return search.shake(np.random.Generator(np.random.PCG64(0)), 15)


def test_the_true_kernel_has_no_excess_wherever_it_lies(search, kernel):
    wiener = search.Wiener(kernel)
    assert wiener.excess(torch.from_numpy(kernel)) == pytest.approx(0, abs=1e-9)
    moved = torch.from_numpy(np.pad(kernel, ((4, 0), (0, 6))))
    assert wiener.excess(moved) == pytest.approx(0, abs=1e-9)


def test_the_excess_grows_with_the_kernels_error(search, kernel):
    wiener = search.Wiener(kernel)
    flat = np.full_like(kernel, 1 / kernel.size)
    excess = [wiener.excess(torch.from_numpy((1 - share) * kernel + share * flat)) for share in (0.05, 0.2, 0.5, 1.0)]
    assert 0 < excess[0] < excess[1] < excess[2] < excess[3]


def test_a_wiener_filters_error_is_the_closed_form(search):
    """Without blur, power s at every frequency: s n / (s + n) for noise n."""
    wiener = search.Wiener(np.ones((1, 1)))
    noise = search.SIGMAS[0] ** 2
    assert wiener.least == pytest.approx((wiener.power * noise / (wiener.power + noise)).mean())


@pytest.mark.parametrize(("noisy", "soft"), [(False, False), (False, True), (True, False)])
def test_crops_are_as_large_and_as_noisy_as_they_are_said_to_be(search, tmp_path, noisy, soft):
    """Stripes along the columns stay stripes when blurred: what changes along a column is noise."""
    pixels = np.full((900, 900), 128, np.uint8)
    pixels[:, ::20] = 250
    Image.fromarray(pixels).save(tmp_path / "a.png")
    side = 240 if soft else 300
    (crop,) = search.crops(tmp_path, 1, side, noisy, soft, 0)
    assert crop.y.shape == (1, 1, side, side) and crop.kernel.sum() == pytest.approx(1)
    white = float(crop.y[0, 0].diff(dim=0).std()) / 2**0.5
    if noisy:
        assert white == pytest.approx(crop.noise, rel=0.05)
    else:  # coloured: neighbours are alike
        assert 0.3 * crop.noise < white < crop.noise


def test_kernels_turn_and_grow(search):
    line = np.zeros((31, 31))
    line[15, 8:23] = 1 / 15
    upright, longer = search.warped(line, 90.0), search.warped(line, 0.0, 1.4)
    p = np.arange(31) - 15
    spread = [(k.sum(axis) * p**2).sum() for k, axis in ((line, 0), (upright, 1), (longer, 0))]
    assert spread[1] == pytest.approx(spread[0], rel=0.05)
    assert spread[2] == pytest.approx(1.4**2 * spread[0], rel=0.1)
