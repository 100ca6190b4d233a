"""Tiled denoising: the same picture as in one piece, in calls of bounded size."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gpnp_cli.denoisers import tiled
from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.denoisers.tiled import TiledDenoiser
from gpnp_cli.denoisers.unet import NetworkDenoiser, Preconditioned, UNet
from gpnp_cli.samplers.rng import generator


class Box:
    """Every pixel within `receptive_field` counts equally: one pixel too few around a tile shows at once."""

    channels, sigma_range, receptive_field = None, (0.0, 10.0), 7

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        self.shapes.append(v.shape)
        s = torch.as_tensor(sigma, dtype=v.dtype).reshape(-1, 1, 1, 1)
        side = 2 * self.receptive_field + 1
        return s * F.avg_pool2d(v, side, stride=1, padding=self.receptive_field)


class Blocks(Box):
    """Means of the 8x8 blocks of a grid that starts in the corner: a tile that starts between two shows at once."""

    stride, receptive_field = 8, 7

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        self.shapes.append(v.shape)
        height, width = v.shape[-2:]
        padded = F.pad(v, (0, -width % 8, 0, -height % 8), mode="replicate")
        return F.interpolate(F.avg_pool2d(padded, 8), scale_factor=8)[..., :height, :width]


def network(channels: int = 1) -> NetworkDenoiser:
    net = UNet(channels=channels, widths=(6, 8), blocks=(1, 1))
    rng = generator(11)
    for p in net.parameters():  # every weight random: the initial zeros would hide the network
        fan = p[0].numel() if p.ndim > 1 else 100
        p.data = torch.randn(p.shape, generator=rng) / fan**0.5
    return NetworkDenoiser(Preconditioned(net), (0.0, 10.0), both=False)


def noise(n: int, channels: int, height: int, width: int) -> Tensor:
    return torch.rand(n, channels, height, width, generator=generator(1))


def assert_same(denoiser: Denoiser, v: Tensor, sigma: float | Tensor, tile: int | None) -> None:
    whole = denoiser(v, sigma)
    cut = TiledDenoiser(denoiser, tile)(v, sigma)
    assert cut.shape == whole.shape and cut.dtype == whole.dtype
    torch.testing.assert_close(cut, whole, rtol=0, atol=5e-6)


def test_stride_and_receptive_field_are_taken_from_the_network():
    denoiser = network()
    net = denoiser.model.net
    cut = TiledDenoiser(denoiser)
    assert cut.stride == net.stride and cut.overlap % net.stride == 0
    assert net.receptive_field <= cut.overlap < net.receptive_field + net.stride


SIZES = [(64, 64), (61, 75), (33, 130), (9, 101)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("tile", [16, 21, 32])
def test_tiles_equal_the_whole_with_a_network(height, width, tile):
    assert_same(network(), noise(2, 1, height, width), 0.3, tile)


@pytest.mark.parametrize("make", [Box, Blocks])
@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [(64, 64, 16), (61, 75, 13), (61, 75, 50), (33, 90, 8), (9, 101, 20), (1, 40, 1), (40, 1, 8), (7, 7, 1)],
)
def test_tiles_equal_the_whole_with_a_sharp_window(make, height, width, tile):
    assert_same(make(), noise(1, 2, height, width).double(), 0.5, tile)


@pytest.mark.parametrize("tile", [16, None])
def test_batches_with_one_sigma_per_image(tile, monkeypatch):
    monkeypatch.setattr(tiled, "AUTO_PIXELS", 60 * 60)
    sigma = torch.tensor([0.05, 0.5, 1.0])
    for denoiser in (network(3), Box()):
        v = noise(3, 3, 61, 45)
        assert_same(denoiser, v, sigma, tile)
        assert_same(denoiser, v, torch.tensor([0.3]), tile)
        assert_same(denoiser, v, torch.tensor(0.3), tile)
        # images keep their own level, whatever group they fall into
        alone = torch.cat([TiledDenoiser(denoiser, tile)(v[k : k + 1], sigma[k : k + 1]) for k in range(3)])
        torch.testing.assert_close(alone, TiledDenoiser(denoiser, tile)(v, sigma), rtol=0, atol=5e-6)


@pytest.mark.parametrize("make", [Box, Blocks])
@pytest.mark.parametrize(
    ("n", "height", "width"),
    [(1, 60, 60), (1, 61, 60), (3, 60, 60), (40, 20, 20), (1, 200, 130), (3, 70, 110), (2, 17, 700), (2, 700, 17)],
)
def test_automatic_mode_keeps_every_call_within_the_bound(monkeypatch, make, n, height, width):
    monkeypatch.setattr(tiled, "AUTO_PIXELS", 3600)
    denoiser, v = make(), noise(n, 1, height, width)
    TiledDenoiser(denoiser)(v, 0.5)
    assert all(shape[0] * shape[2] * shape[3] <= 3600 for shape in denoiser.shapes)
    assert_same(make(), v, 0.5, None)


def test_automatic_mode_leaves_small_pictures_whole(monkeypatch):
    monkeypatch.setattr(tiled, "AUTO_PIXELS", 3600)
    denoiser = Box()
    TiledDenoiser(denoiser)(noise(2, 1, 60, 30), 0.5)
    assert denoiser.shapes == [(2, 1, 60, 30)]
    denoiser.shapes.clear()
    TiledDenoiser(denoiser)(noise(6, 1, 60, 20), 0.5)
    assert denoiser.shapes == [(3, 1, 60, 20)] * 2


def test_a_bound_that_no_tile_can_meet_still_ends(monkeypatch):
    monkeypatch.setattr(tiled, "AUTO_PIXELS", 10)
    assert_same(Blocks(), noise(2, 1, 24, 31), 0.5, None)
    assert_same(Box(), noise(1, 1, 5, 31), 0.5, None)


@pytest.mark.parametrize("make", [Box, Blocks])
@pytest.mark.parametrize("tile", [8, 20, 24, 50])
def test_explicit_tiles_are_no_larger_than_asked(make, tile):
    denoiser = make()
    cut = TiledDenoiser(denoiser, tile)
    for length in (1, 7, 8, 50, 99, 100, 101, 200):
        rows, _ = cut._cuts(length, 10)
        assert rows[0][0] == 0 and rows[-1][1] == length
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(rows))
        assert all(0 < bottom - top <= tile and top % cut.stride == 0 for top, bottom in rows)
    cut(noise(9, 1, 40, 45), 0.5)
    assert all(shape[0] * shape[2] * shape[3] <= (tile + 2 * cut.overlap) ** 2 for shape in denoiser.shapes)


def test_it_is_a_denoiser_with_the_range_of_its_own():
    cut = TiledDenoiser(network(3))
    assert isinstance(cut, Denoiser) and cut.channels == 3 and cut.sigma_range == (0.0, 10.0)
