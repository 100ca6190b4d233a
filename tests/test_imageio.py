"""Pictures come out as what they were; whatever a file holds, it is a picture or one sentence."""

import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageFile, ImageOps

from gpnp_cli.errors import EnvironmentProblem, InputError, UsageError
from gpnp_cli.imageio import Picture, picture_bytes, read_mask, read_picture, write_atomic, written_format

HEIGHT, WIDTH = 13, 17
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _random(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


RGB = _random(HEIGHT, WIDTH, 3)
RGB16 = _random(HEIGHT, WIDTH, 3, dtype=np.uint16)
FLOAT = np.random.default_rng(1).random((HEIGHT, WIDTH, 3), dtype=np.float32)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[40:200:13j, 30:220:17j], 128.0), -1).astype(np.uint8)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _tiff(samples: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, **options)
    return stream.getvalue()


def _opencv(extension: str, samples: np.ndarray) -> bytes:
    order = [2, 1, 0, 3][: samples.shape[2]] if samples.ndim == 3 else slice(None)
    done, buffer = cv2.imencode(extension, np.ascontiguousarray(samples[..., order]) if samples.ndim == 3 else samples)
    assert done
    return buffer.tobytes()


def _npy(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, samples)
    return stream.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _plain_png(samples: np.ndarray, colour: int, *chunks: bytes) -> bytes:
    """An unfiltered 16-bit PNG, written without the code under test."""
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    middle = b"".join(chunks) + _chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + middle + _chunk(b"IEND", b"")


def _palette(transparent: bool = False) -> Image.Image:
    image = Image.fromarray(_random(HEIGHT, WIDTH) % 7).convert("L")
    image.putpalette(_random(7, 3, seed=5).tobytes())
    if transparent:
        image.info["transparency"] = bytes([0, 255, 128, 255, 7, 255, 255])
    return image


def _png_with_colour_key() -> bytes:
    return _saved(Image.fromarray(RGB), "PNG", transparency=tuple(int(v) for v in RGB[2, 3]))


# name -> (bytes, mode, bits, format, channels, has alpha)
SOURCES: dict[str, tuple[bytes, str, int, str, int, bool]] = {
    "grey.png": (_saved(Image.fromarray(RGB[..., 0]), "PNG"), "grey", 8, "png", 1, False),
    "bit.png": (_saved(Image.fromarray(RGB[..., 0] > 99), "PNG"), "grey", 8, "png", 1, False),
    "rgb.png": (_saved(Image.fromarray(RGB), "PNG"), "rgb", 8, "png", 3, False),
    "la.png": (_saved(Image.fromarray(RGB[..., :2]), "PNG"), "grey", 8, "png", 1, True),
    "rgba.png": (_saved(Image.fromarray(_random(HEIGHT, WIDTH, 4)), "PNG"), "rgb", 8, "png", 3, True),
    "key.png": (_png_with_colour_key(), "rgb", 8, "png", 3, True),
    "palette.png": (_saved(_palette(), "PNG"), "palette", 8, "png", 3, False),
    "palette-alpha.png": (_saved(_palette(True), "PNG"), "palette", 8, "png", 3, True),
    "grey16.png": (_opencv(".png", RGB16[..., 0]), "grey", 16, "png", 1, False),
    "rgb16.png": (_opencv(".png", RGB16), "rgb", 16, "png", 3, False),
    "rgba16.png": (_opencv(".png", _random(HEIGHT, WIDTH, 4, dtype=np.uint16)), "rgb", 16, "png", 3, True),
    "la16.png": (_plain_png(RGB16[..., :2], 4), "grey", 16, "png", 1, True),
    "key16.png": (
        _plain_png(RGB16, 2, _chunk(b"tRNS", RGB16[1, 2].astype(">u2").tobytes())),
        "rgb",
        16,
        "png",
        3,
        True,
    ),
    "greykey16.png": (
        _plain_png(RGB16[..., :1], 0, _chunk(b"tRNS", RGB16[1, 2, :1].astype(">u2").tobytes())),
        "grey",
        16,
        "png",
        1,
        True,
    ),
    "grey.jpg": (_saved(Image.fromarray(SMOOTH[..., 0]), "JPEG"), "grey", 8, "jpg", 1, False),
    "rgb.jpg": (_saved(Image.fromarray(SMOOTH), "JPEG"), "rgb", 8, "jpg", 3, False),
    "cmyk.jpg": (_saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG"), "cmyk", 8, "jpg", 3, False),
    "lossy.webp": (_saved(Image.fromarray(SMOOTH), "WEBP"), "rgb", 8, "webp", 3, False),
    "lossless.webp": (
        _saved(Image.fromarray(_random(HEIGHT, WIDTH, 4)), "WEBP", lossless=True, exact=True),
        "rgb",
        8,
        "webp",
        3,
        True,
    ),
    "grey.tif": (_saved(Image.fromarray(RGB[..., 0]), "TIFF"), "grey", 8, "tif", 1, False),
    "bit.tif": (_saved(Image.fromarray(RGB[..., 0] > 99), "TIFF", compression="group4"), "grey", 8, "tif", 1, False),
    "lzw.tif": (_saved(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"), "rgb", 8, "tif", 3, False),
    "planar.tif": (_tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"), "rgb", 8, "tif", 3, 0),
    "la.tif": (_saved(Image.fromarray(RGB[..., :2]), "TIFF"), "grey", 8, "tif", 1, True),
    "rgba.tif": (_saved(Image.fromarray(_random(HEIGHT, WIDTH, 4)), "TIFF"), "rgb", 8, "tif", 3, True),
    "palette.tif": (_saved(_palette(), "TIFF"), "palette", 8, "tif", 3, False),
    "cmyk.tif": (
        _tiff(_random(HEIGHT, WIDTH, 4), photometric="separated"),
        "cmyk",
        8,
        "tif",
        3,
        False,
    ),
    "cmyk16.tif": (
        _tiff(_random(HEIGHT, WIDTH, 4, dtype=np.uint16), photometric="separated"),
        "cmyk",
        16,
        "tif",
        3,
        False,
    ),
    "white0.tif": (_tiff(RGB16[..., 0], photometric="miniswhite"), "grey", 16, "tif", 1, False),
    "grey16.tif": (_tiff(RGB16[..., 0], byteorder=">"), "grey", 16, "tif", 1, False),
    "lzw16.tif": (_opencv(".tif", RGB16), "rgb", 16, "tif", 3, False),
    "greylzw16.tif": (_opencv(".tif", RGB16[..., 0]), "grey", 16, "tif", 1, False),
    "zlib16.tif": (_tiff(RGB16, photometric="rgb", compression="zlib", predictor=True), "rgb", 16, "tif", 3, False),
    "tiles16.tif": (_tiff(RGB16, photometric="rgb", tile=(16, 16)), "rgb", 16, "tif", 3, False),
    "planar16.tif": (
        _tiff(np.moveaxis(RGB16, -1, 0), photometric="rgb", planarconfig="separate"),
        "rgb",
        16,
        "tif",
        3,
        False,
    ),
    "rgba16.tif": (
        _tiff(_random(HEIGHT, WIDTH, 4, dtype=np.uint16), photometric="rgb", extrasamples=["unassalpha"]),
        "rgb",
        16,
        "tif",
        3,
        True,
    ),
    "float.tif": (_tiff(FLOAT[..., 0]), "grey", 32, "tif", 1, False),
    "floatrgb.tif": (_tiff(FLOAT, photometric="rgb"), "rgb", 32, "tif", 3, False),
    "big.tif": (_tiff(RGB16, photometric="rgb", bigtiff=True), "rgb", 16, "tif", 3, False),
    "rgb.bmp": (_saved(Image.fromarray(RGB), "BMP"), "rgb", 8, "bmp", 3, False),
    "grey.bmp": (_saved(Image.fromarray(RGB[..., 0]), "BMP"), "grey", 8, "bmp", 1, False),
    "palette.bmp": (_saved(_palette(), "BMP"), "palette", 8, "bmp", 3, False),
    "palette.gif": (_saved(_palette(), "GIF"), "palette", 8, "gif", 3, False),
    "rgb.ppm": (_saved(Image.fromarray(RGB), "PPM"), "rgb", 8, "ppm", 3, False),
    "grey.pgm": (_saved(Image.fromarray(RGB[..., 0]), "PPM"), "grey", 8, "ppm", 1, False),
    "rgb16.ppm": (b"P6\n# 16 bits\n17 13 65535\n" + RGB16.astype(">u2").tobytes(), "rgb", 16, "ppm", 3, False),
    "grey16.pgm": (b"P5 17 13\n65535\n" + RGB16[..., 0].astype(">u2").tobytes(), "grey", 16, "ppm", 1, False),
    "float.pfm": (b"Pf\n17 13\n-1.0\n" + FLOAT[::-1, :, 0].astype("<f4").tobytes(), "grey", 32, "tif", 1, False),
    "rgb.npy": (_npy(RGB), "rgb", 8, "npy", 3, False),
    "grey16.npy": (_npy(np.asfortranarray(RGB16[..., 0])), "grey", 16, "npy", 1, False),
    "float.npy": (_npy(FLOAT.astype(">f8")), "rgb", 32, "npy", 3, False),
    "bool.npy": (_npy(RGB[..., 0] > 99), "grey", 8, "npy", 1, False),
}
LOSSY = ("grey.jpg", "rgb.jpg", "cmyk.jpg", "lossy.webp")


def _write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _source(folder: Path, name: str) -> Path:
    return _write(folder, name, SOURCES[name][0])


@pytest.mark.parametrize("name", SOURCES)
def test_each_kind_is_read_as_what_it_is(tmp_path: Path, name: str) -> None:
    _, mode, bits, format, channels, has_alpha = SOURCES[name]
    picture = read_picture(_source(tmp_path, name))
    assert (picture.mode, picture.bits, picture.format) == (mode, bits, format)
    assert picture.pixels.shape == (channels, HEIGHT, WIDTH)
    assert picture.pixels.dtype == np.float32 and picture.pixels.flags.c_contiguous
    assert 0 <= picture.pixels.min() < picture.pixels.max() <= 1
    assert (picture.alpha is not None) == bool(has_alpha)
    assert (picture.cmyk is not None) == (mode == "cmyk")


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in LOSSY])
def test_unchanged_pixels_come_back_exactly(tmp_path: Path, name: str) -> None:
    picture = read_picture(_source(tmp_path, name))
    content, extension = picture_bytes(picture, picture.pixels)
    again = read_picture(_write(tmp_path, f"again.{extension}", content))
    np.testing.assert_array_equal(again.pixels, picture.pixels)
    assert (again.mode, again.bits) == (picture.mode, picture.bits)
    assert again.format == ("png" if picture.format == "gif" else picture.format)
    for before, after in ((picture.alpha, again.alpha), (picture.cmyk, again.cmyk)):
        if before is None:
            assert after is None
        else:
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rgb.png", RGB),
        ("rgb16.png", RGB16),
        ("lzw16.tif", RGB16),
        ("planar16.tif", RGB16),
        ("planar.tif", RGB),
        ("big.tif", RGB16),
        ("rgb16.ppm", RGB16),
        ("rgb.bmp", RGB),
    ],
)
def test_values_and_their_place(tmp_path: Path, name: str, expected: np.ndarray) -> None:
    pixels = read_picture(_source(tmp_path, name)).pixels
    full = np.iinfo(expected.dtype).max
    np.testing.assert_array_equal(pixels, np.moveaxis(expected, -1, 0).astype(np.float32) / np.float32(full))


def test_white_is_zero_tiff_is_inverted(tmp_path: Path) -> None:
    pixels = read_picture(_source(tmp_path, "white0.tif")).pixels[0]
    np.testing.assert_array_equal(np.rint(pixels * 65535), 65535 - RGB16[..., 0])


def test_premultiplied_alpha_is_undone(tmp_path: Path) -> None:
    samples = np.full((2, 2, 4), 32768, np.uint16)
    samples[..., 0] = 16384
    path = _write(tmp_path, "a.tif", _tiff(samples, photometric="rgb", extrasamples=["assocalpha"]))
    picture = read_picture(path)
    np.testing.assert_allclose(picture.pixels[:, 0, 0], [0.5, 1, 1], atol=1e-4)
    np.testing.assert_allclose(picture.alpha, 0.5, atol=1e-4)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm", "x.npy"])
def test_all_65536_levels_survive(tmp_path: Path, name: str) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = read_picture(_write(tmp_path, "levels.png", _opencv(".png", levels)))
    content, _ = picture_bytes(picture, picture.pixels, format=Path(name).suffix[1:])
    if name.endswith("npy"):
        again = np.load(io.BytesIO(content))
    else:
        again = np.asarray(Image.open(io.BytesIO(content))).astype(np.uint16)
    np.testing.assert_array_equal(again, levels)


def test_written_files_are_read_alike_by_other_libraries(tmp_path: Path) -> None:
    deep = read_picture(_source(tmp_path, "rgba16.png"))
    png, _ = picture_bytes(deep, deep.pixels)
    tif, _ = picture_bytes(deep, deep.pixels, format="tiff")
    expected = cv2.imdecode(np.frombuffer(SOURCES["rgba16.png"][0], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), expected)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(tif)), expected[..., [2, 1, 0, 3]])
    shallow = read_picture(_source(tmp_path, "rgb.png"))
    tif, _ = picture_bytes(shallow, shallow.pixels, format="tif")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(tif))), RGB)
    floats = read_picture(_source(tmp_path, "floatrgb.tif"))
    tif, _ = picture_bytes(floats, floats.pixels)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(tif)), FLOAT)


def test_writers_work_in_blocks(tmp_path: Path) -> None:
    samples = _random(700, 701, 3, dtype=np.uint16)  # 2.9 MB: three blocks
    picture = read_picture(_write(tmp_path, "a.tif", _tiff(samples, photometric="rgb")))
    png, _ = picture_bytes(picture, picture.pixels, format="png")
    again = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again[..., ::-1], samples)
    tif, _ = picture_bytes(picture, picture.pixels)
    with tifffile.TiffFile(io.BytesIO(tif)) as file:
        assert len(file.pages[0].dataoffsets) == 3
        np.testing.assert_array_equal(file.pages[0].asarray(), samples)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (5, 1), (3, 7)])
@pytest.mark.parametrize("format", ["png", "tif", "jpg", "webp", "bmp", "ppm", "npy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_and_odd_sizes(tmp_path: Path, shape: tuple[int, int], format: str, channels: int) -> None:
    pixels = np.random.default_rng(0).random((channels, *shape), dtype=np.float32)
    for bits in (8, 16):
        if bits == 16 and format in ("jpg", "webp", "bmp"):
            continue
        content, extension = picture_bytes(Picture(None, pixels), pixels, format, bits)
        again = read_picture(_write(tmp_path, f"a.{extension}", content))
        assert again.pixels.shape == (3 if format == "webp" else channels, *shape)
        assert again.bits == bits
        if format != "jpg":
            assert np.abs(again.pixels - pixels).max() <= 0.51 / (2**bits - 1)


# ---------------------------------------------------------------------------------------- what comes out


def test_clip_and_round_to_nearest() -> None:
    values = np.array([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 7.0], np.float32).reshape(1, 1, -1)
    content, _ = picture_bytes(Picture(None, values), values)
    assert np.asarray(Image.open(io.BytesIO(content))).tolist() == [[0, 0, 0, 1, 255, 255, 255]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(bad: float) -> None:
    pixels = np.full((1, 2, 2), 0.5, np.float32)
    pixels[0, 1, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        picture_bytes(Picture(None, pixels), pixels)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        picture_bytes(Picture(None, np.zeros((1, 2, 2))), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="alpha"):
        picture_bytes(Picture(None, np.zeros((1, 2, 2)), alpha=np.ones((1, 2, 2))), np.zeros((1, 3, 3)))


def test_palette_grows_into_rgb(tmp_path: Path) -> None:
    picture = read_picture(_source(tmp_path, "palette.png"))
    few = picture.pixels.copy()
    few[:, 0, 0] = (1, 0, 1 / 255)
    image = Image.open(io.BytesIO(picture_bytes(picture, few)[0]))
    assert image.mode == "P" and image.convert("RGB").getpixel((0, 0)) == (255, 0, 1)

    full = np.zeros((3, 16, 16), np.float32)
    full[0] = np.arange(256).reshape(16, 16) / 255
    image = Image.open(io.BytesIO(picture_bytes(picture, full)[0]))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0), np.rint(full * 255))

    large = np.zeros((3, 20, 20), np.float32)
    large[0] = np.arange(400).reshape(20, 20) % 200 / 255
    large[1] = np.arange(400).reshape(20, 20) // 200
    image = Image.open(io.BytesIO(picture_bytes(picture, large)[0]))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.moveaxis(np.asarray(image), -1, 0), np.rint(large * 255))


def test_grey_palette_is_restored_as_grey_and_stays_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(RGB[..., 0] % 3).convert("L")
    image.putpalette(bytes([9, 9, 9, 200, 200, 200, 77, 77, 77]))
    picture = read_picture(_write(tmp_path, "p.png", _saved(image, "PNG")))
    assert picture.pixels.shape[0] == 1 and picture.mode == "palette"
    again = Image.open(io.BytesIO(picture_bytes(picture, picture.pixels)[0]))
    assert again.mode == "P"
    np.testing.assert_array_equal(np.asarray(again.convert("L")), np.asarray(image.convert("L")))


@pytest.mark.parametrize("name", ["rgba.png", "rgba16.png", "la16.png", "rgba.tif", "palette-alpha.png"])
def test_alpha_can_be_dropped(tmp_path: Path, name: str) -> None:
    picture = read_picture(_source(tmp_path, name))
    content, extension = picture_bytes(picture, picture.pixels, alpha=None)
    again = read_picture(_write(tmp_path, f"a.{extension}", content))
    assert again.alpha is None
    np.testing.assert_array_equal(again.pixels, picture.pixels)


def test_alpha_and_jpeg(tmp_path: Path) -> None:
    picture = read_picture(_source(tmp_path, "rgba.png"))
    with pytest.raises(InputError, match="transparent"):
        picture_bytes(picture, picture.pixels, format="jpg")
    assert picture_bytes(picture, picture.pixels, format="jpg", alpha=None)[1] == "jpg"
    assert picture_bytes(replace(picture, format="bmp"), picture.pixels)[1] == "png"


def test_depth_asked_for(tmp_path: Path) -> None:
    picture = read_picture(_source(tmp_path, "rgb.png"))
    content, _ = picture_bytes(picture, picture.pixels, bits=16)
    deep = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(deep[..., ::-1], RGB.astype(np.uint16) * 257)
    content, _ = picture_bytes(picture, picture.pixels, format="tif", bits=32)
    assert tifffile.imread(io.BytesIO(content)).dtype == np.float32
    palette = read_picture(_source(tmp_path, "palette.png"))
    assert read_picture(_write(tmp_path, "b.png", picture_bytes(palette, palette.pixels, bits=16)[0])).bits == 16
    floats = read_picture(_source(tmp_path, "floatrgb.tif"))
    assert read_picture(_write(tmp_path, "c.png", picture_bytes(floats, floats.pixels, format="png")[0])).bits == 16
    assert np.load(io.BytesIO(picture_bytes(floats, floats.pixels, format="npy")[0])).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("format", "bits", "says"),
    [("jpg", 16, "JPG cannot hold 16"), ("png", 32, "PNG cannot hold 32"), ("exr", "keep", "exr"), ("png", 12, "12")],
)
def test_formats_and_depths_that_do_not_exist(format: str, bits: int, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        picture_bytes(Picture(None, np.zeros((1, 2, 2))), np.zeros((1, 2, 2)), format, bits)
    assert caught.value.hint


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("format", ["keep", "jpg", "tif"])
def test_format_is_known_before_writing(tmp_path: Path, name: str, format: str) -> None:
    picture = read_picture(_source(tmp_path, name))
    try:
        extension = picture_bytes(picture, picture.pixels, format)[1]
    except InputError as error:
        with pytest.raises(InputError, match="transparent") as caught:
            written_format(picture, format)
        assert caught.value.message == error.message
    else:
        assert written_format(picture, format) == {"pgm": "ppm"}.get(extension, extension)
    with pytest.raises(UsageError):
        written_format(picture, "png", 32)


def test_too_long_for_webp() -> None:
    pixels = np.zeros((1, 1, 16384), np.float32)
    with pytest.raises(InputError, match="16384x1"):
        picture_bytes(Picture(Path("long.png"), pixels), pixels, "webp")


# ---------------------------------------------------------------------------------------- JPEG, WebP


@pytest.mark.parametrize(("subsampling", "progressive"), [(0, True), (1, False), (2, True)])
def test_jpeg_keeps_subsampling_and_order(tmp_path: Path, subsampling: int, progressive: bool) -> None:
    source = _saved(Image.fromarray(SMOOTH), "JPEG", subsampling=subsampling, progressive=progressive, dpi=(300, 300))
    picture = read_picture(_write(tmp_path, "a.jpeg", source))
    content, extension = picture_bytes(picture, picture.pixels)
    again = Image.open(io.BytesIO(content))
    assert extension == "jpg" and again.format == "JPEG"
    sampling = {0: (1, 1), 1: (2, 1), 2: (2, 2)}[subsampling]
    assert tuple(again.layer[0][1:3]) == sampling
    assert ("progressive" in again.info) == progressive
    assert again.info["dpi"] == (300, 300)
    lossless = picture_bytes(picture, picture.pixels, format="png")[0]
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(lossless))), np.asarray(Image.open(tmp_path / "a.jpeg"))
    )


def test_quality_reaches_the_file(tmp_path: Path) -> None:
    picture = read_picture(_write(tmp_path, "a.jpg", _saved(Image.fromarray(RGB), "JPEG")))
    high, low = (len(picture_bytes(picture, picture.pixels, quality=quality)[0]) for quality in (95, 20))
    assert low < high
    webp = read_picture(_write(tmp_path, "a.webp", _saved(Image.fromarray(RGB), "WEBP")))
    high, low = (len(picture_bytes(webp, webp.pixels, quality=quality)[0]) for quality in (95, 20))
    assert low < high


def test_webp_from_a_lossless_file_is_lossless(tmp_path: Path) -> None:
    picture = read_picture(_source(tmp_path, "rgb.png"))
    content, extension = picture_bytes(picture, picture.pixels, format="webp")
    assert extension == "webp"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), RGB)


# ---------------------------------------------------------------------------------------- metadata


def _exif(orientation: int, order: str = ">") -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "a maker of cameras"
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(0x8769)[0x927C] = b"maker's own \x00\x01\x02 bytes"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def _without_orientation(exif: bytes) -> bytes:
    order = "<" if exif[6:8] == b"II" else ">"
    place = exif.index(struct.pack(order + "HHI", 0x0112, 3, 1)) + 8
    return exif[:place] + struct.pack(order + "H", 1) + exif[place + 2 :]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("target", ["keep", "png", "jpg", "webp"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_profile_and_exif_are_kept_byte_for_byte(tmp_path: Path, kind: str, target: str, order: str) -> None:
    exif = _exif(6, order)
    assert exif[6:8] == {"<": b"II", ">": b"MM"}[order]
    source = _saved(Image.fromarray(SMOOTH), kind, icc_profile=ICC, exif=exif)
    picture = read_picture(_write(tmp_path, f"a.{kind}", source))
    assert picture.pixels.shape == (3, WIDTH, HEIGHT)
    assert picture.icc == ICC
    assert b"Exif\0\0" + picture.exif == _without_orientation(exif)
    content, extension = picture_bytes(picture, picture.pixels, format=target)
    image = Image.open(io.BytesIO(content))
    assert image.info["icc_profile"] == ICC
    assert image.info["exif"].removeprefix(b"Exif\0\0") == picture.exif
    assert image.getexif()[0x0112] == 1
    again = read_picture(_write(tmp_path, f"b.{extension}", content))
    assert (again.icc, again.exif) == (picture.icc, picture.exif)


@pytest.mark.parametrize("name", ["rgb16.png", "rgba16.png", "palette-alpha.png", "floatrgb.tif", "rgb.png"])
@pytest.mark.parametrize("target", ["png", "tif"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_metadata_beside_every_depth(tmp_path: Path, name: str, target: str, order: str) -> None:
    picture = replace(read_picture(_source(tmp_path, name)), icc=ICC, exif=_exif(1, order)[6:])
    content, extension = picture_bytes(picture, picture.pixels, format=target)
    path = _write(tmp_path, f"again.{extension}", content)
    again = read_picture(path)
    assert again.icc == ICC
    if name != "floatrgb.tif":
        np.testing.assert_array_equal(again.pixels, picture.pixels)
    if target == "png":
        assert again.exif == picture.exif
    exif = Image.Exif()
    exif.load(again.exif)
    assert exif[0x010F] == "a maker of cameras"
    assert exif.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
    assert exif.get_ifd(0x8769)[0x927C] == b"maker's own \x00\x01\x02 bytes"
    assert exif.get_ifd(0x8825)[1] == "N"
    if target == "tif":
        assert picture.exif[8:] in content  # the block lies in the file as it was
        with tifffile.TiffFile(path) as file:
            assert file.pages[0].tags.valueof(34675) == ICC


def test_tiff_tags_survive_and_storage_tags_do_not(tmp_path: Path) -> None:
    source = _tiff(
        RGB16, photometric="rgb", description="a view", resolution=(300, 150), compression="zlib", iccprofile=ICC
    )
    picture = read_picture(_write(tmp_path, "a.tif", source))
    path = _write(tmp_path, "b.tif", picture_bytes(picture, picture.pixels, bits=8)[0])
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        assert tags.valueof(270) == "a view" and tags.valueof(282) == (300, 1) and tags.valueof(283) == (150, 1)
        assert tags.valueof(258) == (8, 8, 8) and tags.valueof(34675) == ICC
    png, _ = picture_bytes(picture, picture.pixels, format="png")
    exif = Image.open(io.BytesIO(png)).getexif()
    assert exif[270] == "a view" and 273 not in exif and 256 not in exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "deep PNG", "WEBP", "TIFF", "deep TIFF", "LZW TIFF", "grey LZW TIFF"])
def test_every_orientation_is_applied_once(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    tag = [(274, "H", 1, orientation, True)]
    if kind == "deep PNG":
        source = _plain_png(RGB16, 2, _chunk(b"eXIf", exif.tobytes()[6:]))
    elif kind == "deep TIFF":
        source = _tiff(RGB16, photometric="rgb", extratags=tag)
    elif kind.endswith("LZW TIFF"):
        source = _lzw_tiff(RGB16 if kind == "LZW TIFF" else RGB16[..., 0], orientation)
    else:
        options = {"lossless": True} if kind == "WEBP" else {}
        source = _saved(Image.fromarray(SMOOTH), kind, exif=exif.tobytes(), **options)
    picture = read_picture(_write(tmp_path, "a", source))
    if " " in kind:
        # ImageOps turns index pictures, so it needs no 16-bit support
        index = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH))
        index.getexif()[0x0112] = orientation
        order = np.asarray(ImageOps.exif_transpose(index))
        expected = RGB16.reshape(-1, 3)[order]
        expected = expected[..., :1] if kind.startswith("grey") else expected
        np.testing.assert_array_equal(np.rint(np.moveaxis(picture.pixels, 0, -1) * 65535), expected)
    else:
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(source))))
        np.testing.assert_array_equal(np.rint(np.moveaxis(picture.pixels, 0, -1) * 255), expected)
    content, extension = picture_bytes(picture, picture.pixels)
    again = read_picture(_write(tmp_path, f"b.{extension}", content))
    assert again.pixels.shape == picture.pixels.shape
    if kind != "JPEG":
        np.testing.assert_array_equal(again.pixels, picture.pixels)


def _lzw_tiff(samples: np.ndarray, orientation: int) -> bytes:
    """OpenCV writes LZW, without an orientation: its PlanarConfiguration entry (284 = 1, the default) becomes one."""
    content = bytearray(_opencv(".tif", samples))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        assert file.pages[0].compression == 5
        place = file.pages[0].tags[284].offset
        assert 274 not in file.pages[0].tags
    content[place : place + 12] = struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
    return bytes(content)


def test_orientation_turns_alpha_and_ink_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = Image.fromarray(_random(HEIGHT, WIDTH, 4))
    picture = read_picture(_write(tmp_path, "a.png", _saved(rgba, "PNG", exif=exif.tobytes())))
    expected = np.asarray(rgba.transpose(Image.Transpose.ROTATE_270))[..., 3]
    np.testing.assert_array_equal(np.rint(picture.alpha[0] * 255), expected)
    ink = _random(HEIGHT, WIDTH, 4)
    source = _tiff(ink, photometric="separated", extratags=[(274, "H", 1, 6, True)])
    picture = read_picture(_write(tmp_path, "a.tif", source))
    np.testing.assert_array_equal(picture.cmyk, np.moveaxis(np.rot90(ink, -1), -1, 0))


def test_png_colour_chunks_are_kept(tmp_path: Path) -> None:
    gamma = _chunk(b"gAMA", struct.pack(">I", 45455)) + _chunk(b"pHYs", struct.pack(">IIB", 3000, 3000, 1))
    for name in ("rgb.png", "rgb16.png"):
        source = SOURCES[name][0]
        picture = read_picture(_write(tmp_path, "g.png", source[:33] + gamma + source[33:]))
        content, _ = picture_bytes(picture, picture.pixels)
        info = Image.open(io.BytesIO(content)).info
        assert info["gamma"] == pytest.approx(0.45455)
        assert info["dpi"][0] == pytest.approx(76.2)


def test_imagemagick_exif_in_png(tmp_path: Path) -> None:
    from PIL import PngImagePlugin

    exif = _exif(3)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{exif.hex()}\n")
    picture = read_picture(_write(tmp_path, "a.png", _saved(Image.fromarray(RGB), "PNG", pnginfo=text)))
    np.testing.assert_array_equal(np.rint(picture.pixels[0] * 255), RGB[::-1, ::-1, 0])
    assert b"Exif\0\0" + picture.exif == _without_orientation(exif)


def test_profile_is_left_out_where_it_would_lie(tmp_path: Path) -> None:
    picture = replace(read_picture(_source(tmp_path, "grey.png")), icc=ICC)
    content, _ = picture_bytes(picture, np.repeat(picture.pixels, 3, 0))
    assert "icc_profile" not in Image.open(io.BytesIO(content)).info
    assert "icc_profile" in Image.open(io.BytesIO(picture_bytes(picture, picture.pixels)[0])).info


def test_one_colour_declared_transparent(tmp_path: Path) -> None:
    picture = read_picture(_source(tmp_path, "key16.png"))
    assert picture.alpha[0, 1, 2] == 0 and picture.alpha.sum() == HEIGHT * WIDTH - 1
    picture = read_picture(_source(tmp_path, "greykey16.png"))
    assert picture.alpha[0, 1, 2] == 0 and picture.alpha.sum() == HEIGHT * WIDTH - 1


def test_storage_tags_of_a_jpeg_do_not_enter_a_tiff(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[530], exif[513] = "maker", (2, 2), 99  # subsampling, place of a thumbnail
    picture = replace(read_picture(_source(tmp_path, "rgb.png")), exif=exif.tobytes()[6:])
    with tifffile.TiffFile(io.BytesIO(picture_bytes(picture, picture.pixels, "tif")[0])) as file:
        tags = file.pages[0].tags
        assert tags.valueof(0x010F) == "maker" and 530 not in tags and 513 not in tags


def test_long_exif_is_left_out_of_jpeg_only(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x927C] = bytes(70000)
    picture = replace(read_picture(_source(tmp_path, "rgb.png")), exif=exif.tobytes()[6:])
    assert "exif" not in Image.open(io.BytesIO(picture_bytes(picture, picture.pixels, "jpg")[0])).info
    assert "exif" in Image.open(io.BytesIO(picture_bytes(picture, picture.pixels, "png")[0])).info


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"x",
        b"II*\0",
        b"MM\0*\0\0\0\x08",
        b"II*\0\xff\xff\xff\xff" + bytes(9),
        b"II*\0\x08\0\0\0\xff\xff" + b"\x01" * 40,
    ],
)
def test_damaged_exif_does_not_damage_the_picture(tmp_path: Path, exif: bytes) -> None:
    base = SOURCES["rgb.png"][0]
    picture = read_picture(_write(tmp_path, "a.png", base[:33] + _chunk(b"eXIf", exif) + base[33:]))
    for format in ("png", "tif", "jpg", "webp"):
        content, extension = picture_bytes(picture, picture.pixels, format)
        again = read_picture(_write(tmp_path, f"b.{extension}", content))
        assert format == "jpg" or (again.pixels == picture.pixels).all()


# ---------------------------------------------------------------------------------------- ink


def _ink_profile() -> bytes:
    """A small CMYK printer profile: R = (1 - C)(1 - 0.9 K) and its inverse with full black, as 8-bit tables."""

    def lab(rgb: np.ndarray) -> np.ndarray:  # sRGB primaries adapted to D50, gamma 2.2
        matrix = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
        xyz = (rgb**2.2 @ matrix.T) / np.array([0.9642, 1.0, 0.8249])
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)

    def table(values: np.ndarray, inputs: int, grid: int) -> bytes:
        head = struct.pack(">4sI4B", b"mft1", 0, inputs, values.shape[-1], grid, 0)
        head += struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
        ramp = bytes(range(256))
        body = np.rint(np.clip(values, 0, 255)).astype(np.uint8).tobytes()
        return head + ramp * inputs + body + ramp * values.shape[-1]

    ink = np.stack(np.meshgrid(*[np.linspace(0, 1, 6)] * 4, indexing="ij"), -1).reshape(-1, 4)
    there = lab((1 - ink[:, :3]) * (1 - 0.9 * ink[:, 3:]))
    there = np.stack([there[:, 0] * 2.55, there[:, 1] + 128, there[:, 2] + 128], -1)
    rgb = np.stack(np.meshgrid(*[np.linspace(0, 1, 33)] * 3, indexing="ij"), -1).reshape(-1, 3)
    known, axis = lab(rgb), np.linspace(0, 255, 9)
    nodes = np.stack(np.meshgrid(axis / 2.55, axis - 128, axis - 128, indexing="ij"), -1).reshape(-1, 3)
    nearest = rgb[[int(((known - node) ** 2).sum(1).argmin()) for node in nodes]]
    black = 1 - nearest.max(1, keepdims=True)
    back = np.concatenate([1 - nearest / np.maximum(1 - 0.9 * black, 1e-6), black], 1).clip(0, 1) * 255
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"test\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"A2B0": table(there, 4, 6), b"B2A0": table(back, 3, 9), b"wtpt": white, b"desc": description}
    tags[b"cprt"] = b"text\0\0\0\0none\0"
    offset, listing, content = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        listing += struct.pack(">4sII", name, offset + len(content), len(value))
        content += value
    head = struct.pack(">I4sI4s4s4s", offset + len(content), b"test", 0x02200000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + listing + content


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unchanged_ink_is_kept_and_changed_ink_is_made(tmp_path: Path, dtype: type) -> None:
    ink = _random(HEIGHT, WIDTH, 4, dtype=dtype)
    picture = read_picture(_write(tmp_path, "a.tif", _tiff(ink, photometric="separated")))
    np.testing.assert_array_equal(np.moveaxis(picture.cmyk, 0, -1), ink)
    unit = ink / np.iinfo(dtype).max
    np.testing.assert_allclose(np.moveaxis(picture.pixels, 0, -1), (1 - unit[..., :3]) * (1 - unit[..., 3:]), atol=1e-6)
    pixels = picture.pixels.copy()
    pixels[:, 2:5, 3:9] = np.array([0.8, 0.4, 0.2], np.float32)[:, None, None]
    again = read_picture(_write(tmp_path, "b.tif", picture_bytes(picture, pixels)[0]))
    changed = np.zeros((HEIGHT, WIDTH), bool)
    changed[2:5, 3:9] = True
    np.testing.assert_array_equal(again.cmyk[:, ~changed], picture.cmyk[:, ~changed])
    assert np.abs(again.pixels - pixels).max() < 1.5 / np.iinfo(dtype).max


def test_black_is_used_as_the_original_uses_it(tmp_path: Path) -> None:
    for black in (0, 255):
        ink = np.full((4, 6, 4), 255 - black, np.uint8)
        ink[..., 3] = black
        ink[0, 0] = 0
        picture = read_picture(_write(tmp_path, "a.tif", _tiff(ink, photometric="separated")))
        pixels = picture.pixels.copy()
        pixels[:, 1, 1] = 0.5
        again = read_picture(_write(tmp_path, "b.tif", picture_bytes(picture, pixels)[0]))
        assert again.cmyk[:, 1, 1].tolist() == ([0, 0, 0, 128] if black else [128, 128, 128, 0])


def test_ink_with_a_profile(tmp_path: Path) -> None:
    profile = _ink_profile()
    # C, M and K on a smooth ramp: colours that the small table holds well
    ink = np.zeros((8, 9, 4), np.uint8)
    ink[..., 0], ink[..., 1], ink[..., 3] = 60, np.arange(9) * 12, np.arange(8)[:, None] * 14
    picture = read_picture(_write(tmp_path, "a.tif", _tiff(ink, photometric="separated", iccprofile=profile)))
    assert picture.icc == profile and picture.notes == ()
    plain = read_picture(_write(tmp_path, "p.tif", _tiff(ink, photometric="separated")))
    assert np.abs(picture.pixels - plain.pixels).max() > 0.02  # the profile was used
    pixels = picture.pixels.copy()
    pixels[:, 1:3, 1:5] = pixels[:, 4:6, 4:8]
    content, extension = picture_bytes(picture, pixels)
    again = read_picture(_write(tmp_path, f"b.{extension}", content))
    assert again.mode == "cmyk" and again.icc == profile
    changed = np.zeros((8, 9), bool)
    changed[1:3, 1:5] = True
    np.testing.assert_array_equal(again.cmyk[:, ~changed], picture.cmyk[:, ~changed])
    assert (again.cmyk[:, changed] != picture.cmyk[:, changed]).any()
    assert np.abs(again.pixels - pixels).max() < 0.08  # 9 nodes an axis
    jpeg = Image.open(io.BytesIO(picture_bytes(picture, pixels, format="jpg")[0]))
    assert jpeg.mode == "CMYK" and jpeg.info["icc_profile"] == profile
    png = Image.open(io.BytesIO(picture_bytes(picture, pixels, format="png")[0]))
    assert png.mode == "RGB" and "icc_profile" not in png.info
    np.testing.assert_array_equal(np.moveaxis(np.asarray(png), -1, 0), np.rint(pixels * 255))


def test_broken_ink_profile_is_said(tmp_path: Path) -> None:
    source = _tiff(_random(HEIGHT, WIDTH, 4), photometric="separated", iccprofile=b"nonsense" * 20)
    picture = read_picture(_write(tmp_path, "a.tif", source))
    assert any("profile" in note for note in picture.notes)
    again = read_picture(_write(tmp_path, "b.tif", picture_bytes(picture, picture.pixels)[0]))
    np.testing.assert_array_equal(again.cmyk, picture.cmyk)


def test_photoshop_jpeg_ink_is_not_inverted(tmp_path: Path) -> None:
    picture = read_picture(_source(tmp_path, "cmyk.jpg"))
    np.testing.assert_allclose(picture.pixels[1].mean(), SMOOTH[..., 1].mean() / 255, atol=0.03)
    content, _ = picture_bytes(picture, picture.pixels)
    again = read_picture(_write(tmp_path, "b.jpg", content))
    assert again.mode == "cmyk"
    assert np.abs(again.pixels - picture.pixels).mean() < 0.02


# ---------------------------------------------------------------------------------------- bad input


def _fails(path: Path, *words: str, **options: int) -> InputError:
    with pytest.raises(InputError) as caught:
        read_picture(path, **options)
    message = caught.value.message
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message, message
    return caught.value


def test_bad_paths(tmp_path: Path) -> None:
    _fails(tmp_path / "none.png", "does not exist")
    _fails(tmp_path, "folder")
    _fails(_write(tmp_path, "zero.png", b""), "empty")
    _fails(_write(tmp_path, "text.png", b"just some words"), "not a picture")
    _fails(_write(tmp_path, "a.wav", b"RIFF\x24\0\0\0WAVEfmt "), "not a picture")
    _fails(_write(tmp_path, "a.ps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not a picture")
    _fails(_write(tmp_path, "a.heic", b"\0\0\0\x18ftypheic" + bytes(30)), "HEIC")
    _fails(tmp_path / "zero.png" / "below.png")
    with pytest.raises(InputError):
        read_picture(tmp_path / "a\0b.png")
    if Path("/dev/zero").exists():
        _fails(Path("/dev/zero"), "regular")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _source(tmp_path, "rgb.png")

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    _fails(path, "Permission denied")


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("lossy.webp", "lossless.webp")])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    content = SOURCES[name][0]
    for share in (0.1, 0.3, 0.6):
        _fails(_write(tmp_path, name, content[: max(3, int(len(content) * share))]))


def test_truncated_webp(tmp_path: Path) -> None:
    _fails(_write(tmp_path, "a.webp", SOURCES["lossless.webp"][0][:-200]), "damaged")


def test_truncated_larger_jpeg_and_png(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray(_random(200, 300, 3))
    for kind in ("JPEG", "PNG", "TIFF"):
        content = _saved(image, kind)
        _fails(_write(tmp_path, kind, content[: len(content) // 2]), "damaged or incomplete")
    deep = _opencv(".png", _random(200, 300, 3, dtype=np.uint16))
    _fails(_write(tmp_path, "deep.png", deep[: len(deep) // 2]), "damaged or incomplete")
    assert capfd.readouterr() == ("", "")  # the sentence is the caller's to print, nothing else is printed


def test_size_limit_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89478485)

    def bomb(width: int, height: int) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", head)
            + _chunk(b"IDAT", zlib.compress(bytes(99)))
            + _chunk(b"IEND", b"")
        )

    error = _fails(_write(tmp_path, "bomb.png", bomb(50000, 40000)), "50000x40000", "2000 megapixels")
    assert "--max-pixels" in error.hint
    for name in ("rgb.png", "rgb16.png", "zlib16.tif", "lzw.tif", "rgb.jpg", "lossy.webp", "rgb.npy", "rgb16.ppm"):
        error = _fails(_source(tmp_path, name), "17x13", max_pixels=HEIGHT * WIDTH - 1)
        assert "--max-pixels" in error.hint
        read_picture(tmp_path / name, max_pixels=HEIGHT * WIDTH)
    assert Image.MAX_IMAGE_PIXELS == 89478485
    # between Pillow's own limit and ours only the missing pixels count
    _fails(_write(tmp_path, "c.png", bomb(19000, 10000)), "damaged or incomplete")
    _fails(_write(tmp_path, "z.png", bomb(0, 5)))


def test_no_pixels(tmp_path: Path) -> None:
    _fails(_write(tmp_path, "a.npy", _npy(np.zeros((0, 5)))), "no pixels (5x0)")


def test_floats_outside_the_unit_range(tmp_path: Path) -> None:
    for scale, shift in ((255.0, 0.0), (1.0, -0.5)):
        error = _fails(
            _write(tmp_path, "a.tif", _tiff(FLOAT[..., 0] * np.float32(scale) + np.float32(shift))), "[0, 1]"
        )
        assert error.hint
    bad = FLOAT[..., 0].copy()
    bad[0, 0] = np.nan
    _fails(_write(tmp_path, "a.tif", _tiff(bad)), "NaN")
    near = FLOAT[..., 0] * np.float32(1.002)
    picture = read_picture(_write(tmp_path, "a.tif", _tiff(near)))
    assert picture.pixels.max() <= 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_tiff(_random(5, 6, dtype=np.uint32)), "32 bits"),
        (_tiff(_random(5, 6, dtype=np.int16)), "16 bits"),
        (_tiff(_random(5, 6, 5), photometric="minisblack", planarconfig="contig"), "channels"),
        (_tiff(_random(5, 6, 5), photometric="separated", extrasamples=["unassalpha"]), "alpha"),
        (_saved(Image.fromarray(SMOOTH).convert("LAB"), "TIFF"), "LAB"),
        (_npy(np.zeros((2, 3, 4, 5), np.uint8)), "shape"),
        (_npy(np.zeros((3, 9, 9), np.uint8)), "shape"),
        (_npy(np.zeros((3, 9), complex)), "complex128"),
        (_npy(np.array([["a", None]], dtype=object)), "object"),
    ],
)
def test_kinds_that_cannot_be_read(tmp_path: Path, content: bytes, says: str) -> None:
    _fails(_write(tmp_path, "a.tif", content), says)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_used(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(np.full((8, 9, 3), level, np.uint8)) for level in (30, 140, 250)]
    options = {"lossless": True} if kind == "WEBP" else {}
    path = _write(tmp_path, "a", _saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    picture = read_picture(path)
    assert np.rint(picture.pixels[0, 0, 0] * 255) == 30
    assert any("3 " in note and "first" in note for note in picture.notes)
    assert read_picture(_source(tmp_path, "rgb.png")).notes == ()


def _small(name: str) -> bytes:
    if name == "exif.jpg":
        return _saved(Image.fromarray(SMOOTH), "JPEG", exif=_exif(6), icc_profile=ICC)
    if name == "exif.tif":
        return _saved(Image.fromarray(SMOOTH), "TIFF", exif=_exif(6))
    if name == "two.tif":
        return _tiff(_random(2, 5, 6, dtype=np.uint16), photometric="minisblack")
    return SOURCES[name][0]


@pytest.mark.parametrize(
    "name",
    [
        *("rgb.png", "la16.png", "rgb16.png", "palette-alpha.png", "exif.jpg", "cmyk.jpg", "lossy.webp", "palette.gif"),
        *("lossless.webp", "exif.tif", "zlib16.tif", "lzw16.tif", "tiles16.tif", "cmyk.tif", "two.tif", "float.tif"),
        *("bit.tif", "palette.bmp", "rgb16.ppm", "float.pfm", "rgb.npy"),
    ],
)
def test_no_content_escapes_as_another_error(tmp_path: Path, name: str) -> None:
    content = _small(name)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    read = 0
    for case in range(30):
        damaged = bytearray(content)
        if case % 3 == 2:
            del damaged[int(rng.integers(1, len(damaged))) :]
        # most of the structure lies in the first bytes, in TIFF also in the last
        span = len(damaged) if case % 2 else min(len(damaged), 120)
        for place in rng.integers(0, span, int(rng.integers(1, 6))):
            damaged[-place if case % 5 == 0 else place] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
        path = _write(tmp_path, "x", bytes(damaged))
        try:
            picture = read_picture(path, max_pixels=1_000_000)
        except InputError as error:
            assert str(path) in error.message and "\n" not in error.message
        else:
            read += 1
            assert picture.pixels.ndim == 3 and np.isfinite(picture.pixels).all()
            picture_bytes(picture, picture.pixels)
    assert read < 30  # some case did damage


@pytest.mark.parametrize("name", ["größe 東京.png", "x[red].tif", "a b#c%20.jpg", "[1].webp"])
def test_names_of_any_kind(tmp_path: Path, name: str) -> None:
    format = {".png": "png", ".tif": "tif", ".jpg": "jpg", ".webp": "webp"}[Path(name).suffix]
    pixels = np.full((3, 4, 5), 0.5, np.float32)
    content, _ = picture_bytes(Picture(None, pixels), pixels, format)
    write_atomic(tmp_path / name, content)
    assert read_picture(tmp_path / name).format == format
    deep, _ = picture_bytes(Picture(None, pixels), pixels, "png", 16)
    write_atomic(tmp_path / name, deep)
    assert read_picture(tmp_path / name).bits == 16


def test_hash_is_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = _source(tmp_path, "rgb.jpg")
    assert read_picture(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------------------------------- masks


def _mask(folder: Path, samples: np.ndarray, **options: object) -> Path:
    return _write(folder, "mask.png", _saved(Image.fromarray(samples), "PNG", **options))


def test_mask_white_is_missing(tmp_path: Path) -> None:
    path = _mask(tmp_path, np.array([[0, 127, 128, 255]], np.uint8))
    mask = read_mask(path, (1, 4))
    assert mask.dtype == bool and mask.tolist() == [[False, False, True, True]]
    assert read_mask(path, (1, 4), invert=True).tolist() == [[True, True, False, False]]


def test_mask_in_colour_or_alpha(tmp_path: Path) -> None:
    colours = np.array([[[0, 255, 0], [255, 0, 0], [255, 255, 0], [0, 0, 255]]], np.uint8)
    assert read_mask(_mask(tmp_path, colours), (1, 4)).tolist() == [[True, False, True, False]]
    strokes = np.zeros((1, 3, 4), np.uint8)
    strokes[0, 1, 3] = 255  # one opaque black stroke on nothing
    assert read_mask(_mask(tmp_path, strokes), (1, 3)).tolist() == [[False, True, False]]
    both = np.array([[[255, 255, 255, 0], [255, 255, 255, 255], [0, 0, 0, 255]]], np.uint8)
    assert read_mask(_mask(tmp_path, both), (1, 3)).tolist() == [[False, True, False]]


def test_mask_orientation_and_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.array([[0, 255, 255]], np.uint8)
    assert read_mask(_mask(tmp_path, stored, exif=exif.tobytes()), (3, 1)).tolist() == [[False], [True], [True]]
    path = _mask(tmp_path, stored)
    with pytest.raises(InputError, match=r"3x1 .*9x8") as caught:
        read_mask(path, (8, 9))
    assert str(path) in caught.value.message and "resize" in caught.value.hint
    with pytest.raises(InputError) as caught:
        read_mask(path, (3, 1))
    assert "side" in caught.value.hint


def test_mask_of_zeros_and_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 and 1 of 255"):
        read_mask(_mask(tmp_path, np.array([[0, 1]], np.uint8)), (1, 2))
    assert read_mask(_write(tmp_path, "m.npy", _npy(np.array([[False, True]]))), (1, 2)).tolist() == [[False, True]]
    assert not read_mask(_write(tmp_path, "m.npy", _npy(np.array([[0.5]]))), (1, 1)).any()
    assert not read_mask(_mask(tmp_path, np.zeros((2, 2), np.uint8)), (2, 2)).any()  # the caller's business


# ---------------------------------------------------------------------------------------- atomic writes


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.png"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in path.parent.iterdir()] == ["c.png"]


def test_long_name(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 120 + ".png")
    write_atomic(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only file system")]
)
def test_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        assert any(".part-" in file.name for file in tmp_path.iterdir())
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(EnvironmentProblem) as caught:
        write_atomic(path, b"new")
    assert str(path) in caught.value.message and error.strerror in caught.value.message
    assert ("space" in caught.value.hint) == (error.errno == errno.ENOSPC)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.png", b"new")
    assert list(tmp_path.iterdir()) == []


def test_write_where_nothing_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder"):
        with pytest.raises(EnvironmentProblem, match="cannot write"):
            write_atomic(path, b"new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_import_is_light() -> None:
    heavy = "{'torch', 'cv2', 'scipy', 'tifffile', 'typer', 'rich', 'PIL.ImageCms'}"
    code = f"import sys, gpnp_cli.imageio, gpnp_cli.inputs; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
