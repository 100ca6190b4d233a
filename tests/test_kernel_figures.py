"""Pictures of kernels."""

import io

import numpy as np
import pytest
from PIL import Image

from gpnp_cli.kernel_figures import Snapshot, animation, kernel_picture, snapshot_strip, spread_tile

KERNEL = np.array([[0, 0.25, 0], [0.5, 0.125, 0.125], [0, 0, 0]])


def snapshots():
    return [
        Snapshot(k / 4, np.full((1, 10 * k, 12 * k), k / 5, np.float32), np.eye(2 * k + 1) / (2 * k + 1))
        for k in (1, 2, 3, 4)
    ]


def test_a_kernel_is_enlarged_block_by_block():
    picture = kernel_picture(KERNEL)
    assert picture.shape == (255, 255, 3) and picture.dtype == np.uint8
    assert (picture[90:170, :85] == 255).all()
    assert (picture[:85, 90:170] == 128).all()
    assert (picture[200:] == 0).all()
    assert kernel_picture(np.full((301, 301), 1 / 301**2)).shape == (301, 301, 3)


def test_the_strip_holds_all_snapshots():
    strip = snapshot_strip(snapshots(), "title")
    assert strip.shape[2] == 3 and strip.shape[1] > 4 * 180
    grey = {int(255 * k / 5 + 0.5) for k in (1, 2, 3, 4)}
    assert grey <= set(np.unique(strip[:, :, 0]).tolist())


def test_spread_of_equal_kernels_is_dark():
    tile = spread_tile(np.zeros((3, 3)))
    assert tile.pixels.max() < 60 and tile.caption.startswith("up to 0 ")


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_the_animation_moves(format):
    film = Image.open(io.BytesIO(animation(snapshots(), format)))
    assert film.n_frames == 4 and film.size == (48, 40)
    film.seek(0)
    first = np.asarray(film.convert("L"), int)[30, 40]
    film.seek(3)
    assert abs(np.asarray(film.convert("L"), int)[30, 40] - first) > 80
