"""What a JPEG's step sizes tell of its error, compared with the error."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from gpnp_cli.imageio import read_picture
from gpnp_cli.jpeg import coding_error, cosines

HARBOUR = Path(__file__).parent.parent / "sample_images" / "harbour.png"


@pytest.fixture(scope="module")
def blurred():
    """A grey photograph, blurred, with noise of std 0.004, 8 bits."""
    pixels = np.asarray(Image.open(HARBOUR).convert("L").filter(ImageFilter.GaussianBlur(2)), dtype=float)
    noise = np.random.Generator(np.random.PCG64(0)).normal(0, 0.004 * 255, pixels.shape)
    return np.rint((pixels + noise).clip(0, 255)).astype(np.uint8)


def compressed(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def error_of(data):
    image = Image.open(io.BytesIO(data))
    return coding_error(np.asarray(image, dtype=np.float32) / 255, np.reshape(image.quantization[0], (8, 8)))


@pytest.mark.parametrize("quality", [95, 90, 80, 70, 50])
def test_the_error_is_about_what_it_was(blurred, quality):
    data = compressed(blurred, quality)
    there = np.asarray(Image.open(io.BytesIO(data)), dtype=float)
    actual = np.sqrt(np.square(there - blurred).mean()) / 255
    assert 0.65 * actual < error_of(data) < 1.5 * actual


def test_fine_steps_leave_what_rounding_leaves(blurred):
    """All steps are 1: every coefficient is off by its rounding."""
    assert error_of(compressed(blurred, 100)) == pytest.approx(1 / 255 / 12**0.5, rel=0.1)


def test_a_laplacian_is_seen_through_its_rounding():
    """Coefficients drawn with a known scale and rounded by a coarse step."""
    rng, scale, step = np.random.Generator(np.random.PCG64(1)), 6.0, 20
    true = rng.laplace(0, scale, (64, 64, 8, 8))
    blocks = cosines().T @ (step * np.rint(true / step)) @ cosines()
    picture = (blocks.swapaxes(1, 2).reshape(512, 512) + 128) / 255
    actual = np.sqrt(np.square(true - step * np.rint(true / step)).mean()) / 255
    found = coding_error(picture, np.full((8, 8), step))
    assert found == pytest.approx(actual, rel=0.06)  # where one falls in a step is not uniform


def test_what_holds_no_block_has_no_error():
    assert coding_error(np.zeros((7, 90)), np.full((8, 8), 10)) == 0


def test_a_flat_picture_is_hardly_wrong():
    """Nothing but the mean is kept, and what else there may have been is bounded by what none of many blocks kept."""
    assert coding_error(np.full((256, 256), 0.3), np.full((8, 8), 16)) < 16 / 255 / 12**0.5


def test_the_cosines_are_orthonormal():
    assert np.allclose(cosines() @ cosines().T, np.eye(8))


@pytest.mark.parametrize(("mode", "there"), [("L", True), ("RGB", True), ("CMYK", False)])
def test_pictures_bring_their_step_sizes(tmp_path, blurred, mode, there):
    Image.fromarray(blurred).convert(mode).save(tmp_path / "a.jpg", quality=80)
    steps = read_picture(tmp_path / "a.jpg").encoding["steps"]
    assert len(steps) == (64 if there else 0)
    if there:
        table = np.reshape(steps, (8, 8))
        assert table[0, 0] < table[7, 7] and table[0, 7] == 24  # 61 of the standard's table, by 0.4
