"""Picture files to float arrays and back: each comes out as what it was. No numerics, no torch.

8-bit files and metadata go through Pillow, TIFF of more than 8 bits through tifffile, PNG and PPM colour of 16 bits
through OpenCV: Pillow opens the last two as 8 bits without a word and cannot write them. The writers of 16-bit PNG
and of TIFF are here, because no library in use writes 16-bit grey with alpha, or EXIF beside 16-bit or float samples.
"""

import errno
import hashlib
import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, JpegImagePlugin

from .errors import EnvironmentProblem, GpnpError, InputError, UsageError

MAX_PIXELS = 200_000_000

# Bits a channel that each format we write can hold.
WRITABLE: dict[str, tuple[int, ...]] = {
    "png": (8, 16),
    "tif": (8, 16, 32),
    "jpg": (8,),
    "webp": (8,),
    "bmp": (8,),
    "ppm": (8, 16),
    "npy": (8, 16, 32),
}
_ALIASES = {"tiff": "tif", "jpeg": "jpg", "pgm": "ppm"}
_OPAQUE = ("jpg", "bmp", "ppm")  # these hold no alpha
_LONGEST_SIDE = {"jpg": 65535, "webp": 16383}

# Pillow's readers that are tried, so that no file content can start Ghostscript or a rarely tested parser.
_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_FORMAT_NAMES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"\x93NUMPY", *_TIFF_MAGIC)
_PNG_KEPT = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"pHYs")  # colour meaning and print size, copied as they are

# Float files may stray this far out of [0, 1] (half an 8-bit level: resampling overshoot); more means other units.
_OVERSHOOT = 0.5 / 255


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright: the EXIF orientation is applied and `exif` says 1."""

    path: Path | None
    pixels: np.ndarray  # float32 (C, H, W) in [0, 1], C = 1 (grey) or 3, in the file's own colour space
    alpha: np.ndarray | None = None  # float32 (1, H, W) in [0, 1]
    bits: int = 8  # 8, 16 or 32 (float)
    mode: str = "rgb"  # what the file was: "grey", "rgb", "palette", "cmyk"
    format: str = "png"  # "png", "jpg", "tif", "webp", "bmp", "ppm", "npy"; read only: "gif", "jp2", "avif"
    icc: bytes | None = None
    exif: bytes | None = None  # a TIFF structure, without the "Exif\0\0" of JPEG
    sha256: str = ""  # of the file
    cmyk: np.ndarray | None = None  # uint8 or uint16 (4, H, W): the inks, full scale = full ink
    notes: tuple[str, ...] = ()  # sentences the user should see
    encoding: Mapping[str, Any] = field(default_factory=dict)  # what writing alike needs, and a JPEG's step sizes


@dataclass
class _Decoded:
    samples: np.ndarray  # (H, W, C) uint8, uint16 or float32; C = 1, 3, or 4 for ink
    mode: str
    format: str
    alpha: np.ndarray | None = None  # (H, W), dtype of samples
    icc: bytes | None = None
    exif: bytes | None = None
    orientation: int | None = None  # where the file says it outside EXIF
    notes: list[str] = field(default_factory=list)
    encoding: dict[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------ reading


def read_picture(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the picture file `path`; of an animation or a multi-page file the first picture, said in `notes`.

    Integer samples v of n bits become v / (2^n - 1) in float32, which rounds back exactly. No colour conversion,
    except ink to RGB: through the file's profile into sRGB, without one R = (1 - C)(1 - K).
    Raises InputError, and nothing else, for whatever the file holds.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        with _patient_pillow():
            raw = _decode(data, path, max_pixels)
            return _picture(raw, path, hashlib.sha256(data).hexdigest())
    except GpnpError:
        raise
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory", hint="crop or downscale it first") from error
    except Exception as error:
        raise InputError(f"{path} {_reason(data, error)}") from error


def read_mask(
    path: str | os.PathLike[str], shape: tuple[int, int], invert: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Mask file `path` as bool `(H, W)`, True = missing: where luma times alpha exceeds 1/2 (white is missing).

    A file whose colour is the same everywhere but whose alpha is not is a mask drawn in the alpha channel: its
    opaque pixels are missing. `invert` swaps missing and known.
    Raises InputError if the file cannot be read, has another size than `shape` = (H, W), or holds only 0 and 1 of 255.
    """
    picture = read_picture(path, max_pixels)
    height, width = picture.pixels.shape[1:]
    if (height, width) != tuple(shape):
        turned = (width, height) == tuple(shape)
        raise InputError(
            f"mask {path} is {width}x{height} pixels but the picture is {shape[1]}x{shape[0]}",
            hint="the mask lies on its side: draw it on the picture as viewers show it (upright by its EXIF)"
            if turned
            else "resize the mask to the picture's size, without smoothing",
        )
    weights = np.array([0.299, 0.587, 0.114] if picture.pixels.shape[0] == 3 else [1.0], dtype=np.float32)
    luma = np.tensordot(weights, picture.pixels, 1)
    if picture.alpha is not None:
        alpha = picture.alpha[0]
        drawn_in_alpha = np.ptp(picture.pixels, axis=(1, 2)).max() == 0 and np.ptp(alpha) > 0
        luma = alpha if drawn_in_alpha else luma * alpha
    if 0 < luma.max() < 1.5 / 255 and picture.bits == 8:
        raise InputError(
            f"mask {path} holds only the values 0 and 1 of 255, which are both black",
            hint="multiply it by 255: missing pixels must be white",
        )
    missing = luma > 0.5
    return ~missing if invert else missing


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not a picture")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a regular file")  # a pipe could block, /dev/zero never ends
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes)")
    return data


_PILLOW_LOCK = threading.RLock()


@contextmanager
def _patient_pillow() -> Iterator[None]:
    """Our own size limit instead of Pillow's, which is lower and a warning first; its other warnings kept quiet."""
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(data: bytes, error: Exception) -> str:
    if data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "is a HEIC picture, which cannot be read: export it as JPEG or PNG"
    known = data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
    if not known and isinstance(error, Image.UnidentifiedImageError):
        return "is not a picture of a known format"
    told = isinstance(error, (OSError, SyntaxError, ValueError)) and not isinstance(error, Image.UnidentifiedImageError)
    text = "".join(letter for letter in " ".join(str(error).split()) if letter.isprintable()) if told else ""
    return f"is damaged or incomplete ({text[:120]})" if text else "is damaged or incomplete"


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"{path} has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise InputError(
            f"{path} is {width}x{height}, {width * height / 1e6:.4g} megapixels, "
            f"over the limit of {max_pixels / 1e6:.4g}",
            hint="if the file is trusted, raise the limit with --max-pixels",
        )


def _decode(data: bytes, path: Path, max_pixels: int) -> _Decoded:
    if data.startswith(b"\x93NUMPY"):
        return _decode_npy(data, path, max_pixels)
    if data.startswith(_TIFF_MAGIC):
        return _decode_tiff(data, path, max_pixels)
    Image.init()
    formats = [name for name in _PILLOW_FORMATS if name in Image.OPEN]  # a Pillow may be built without AVIF
    with Image.open(io.BytesIO(data), formats=formats) as image:
        _check_size(path, *image.size, max_pixels)
        image.load()  # before OpenCV below, which for a damaged file forgives (old) or prints (new)
        raw = _decode_loaded(image, data, path)
        raw.icc = image.info.get("icc_profile") or None
        raw.exif = _exif_of(image)
        if image.format != "MPO" and _frames(image) > 1:  # the further pictures of an MPO are previews and depth maps
            raw.notes.append(f"{path} has {_frames(image)} frames; only the first is used")
    if raw.format not in WRITABLE:
        raw.notes.append(f"{path}: {raw.format.upper()} is read with 8 bits a channel and written as PNG by default")
    return raw


def _decode_loaded(image: Image.Image, data: bytes, path: Path) -> _Decoded:
    name = _FORMAT_NAMES.get(image.format or "", (image.format or "").lower())
    encoding: dict[str, Any] = {}
    if name == "png":
        chunks = dict(_png_chunks(data))
        encoding["chunks"] = tuple((kind, chunks[kind]) for kind in _PNG_KEPT if kind in chunks)
        if data[24] == 16 and data[25] != 0:  # IHDR: bit depth, colour type
            return _decode_deep_png(data, path, chunks, encoding)
    elif name == "jpg":
        encoding = {
            "subsampling": JpegImagePlugin.get_sampling(image),
            "progressive": "progressive" in image.info,
            "dpi": image.info.get("dpi"),
            "steps": tuple(image.quantization[0]) if image.mode in ("L", "RGB") else (),  # of brightness, row by row
        }
    elif name == "webp":
        encoding["lossless"] = _webp_is_lossless(data)
    elif name == "ppm" and image.mode == "RGB" and _ppm_maximum(data) > 255:
        return _Decoded(_opencv(data, path), "rgb", name)
    samples, alpha, mode = _planes(image, path)
    if samples.dtype == np.float32:
        name = "tif"  # a PFM; only TIFF and NPY hold floats when written
    return _Decoded(samples, mode, name, alpha, encoding=encoding)


def _planes(image: Image.Image, path: Path) -> tuple[np.ndarray, np.ndarray | None, str]:
    """A loaded Pillow image as samples (H, W, C), alpha (H, W) or None, and mode."""
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image)
        if mode == "I" and (values.min() < 0 or values.max() > 65535):
            raise InputError(f"{path} holds 32-bit integers, which cannot be read", hint="save it with 16 bits")
        samples = values.astype(np.uint16)
        key = image.info.get("transparency")
        alpha = np.where(samples == key, 0, 65535).astype(np.uint16) if isinstance(key, int) else None
        return samples[..., None], alpha, "grey"
    if mode == "F":
        return _unit_floats(np.asarray(image), path)[..., None], None, "grey"
    if mode == "CMYK":
        return np.asarray(image), None, "cmyk"
    if mode in ("P", "PA"):
        transparent = image.has_transparency_data
        values = np.asarray(image.convert("RGBA" if transparent else "RGB"))
        grey = (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all()
        return values[..., :1] if grey else values[..., :3], values[..., 3] if transparent else None, "palette"
    if mode in ("1", "L", "LA", "La"):
        target, colours = ("LA" if image.has_transparency_data or mode == "La" else "L"), 1
    elif mode in ("RGB", "RGBA", "RGBX", "RGBa", "YCbCr"):
        target, colours = ("RGBA" if image.has_transparency_data or mode == "RGBa" else "RGB"), 3
    else:
        raise InputError(f"{path} is in colour mode {mode}, which cannot be read", hint="save it as RGB or grey")
    if mode == "1" and target == "LA":
        image = image.convert("RGBA")  # Pillow knows no way from 1 bit with a transparent value to LA
    values = np.asarray(image.convert(target))
    values = values[..., None] if values.ndim == 2 else values
    return values[..., :colours], values[..., -1] if target.endswith("A") else None, "grey" if colours == 1 else "rgb"


def _opencv(data: bytes, path: Path) -> np.ndarray:
    """Samples (H, W, 3 or 4) as stored, RGB(A)."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its complaints would reach the terminal
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.shape[2] not in (3, 4):
        raise InputError(f"{path} is damaged or incomplete")
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


def _decode_deep_png(data: bytes, path: Path, chunks: dict[bytes, bytes], encoding: dict[str, Any]) -> _Decoded:
    grey = data[25] == 4
    values = _opencv(data, path)
    alpha = values[..., 3] if values.shape[2] == 4 else None
    samples = values[..., :1] if grey else values[..., :3]
    if data[25] == 2 and b"tRNS" in chunks:  # one colour declared transparent
        key = np.array(struct.unpack(">3H", chunks[b"tRNS"]), np.uint16)
        alpha = np.where((samples == key).all(-1), 0, 65535).astype(np.uint16)
    return _Decoded(samples, "grey" if grey else "rgb", "png", alpha, encoding=encoding)


def _decode_npy(data: bytes, path: Path, max_pixels: int) -> _Decoded:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 2, 3, 4)):
        raise InputError(
            f"{path} holds an array of shape {shape}; a picture is (H, W) or (H, W, C) with 1 to 4 channels"
        )
    _check_size(path, shape[1], shape[0], max_pixels)
    if dtype.hasobject or (dtype.kind, dtype.itemsize) not in {("b", 1), ("u", 1), ("u", 2), ("f", 4), ("f", 8)}:
        raise InputError(f"{path} holds {dtype} values; a picture is uint8, uint16, or float in [0, 1]")
    if len(data) - stream.tell() != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise InputError(f"{path} is damaged or incomplete")
    values = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
    values = values.reshape(*shape[:2], -1)
    if dtype.kind == "f":
        values = _unit_floats(values, path)
    else:
        values = values.astype(dtype.newbyteorder("="))
        values = values.astype(np.uint8) * np.uint8(255) if dtype.kind == "b" else values
    colours = 1 if values.shape[2] < 3 else 3
    alpha = values[..., -1] if values.shape[2] in (2, 4) else None
    return _Decoded(values[..., :colours], "grey" if colours == 1 else "rgb", "npy", alpha)


def _unit_floats(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(values).all():
        raise InputError(
            f"{path} holds values that are not numbers (NaN or infinite)",
            hint="fill them with any value and name them missing with --mask",
        )
    low, high = float(values.min()), float(values.max())
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise InputError(
            f"{path} holds floats from {low:.4g} to {high:.4g}; they must lie in [0, 1]",
            hint="scale them to [0, 1], or save the picture with 8 or 16 bits",
        )
    return np.clip(values, 0, 1).astype(np.float32)


def _decode_tiff(data: bytes, path: Path, max_pixels: int) -> _Decoded:
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its complaints reach the terminal
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        _check_size(path, page.imagewidth, page.imagelength, max_pixels)
        _check_tiff(page, len(data), path, max_pixels)
        orientation = page.tags.get(274)
        if orientation is not None and orientation.value != 1:
            # Pillow and OpenCV would turn the pixels, tifffile would not: hide it from them
            at = orientation.valueoffset
            data = data[:at] + (1).to_bytes(2, "little" if tiff.byteorder == "<" else "big") + data[at + 2 :]
        raw = _decode_tiff_page(page, data, path)
        raw.orientation = None if orientation is None else orientation.value
        icc = page.tags.valueof(34675)
        raw.icc = icc if isinstance(icc, bytes) and icc else None
        pages = len(tiff.pages)
    if pages > 1:
        raw.notes.append(f"{path} has {pages} pages; only the first is used")
    try:
        raw.exif = _tiff_exif(data)
    except Exception:  # noqa: BLE001  any content of the tags is met; the pixels are sound
        raw.notes.append(f"{path}: the metadata could not be read and is not kept")
    return raw


def _check_tiff(page: Any, length: int, path: Path, max_pixels: int) -> None:
    if page.imagedepth > 1 or not 1 <= page.samplesperpixel <= 5:
        raise InputError(
            f"{path} has {page.samplesperpixel} channels and depth {page.imagedepth}; grey, RGB and CMYK can be read"
        )
    # tifffile fills what lies outside the file with zeros, and trusts the tile size
    places = zip(page.dataoffsets, page.databytecounts, strict=True)
    if not page.dataoffsets or any(size <= 0 or offset + size > length for offset, size in places):
        raise InputError(f"{path} is damaged or incomplete (its pixels lie beyond the end of the file)")
    if page.is_tiled and page.tilewidth * page.tilelength > max(max_pixels, 1 << 20):
        raise InputError(f"{path} is damaged (tiles of {page.tilewidth}x{page.tilelength})")


def _decode_tiff_page(page: Any, data: bytes, path: Path) -> _Decoded:
    shallow = page.bitspersample in (1, 2, 4, 8) and int(page.sampleformat) == 1
    if shallow:
        try:
            with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
                image.load()
                samples, alpha, mode = _planes(image, path)
            return _Decoded(samples, mode, "tif", alpha)
        except Exception:
            if page.bitspersample != 8 or page.photometric not in (0, 1, 2, 5):
                raise
    values = _tiff_values(page, data, path)
    mode, colours = {0: ("grey", 1), 1: ("grey", 1), 2: ("rgb", 3), 5: ("cmyk", 4)}.get(page.photometric, ("", 0))
    if not mode or values.shape[2] not in (colours, colours + 1) or (mode == "cmyk" and values.dtype == np.float32):
        raise InputError(
            f"{path} is a TIFF of {values.shape[2]} channels in colour model {page.photometric}, which cannot be read",
            hint="save it as RGB or grey, with or without alpha",
        )
    if page.photometric == 0:
        values = (1 - values) if values.dtype == np.float32 else np.iinfo(values.dtype).max - values
    samples, alpha = values[..., :colours], values[..., colours] if values.shape[2] > colours else None
    if alpha is not None and mode == "cmyk":
        raise InputError(f"{path} is CMYK with alpha, which cannot be read", hint="flatten it, or save it as RGB")
    if alpha is not None and page.extrasamples and page.extrasamples[0] == 1:  # colour was multiplied by alpha
        full = 1 if values.dtype == np.float32 else np.iinfo(values.dtype).max
        cover = np.maximum(alpha, np.finfo(np.float32).tiny)[..., None].astype(np.float32)
        plain = np.minimum(samples.astype(np.float32) / cover * full, full)
        samples = plain if values.dtype == np.float32 else np.rint(plain).astype(values.dtype)
    return _Decoded(samples, mode, "tif", alpha)


def _tiff_values(page: Any, data: bytes, path: Path) -> np.ndarray:
    """Samples (H, W, S) uint8, uint16 or float32 of the page, extra samples included."""
    kind = (page.dtype.kind, page.dtype.itemsize) if page.dtype is not None else None
    if kind not in {("u", 1), ("u", 2), ("f", 2), ("f", 4), ("f", 8)} or (kind[0] == "u" and page.bitspersample % 8):
        raise InputError(
            f"{path} has samples of {page.bitspersample} bits ({page.sampleformat!s}), which cannot be read",
            hint="save it with 8 or 16 bits, or as float in [0, 1]",
        )
    try:
        values = page.asarray()
        if page.axes == "SYX":
            values = np.moveaxis(values, 0, -1)
    except Exception:
        # LZW and some predictors need a package that tifffile only suggests; these two decode them as well
        if page.samplesperpixel == 1:
            with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
                values = np.asarray(image)
        elif page.photometric == 2:
            values = _opencv(data, path)
        else:
            raise
    values = values.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    if kind[0] == "f":
        return _unit_floats(values, path)
    if values.dtype.itemsize != kind[1]:
        raise InputError(f"{path} is damaged or incomplete")
    return values.astype(values.dtype.newbyteorder("="))


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001  later frames may be damaged in any way; they are not used
        return 1


def _ppm_maximum(data: bytes) -> int:
    """The third number of a PPM header: the sample that means 1."""
    numbers: list[int] = []
    for line in data[2:4096].split(b"\n"):
        for word in line.split(b"#")[0].split():
            numbers.append(int(word))
            if len(numbers) == 3:
                return numbers[2]
    return 255


def _webp_is_lossless(data: bytes) -> bool:
    position = 12
    while position + 8 <= len(data):
        kind, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        position += 8 + size + (size & 1)
    return True


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of the chunks before the pixels."""
    position = 8
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            return
        yield kind, data[position + 8 : position + 8 + size]
        position += 12 + size


def _picture(raw: _Decoded, path: Path, sha256: str) -> Picture:
    exif, orientation = _upright_exif(raw.exif)
    turn = _TURNS.get(raw.orientation or orientation, _TURNS[1])
    samples = turn(raw.samples)
    alpha = None if raw.alpha is None else _to_unit(turn(raw.alpha)[..., None])
    cmyk = None
    if raw.mode == "cmyk":
        cmyk = np.ascontiguousarray(np.moveaxis(samples, -1, 0))
        pixels = _ink_to_rgb(cmyk, raw.icc, path, raw.notes)
    else:
        pixels = _to_unit(samples)
    bits = {1: 8, 2: 16, 4: 32}[raw.samples.dtype.itemsize]
    return Picture(
        path, pixels, alpha, bits, raw.mode, raw.format, raw.icc, exif, sha256, cmyk, tuple(raw.notes), raw.encoding
    )


def _to_unit(samples: np.ndarray) -> np.ndarray:
    """(H, W, C) of any sample type to float32 (C, H, W) in [0, 1]."""
    planes = np.moveaxis(samples, -1, 0).astype(np.float32, order="C")
    if samples.dtype != np.float32:
        planes /= np.float32(np.iinfo(samples.dtype).max)
    return planes


# EXIF orientation: how the stored array (H, W, ...) is turned upright.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


# ------------------------------------------------------------------------------------------------ metadata

# Tags of a TIFF directory that describe how its pixels are stored, or another picture than the one written.
_STORAGE_TAGS = frozenset(
    [254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291]
    + [292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341]
    + [342, 347, *range(512, 522), 529, 530, 531, 532, 700, 34377, 34675, 37724, 50838, 50839]
)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


def _exif_of(image: Image.Image) -> bytes | None:
    exif = image.info.get("exif")
    if exif is None and "Raw profile type exif" in image.info:  # how ImageMagick wrote it into PNG
        with suppress(ValueError):
            exif = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    return exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) and exif else None


def _directory(exif: bytes) -> tuple[str, list[tuple[int, int]]]:
    """Byte order and the entries (tag, position) of the first directory; ("", []) if there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4], "")
    if not order or len(exif) < 14:
        return "", []
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return order, []
    (count,) = struct.unpack_from(order + "H", exif, start)
    positions = range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12)
    return order, [(struct.unpack_from(order + "H", exif, at)[0], at) for at in positions]


def _upright_exif(exif: bytes | None) -> tuple[bytes | None, int]:
    """The block with its orientation set to 1, every other byte kept, and the orientation it had."""
    order, entries = _directory(exif or b"")
    for tag, at in entries:
        if tag == 274:
            value = struct.pack(order + "HHIHH", 274, 3, 1, 1, 0)
            return exif[:at] + value + exif[at + 12 :], struct.unpack_from(order + "H", exif, at + 8)[0]
    return exif, 1


def _tiff_exif(data: bytes) -> bytes | None:
    """The metadata tags of a TIFF's first page and its EXIF and GPS directories, as an EXIF block."""
    exif = Image.Exif()
    exif.load(data)
    for tag in list(exif):
        if tag in _STORAGE_TAGS:
            del exif[tag]
    description = str(exif.get(270, ""))  # of programs that describe their stack of pages there
    if description.startswith(("ImageJ=", '{"shape"')) or "<OME" in description:
        del exif[270]
    return exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) else None


# ------------------------------------------------------------------------------------------------ ink


def _ink_transform(icc: bytes, to_rgb: bool) -> Any:
    from PIL import ImageCms

    profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    ends = (profile, srgb, "CMYK", "RGB") if to_rgb else (srgb, profile, "RGB", "CMYK")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(*ends, renderingIntent=intent, flags=flags)


def _apply(transform: Any, planes: np.ndarray, mode: str) -> np.ndarray:
    """uint8 (C, H, W) in `mode` through an ImageCms transform, as uint8 (C', H, W)."""
    samples = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    image = Image.frombytes(mode, samples.shape[1::-1], samples.tobytes())
    return np.moveaxis(np.asarray(transform.apply(image)), -1, 0)


def _ink_to_rgb(cmyk: np.ndarray, icc: bytes | None, path: Path, notes: list[str]) -> np.ndarray:
    full = np.float32(np.iinfo(cmyk.dtype).max)
    if icc is not None:
        try:
            eight = np.rint(cmyk / (full / 255)).astype(np.uint8)
            return np.ascontiguousarray(_apply(_ink_transform(icc, True), eight, "CMYK")).astype(np.float32) / 255
        except Exception:  # noqa: BLE001  a profile is a file in the file, as damaged as it likes
            notes.append(f"{path}: its CMYK profile cannot be used; ink is converted without it")
    ink = cmyk.astype(np.float32) / full
    return np.ascontiguousarray((1 - ink[:3]) * (1 - ink[3:]))


def _rgb_to_ink(picture: Picture, pixels: np.ndarray) -> np.ndarray:
    """Ink planes (dtype of `picture.cmyk`) for `pixels`; what equals `picture.pixels` keeps its ink bit for bit.

    Without a profile K = g (1 - max(R, G, B)) and C = 1 - R / (1 - K), with g the share of the possible black that
    the original uses, so that restored areas are printed like the rest.
    """
    full = np.float32(np.iinfo(picture.cmyk.dtype).max)
    ink = None
    if picture.icc is not None:
        with suppress(Exception):  # the reader has said that this profile is of no use
            ink = _apply(_ink_transform(picture.icc, False), _levels(pixels, 8), "RGB") * np.float32(full / 255)
    if ink is None:
        original = picture.cmyk[3].astype(np.float64).sum() / float(full)
        possible = float((1 - picture.pixels.max(0)).astype(np.float64).sum())
        share = np.float32(min(1.0, original / possible) if possible > 0 else 1.0)
        rgb = np.clip(pixels, 0, 1)
        black = share * (1 - rgb.max(0, keepdims=True))
        colour = 1 - rgb / np.maximum(1 - black, np.finfo(np.float32).tiny)
        ink = full * np.clip(np.concatenate([colour, black]), 0, 1)
    same = (np.abs(pixels - picture.pixels) < 0.5 / full).all(0)
    return np.where(same, picture.cmyk, np.rint(ink).astype(picture.cmyk.dtype))


# ------------------------------------------------------------------------------------------------ writing


def picture_bytes(
    picture: Picture,
    pixels: np.ndarray,
    format: str = "keep",
    bits: Literal["keep", 8, 16, 32] = "keep",
    quality: int = 95,
    alpha: Literal["keep"] | None = "keep",
) -> tuple[bytes, str]:
    """`pixels` (C, H, W), C = 1 or 3, encoded like `picture`: the file's bytes and its extension without the dot.

    Samples are clipped to [0, 1] and rounded to the nearest level; pixels taken from `picture` come out exactly as
    they were (JPEG and lossy WebP re-encode). Depth, alpha, ink, ICC profile and EXIF are the picture's as far as the
    format holds them: "keep" falls back to PNG where the picture's own format cannot be written, EXIF over 64 kB is
    left out of JPEG, and a profile is left out where it would describe another kind of colour. A palette picture
    stays one while it has at most 256 colours. WebP is lossless unless the source was lossy. `alpha=None` drops alpha.
    Raises ValueError if a pixel is not finite or shapes disagree; UsageError for a format or depth that does not
    exist; InputError if this picture does not fit the format asked for (alpha into JPEG, too large).
    """
    pixels = np.asarray(pixels, dtype=np.float32)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels of shape {pixels.shape}; expected (1 or 3, H, W)")
    if not np.isfinite(pixels).all():
        raise ValueError("pixels hold values that are not finite")
    cover = None if alpha is None else picture.alpha
    if cover is not None and cover.shape[1:] != pixels.shape[1:]:
        raise ValueError(f"alpha of shape {cover.shape} for pixels of shape {pixels.shape}")

    format = _target_format(picture, format, cover is not None, pixels.shape)
    depth = _target_bits(picture, format, bits)
    same_kind = pixels.shape[0] == picture.pixels.shape[0]
    ink = picture.mode == "cmyk" and format in ("jpg", "tif") and depth < 32 and cover is None
    if ink and picture.cmyk is not None and pixels.shape == picture.pixels.shape:
        planes = _rgb_to_ink(picture, pixels)
        planes = _levels(planes / np.float32(np.iinfo(planes.dtype).max), depth)
    else:
        planes = _levels(pixels, depth)
        same_kind = same_kind and picture.mode != "cmyk"
    picture = picture if same_kind else replace(picture, icc=None)
    if cover is not None:
        planes = np.concatenate([planes, _levels(cover, depth)])
    samples = np.ascontiguousarray(np.moveaxis(planes, 0, -1))

    table = None
    if picture.mode == "palette" and depth == 8 and format in ("png", "tif", "bmp"):
        table = _indexed(samples, allow_alpha=format == "png")
    if format == "npy":
        stream = io.BytesIO()
        np.save(stream, samples[..., 0] if samples.shape[2] == 1 else samples)
        return stream.getvalue(), "npy"
    if format == "ppm":
        head = b"P%d\n%d %d\n%d\n" % (5 if samples.shape[2] == 1 else 6, *samples.shape[1::-1], 2**depth - 1)
        return head + samples.astype(f">u{depth // 8}").tobytes(), "pgm" if samples.shape[2] == 1 else "ppm"
    if format == "tif":
        return _write_tiff(samples, picture, table), "tif"
    if format == "png":
        png = _write_deep_png(samples) if depth == 16 else _write_pillow("PNG", samples, table)
        return _insert_chunks(png, picture), "png"
    if format == "bmp":
        return _write_pillow("BMP", samples, table), "bmp"
    return _write_lossy(format, samples, picture, quality), format


def written_format(
    picture: Picture,
    format: str = "keep",
    bits: Literal["keep", 8, 16, 32] = "keep",
    alpha: Literal["keep"] | None = "keep",
) -> str:
    """The format in which `picture_bytes` would write pixels of this picture's size; raises what it would raise."""
    has_alpha = alpha is not None and picture.alpha is not None
    format = _target_format(picture, format, has_alpha, picture.pixels.shape)
    _target_bits(picture, format, bits)
    return format


def _target_format(picture: Picture, format: str, has_alpha: bool, shape: tuple[int, ...]) -> str:
    name = picture.path or "the picture"
    if format == "keep":
        own = _ALIASES.get(picture.format, picture.format)
        return "png" if own not in WRITABLE or (has_alpha and own in _OPAQUE) else own
    format = _ALIASES.get(format.lower(), format.lower())
    if format not in WRITABLE:
        raise UsageError(f"unknown format '{format}'", hint="known: keep, " + ", ".join(WRITABLE))
    if has_alpha and format in _OPAQUE:
        raise InputError(
            f"{name} has transparent pixels, which {format.upper()} cannot hold", hint="choose --format png"
        )
    if max(shape[1:]) > _LONGEST_SIDE.get(format, max(shape)):
        raise InputError(
            f"{name} is {shape[2]}x{shape[1]}; {format.upper()} holds at most {_LONGEST_SIDE[format]} pixels a side",
            hint="choose --format png",
        )
    return format


def _target_bits(picture: Picture, format: str, bits: Literal["keep", 8, 16, 32]) -> int:
    if bits == "keep":
        return max(held for held in WRITABLE[format] if held <= picture.bits)
    if bits not in WRITABLE[format]:
        able = [name for name, depths in WRITABLE.items() if bits in depths]
        raise UsageError(
            f"{format.upper()} cannot hold {bits} bits a channel",
            hint=f"choose --format {' or '.join(able[:2])}" if able else "choose 8, 16 or 32 bits",
        )
    return bits


def _levels(planes: np.ndarray, depth: int) -> np.ndarray:
    """Unit values clipped and rounded to `depth` bits; 32 means float."""
    planes = np.clip(planes, 0, 1)
    if depth == 32:
        return planes
    planes = planes * np.float32(2**depth - 1)
    return np.rint(planes, out=planes).astype(np.uint8 if depth == 8 else np.uint16)


def _indexed(samples: np.ndarray, allow_alpha: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """(H, W, C) uint8 as indices (H, W) and a table (n, 3 or 4); None if it has over 256 colours."""
    height, width, channels = samples.shape
    if channels in (2, 4) and not allow_alpha:
        return None
    if channels < 3:
        samples = np.concatenate([samples[..., :1]] * 3 + [samples[..., 1:]], axis=-1)
    packed = np.zeros((height, width, 4), np.uint8)
    packed[..., : samples.shape[2]] = samples
    codes, indices = np.unique(packed.view("<u4").ravel(), return_inverse=True)
    if len(codes) > 256:
        return None
    table = codes.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : samples.shape[2]]
    return indices.reshape(height, width).astype(np.uint8), table


def _pillow_image(samples: np.ndarray) -> Image.Image:
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def _write_pillow(kind: str, samples: np.ndarray, table: tuple[np.ndarray, np.ndarray] | None) -> bytes:
    options: dict[str, Any] = {}
    if table is None:
        image = _pillow_image(samples)
    else:
        image = Image.fromarray(table[0]).convert("L")
        image.putpalette(np.ascontiguousarray(table[1][:, :3]).tobytes())
        if table[1].shape[1] == 4:
            options["transparency"] = table[1][:, 3].tobytes()
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _write_lossy(format: str, samples: np.ndarray, picture: Picture, quality: int) -> bytes:
    """JPEG or WebP. Ink is told from RGBA by the format: JPEG has no alpha, WebP no ink."""
    encoding, exif = picture.encoding, picture.exif or b""
    options: dict[str, Any] = {"quality": quality, "icc_profile": picture.icc}
    if format == "webp":
        image = _pillow_image(samples)
        lossy = picture.format == "jpg" or (picture.format == "webp" and not encoding.get("lossless", True))
        # a lossless file is exact under transparent pixels too; there `quality` means effort
        options |= {"exif": exif} | ({} if lossy else {"lossless": True, "exact": True, "quality": 80})
    else:
        ink = samples.shape[2] == 4
        image = Image.frombytes("CMYK", samples.shape[1::-1], samples.tobytes()) if ink else _pillow_image(samples)
        exif = b"Exif\0\0" + exif if 0 < len(exif) <= 65527 else b""
        options |= {"exif": exif, "progressive": encoding.get("progressive", False)}
        if samples.shape[2] == 3:
            options["subsampling"] = max(encoding.get("subsampling", 0), 0)
        if encoding.get("dpi"):
            options["dpi"] = encoding["dpi"]
    stream = io.BytesIO()
    image.save(stream, "WEBP" if format == "webp" else "JPEG", **options)
    return stream.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _insert_chunks(png: bytes, picture: Picture) -> bytes:
    """Colour and EXIF chunks behind the header: they must precede palette and pixels."""
    chunks = [_chunk(kind, content) for kind, content in picture.encoding.get("chunks", ())]
    if picture.icc is not None:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc)))
    if picture.exif is not None:
        chunks.append(_chunk(b"eXIf", picture.exif))
    return png[:33] + b"".join(chunks) + png[33:]


def _blocks(samples: np.ndarray, size: int = 1 << 20) -> Iterator[tuple[int, int]]:
    """Row ranges of about `size` bytes."""
    rows = max(1, size // max(1, samples[0].nbytes))
    for start in range(0, samples.shape[0], rows):
        yield start, min(start + rows, samples.shape[0])


def _write_deep_png(samples: np.ndarray) -> bytes:
    """(H, W, 1 to 4) uint16 as PNG, every row with the Paeth filter (PNG specification, 9.4)."""
    height, width, channels = samples.shape
    step = 2 * channels
    head = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", head)]
    packer = zlib.compressobj(6)
    above = np.zeros((1, step * (width + 1)), np.uint8)  # with one pixel of zeros on the left
    for start, stop in _blocks(samples):
        rows = np.zeros((1 + stop - start, step * (width + 1)), np.uint8)
        rows[0] = above
        rows[1:, step:] = samples[start:stop].astype(">u2").reshape(stop - start, -1).view(np.uint8)
        left, up, corner = (a.astype(np.int16) for a in (rows[1:, :-step], rows[:-1, step:], rows[:-1, :-step]))
        to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
        nearer = np.where(to_up <= to_corner, up, corner)
        guess = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearer).astype(np.uint8)
        filtered = np.full((stop - start, 1 + step * width), 4, np.uint8)
        filtered[:, 1:] = rows[1:, step:] - guess
        above = rows[-1:]
        packed = packer.compress(filtered.tobytes())
        if packed:
            parts.append(_chunk(b"IDAT", packed))
    return b"".join([*parts, _chunk(b"IDAT", packer.flush()), _chunk(b"IEND", b"")])


def _write_tiff(samples: np.ndarray, picture: Picture, table: tuple[np.ndarray, np.ndarray] | None) -> bytes:
    """(H, W, C) uint8, uint16 or float32 as a Deflate TIFF; C = 1 to 4, where 4 is ink for a CMYK picture.

    The file starts with the EXIF block as it is, so that all offsets in it stay true; the picture's own directory,
    behind the pixels, takes over its entries.
    """
    palette = None
    if table is not None:
        samples, palette = table[0][..., None], table[1]
    height, width, channels = samples.shape
    ink = channels == 4 and picture.mode == "cmyk" and picture.alpha is None
    order, entries = _directory(picture.exif or b"")
    body = bytearray(picture.exif) if order else bytearray(b"II*\0\0\0\0\0")
    kept = {tag: bytes(body[at : at + 12]) for tag, at in entries if _is_sound(order, body, tag, at)}
    order = order or "<"
    body += bytes(-len(body) % 2)

    offsets, sizes, rows = [], [], height
    for start, stop in _blocks(samples):
        rows = stop - start if start == 0 else rows
        strip = samples[start:stop]
        if strip.dtype != np.float32:  # horizontal predictor, TIFF 6.0 section 14
            strip = np.concatenate([strip[:, :1], strip[:, 1:] - strip[:, :-1]], axis=1)
        packed = zlib.compress(strip.astype(strip.dtype.newbyteorder(order)).tobytes(), 6)
        offsets.append(len(body))
        sizes.append(len(packed))
        body += packed
        body += bytes(-len(body) % 2)

    floats = samples.dtype == np.float32
    colours = 4 if ink else 3 if channels > 2 else 1
    photometric = 3 if palette is not None else 5 if ink else 2 if colours == 3 else 1
    tags: list[tuple[int, str, list[int] | bytes]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [samples.dtype.itemsize * 8] * channels),
        (259, "H", [8]),
        (262, "H", [photometric]),
        (273, "I", offsets),
        (277, "H", [channels]),
        (278, "I", [rows]),
        (279, "I", sizes),
        (284, "H", [1]),
        (317, "H", [1 if floats else 2]),
        (339, "H", [3 if floats else 1] * channels),
    ]
    if palette is not None:
        colour_map = np.zeros((3, 256), np.uint16)
        colour_map[:, : len(palette)] = palette.T.astype(np.uint16) * 257
        tags.append((320, "H", colour_map.ravel().tolist()))
    if channels > colours:
        tags.append((338, "H", [2]))
    if picture.icc is not None:
        tags.append((34675, "B", picture.icc))
    for tag, kind, values in tags:
        packed = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{kind}", *values)
        count = len(values)
        if len(packed) > 4:
            place = struct.pack(order + "I", len(body)) if len(body) < 1 << 32 else b"\0\0\0\0"
            body += packed + bytes(len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        kept[tag] = struct.pack(order + "HHI", tag, {"H": 3, "I": 4, "B": 7}[kind], count) + place
    if len(body) + 12 * len(kept) + 6 >= 1 << 32:
        raise InputError(f"{picture.path or 'the picture'} is too large for a TIFF of 4 GB", hint="choose --format png")
    struct.pack_into(order + "I", body, 4, len(body))
    body += struct.pack(order + "H", len(kept)) + b"".join(kept[tag] for tag in sorted(kept)) + bytes(4)
    return bytes(body)


def _is_sound(order: str, body: bytearray, tag: int, at: int) -> bool:
    """Whether an EXIF entry may be taken over: about the picture, not its storage, and pointing into the block."""
    kind, count, offset = struct.unpack_from(order + "HII", body, at + 2)
    size = _TYPE_BYTES.get(kind, 0) * count
    if tag in _STORAGE_TAGS or size == 0:
        return False
    points = size > 4 or tag in (34665, 34853, 40965)
    return not points or offset + max(size, 2) <= len(body)


_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` entirely or not at all, making its folder if need be.

    Raises EnvironmentProblem for what the system refuses (disk full, read-only, a file where a folder should be).
    """
    path = Path(path)
    short = path.name
    if len(os.fsencode(short)) > 220:  # the longest name most file systems take is 255 bytes
        short = f"{os.fsdecode(os.fsencode(short)[:100])}-{zlib.crc32(os.fsencode(short)):08x}"
    part = path.with_name(f".{short}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:  # Ctrl-C as well
            with suppress(OSError):
                part.unlink()
            raise
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write {path}: {error.strerror or error}",
            hint="free some space and run the same command again; finished results are kept"
            if error.errno in _NO_SPACE
            else "choose a folder you may write to with --output",
        ) from error
