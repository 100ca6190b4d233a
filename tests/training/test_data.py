"""Training crops: pure functions of (seed, step, rank), whatever was decoded before; bad files are named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gpnp_cli.errors import InputError, UsageError
from gpnp_cli.training.data import (
    Augmentation,
    CropSource,
    centre_crops,
    decode,
    held_out,
    luma,
    recolour,
)

CPU = torch.device("cpu")
PLAIN = Augmentation(scale_max=1.0, flip=False, turn=False, colour=False, texture=0.0)


class Pictures:
    """`read` for pictures that exist only here; counts how often each is decoded."""

    def __init__(self, count=6, size=(40, 56), channels=3, bad=()):
        self.paths = [Path(f"{i}.png") for i in range(count)]
        self.reads: list[int] = []
        self.size, self.channels, self.bad = size, channels, bad

    def __call__(self, path: Path) -> np.ndarray:
        number = int(path.stem)
        self.reads.append(number)
        if number in self.bad:
            raise InputError(f"{path}: broken")
        rng = np.random.default_rng(number)
        return rng.integers(0, 256, (*self.size, self.channels), dtype=np.uint8)


def source(pictures, size=16, augmentation=None, seed=0, **options):
    return CropSource(pictures.paths, pictures, size, augmentation or Augmentation(), seed, CPU, **options)


def test_a_batch_depends_on_seed_step_and_rank_alone():
    first, second = source(Pictures()), source(Pictures())
    second.batch(0, 4)
    second.batch(9, 4)
    batch = first.batch(7, 5, rank=1)
    assert batch.shape == (5, 3, 16, 16) and batch.dtype == torch.float32
    assert 0 <= batch.min() and batch.max() <= 1
    assert torch.equal(batch, second.batch(7, 5, rank=1))
    others = [first.batch(7, 5, rank=0), first.batch(8, 5, rank=1), source(Pictures(), seed=1).batch(7, 5, rank=1)]
    assert not any(torch.equal(batch, other) for other in others)


def test_crops_are_pixels_of_the_pictures():
    pictures = Pictures(1, (32, 32))
    x = source(pictures, 32, PLAIN).batch(0, 3)
    assert torch.equal(x[0], torch.from_numpy(pictures(pictures.paths[0]).transpose(2, 0, 1)) / 255)
    turned = source(pictures, 32, Augmentation(1.0, flip=True, turn=True, colour=False)).batch(0, 64)
    square = x[0]
    expected = [torch.rot90(f, k, (1, 2)) for f in (square, square.flip(2)) for k in range(4)]
    seen = {next(i for i, e in enumerate(expected) if torch.equal(crop, e)) for crop in turned}
    assert seen == set(range(8))


def test_crops_reach_every_pixel():
    """Partial cells at the right and lower border count, too."""
    ramp = np.arange(95 * 75, dtype=np.int64).reshape(95, 75)
    pixels = np.stack([ramp // 65536 % 256, ramp // 256 % 256, ramp % 256], axis=2).astype(np.uint8)
    crops = CropSource([Path("a")], lambda path: pixels, 16, PLAIN, 0, CPU)
    seen = torch.zeros(95 * 75, dtype=torch.bool)
    for step in range(40):
        values = (crops.batch(step, 32) * 255).round().long()
        seen[(values[:, 0] * 65536 + values[:, 1] * 256 + values[:, 2]).flatten()] = True
    assert seen.all()


def test_texture_draws_crops_where_the_gradients_are():
    pixels = np.full((64, 256, 1), 100, np.uint8)
    pixels[:, 192:] = np.random.default_rng(0).integers(0, 256, (64, 64, 1))

    def share(texture):
        augmentation = Augmentation(1.0, flip=False, turn=False, colour=False, texture=texture)
        crops = CropSource([Path("a")], lambda path: pixels, 8, augmentation, 0, CPU)
        return float((crops.batch(0, 400, groups=1).std((1, 2, 3)) > 0.05).float().mean())

    assert share(0.0) == pytest.approx(0.27, abs=0.08)
    assert share(1.0) > 0.95


def test_flat_pictures_do_not_divide_by_zero():
    crops = CropSource(
        [Path("a")], lambda path: np.full((40, 40, 3), 7, np.uint8), 16, Augmentation(texture=1.0), 0, CPU
    )
    assert crops.batch(0, 4).isfinite().all()


def test_shrunk_crops_cover_more_of_the_picture():
    pixels = np.zeros((64, 64, 1), np.uint8)
    pixels[:, ::2] = 255  # stripes of one pixel: grey as soon as the picture is shrunk
    crops = CropSource([Path("a")], lambda path: pixels, 16, Augmentation(4.0, False, False, False, 0.0), 0, CPU)
    contrast = torch.cat([crops.batch(step, 4, groups=4) for step in range(8)]).std((1, 2, 3))
    assert contrast.min() < 0.05 and contrast.max() > 0.3


def test_decoded_levels_and_cells():
    pixels = np.random.default_rng(0).integers(0, 256, (33, 70, 3), dtype=np.uint8)
    picture = decode(pixels, CPU)
    assert [tuple(level.shape) for level in picture.levels] == [(3, 33, 70), (3, 16, 35)]
    assert picture.levels[1][0, 0, 0] == round(pixels[:2, :2, 0].mean())
    assert picture.texture.shape == (1, 3)
    grey = pixels.mean(2)
    slope = abs(np.diff(grey, axis=0))[:, 1:] + abs(np.diff(grey, axis=1))[1:]
    assert picture.texture[0, 2] == pytest.approx(slope[:, 64:].mean(), rel=1e-5)
    assert picture.bytes == 3 * (33 * 70 + 16 * 35)


def test_small_and_corrupt_files_are_listed_and_skipped():
    pictures = Pictures(4, bad=(1,))

    def read(path):
        return np.zeros((15, 99, 3), np.uint8) if path.stem == "3" else pictures(path)

    crops = CropSource(pictures.paths, read, 16, Augmentation(), 0, CPU)
    assert [str(p) for p in crops.paths] == ["0.png", "2.png"]
    assert crops.rejected == [(Path("1.png"), "1.png: broken"), (Path("3.png"), "99x15 is smaller than the crop (16)")]
    assert crops.batch(0, 8).isfinite().all()


@pytest.mark.parametrize("options", [{}, {"cache_bytes": 1}])
def test_no_usable_picture_is_a_usage_error_with_the_first_reason(options):
    pictures = Pictures(2, bad=(0, 1))
    with pytest.raises(UsageError) as caught:
        source(pictures, **options)
    assert "among 2" in caught.value.message and "0.png: broken" in caught.value.hint
    with pytest.raises(UsageError):
        CropSource([], pictures, 16, Augmentation(), 0, CPU)


ONE = 3 * (40 * 56 + 20 * 28)  # bytes of one decoded picture of `Pictures`


def test_a_window_slides_over_all_pictures_and_repeats_after_a_restart():
    pictures = Pictures(7)
    straight = source(pictures, cache_bytes=3 * ONE + 1, steps_per_swap=2)
    assert straight.window == 3 and len(pictures.reads) == 4  # the rest is not looked at before its turn
    batches = [straight.batch(step, 4) for step in range(20)]
    assert set(pictures.reads) == set(range(7))
    assert len([1 for picture in straight._held.values() if picture]) == 3
    resumed = source(Pictures(7), cache_bytes=3 * ONE + 1, steps_per_swap=2)
    for step in (13, 14, 15, 16, 4):
        assert torch.equal(resumed.batch(step, 4), batches[step])
    straight.close()
    resumed.close()


def test_a_bad_picture_met_by_the_window_is_tried_once():
    pictures = Pictures(7, bad=(5,))
    crops = source(pictures, cache_bytes=3 * ONE, steps_per_swap=1)
    for step in range(30):
        assert crops.batch(step, 2).shape[0] == 2
    crops.close()
    assert pictures.reads.count(5) == 1 and crops.rejected == [(Path("5.png"), "5.png: broken")]


def test_a_cache_smaller_than_one_picture_still_trains():
    pictures = Pictures(3)
    crops = source(pictures, cache_bytes=1)
    assert crops.window == 1 and len(pictures.reads) == 1
    assert crops.batch(50, 3).shape == (3, 3, 16, 16)
    crops.close()


def test_grey_training():
    x = source(Pictures(channels=1)).batch(0, 4)
    assert x.shape == (4, 1, 16, 16) and 0 <= x.min() and x.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_recolouring_stays_in_range_and_keeps_black_white_and_grey(channels):
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(64, channels, 8, 8, generator=rng)
    u = torch.rand(64, 6, generator=rng)
    y = recolour(x, u)
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert (y - x).abs().mean() > 0.01
    neutral = torch.full((64, 6), 0.5)
    neutral[:, 4] = 2 / 3  # gamma 1, gains 1, saturation 1
    assert torch.allclose(recolour(x.clamp_min(1e-4), neutral), x.clamp_min(1e-4), atol=1e-5)
    assert recolour(torch.zeros_like(x), u).max() < 2e-3  # black stays black


def test_luma_weights_sum_to_one():
    grey = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(luma(grey), grey)
    assert torch.allclose(luma(grey.expand(-1, 3, -1, -1)), grey, atol=1e-6)
    assert luma(torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]).item() == pytest.approx(0.587)


def names(count: int) -> list[str]:
    return [f"folder/{i}.png" for i in range(count)]


def test_the_split_is_stable_under_adding():
    held, more = held_out(names(60), 0.2), held_out(names(80), 0.2)
    assert 5 <= len(held) <= 20 and set(held) <= set(more) and held == held_out(reversed(names(60)), 0.2)
    assert not set(more) - set(held) & set(names(60))
    assert len(held_out(names(5000), 0.3)) == pytest.approx(1500, abs=4 * (5000 * 0.21) ** 0.5)
    assert held_out([b"caf\xe9.png".decode("utf-8", "surrogateescape"), "b"], 0.5)  # a name that is not UTF-8


@pytest.mark.parametrize("count, share, held", [(1, 0.5, 0), (2, 1e-9, 1), (2, 0.999999, 1), (5, 0.0, 0), (0, 0.5, 0)])
def test_both_sides_of_the_split_get_a_picture(count, share, held):
    assert len(held_out(names(count), share)) == held


def test_centre_crops_are_as_large_as_the_smallest_picture_and_name_bad_ones():
    pictures = Pictures(4, (40, 20), bad=(2,))
    crops, rejected = centre_crops(pictures.paths, pictures, 16)
    assert crops.shape == (3, 3, 20, 20) and rejected == [(Path("2.png"), "2.png: broken")]
    first = torch.from_numpy(pictures(pictures.paths[0]).transpose(2, 0, 1)) / 255
    assert torch.equal(crops[0], first[:, 10:30])
    assert torch.equal(centre_crops(pictures.paths, pictures, 16, largest=16)[0][0], first[:, 12:28, 2:18])
    assert centre_crops(pictures.paths, pictures, 16, most=2)[0].shape[0] == 2
    halved, _ = centre_crops(pictures.paths, pictures, 10, halve=True)
    assert torch.allclose(halved[0], torch.nn.functional.avg_pool2d(first[None], 2)[0, :, 5:15], atol=1e-6)
    assert centre_crops(pictures.paths, pictures, 16, halve=True)[0].shape[2] == 20  # half would be too small
    assert centre_crops(pictures.paths, pictures, 64)[0] is None
