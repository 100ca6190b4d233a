"""The measuring itself: shakes are kernels, similarity and error ratio are what they say."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parent.parent / "benchmarks" / "levin.py"


@pytest.fixture(scope="module")
def levin():
    sys.path.insert(0, str(PATH.parent))
    try:
        spec = importlib.util.spec_from_file_location("levin", PATH)
        module = importlib.util.module_from_spec(spec)
        sys.modules["levin"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(PATH.parent))
        sys.modules.pop("levin", None)


@pytest.mark.parametrize("extent", [15, 51])
def test_shakes_are_centred_kernels(levin, extent):
    kernel = levin.shake(np.random.Generator(np.random.PCG64(extent)), extent)
    assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1)
    r = kernel.shape[0] // 2
    centre = [(kernel.sum(axis) * np.arange(-r, r + 1)).sum() for axis in (1, 0)]
    assert np.abs(centre).max() <= 0.51
    used = np.argwhere(kernel > 0)
    assert extent <= np.ptp(used, axis=0).max() + 1 <= extent + 2
    again = levin.shake(np.random.Generator(np.random.PCG64(extent)), extent)
    assert np.array_equal(kernel, again)


def test_likeness_does_not_see_shifts(levin):
    kernel = levin.shake(np.random.Generator(np.random.PCG64(0)), 15)
    assert levin.likeness(kernel, kernel) == pytest.approx(1)
    assert levin.likeness(np.pad(kernel, ((5, 0), (0, 3))), kernel) == pytest.approx(1)
    assert levin.likeness(np.full((15, 15), 1 / 225), kernel) < 0.8


def test_blurred_photographs_lie_where_their_truth_does(levin, tmp_path, draw):
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = draw(photos / "a.png", height=130, width=120)
    cases = list(levin.shaken(photos, tmp_path, 1))
    assert len(cases) == 4
    for case in cases:
        blurred = levin.read_picture(case.path).pixels
        r = case.kernel.shape[0] // 2
        assert blurred.shape == case.truth.shape == (3, 130 - 2 * r, 120 - 2 * r)
        here = (pixels[r : 130 - r, r : 120 - r] / 255).transpose(2, 0, 1)
        assert np.abs(here - case.truth).max() < 1e-6
        window = np.lib.stride_tricks.sliding_window_view(pixels[:, :, 0] / 255, case.kernel.shape)
        expected = (window * case.kernel[::-1, ::-1]).sum((-1, -2))
        assert np.std(blurred[0] - expected) == pytest.approx(levin.NOISE, rel=0.15)


def test_a_large_picture_goes_on_as_its_mirror_image(levin, tmp_path, draw, monkeypatch):
    monkeypatch.setattr(levin, "LARGE", (150, 200))
    pixels = draw(tmp_path / "a.png", height=130, width=120)
    (case,) = levin.large(tmp_path / "a.png", tmp_path)
    assert all(side >= least for side, least in zip(case.truth.shape[1:], (150, 200), strict=True))
    r = case.kernel.shape[0] // 2
    edge = 120 - r  # in the truth's frame, that of the photograph's right border
    beyond = case.truth[:, :, edge : edge + 40]
    assert np.array_equal(beyond, case.truth[:, :, edge - beyond.shape[2] : edge][:, :, ::-1])
    here = (pixels[r:, r:] / 255).transpose(2, 0, 1)[:, :, :edge]
    assert np.abs(here - case.truth[:, : here.shape[1], :edge]).max() < 1e-6


def test_the_middle_is_scored(levin, monkeypatch):
    monkeypatch.setattr(levin, "SCORED", 4)
    pixels = np.arange(7 * 3, dtype=float).reshape(1, 7, 3)
    assert np.array_equal(levin.middle(pixels), pixels[:, 1:5])
