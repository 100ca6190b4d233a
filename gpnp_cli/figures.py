"""Pictures for people: the standard-deviation map with its scale, and the sheet one opens first.

numpy and Pillow only. Pictures come as float `(C, H, W)` in [0, 1] (C = 1 or 3) or as uint8 `(H, W, 3)`, all
results are uint8 `(H, W, 3)`. Lettering is in Pillow's built-in font, so nothing depends on installed fonts;
it knows ASCII and little more, hence `printable`.
"""

import functools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .errors import InputError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Roi = tuple[int, int, int, int]  # (y0, x0, h, w) in pixels
Part = Image.Image | tuple[str, Font, tuple[int, int, int]]  # of a column: a picture, or a line with font and ink

# The map's colours in CIELAB: lightness (see `_table`) rises evenly along the list, these are (a*, b*). From a
# bluish black over violet, red and orange to a pale yellow: lightness alone tells the order, so that the map
# survives a grey print and colour-blind eyes; the hue only helps to read off values.
_ANCHORS_AB = [(4, -12), (26, -40), (46, -36), (58, -10), (60, 22), (48, 48), (28, 64), (6, 66), (-6, 36)]
_DARKEST, _BRIGHTEST = 5.0, 96.0

_INK, _FAINT, _PAPER = (28, 28, 32), (110, 110, 118), (255, 255, 255)
_VIOLETS = (0.87, 0.76, 0.91), (0.66, 0.40, 0.75)  # what is missing
_SEEN = 4.0  # pictures enlarged this much show every pixel anyway: no magnified detail
_FRAME = (255, 255, 255), (20, 20, 20)  # the mark around the magnified part, light beside dark: visible on anything


# ---------------------------------------------------------------- the standard deviation as colours


def colour_map(std: np.ndarray, vmax: float) -> np.ndarray:
    """`std` `(H, W)` as colours `(H, W, 3)`: 0 is the darkest, `vmax` > 0 and all above the brightest.

    CIELAB lightness rises linearly with `std`. Pixels that are not finite come out white.
    """
    finite = np.isfinite(std)
    index = np.where(finite, np.clip(np.where(finite, std, 0) * (255 / vmax), 0, 255) + 0.5, 0).astype(np.uint8)
    colours = _table()[index]
    if not finite.all():
        colours[~finite] = 255
    return colours


def robust_top(std: np.ndarray) -> float:
    """The map's upper end: the 99.9th percentile of `std`, and never 0, so that a few outliers cannot darken it."""
    finite = std[np.isfinite(std)]
    top = float(np.percentile(finite, 99.9)) if finite.size else 0.0
    # Mostly zeros, or nothing else: take the maximum, then one 8-bit step, the least that an image file can show.
    return top or (float(finite.max()) if finite.size else 0.0) or 1 / 255


def pooled(std: np.ndarray) -> np.ndarray:
    """`std` `(H, W)` itself, or the root mean square over the channels of `(C, H, W)`."""
    return std if std.ndim == 2 else np.sqrt(np.mean(np.square(std, dtype=np.float32), axis=0))


def std_picture(std: np.ndarray, vmax: float | None = None) -> tuple[np.ndarray, float]:
    """A standard deviation `(H, W)` or `(C, H, W)` (pooled over channels) as `(picture, vmax)`.

    `picture[:H, :W]` is the map, pixel for pixel; below it is a scale bar in units of 1/255 (and white paper to
    the right when the map is narrower than the bar's lettering). `vmax`, in the units of `std`, is where
    the colours end: given, or `robust_top`.
    """
    std = pooled(std)
    height, width = std.shape
    vmax = robust_top(std) if vmax is None else vmax
    size = int(np.clip(round(max(width, height) / 36), 12, 56))
    bar = _scale_bar(max(width, 24 * size), vmax, size)
    picture = np.full((height + bar.height, bar.width, 3), 255, np.uint8)
    picture[:height, :width] = colour_map(std, vmax)
    picture[height:] = np.asarray(bar)
    return picture, vmax


def _scale_bar(width: int, vmax: float, size: int) -> Image.Image:
    """Colours from 0 to `vmax` with round ticks in 1/255 and a legend, for lettering of `size` pixels."""
    font, top = _font(size), vmax * 255
    ticks = _round_ticks(top, most=max(2, int(width / (4.5 * size))))
    line = _line_height(font)
    pad, thick, tick = max(2, size // 2), max(4, round(0.9 * size)), max(2, size // 4)
    bar = Image.new("RGB", (width, pad + thick + tick + 2 * line + pad), _PAPER)
    draw = ImageDraw.Draw(bar)
    left, right = 2 * size, width - 1 - 2 * size
    ramp = colour_map(np.linspace(0, 1, right - left + 1)[None].repeat(thick, axis=0), 1.0)
    bar.paste(Image.fromarray(ramp), (left, pad))
    for value in ticks:
        x = left + value / top * (right - left)
        draw.line((x, pad + thick, x, pad + thick + tick), fill=_INK, width=max(1, size // 12))
        label = f"{value:g}"
        draw.text((x - font.getlength(label) / 2, pad + thick + tick), label, fill=_INK, font=font)
    legend = _elided(f"standard deviation in 1/255, full scale {top:.3g}", font, width - 2)
    at = (width - font.getlength(legend)) / 2, pad + thick + tick + line
    draw.text(at, legend, fill=_FAINT, font=font)
    return bar


def _round_ticks(top: float, most: int) -> list[float]:
    """0 and multiples of 1, 2 or 5 times a power of ten up to `top`, `most` + 1 at most."""
    power = 10.0 ** math.floor(math.log10(top / most))
    step = next(s * power for s in (1, 2, 5, 10, 20) if top / (s * power) <= most)
    return [round(k * step, 12) for k in range(int(top / step + 1e-9) + 1)]


@functools.cache
def _table() -> np.ndarray:
    """256 sRGB colours `(256, 3)` from the anchors, by a uniform cubic spline through (a*, b*)."""
    anchors = np.array(_ANCHORS_AB, float)
    ends = 2 * anchors[0] - anchors[1], 2 * anchors[-1] - anchors[-2]
    p = np.vstack([ends[0], anchors, ends[1]])
    u = np.linspace(0, len(anchors) - 1, 256)
    k = np.minimum(u.astype(int), len(anchors) - 2)
    t = (u - k)[:, None]
    p0, p1, p2, p3 = p[k], p[k + 1], p[k + 2], p[k + 3]
    ab = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    lightness = np.linspace(_DARKEST, _BRIGHTEST, 256)
    return _srgb(np.column_stack([lightness, ab]))


def _srgb(lab: np.ndarray) -> np.ndarray:
    """CIELAB (white D65) to 8-bit sRGB; out-of-gamut colours lose chroma, not lightness."""
    for _ in range(60):
        fy = (lab[:, :1] + 16) / 116
        f = np.hstack([fy + lab[:, 1:2] / 500, fy, fy - lab[:, 2:] / 200])
        xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.95047, 1.0, 1.08883]
        linear = xyz @ np.array(
            [
                [3.2406255, -0.9689307, 0.0557101],
                [-1.5372080, 1.8757561, -0.2040211],
                [-0.4986286, 0.0415175, 1.0569959],
            ]
        )
        outside = ((linear < 0) | (linear > 1)).any(axis=1)
        if not outside.any():
            break
        lab = lab * np.where(outside[:, None], [1, 0.97, 0.97], 1)
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


# ---------------------------------------------------------------- the damaged picture


def show_missing(pixels: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """`pixels` `(C, H, W)` as colour `(3, H, W)` float32 with the `missing` `(H, W)` pixels painted over.

    The paint is a hatch of violet stripes, which no photograph holds; its period grows with the picture so that
    it is still visible when the picture is shown reduced. Scattered pixels and thin scratches, too small to
    show stripes, are painted in one violet.
    """
    height, width = missing.shape
    picture = np.array(np.broadcast_to(pixels, (3, height, width)), np.float32)
    around = np.pad(missing, 2, mode="edge")
    wide = missing  # and so are the pixels up to 2 away along its row and column
    for d in range(5):
        wide = wide & around[d : d + height, 2:-2] & around[2:-2, d : d + width]
    if wide.sum() < 0.5 * missing.sum():
        picture[:, missing] = np.array(_VIOLETS, np.float32).mean(axis=0)[:, None]
        return picture
    stripe = max(2, round(min(height, width) / 50))
    light = (np.arange(height)[:, None] + np.arange(width)) // stripe % 2 == 0
    for c, (bright, dark) in enumerate(zip(*_VIOLETS, strict=True)):
        picture[c][missing] = np.where(light[missing], np.float32(bright), np.float32(dark))
    return picture


# ---------------------------------------------------------------- the contact sheet


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet: float `(C, H, W)` in [0, 1] or uint8 `(H, W, 3)`, with its lettering."""

    title: str
    pixels: np.ndarray
    caption: Sequence[str] | str = ()  # a line each, such as "PSNR 27.3 dB   SSIM 0.88"
    vmax: float | None = None  # of a `colour_map`: a scale bar from 0 to `vmax` is drawn below

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.caption,) if isinstance(self.caption, str) else tuple(self.caption)


def std_tile(title: str, std: np.ndarray, caption: Sequence[str] | str = (), vmax: float | None = None) -> Tile:
    """The tile of a standard deviation `(H, W)` or `(C, H, W)`, with its scale bar; `vmax` as in `std_picture`."""
    std = pooled(std)
    vmax = robust_top(std) if vmax is None else vmax
    return Tile(title, colour_map(std, vmax), caption, vmax)


def contact_sheet(tiles: Sequence[Tile], title: str, notes: Sequence[str] = (), roi: Roi | None = None) -> np.ndarray:
    """All `tiles` of one restoration on white paper, uint8 `(H, W, 3)`: what a person opens first.

    The tiles stand in rows of up to five, each about 250 to 500 pixels wide: large pictures are reduced (Lanczos),
    small ones enlarged by a whole factor with every pixel a square, so that nothing is smoothed away. Tiles
    of one size (all of them, normally) share one scale. With `roi` = (y0, x0, h, w), the restored part in
    pixels, every tile is followed by a magnified detail (marked in the tile) that shows the seam: the part with
    a margin, or one of its corners where the whole would be magnified less than twofold. Pictures so small
    that they are enlarged fourfold get none.
    Lettering too long for its place ends in "...". Raises `InputError` if there are no tiles, if a tile is no
    picture, or if `roi` has no pixel in the first one.
    """
    if not tiles:
        raise InputError("a contact sheet needs at least one picture")
    pictures = [_as_image(tile.pixels) for tile in tiles]
    columns = math.ceil(len(tiles) / math.ceil(len(tiles) / 5))
    box = {1: 512, 2: 512, 3: 480, 4: 400}.get(columns, 340)
    scales = [_scale(picture.size, box) for picture in pictures]
    width = max(180, *(_scaled(picture.size, scale)[0] for picture, scale in zip(pictures, scales, strict=True)))
    window = None if roi is None or scales[0] >= _SEEN else _detail_window(pictures[0].size, scales[0], width, roi)
    cells = [
        _cell(tile, picture, scale, width, window if picture.size == pictures[0].size else None)
        for tile, picture, scale in zip(tiles, pictures, scales, strict=True)
    ]

    gap, head, small = 24, _font(24), _font(15)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    # Details of one row start at one height, whatever stands above them.
    upper = [max(cell[0].height for cell in row) for row in rows]
    lower = [max(cell[1].height if cell[1] else 0 for cell in row) for row in rows]
    sheet_width = max(gap + columns * (width + gap), 360)
    head_lines = [(title, head, _INK)] + [(note, small, _FAINT) for note in notes]
    header = _column(head_lines, sheet_width - 2 * gap, space=4)
    sheet_height = gap + header.height + gap + sum(upper) + sum(lower) + gap * len(rows)
    sheet = Image.new("RGB", (sheet_width, sheet_height), _PAPER)
    sheet.paste(header, (gap, gap))
    y = gap + header.height + gap
    for row, above, below in zip(rows, upper, lower, strict=True):
        for k, (picture, detail) in enumerate(row):
            sheet.paste(picture, (gap + k * (width + gap), y))
            if detail:
                sheet.paste(detail, (gap + k * (width + gap), y + above))
        y += above + below + gap
    return np.asarray(sheet)


def _cell(
    tile: Tile, picture: Image.Image, scale: float, width: int, window: Roi | None
) -> tuple[Image.Image, Image.Image | None]:
    """One column of the sheet: title, picture, scale bar and captions; and the detail that follows them."""
    name, small = _font(18), _font(15)
    shown = _resized(picture, _scaled(picture.size, scale))
    parts: list[Part] = [(tile.title, name, _INK), shown if window is None else _marked(shown, window, scale)]
    if tile.vmax is not None:
        parts.append(_scale_bar(width, tile.vmax, 12))
    parts += [(line, small, _INK) for line in tile.lines]
    if window is None:
        return _column(parts, width), None
    y0, x0, h, w = window
    factor = min(width / w, 1.5 * width / h)
    factor = math.floor(factor) if factor >= 1 else factor
    detail = _resized(picture.crop((x0, y0, x0 + w, y0 + h)), _scaled((w, h), factor))
    return _column(parts, width), _column(
        [detail, (f"detail, {factor / scale:.2g} times larger", small, _FAINT)], width
    )


def _column(parts: Sequence[Part], width: int, space: int = 5) -> Image.Image:
    """Lines and pictures below one another, `space` pixels after each."""
    heights = [p.height if isinstance(p, Image.Image) else _line_height(p[1]) for p in parts]
    column = Image.new("RGB", (width, sum(heights) + space * len(parts)), _PAPER)
    draw, y = ImageDraw.Draw(column), 0
    for part, height in zip(parts, heights, strict=True):
        if isinstance(part, Image.Image):
            column.paste(part, (0, y))
        else:
            text, font, ink = part
            draw.text((0, y), _elided(text, font, width), fill=ink, font=font)
        y += height + space
    return column


def _scale(size: tuple[int, int], box: int) -> float:
    """The factor which fits a picture into `box` x 1.5 `box`: whole if it enlarges."""
    factor = min(box / size[0], 1.5 * box / size[1])
    return max(1, math.floor(factor)) if factor >= 1 else factor


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    if size[0] >= picture.width and size[1] >= picture.height:
        return picture.resize(size, Image.Resampling.NEAREST)
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _detail_window(size: tuple[int, int], scale: float, width: int, roi: Roi) -> Roi:
    """The part (y0, x0, h, w) of a picture of `size` (W, H), shown at `scale`, to magnify to `width` pixels."""
    across, down = size
    y0, x0 = max(0, roi[0]), max(0, roi[1])
    h, w = min(down, roi[0] + roi[2]) - y0, min(across, roi[1] + roi[3]) - x0
    if h < 1 or w < 1:
        raise InputError(
            f"the region {roi} (y0, x0, h, w) lies outside the picture of {down}x{across} pixels",
            hint="give it in pixels, from the top left corner",
        )
    # The margin is a quarter of the region on each side: a seam is judged by what surrounds it.
    margin = max(2, round(0.25 * max(h, w)))
    cy, cx, wanted = y0 + h / 2, x0 + w / 2, max(h, w) + 2 * margin
    least = max(1, math.floor(min(across, down, width / scale) / 2))  # a window of this side is magnified twofold
    if wanted > least:
        cy = min((y0, y0 + h), key=lambda y: abs(y - down / 2))
        cx = min((x0, x0 + w), key=lambda x: abs(x - across / 2))
        wanted = least
    side = max(1, wanted)
    if width >= side:  # enlarged by a whole factor: widen the window until it fills the column
        side = width // max(1, width // side)
    w, h = min(side, across), min(side, down)
    left, top = (int(np.clip(round(c - n / 2), 0, full - n)) for c, n, full in ((cx, w, across), (cy, h, down)))
    return top, left, h, w


def _marked(shown: Image.Image, window: Roi, scale: float) -> Image.Image:
    """`shown` with the corners of the magnified part marked; not if that is nearly all of it."""
    y0, x0, h, w = window
    if h * w * scale * scale > 0.8 * shown.width * shown.height:
        return shown
    shown = shown.copy()
    draw = ImageDraw.Draw(shown)
    left, top, right, bottom = x0 * scale, y0 * scale, (x0 + w) * scale - 1, (y0 + h) * scale - 1
    arm = max(4, min(right - left, bottom - top) / 6)
    for inset, colour in zip((0, 1), _FRAME, strict=True):
        for x, dx in ((left + inset, arm), (right - inset, -arm)):
            for y, dy in ((top + inset, arm), (bottom - inset, -arm)):
                draw.line((x, y, x + dx, y), fill=colour)
                draw.line((x, y, x, y + dy), fill=colour)
    return shown


def _as_image(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size:
        return Image.fromarray(np.ascontiguousarray(pixels))
    if pixels.dtype.kind != "f" or pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or not pixels.size:
        raise InputError(
            f"a tile must be float (1|3, H, W) or uint8 (H, W, 3), not {pixels.dtype} {tuple(pixels.shape)}",
            hint="drop the alpha channel and scale the pixels to [0, 1]",
        )
    out = np.empty((*pixels.shape[1:], 3), np.uint8)
    for c in range(3):
        plane = np.nan_to_num(pixels[c % pixels.shape[0]], nan=0.0)
        out[..., c] = np.clip(plane, 0, 1) * 255 + 0.5
    return Image.fromarray(out)


# ---------------------------------------------------------------- lettering


@functools.cache
def _font(size: int) -> Font:
    try:
        return ImageFont.load_default(size=size)
    except (ImportError, OSError):  # a Pillow built without FreeType: its one bitmap font, about 11 pixels high
        return ImageFont.load_default()


def _line_height(font: Font) -> int:
    if isinstance(font, ImageFont.FreeTypeFont):
        return sum(font.getmetrics())
    return font.getbbox("Ag")[3] + 2


def printable(text: str, font: Font) -> str:
    """`text` in characters that `font` can draw: accents fall off, anything unknown becomes "?"."""
    spelled = {"σ": "sigma", "β": "beta", "γ": "gamma", "×": "x", "ß": "ss", "−": "-", "–": "-", "—": "-", "±": "+-"}
    out = []
    for character in text:
        if character.isspace():
            character = " "
        for candidate in (character, spelled.get(character), unicodedata.normalize("NFKD", character)):
            kept = "".join(c for c in candidate or "" if not unicodedata.combining(c))
            if kept and all(_has_glyph(font, c) for c in kept):
                out.append(kept)
                break
        else:
            if not unicodedata.combining(character):
                out.append("?")
    return "".join(out)


def _has_glyph(font: Font, character: str) -> bool:
    if character == " " or (character.isascii() and character.isprintable()):
        return True
    if not isinstance(font, ImageFont.FreeTypeFont) or not character.isprintable():
        return False
    # A font draws its "no such character" box for what it lacks; a private-use character shows that box.
    return bytes(font.getmask(character)) != bytes(font.getmask("\ue000"))


def _elided(text: str, font: Font, width: float) -> str:
    """`text` in drawable characters, cut and ended with "..." if it is wider than `width` pixels."""
    text = printable(text, font)
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip() + "...") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "..." if low else ""
