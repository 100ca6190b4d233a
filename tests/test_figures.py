"""The standard-deviation map, its scale bar, and the contact sheet: geometry, colours, lettering."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import ImageFont

from gpnp_cli import figures
from gpnp_cli.errors import InputError
from gpnp_cli.figures import Tile, colour_map, contact_sheet, show_missing, std_picture, std_tile


def picture(channels, height, width, seed=0):
    # whole steps of 1/255, so that rounding to bytes is never a tie
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width)).astype(np.float32) / 255


def lightness(rgb):
    """CIE 1976 L* of 8-bit sRGB."""
    c = np.asarray(rgb) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


def find(sheet, patch):
    """Top-left corners at which the uint8 `patch` occurs in `sheet`."""
    h, w = patch.shape[:2]
    first = (sheet[: sheet.shape[0] - h + 1, : sheet.shape[1] - w + 1] == patch[0, 0]).all(axis=-1)
    return [(y, x) for y, x in zip(*np.nonzero(first), strict=True) if (sheet[y : y + h, x : x + w] == patch).all()]


def as_bytes(pixels):
    return np.round(pixels.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0).repeat(3 // len(pixels), axis=2)


# ---------------------------------------------------------------- colours


def test_lightness_rises_evenly_along_the_map():
    colours = colour_map(np.arange(256.0)[None] / 255, 1.0)[0]
    values = lightness(colours)
    steps = np.diff(values)
    assert len(np.unique(colours, axis=0)) == 256
    assert (steps > 0).all()
    assert steps.max() < 2.2 * steps.mean()  # 8-bit rounding is worth half a step; no visible bands
    np.testing.assert_allclose(values, np.linspace(values[0], values[-1], 256), atol=0.6)
    assert values[0] < 8 and values[-1] > 92


def test_map_ends_and_missing_values():
    std = np.array([[0.0, 0.05, 0.1, 0.2, np.nan, np.inf]])
    colours = colour_map(std, 0.1)[0]
    scale = colour_map(np.array([[0.0, 0.5, 1.0]]), 1.0)[0]
    np.testing.assert_array_equal(colours, [*scale, scale[-1], [255] * 3, [255] * 3])


# ---------------------------------------------------------------- the map with its bar


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (70, 9), (3, 40, 500)])
def test_the_map_keeps_the_input_pixels(shape):
    std = 0.1 * np.random.default_rng(1).random(shape)
    result, vmax = std_picture(std)
    flat = std if std.ndim == 2 else np.sqrt((std**2).mean(axis=0))
    assert vmax == pytest.approx(np.percentile(flat, 99.9))
    assert result.dtype == np.uint8
    height, width = flat.shape
    np.testing.assert_array_equal(result[:height, :width], colour_map(flat, vmax))
    assert (result[:height, width:] == 255).all()
    assert result.shape[0] > height and result.shape[1] >= width
    below = result[height:].astype(int)
    assert (np.ptp(below, axis=2) > 100).any()  # the bar's colours
    assert (below.sum(axis=2) < 150).any()  # and its lettering


def test_vmax_is_never_zero_and_can_be_given():
    assert std_picture(np.zeros((5, 5)))[1] == 1 / 255
    lonely = np.zeros((100, 100))
    lonely[0, 0] = 0.3  # beyond the 99.9th percentile, which is 0
    assert std_picture(lonely)[1] == pytest.approx(0.3)
    assert std_picture(lonely, vmax=0.5)[1] == 0.5
    outlier = np.full((100, 100), 0.01)
    outlier[0, 0] = 1.0
    assert std_picture(outlier)[1] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("top", "most", "expected"),
    [
        (12.7, 7, [0, 2, 4, 6, 8, 10, 12]),
        (1.0, 5, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (255, 6, [0, 50, 100, 150, 200, 250]),
        (0.034, 4, [0, 0.01, 0.02, 0.03]),
    ],
)
def test_ticks_are_round(top, most, expected):
    assert figures._round_ticks(top, most) == pytest.approx(expected)


def test_the_bar_is_labelled_in_steps_of_8_bits(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        figures.ImageDraw.ImageDraw, "text", lambda self, at, text, **style: drawn.append((text, at[0]))
    )
    std_picture(np.full((300, 600), 12.0 / 255))
    labels = [text for text, _ in drawn[:-1]]
    assert labels[0] == "0" and float(labels[-1]) <= 12 < float(labels[-1]) + float(labels[1])
    assert "1/255" in drawn[-1][0] and "12" in drawn[-1][0]
    assert [x for _, x in drawn[:-1]] == sorted(x for _, x in drawn[:-1])


# ---------------------------------------------------------------- what is missing


@pytest.mark.parametrize("channels", [1, 3])
def test_missing_pixels_are_hatched_and_the_rest_untouched(channels):
    pixels, missing = picture(channels, 60, 80), np.zeros((60, 80), bool)
    missing[10:40, 20:60] = True
    before = pixels.copy()
    shown = show_missing(pixels, missing)
    assert shown.shape == (3, 60, 80) and shown.dtype == np.float32
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(shown[:, ~missing], np.broadcast_to(pixels, shown.shape)[:, ~missing])
    assert len(np.unique(shown[:, missing], axis=1).T) == 2  # two tones
    assert np.ptp(shown[0, 20, 20:60]) > 0 and np.ptp(shown[0, 10:40, 30]) > 0  # stripes both ways


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (1, 9), (50, 50)])
def test_scattered_pixels_have_one_colour(shape):
    missing = np.random.default_rng(0).random(shape) < 0.9
    missing[0, 0] = True
    missing[-1, -1] = shape == (1, 1)
    shown = show_missing(np.zeros((3, *shape), np.float32), missing)
    painted = np.unique(shown[:, missing], axis=1)
    assert painted.shape[1] == 1 and np.ptp(painted) > 0.1  # coloured, not grey
    assert (shown[:, ~missing] == 0).all()


# ---------------------------------------------------------------- the sheet


def test_small_pictures_are_enlarged_pixel_by_pixel():
    pixels = picture(3, 20, 30)
    sheet = contact_sheet([Tile("a", pixels), Tile("b", pixels[:1])], "title")
    factor = 512 // 30
    for tile in (pixels, pixels[:1]):
        assert len(find(sheet, as_bytes(tile).repeat(factor, axis=0).repeat(factor, axis=1))) == 1


def test_pictures_near_the_tile_size_are_shown_as_they_are():
    pixels = picture(3, 300, 340)
    sheet = contact_sheet([Tile(str(k), pixels) for k in range(5)], "title")
    places = find(sheet, as_bytes(pixels))
    assert len(places) == 5 and len({y for y, _ in places}) == 1
    assert np.diff([x for _, x in places]).min() >= 340


def test_large_pictures_are_reduced():
    ramp = np.linspace(0, 1, 2000, dtype=np.float32)[None, None].repeat(1500, axis=1)
    sheet = contact_sheet([Tile("ramp", ramp)] * 5, "title")
    assert sheet.shape[1] < 5 * 340 + 200 and sheet.shape[0] < 500
    line = sheet[200, 24 : 24 + 340, 0].astype(int)
    np.testing.assert_allclose(line, np.linspace(0, 255, 340), atol=3)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 11, 24])
def test_rows_wrap(count):
    pixels = np.full((count, 300, 300), 0.2, np.float32)
    pixels[:, 0, 0] = (np.arange(count) + 100) / 255
    sheet = contact_sheet([Tile(f"sample {k}", p[None]) for k, p in enumerate(pixels)], "title")
    places = [find(sheet, as_bytes(p[None, :200, :200]))[0] for p in pixels]
    assert places == sorted(places)  # in reading order
    rows = sorted({y for y, _ in places})
    assert len(rows) == -(-count // 5) and len({x for _, x in places}) <= 5
    assert all(b - a > 320 for a, b in itertools.pairwise(rows))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (3000, 1), (32, 32), (5000, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_odd_sizes(size, channels):
    pixels = picture(channels, *size)
    tiles = [Tile("a", pixels), std_tile("std", pixels)]
    sheet = contact_sheet(tiles, "title", roi=(0, 0, *size))
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert max(sheet.shape) < 3500 and (sheet != 255).any()
    assert (sheet[:, -8:] == 255).all() and (sheet[-8:] == 255).all()  # nothing is cut off at the paper's edge


def test_values_outside_the_range_are_clipped():
    pixels = np.array([[[-1.0, 2.0, np.nan, 0.5]]], np.float32)
    sheet = contact_sheet([Tile("a", pixels)], "t")
    expected = np.array([0, 255, 0, 128], np.uint8)[None, :, None].repeat(3, axis=2)
    assert find(sheet, expected.repeat(128, axis=1))


def test_the_detail_shows_the_region_with_a_margin():
    pixels = picture(3, 256, 256)
    sheet = contact_sheet([Tile(str(k), pixels) for k in range(5)], "t", roi=(100, 60, 40, 50))
    plain = contact_sheet([Tile(str(k), pixels) for k in range(5)], "t")
    assert sheet.shape[0] > plain.shape[0] + 240
    core = as_bytes(pixels)[90:150, 50:120]  # the region and 10 pixels around it
    assert len(find(sheet, core.repeat(3, axis=0).repeat(3, axis=1))) == 5
    assert len(find(plain, core.repeat(3, axis=0).repeat(3, axis=1))) == 0
    # the region itself is unmarked in the tile: marks must not hide the seam
    assert len(find(sheet, as_bytes(pixels)[99:141, 59:111])) == 5


def test_the_detail_of_a_large_region_is_its_corner():
    pixels = picture(1, 256, 256)
    y0, x0, h, w = figures._detail_window((256, 256), 1.0, 256, (10, 10, 200, 150))
    assert (h, w) == (128, 128)
    corner = (10 + 200, 10 + 150)
    assert y0 < corner[0] < y0 + h and x0 < corner[1] < x0 + w
    assert contact_sheet([Tile("a", pixels)] * 5, "t", roi=(10, 10, 200, 150)).shape[0] > 500


def test_the_detail_of_a_large_picture_is_in_true_pixels_or_reduced():
    assert figures._detail_window((4000, 3000), 0.1, 400, (1000, 1000, 40, 40))[2:] == (66, 66)  # six-fold
    window = figures._detail_window((4000, 3000), 0.1, 400, (1000, 1000, 600, 800))
    assert window[2:] == (1200, 1200) and window[0] + 600 == 1300 and window[1] + 600 == 1400


@pytest.mark.parametrize("roi", [(-5, -5, 10, 10), (20, 20, 500, 500), (299, 299, 1, 1), (0, 0, 300, 300)])
def test_regions_at_the_border(roi):
    y0, x0, h, w = figures._detail_window((300, 300), 1.0, 300, roi)
    assert 0 <= y0 and y0 + h <= 300 and 0 <= x0 and x0 + w <= 300 and h > 0 and w > 0


def test_the_details_of_one_row_are_level():
    pixels = picture(3, 256, 256)
    tiles = [Tile("a", pixels), Tile("b", pixels, ("one", "two", "three")), std_tile("s", pixels[0])]
    sheet = contact_sheet([*tiles, *tiles[:2]], "t", roi=(100, 100, 30, 30))
    core = as_bytes(pixels)[100:130, 100:130].repeat(5, axis=0).repeat(5, axis=1)
    assert len({y for y, _ in find(sheet, core)}) == 1 and len(find(sheet, core)) == 4


def test_lettering_stays_in_its_column():
    plain, long = (
        contact_sheet(
            [Tile(text, np.ones((1, 300, 300), np.float32), (text, text)) for _ in range(5)], text, notes=(text,)
        )
        for text in ("x", "a very long title that goes on and on " * 9)
    )
    assert plain.shape == long.shape
    ink = (long != 255).any(axis=2)
    assert not ink[:, :24].any() and not ink[:, -24:].any()
    for k in range(1, 5):  # the gaps between the columns, below the header
        assert not ink[100:, k * 324 : k * 324 + 24].any()
    assert ink.sum() > 3 * (plain != 255).any(axis=2).sum()


def test_elision_keeps_the_longest_beginning():
    font = figures._font(15)
    text = "The quick brown fox jumps over the lazy dog"
    assert figures._elided(text, font, 1000) == text
    for width in (30, 60, 100, 200):
        short = figures._elided(text, font, width)
        assert short.endswith("...") and text.startswith(short[:-3])
        assert font.getlength(short) <= width
        assert font.getlength(text[: len(short) - 3 + 2] + "...") > width
    assert figures._elided(text, font, 1) == ""


def test_titles_beyond_the_font_are_spelled_or_marked():
    font = figures._font(15)
    assert figures.printable("Größe é Å ñ", font) == "Grosse e A n"
    assert figures.printable("σ = 0.1 × 2", font) == "sigma = 0.1 x 2"
    assert figures.printable("写真.png\n\x07", font) == "??.png ?"
    assert figures.printable("PSNR 27.3 dB (~95 %) [x]", font) == "PSNR 27.3 dB (~95 %) [x]"


def test_a_pillow_without_freetype_still_letters(monkeypatch):
    bitmap = ImageFont.load_default_imagefont() if hasattr(ImageFont, "load_default_imagefont") else None
    if bitmap is None:
        pytest.skip("this Pillow keeps no bitmap font")

    def load_default(size=None):
        if size is not None:
            raise ImportError("The _imagingft C module is not installed")
        return bitmap

    monkeypatch.setattr(ImageFont, "load_default", load_default)
    figures._font.cache_clear()
    try:
        sheet = contact_sheet([Tile("写 Größe", picture(3, 64, 64), "caption"), std_tile("s", picture(1, 64, 64))], "ü")
        assert (sheet[:60].sum(axis=2) < 300).any()
    finally:
        figures._font.cache_clear()


@pytest.mark.parametrize(
    ("tiles", "roi", "message"),
    [
        ([], None, "at least one"),
        ([Tile("a", np.zeros((4, 8, 8)))], None, r"not float64 \(4, 8, 8\)"),
        ([Tile("a", np.zeros((8, 8), np.uint8))], None, "not uint8"),
        ([Tile("a", np.zeros((1, 0, 8)))], None, r"\(1, 0, 8\)"),
        ([Tile("a", np.zeros((1, 200, 200)))], (200, 0, 5, 5), "outside the picture of 200x200"),
    ],
)
def test_bad_arguments(tiles, roi, message):
    with pytest.raises(InputError, match=message):
        contact_sheet(tiles, "t", roi=roi)


def test_figures_need_neither_torch_nor_matplotlib():
    code = "import sys, gpnp_cli.figures; print({'torch', 'scipy', 'matplotlib'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )
