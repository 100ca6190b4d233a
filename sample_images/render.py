"""Renders the pictures of this folder: python sample_images/render.py [FOLDER]

They are the project's own work, under the project's licence: no photograph, texture or font file of anyone
else went into them (the lettering is in Pillow's built-in font). numpy and Pillow are all it needs; every
random number comes from a fixed seed, so that each run gives the same pictures.

  harbour.png       colour, 256x256: evening sky, lighthouse, boats, ripples, wood, lettering, grass
  still_life.png    colour, 384x256: fruit, a mug with lettering, a checked cloth, patterned wallpaper
  mountain.png      grey, 256x256: rock, snow, mist, a lake, firs
  leaf_alpha.png    colour with transparency, 192x192: an autumn leaf on boards; two holes are transparent
  scratch_mask.png  grey, 256x256: fits harbour.png; white is missing: scratches and a blot
  shake.png         grey, 19x19: a blur kernel, the path of a hand-held camera while its shutter was open

Each scene is computed in linear light on a grid several times finer than the picture, then averaged down.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Array = np.ndarray


# ---------------------------------------------------------------- brushes


def ink(code: str) -> Array:
    """A colour "#rrggbb" in linear light."""
    return to_linear(np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255).astype(np.float32)


def to_linear(c: Array) -> Array:
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def encode(linear: Array) -> Array:
    """Linear light to sRGB in [0, 1], the brightest lights rolled off softly."""
    over = np.maximum(linear - 0.75, 0)
    c = np.clip(np.minimum(linear, 0.75) + 0.25 * (1 - np.exp(-over / 0.25)), 0, 1)
    return np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)


def reduce(fine: Array, factor: int) -> Array:
    """The mean of every `factor` x `factor` block."""
    height, width = fine.shape[0] // factor, fine.shape[1] // factor
    return fine.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))


def step(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, a smooth cubic between (falling if `low` > `high`)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Array, b: Array, t: Array) -> Array:
    """a where t = 0, b where t = 1; t has no colour axis."""
    t = np.asarray(t, np.float32)[..., None]
    return a + (b - a) * t


def noise(x: Array, y: Array, seed: int) -> Array:
    """Gradient noise with unit cells, about [-1, 1]."""
    rng = np.random.RandomState(seed)  # the legacy generator's stream never changes
    order, angle = rng.permutation(256), rng.uniform(0, 2 * np.pi, 256).astype(np.float32)
    gx, gy = np.cos(angle)[order], np.sin(angle)[order]
    x, y = np.float32(x), np.float32(y)
    i, j = np.floor(x), np.floor(y)
    fx, fy = x - i, y - j
    i, j = i.astype(np.intp), j.astype(np.intp)
    left, right = order[i & 255] + j, order[(i + 1) & 255] + j

    def corner(di: int, dj: int) -> Array:
        k = ((right if di else left) + dj) & 255
        return gx[k] * (fx - di) + gy[k] * (fy - dj)

    sx, sy = (f * f * f * (f * (6 * f - 15) + 10) for f in (fx, fy))
    top = corner(0, 0) * (1 - sx) + corner(1, 0) * sx
    bottom = corner(0, 1) * (1 - sx) + corner(1, 1) * sx
    return 1.5 * (top * (1 - sy) + bottom * sy)


def fractal(x: Array, y: Array, seed: int, octaves: int = 5, gain: float = 0.5) -> Array:
    """Noise whose finer and finer copies are added, each `gain` times weaker."""
    total, size = 0.0, 1.0
    for octave in range(octaves):
        total = total + size * noise(x * 2.03**octave + 7.1 * octave, y * 2.03**octave + 3.7 * octave, seed + octave)
        size *= gain
    return total


def grid(height: int, width: int) -> tuple[Array, Array]:
    """u to the right and v down at pixel centres; v runs over [0, 1], u at the same scale."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    return (u + np.float32(0.5)) / height, (v + np.float32(0.5)) / height


def painted(shape: tuple[int, int], draw: object) -> Array:
    """A mask in [0, 1] drawn by `draw(canvas, s)`, where s is the number of pixels to the unit."""
    image = Image.new("L", shape[::-1], 0)
    draw(ImageDraw.Draw(image), shape[0])
    return np.asarray(image, np.float32) / 255


def polygon(shape: tuple[int, int], points: list) -> Array:
    return painted(shape, lambda d, s: d.polygon([(x * s, y * s) for x, y in points], fill=255))


def lines(shape: tuple[int, int], paths: list, width: float) -> Array:
    def draw(d: ImageDraw.ImageDraw, s: int) -> None:
        for path in paths:
            d.line([(x * s, y * s) for x, y in path], fill=255, width=max(1, round(width * s)), joint="curve")

    return painted(shape, draw)


def lettering(shape: tuple[int, int], text: str, x: float, y: float, size: float, bold: int = 0) -> Array:
    """Letters centred at (x, y), `size` high; `bold` widens the strokes by so many fine pixels a side."""

    def draw(d: ImageDraw.ImageDraw, s: int) -> None:
        font = ImageFont.load_default(size=size * s)
        left, top, right, bottom = font.getbbox(text)
        at = x * s - (left + right) / 2, y * s - (top + bottom) / 2
        d.text(at, text, fill=255, font=font, stroke_width=bold)

    return painted(shape, draw)


def curve(a: tuple, b: tuple, c: tuple, n: int = 24) -> list:
    """Points from a to c, drawn towards b."""
    t = np.linspace(0, 1, n)[:, None]
    return [tuple(p) for p in (1 - t) ** 2 * np.array(a) + 2 * t * (1 - t) * np.array(b) + t * t * np.array(c)]


def soften(mask: Array, radius: float) -> Array:
    image = Image.fromarray(np.round(mask * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius * mask.shape[0])), np.float32) / 255


def columns(u: Array, left: float, right: float) -> slice:
    """The columns between two places, and one more on each side."""
    first, last = np.searchsorted(u[0], (left, right))
    return slice(max(0, first - 1), last + 1)


def sample(picture: Array, u: Array, v: Array) -> Array:
    """`picture` at (u, v), nearest pixel, edges continued."""
    s = picture.shape[0]
    row = np.clip((v * s).astype(int), 0, s - 1)
    return picture[row, np.clip((u * s).astype(int), 0, picture.shape[1] - 1)]


# ---------------------------------------------------------------- harbour.png

HORIZON = 0.56
SUN = (0.335, 0.475)


def evening_sky(u: Array, v: Array) -> Array:
    up = np.clip((HORIZON - v) / HORIZON, 0, 1)
    sky = mix(ink("#ffc27a"), ink("#e39a86"), step(0.0, 0.28, up))
    sky = mix(sky, ink("#8e94b8"), step(0.18, 0.62, up))
    sky = mix(sky, ink("#48659c"), step(0.5, 1.0, up))
    away = np.hypot((u - SUN[0]) * 0.8, v - SUN[1])
    sky = sky + (0.75 * np.exp(-away / 0.085) + 0.22 * np.exp(-away / 0.3))[..., None] * ink("#ffb763")
    # clouds lie on a plane overhead: flatter and denser towards the horizon
    far = 1 / (up + 0.22)
    x, y = (u - 0.4) * far * 1.5, far * 2.6
    warp = 0.5 * noise(x * 1.3, y * 1.3, 91)
    thick = fractal(x * 1.15 + warp, y * 1.25 + warp, 20, 6, 0.52)
    below = fractal(x * 1.15 + warp, (far + 0.05) * 2.6 * 1.25 + warp, 20, 4, 0.52)
    cover = step(0.02, 0.62, thick) * step(0.03, 0.2, up) * 0.9
    lit = np.clip(0.55 + 0.9 * (thick - below) - 0.25 * thick, 0, 1)
    near = np.exp(-away / 0.33)
    cloud = mix(ink("#7a7391"), mix(ink("#e7bfb4"), ink("#ffd9a0") * 1.25, near), lit)
    sky = mix(sky, cloud, cover)
    disc = step(0.023, 0.0185, np.hypot(u - SUN[0], v - SUN[1]))
    return mix(sky, ink("#fff3cf") * 1.7, disc * (1 - 0.5 * cover))


def hills(picture: Array, u: Array, v: Array) -> Array:
    haze = ink("#e8a683")
    for k, (base, height, code, veil) in enumerate(
        [(0.525, 0.05, "#5c5f86", 0.55), (0.542, 0.04, "#4a5270", 0.34), (0.556, 0.026, "#38444f", 0.16)]
    ):
        line = u[0] * (3.2 + 1.6 * k)
        ridge = base - height * (0.35 + fractal(line, line * 0 + 3.3 * k, 40 + 7 * k, 6, 0.48))
        inside = (v > ridge[None]) & (v < HORIZON)
        wood = 1 + 0.22 * fractal(u * 60, v * 110, 50 + k, 3)
        tone = mix(ink(code) * wood[..., None], haze, np.clip(veil + 0.5 * step(HORIZON - 0.05, HORIZON, v), 0, 0.9))
        glow = np.exp(-np.abs(u - SUN[0]) / 0.12) * 0.3
        picture = np.where(inside[..., None], mix(tone, ink("#ffc488"), glow), picture)
    return picture


def rock_shade(u: Array, v: Array, seed: int, scale: float = 16) -> Array:
    """Brightness of a craggy face lit from the upper left, about 0.3 to 1.6."""
    e = 0.012
    x, y = u * scale, v * scale * 1.3

    def height(x: Array, y: Array) -> Array:
        return 1 - np.abs(fractal(x, y, seed, 5, 0.55))

    slope = height(x - e * scale, y - e * scale) - height(x + e * scale, y + e * scale)
    return np.clip(0.85 + 0.75 * slope + 0.2 * noise(x * 5, y * 5, seed + 9), 0.22, 1.7)


def headland(shape: tuple[int, int], u: Array, v: Array) -> tuple[Array, Array]:
    """The lighthouse on its rock: colour and coverage."""
    size = u.shape
    rows, cols = slice(0, int(0.62 * shape[0])), slice(int(0.56 * shape[0]), None)  # nothing of it is elsewhere
    u, v = u[rows, cols], v[rows, cols]

    def area(points: list) -> Array:
        return polygon(shape, points)[rows, cols]

    ridge = 0.598 - 0.095 * step(0.56, 0.76, u[0]) - 0.02 * step(0.84, 0.97, u[0])
    ridge = ridge - 0.016 * fractal(u[0] * 14, u[0] * 0, 70, 5) * step(0.57, 0.66, u[0])
    cover = ((v > ridge[None]) & (v < 0.604) & (u > 0.57)).astype(float)
    tone = mix(ink("#5d4a44"), ink("#c98f62"), np.clip(0.9 - 1.6 * (u - 0.6), 0, 1) * 0.55)
    colour = tone * rock_shade(u, v, 75)[..., None]
    grass = step(0.022, 0.004, v - ridge[None] + 0.012 * noise(u * 50, v * 60, 78)) * step(0.62, 0.7, u)
    colour = mix(colour, ink("#5f6a35") * (0.8 + 0.5 * noise(u * 120, v * 120, 79)[..., None]), grass)

    x0, top, foot = 0.775, 0.2, 0.512
    t = np.clip((v - top) / (foot - top), 0, 1)
    half = 0.0255 + 0.017 * t**1.25
    side = (u - x0) / half  # -1 .. 1 across the tower
    round_ = np.clip(0.6 - 0.58 * side, 0, 1) * np.sqrt(np.clip(1 - 0.75 * side * side, 0, 1)) + 0.13
    bend = t + 0.012 * (1 - side * side)  # bands curve, seen from below
    band = ((bend * 4.9 + 0.06) % 2 > 1).astype(float)
    plaster = 1 + 0.05 * fractal(u * 60, v * 30, 81, 4)
    tower = mix(ink("#f6ecdc"), ink("#b23b2c"), band) * (1.4 * round_ * plaster)[..., None] * ink("#fff0dc")
    inside = ((np.abs(side) < 1) & (v > top) & (v < foot)).astype(float)
    colour, cover = mix(colour, tower, inside), np.maximum(cover, inside)
    for y in (0.285, 0.365, 0.442):  # windows
        pane = area([(x0 - 0.014, y), (x0 - 0.003, y), (x0 - 0.003, y + 0.021), (x0 - 0.014, y + 0.021)])
        colour = mix(colour, ink("#2a2c3a"), pane)
    door = area([(x0 - 0.012, 0.475), (x0 + 0.006, 0.475), (x0 + 0.006, 0.514), (x0 - 0.012, 0.514)])
    colour = mix(colour, ink("#3a2a24"), door)

    iron = ink("#2b2d38")
    lamp = area([(x0 - 0.018, 0.15), (x0 + 0.018, 0.15), (x0 + 0.018, 0.192), (x0 - 0.018, 0.192)])
    glow = 1.6 * np.exp(-((np.hypot(u - x0, v - 0.172) / 0.013) ** 2))[..., None] * ink("#ffe7a8")
    colour, cover = mix(colour, ink("#5b6470") + glow, lamp), np.maximum(cover, lamp)
    dome = area([(x0 - 0.023, 0.152), *curve((x0 - 0.021, 0.148), (x0, 0.1), (x0 + 0.021, 0.148)), (x0 + 0.023, 0.152)])
    dome_tone = ink("#a4392d") * np.clip(1.15 - 22 * (u - x0 + 0.01), 0.35, 1.6)[..., None]
    colour, cover = mix(colour, dome_tone, dome), np.maximum(cover, dome)
    gallery = area([(x0 - 0.036, 0.191), (x0 + 0.036, 0.191), (x0 + 0.029, 0.206), (x0 - 0.029, 0.206)])
    bars = [[(x0 + dx, 0.15), (x0 + dx, 0.192)] for dx in (-0.018, -0.006, 0.006, 0.018)]
    rail = [
        [(x0 - 0.035, 0.176), (x0 + 0.035, 0.176)],
        *([(x0 + k * 0.0088, 0.176), (x0 + k * 0.0088, 0.193)] for k in range(-4, 5)),
    ]
    rod = [[(x0, 0.128), (x0, 0.095)]]
    frame = np.maximum(
        np.maximum(gallery, lines(shape, bars, 0.0022)[rows, cols]), lines(shape, rail + rod, 0.0018)[rows, cols]
    )
    colour, cover = mix(colour, iron, frame), np.maximum(cover, frame)

    # the keeper's house
    wall = area([(0.845, 0.465), (0.93, 0.465), (0.93, 0.505), (0.845, 0.505)])
    gable = area([(0.833, 0.467), (0.853, 0.436), (0.922, 0.436), (0.942, 0.467)])
    colour = mix(colour, ink("#ead2b4") * (1 + 0.06 * noise(u * 90, v * 90, 83)[..., None]), wall)
    tiles = 0.9 + 0.18 * np.sin(v * 900) + 0.12 * noise(u * 160, v * 160, 84)
    colour = mix(colour, ink("#8d4a38") * tiles[..., None], gable)
    for x in (0.858, 0.885, 0.91):
        pane = area([(x, 0.477), (x + 0.011, 0.477), (x + 0.011, 0.491), (x, 0.491)])
        colour = mix(colour, ink("#ffc765") if x == 0.885 else ink("#3b3f50"), pane)
    chimney = area([(0.9, 0.424), (0.911, 0.424), (0.911, 0.445), (0.9, 0.445)])
    colour = mix(colour, ink("#7c4a3c"), chimney)
    whole = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    whole[0][rows, cols], whole[1][rows, cols] = colour, np.max([cover, wall, gable, chimney], axis=0)
    return whole


def sailing_boat(
    shape: tuple[int, int], u: Array, v: Array, x: float, water: float, size: float
) -> tuple[Array, Array]:
    """A sloop whose hull meets the water at (x, water); `size` is its length."""

    def at(px: float, py: float) -> tuple[float, float]:
        return x + px * size, water - py * size

    su, sv = (u - x) / size, (water - v) / size
    hull = polygon(
        shape,
        [
            at(-0.5, 0.16),
            *curve(at(-0.5, 0.16), at(0.0, 0.08), at(0.56, 0.2)),
            *curve(at(0.56, 0.2), at(0.42, 0.02), at(0.3, -0.01)),
            at(-0.42, -0.01),
        ],
    )
    colour = ink("#27405e") * np.clip(0.75 + 2.2 * sv - 0.25 * su, 0.3, 1.6)[..., None]
    colour = mix(colour, ink("#f0e4d0"), (np.abs(sv - 0.1 - 0.1 * su * su) < 0.012).astype(float))
    colour = mix(colour, ink("#8c3326"), step(0.034, 0.026, sv))
    cover = hull
    cabin = polygon(shape, [at(-0.22, 0.12), at(-0.2, 0.2), at(0.1, 0.2), at(0.17, 0.12)])
    colour = mix(colour, ink("#e6d6bd") * np.clip(1.0 - 0.6 * su, 0.4, 1.2)[..., None], cabin * (1 - hull))
    for px in (-0.14, -0.04, 0.05):
        pane = polygon(
            shape, [at(px - 0.022, 0.15), at(px + 0.022, 0.15), at(px + 0.022, 0.178), at(px - 0.022, 0.178)]
        )
        colour = mix(colour, ink("#2c3444"), pane * (1 - hull))
    main = polygon(
        shape,
        [
            at(0.02, 1.5),
            *curve(at(0.02, 1.5), at(-0.34, 0.95), at(-0.52, 0.28)),
            at(-0.5, 0.25),
            *curve(at(-0.5, 0.25), at(-0.24, 0.21), at(0.02, 0.27)),
        ],
    )
    jib = polygon(
        shape,
        [
            at(0.07, 1.36),
            *curve(at(0.07, 1.36), at(0.2, 0.7), at(0.54, 0.24)),
            *curve(at(0.54, 0.24), at(0.3, 0.2), at(0.09, 0.26)),
            *curve(at(0.09, 0.26), at(0.16, 0.8), at(0.07, 1.36)),
        ],
    )
    belly = 0.86 + 0.5 * np.clip(-su * 1.3, 0, 0.6) - 0.16 * np.cos(sv * 3.2) + 0.04 * np.sin(su * 40 + sv * 6)
    seams = 1 - 0.1 * (np.abs((sv * 6.5 + su * 0.8) % 1 - 0.5) < 0.035)
    cloth = ink("#f4dcb6") * (belly * seams)[..., None]
    front = ink("#e9b88d") * ((0.8 + 0.32 * np.sin(3.0 * su + 0.5) + 0.1 * sv) * seams)[..., None]
    colour, cover = mix(colour, front, jib), np.maximum(cover, jib)
    colour, cover = mix(colour, cloth, main), np.maximum(cover, main)
    number = lettering(shape, "G 7", x - 0.15 * size, water - 0.82 * size, 0.2 * size, int(size > 0.1))
    colour = mix(colour, ink("#8c3326"), number * main)
    spars = lines(shape, [[at(0.045, 0.1), at(0.045, 1.58)], [at(-0.52, 0.235), at(0.05, 0.235)]], 0.024 * size)
    ropes = lines(
        shape,
        [[at(0.045, 1.56), at(0.56, 0.2)], [at(0.045, 1.56), at(-0.5, 0.16)], [at(0.045, 1.0), at(0.14, 0.14)]],
        0.0016,
    )
    colour = mix(mix(colour, ink("#3d3434"), ropes), ink("#6b452c"), spars)
    flag = polygon(shape, [at(0.045, 1.58), at(-0.1, 1.6), at(-0.07, 1.55), at(-0.1, 1.5), at(0.045, 1.51)])
    colour = mix(colour, ink("#c23b2a"), flag)
    return colour, np.max([cover, cabin, spars, ropes * 0.8, flag], axis=0)


def waves(u: Array, v: Array) -> tuple[Array, Array]:
    """How far the water's slopes push reflections sideways and up, growing towards the viewer."""
    depth = np.clip(v - HORIZON, 0.004, 1)
    far = 0.1 / depth
    x, z = (u - 0.5) * far * 16, far * 17
    swell = fractal(x * 0.55, z * 0.9, 100, 3, 0.6)
    ripple = fractal(x * 1.8, z * 2.6, 110, 3, 0.6)
    lift = np.minimum(depth, 0.22) * (0.3 * swell + 0.2 * ripple)
    return np.minimum(depth, 0.2) * 0.1 * (noise(x, z * 1.4, 120) + ripple * 0.6), lift


def stand(
    picture: Array, layer: tuple[Array, Array], water: float, u: Array, v: Array, push: tuple[Array, Array]
) -> Array:
    """`layer` (colour, coverage) put into the water at v = `water`, with its broken reflection."""
    colour, cover = layer
    du, lift = push
    ru, rv = u + du, 2 * water - v + lift
    below = (v > water).astype(float) * step(0.26, 0.05, v - water)
    image = sample(colour, ru, rv) * 0.62 + ink("#1d3140") * 0.25
    picture = mix(picture, image, sample(cover, ru, rv) * below * 0.82)
    return mix(picture, colour, cover * (v <= water + 0.002))


def jetty(picture: Array, shape: tuple[int, int], u: Array, v: Array) -> Array:
    van, depth = 0.62, np.clip(v - HORIZON, 0.01, 1)
    z = 0.2 / depth
    x = (u - van) * z * 5  # -0.27 .. 0.82 across the deck
    left, right, end = -0.3, 0.84, 0.2 / 0.135
    # piles and the dark under the deck first
    for zp in (1.42, 1.02, 0.75, 0.58):
        foot, head = HORIZON + 0.2 / zp + 0.07 / zp, HORIZON + 0.2 / zp - 0.052 / zp
        for xs in (left, right):
            px, r = van + xs / zp / 5, 0.0125 / zp
            pile = polygon(shape, [(px - r, head), (px + r, head), (px + r, foot), (px - r, foot)])
            cols = columns(u, px - r, px + r)
            side, lu, lv = (u[:, cols] - px) / r, u[:, cols], v[:, cols]
            tone = (
                ink("#6b5140")
                * (np.clip(0.8 - 0.55 * side, 0.2, 1.5) * (1 + 0.25 * fractal(lu * 150, lv * 14, 131, 3)))[..., None]
            )
            tone = tone * (1 - 0.6 * step(foot - 0.05 / zp, foot, lv))[..., None]
            shade = polygon(
                shape,
                [(px - r, foot), (px + r, foot), (px + 0.8 * r, foot + 0.12 / zp), (px - 0.6 * r, foot + 0.12 / zp)],
            )
            picture = mix(picture, picture * 0.45, soften(shade, 0.004) * 0.8)
            picture[:, cols] = mix(picture[:, cols], tone, pile[:, cols])
    deck = ((x > left) & (x < right) & (z < end)).astype(float)
    thick = 0.012 / np.maximum(z, 0.2)
    face = sample(deck, u, v - thick) * (1 - deck) * (v - thick > HORIZON + 0.1)
    picture = mix(picture, ink("#2e231d") * (1 + 0.2 * noise(u * 40, v * 100, 140))[..., None], face)
    plank = z * 17
    index = np.floor(plank)
    gap = np.minimum(plank % 1, 1 - plank % 1) / 17 * 5 / z  # distance to the nearest joint, about in picture units
    tint = noise(index * 0.73 + 0.31, index * 0 + 0.4, 150)
    grain = fractal(x * 3 + index * 5.3, plank * 7, 151, 4, 0.6) + 0.6 * noise(x * 9 + index * 3.1, plank * 22, 157)
    tone = ink("#97795c") * (0.95 + 0.26 * tint + 0.2 * grain)[..., None]
    tone = mix(tone, ink("#e9ad78") * 1.0, 0.28 * step(1.2, 0.2, np.abs(x - 0.1)))
    tone = tone * (1 - 0.78 * step(0.02, 0.004, gap))[..., None]
    for xs in (left + 0.07, right - 0.07):  # nails
        nail = np.hypot((x - xs) / 0.013, (plank % 1 - 0.5) / 0.16)
        tone = tone * (1 - 0.6 * step(1.1, 0.7, nail))[..., None]
    rim = np.minimum(x - left, right - x)
    tone = tone * (1 - 0.35 * step(0.03, 0.0, rim))[..., None]
    picture = mix(picture, tone, deck)
    # posts stand on the deck's edges, joined by a slack rope; shadows fall to the right, away from the sun
    heads = []
    for zp in (1.3, 0.83, 0.56):
        for xs in (left, right):
            px, foot, r = van + xs / zp / 5, HORIZON + 0.2 / zp, 0.0125 / zp
            head = foot - 0.09 / zp
            shade = polygon(
                shape,
                [(px, foot), (px + r, foot), (px + 0.12 / zp, foot + 0.03 / zp), (px + 0.1 / zp, foot + 0.032 / zp)],
            )
            picture = mix(picture, picture * 0.5, soften(shade, 0.0022) * deck * 0.8)
            post = polygon(shape, [(px - r, head), (px + r, head), (px + r, foot), (px - r, foot)])
            cap = painted(
                shape,
                lambda d, s, px=px, head=head, r=r: d.ellipse(
                    [(px - r) * s, (head - 0.4 * r) * s, (px + r) * s, (head + 0.4 * r) * s], fill=255
                ),
            )
            cols = columns(u, px - r, px + r)
            side, lu, lv = (u[:, cols] - px) / r, u[:, cols], v[:, cols]
            tone = (
                ink("#7d5f49")
                * (np.clip(0.85 - 0.55 * side, 0.2, 1.5) * (1 + 0.25 * fractal(lu * 170, lv * 16, 161, 3)))[..., None]
            )
            picture[:, cols] = mix(mix(picture[:, cols], tone, post[:, cols]), ink("#c79a70"), cap[:, cols])
            heads.append((px, head + 0.02 / zp, zp))
    for side in (0, 1):
        line = heads[side::2]
        for (xa, ya, za), (xb, yb, zb) in itertools.pairwise(line):
            rope = curve((xa, ya), ((xa + xb) / 2, (ya + yb) / 2 + 0.09 / (za + zb)), (xb, yb))
            picture = mix(picture, ink("#cbb088"), lines(shape, [rope], 0.005 / zb / 1.3))
    return picture


def bank(picture: Array, shape: tuple[int, int], u: Array, v: Array) -> Array:
    """Stones, then grass, in the lower left corner."""
    rng = np.random.RandomState(5)
    edge = 0.845 + 0.42 * np.clip(u[0] - 0.1, 0, 1) ** 1.5 + 0.012 * fractal(u[0] * 12, u[0] * 0, 170, 4)
    soil = (v > edge[None]).astype(float)
    picture = mix(picture, ink("#2c2a20") * (0.9 + 0.5 * fractal(u * 40, v * 40, 171, 4))[..., None], soil)
    for _ in range(70):
        x = rng.uniform(0.0, 0.5)
        y = np.interp(x, u[0], edge) + abs(rng.normal(0, 0.03)) - 0.004
        a = rng.uniform(0.01, 0.034) * (0.6 + (y - 0.8) * 1.6)
        b, turn = a * rng.uniform(0.55, 0.8), rng.uniform(-0.5, 0.5)
        warm = rng.uniform(0.7, 1.15)
        dx, dy = u - x, v - y
        p, q = (dx * np.cos(turn) + dy * np.sin(turn)) / a, (dy * np.cos(turn) - dx * np.sin(turn)) / b
        rows = slice(max(0, int((y - 2 * a) * shape[0])), int((y + 2 * a) * shape[0]) + 1)
        cols = slice(max(0, int((x - 2 * a) * shape[0])), int((x + 2 * a) * shape[0]) + 1)
        p, q, lu, lv = p[rows, cols], q[rows, cols], u[rows, cols], v[rows, cols]
        if not p.size:
            continue
        r = p * p + q * q + 0.25 * noise(lu / a * 0.9, lv / a * 0.9, 175)
        dome = np.sqrt(np.clip(1 - r, 0, 1))
        light = np.clip(0.25 + 0.55 * dome - 0.32 * p - 0.42 * q, 0.08, 1.4) * (
            1 + 0.2 * fractal(lu * 130, lv * 130, 176, 3)
        )
        tone = mix(ink("#8f8378") * warm, ink("#e0a070"), np.clip(-0.55 * p - 0.1, 0, 0.5)) * light[..., None]
        shadow = step(1.5, 0.7, (p - 0.25) ** 2 + (q - 0.35) ** 2)
        picture[rows, cols] = mix(
            mix(picture[rows, cols], picture[rows, cols] * 0.35, shadow), tone, step(1.04, 0.94, r)
        )
    cover = Image.new("L", shape[::-1], 0)
    canvas = Image.new("RGB", shape[::-1], (0, 0, 0))
    pen, stencil, s = ImageDraw.Draw(canvas), ImageDraw.Draw(cover), shape[0]
    greens = [np.array(c) for c in ((58, 74, 32), (86, 98, 40), (120, 118, 52), (44, 58, 34), (150, 134, 70))]
    roots = sorted((rng.uniform(0.9, 1.06), rng.uniform(-0.03, 0.5)) for _ in range(1500))
    for y, x in roots:
        tall = rng.uniform(0.03, 0.1) * (1.25 - 1.3 * max(x, 0)) * step(0.53, 0.28, np.float64(x))
        root = y + 0.2 * max(0.0, x - 0.12)
        lean = rng.normal(0.012, 0.02)
        tone = tuple(
            int(c) for c in greens[rng.randint(len(greens))] * rng.uniform(0.7, 1.15) * (0.55 + 0.6 * (y - 0.9) / 0.16)
        )
        path = [
            (px * s, py * s)
            for px, py in curve((x, root), (x + 0.2 * lean, root - 0.6 * tall), (x + lean, root - tall), 7)
        ]
        pen.line(path, fill=tone, width=2)
        stencil.line(path, fill=255, width=2)
    return mix(picture, to_linear(np.asarray(canvas, np.float32) / 255), np.asarray(cover, np.float32) / 255)


def signboard(picture: Array, shape: tuple[int, int], u: Array, v: Array) -> Array:
    for x in (0.085, 0.325):
        post = polygon(shape, [(x - 0.011, 0.655), (x + 0.011, 0.655), (x + 0.011, 0.98), (x - 0.011, 0.98)])
        cols = columns(u, x - 0.011, x + 0.011)
        lu, lv = u[:, cols], v[:, cols]
        tone = (
            ink("#6a4f3b")
            * (np.clip(0.9 - 28 * (lu - x), 0.35, 1.5) * (1 + 0.3 * fractal(lu * 120, lv * 12, 181, 4)))[..., None]
        )
        picture[:, cols] = mix(picture[:, cols], tone, post[:, cols])
    shade = polygon(shape, [(0.05, 0.682), (0.37, 0.682), (0.37, 0.812), (0.05, 0.812)])
    picture = mix(picture, picture * 0.6, soften(shade, 0.006) * 0.6)
    board = polygon(shape, [(0.04, 0.67), (0.365, 0.67), (0.365, 0.8), (0.04, 0.8)])
    frame = polygon(shape, [(0.047, 0.677), (0.358, 0.677), (0.358, 0.793), (0.047, 0.793)])
    weather = 1 + 0.12 * fractal(u * 16, v * 60, 182, 5, 0.6)
    sheen = 1.12 - 0.5 * (u - 0.05) - 0.9 * (v - 0.67)
    picture = mix(picture, ink("#e8d9b8") * (weather * sheen)[..., None], board)
    picture = mix(picture, ink("#1f4a4d") * (weather * sheen * 1.1)[..., None], frame)
    letters = np.maximum(
        lettering(shape, "HARBOUR", 0.2025, 0.717, 0.061, 1), lettering(shape, "boats  1 - 9", 0.2025, 0.768, 0.042)
    )
    worn = step(-0.95, -0.55, fractal(u * 70, v * 70, 183, 3))
    return mix(picture, ink("#f3e8cc") * sheen[..., None], letters * (0.75 + 0.25 * worn))


def gulls(picture: Array, shape: tuple[int, int]) -> Array:
    for x, y, s in ((0.5, 0.2, 0.026), (0.565, 0.155, 0.019), (0.45, 0.262, 0.015)):
        wings = [
            curve((x - s, y - 0.25 * s), (x - 0.45 * s, y - 0.75 * s), (x, y)),
            curve((x, y), (x + 0.5 * s, y - 0.8 * s), (x + s, y - 0.4 * s)),
        ]
        picture = mix(picture, ink("#35384a"), lines(shape, wings, 0.16 * s))
    return picture


def harbour() -> Image.Image:
    fine = 3
    shape = 256 * fine, 256 * fine
    u, v = grid(*shape)
    above = hills(evening_sky(u, v), u, v)
    above = gulls(above, shape)
    push = waves(u, v)
    depth = np.clip(v - HORIZON, 0, 1)
    mirrored = sample(above, u + push[0], np.minimum(HORIZON - 0.004, 2 * HORIZON - v + push[1] - 0.02 * depth))
    fresnel = 0.34 + 0.5 * step(0.3, 0.0, depth) + 0.35 * np.clip(push[1] / 0.06, -0.5, 0.5)
    water = mix(ink("#17384a"), mirrored, np.clip(fresnel, 0.12, 0.9))
    # the sun's path: facets tilted the right way
    spread = 0.02 + 0.22 * depth
    path = np.exp(-(((u - SUN[0] + push[0]) / spread) ** 2))
    far = 0.1 / np.maximum(depth, 0.004)
    facets = fractal((u - 0.5) * far * 46, far * 40, 125, 3, 0.6)
    water = water + (path * (0.1 + 1.1 * step(0.25, 0.75, facets)) * 0.9)[..., None] * ink("#ffc777")
    picture = np.where((v < HORIZON)[..., None], above, water)
    picture = mix(picture, ink("#f0b088"), 0.35 * np.exp(-np.abs(v - HORIZON) / 0.006))
    picture = stand(picture, headland(shape, u, v), 0.603, u, v, push)
    picture = stand(picture, sailing_boat(shape, u, v, 0.155, 0.592, 0.07), 0.592, u, v, push)
    picture = stand(picture, sailing_boat(shape, u, v, 0.47, 0.662, 0.19), 0.662, u, v, push)
    picture = jetty(picture, shape, u, v)
    picture = signboard(picture, shape, u, v)
    picture = bank(picture, shape, u, v)
    return as_image(encode(reduce(picture, fine)))


# ---------------------------------------------------------------- still_life.png

MUG = np.array([0.62, 0.0, -0.25], np.float32)
LAMP = np.array([-0.62, 0.68, 0.42], np.float32) / np.float32(np.linalg.norm([-0.62, 0.68, 0.42]))
# centre and radius of the fruit that are nearly spheres
ORANGES = [((-0.62, 0.36, -0.3), 0.36), ((-0.2, 0.31, 0.42), 0.31)]
GRAPES = [
    ((1.12, 0.12, 0.62), 0.12), ((0.92, 0.115, 0.78), 0.115), ((1.33, 0.12, 0.72), 0.12), ((1.1, 0.11, 0.9), 0.11),
    ((1.2, 0.29, 0.74), 0.115), ((1.01, 0.28, 0.72), 0.11), ((0.74, 0.11, 0.7), 0.11), ((1.3, 0.115, 0.95), 0.115),
    ((0.88, 0.105, 1.0), 0.105),
]  # fmt: skip


def length(*axes: Array) -> Array:
    return np.sqrt(sum(a * a for a in axes))


def still_life_distances(p: Array) -> list[Array]:
    """Distance from the points p (n, 3) to each thing on the table: orange, apple, lemon, grape, mug, stem."""
    x, y, z = p.T
    orange = np.minimum.reduce([length(x - c[0], (y - c[1]) * 1.04, z - c[2]) - r for c, r in ORANGES])
    # an apple is a ring so fat that it overlaps itself: hence the dimple
    ax, ay, az = x + 1.22, y - 0.33, z - 0.28
    tilt = ax * 0.2 + ay
    ring = length(ax, az) - 0.155 + 0.05 * tilt
    apple = length(ring, tilt * 0.98) - 0.235 + 0.05 * np.clip(-tilt, 0, 1)
    stem = length(ax + 0.015 - 0.2 * (tilt - 0.2), az) + np.maximum(np.abs(tilt - 0.2) - 0.13, 0) - 0.018
    lx, ly, lz = x - 0.36, y - 0.225, z - 0.66
    along, across = lx * 0.9 + lz * 0.436, lz * 0.9 - lx * 0.436
    tip = 0.055 * np.exp(-(((np.abs(along) - 0.31) / 0.06) ** 2))
    lemon = 0.8 * (length(along * 0.74, ly, across) - 0.225 - tip * step(0.17, 0.02, length(ly, across)))
    grape = np.minimum.reduce([length(x - c[0], y - c[1], z - c[2]) - r for c, r in GRAPES])
    mx, my, mz = x - MUG[0], y - 0.47, z - MUG[2]
    radius = 0.4 - 0.02 * np.cos(my * 3.2)
    out, tall = length(mx, mz) - radius + 0.03, np.abs(my) - 0.44
    solid = np.minimum(np.maximum(out, tall), 0) + length(np.maximum(out, 0), np.maximum(tall, 0)) - 0.03
    inner = np.maximum(length(mx, mz) - radius + 0.035, -(my + 0.36))
    cup = np.maximum(solid, -inner)
    hx, hy = mx - 0.4, my * 0.82 + 0.02
    handle = length(length(hx, hy) - 0.22, mz) - 0.052
    handle = np.maximum(handle, -(length(mx, mz) - radius + 0.02))
    return [orange, apple, lemon, grape, np.minimum(cup, handle), stem]


def still_life_distance(p: Array) -> Array:
    return np.minimum.reduce(still_life_distances(p))


def march(origin: Array, ray: Array, start: Array, end: Array, steps: int) -> tuple[Array, Array]:
    """Distance along each ray to the first thing (inf: none), and the least clearance over distance on the way."""
    t, hit, open_ = start.copy(), np.full(len(start), np.inf, np.float32), np.full(len(start), 9, np.float32)
    live = np.nonzero(t < end)[0]
    for _ in range(steps):
        if not live.size:
            break
        d = still_life_distance(origin[live] + t[live, None] * ray[live])
        open_[live] = np.minimum(open_[live], d / np.maximum(t[live], 0.02))
        done = d < 0.0015
        hit[live[done]] = t[live[done]]
        t[live] += np.maximum(d * 0.92, 0.001)
        live = live[~done & (t[live] < end[live])]
    return hit, open_


def around_things(origin: Array, ray: Array) -> tuple[Array, Array]:
    """Where each ray enters and leaves the box which holds everything on the table."""
    low, high = np.array([-1.7, -0.01, -0.75], np.float32), np.array([1.55, 1.0, 1.15], np.float32)
    safe = np.where(np.abs(ray) < 1e-6, 1e-6, ray)
    a, b = (low - origin) / safe, (high - origin) / safe
    return np.maximum(np.minimum(a, b).max(axis=1), 0), np.maximum(a, b).min(axis=1)


def room(ray: Array) -> Array:
    """What a glossy thing mirrors: a dim room with a bright window of four panes."""
    right = np.array([0.56, 0.0, 0.828], np.float32)
    up = np.cross(LAMP, right)
    a, b, c = ray @ right, ray @ -up, ray @ LAMP
    a, b = a / np.maximum(c, 0.05), b / np.maximum(c, 0.05)
    pane = (
        step(0.36, 0.31, np.abs(a))
        * step(0.44, 0.39, np.abs(b))
        * step(0.015, 0.04, np.abs(a))
        * step(0.015, 0.04, np.abs(b))
    )
    return 0.16 + 0.2 * np.clip(ray[:, 1], 0, 1) + 6.0 * pane * (c > 0)


def cloth(x: Array, z: Array) -> Array:
    """Gingham, with its weave."""
    weave = 1 + 0.06 * np.sin(x * 260) * np.sin(z * 260) + 0.06 * fractal(x * 9, z * 9, 500, 4)
    a, b = (step(-0.06, 0.06, np.sin(w * np.pi * 3.1 + 0.4)) for w in (x * 0.94 + z * 0.34, z * 0.94 - x * 0.34))
    tone = mix(mix(ink("#f3ece0"), ink("#cf6b62"), (a + b) * 0.5), ink("#a82a2c"), a * b)
    return 0.86 * tone * weave[:, None]


def wallpaper(x: Array, y: Array) -> Array:
    tone = mix(ink("#7d9a86"), ink("#8fab94"), step(-0.1, 0.1, np.sin(x * np.pi * 1.9 + 1)))
    # a sprig in each cell of a staggered lattice
    row = np.floor(y / 0.62)
    cx, cy = (x + 0.31 * (row % 2)) % 0.62 - 0.31, y % 0.62 - 0.31
    angle, r = np.arctan2(cy - 0.06, cx), length(cx, cy - 0.06)
    petals = step(0.012, -0.012, r - 0.085 - 0.04 * np.cos(5 * angle))
    leaves = step(
        0.01, -0.01, length((np.abs(cx) - 0.075) * 1.1 + (cy + 0.1) * 0.4, (cy + 0.1) * 2.3 - np.abs(cx) * 0.5) - 0.07
    )
    stalk = step(0.014, 0.006, np.abs(cx - 0.03 * np.sin(cy * 9))) * (cy < 0) * (cy > -0.2)
    tone = mix(tone, ink("#3f6350"), np.maximum(leaves, stalk))
    tone = mix(tone, ink("#e6cfae"), petals)
    tone = mix(tone, ink("#c98a4a"), step(0.04, 0.028, r))
    return tone * (1 + 0.05 * fractal(x * 7, y * 7, 510, 4))[:, None]


def mug_print(shape: tuple[int, int] = (300, 900)) -> Array:
    """The mug's lettering as a mask, its width once around two thirds of the mug."""
    mask = np.maximum(lettering(shape, "GOOD", 1.5, 0.3, 0.42, 5), lettering(shape, "MORNING", 1.5, 0.7, 0.31, 3))
    return soften(mask, 0.003)


def surface(p: Array, normal: Array) -> tuple[Array, Array, Array, Array]:
    """Colour (n, 3), bent normal (n, 3), gloss (n,) and glow of light within (n,) of the things at p."""
    parts = np.stack(still_life_distances(p))
    kind = parts.argmin(axis=0)
    x, y, z = p.T
    colour, gloss, inside = np.ones_like(p), np.full(len(p), 0.04, np.float32), np.zeros(len(p), np.float32)
    bump = np.zeros_like(p)
    mottle = fractal(x * 5 + z * 2, y * 5 - z * 3, 520, 4)

    m = kind == 0
    colour[m] = mix(ink("#e8801c"), ink("#d9620f"), 0.5 + 0.4 * mottle[m])
    for k, (a, b) in enumerate(
        ((x * 34 + z * 21, y * 34), (z * 34 + y * 9, x * 34 - y * 21), (y * 34, z * 34 + x * 9))
    ):
        bump[m, k] = 0.17 * noise(a[m], b[m], 530 + k)
    gloss[m], inside[m] = 0.035, 0.12
    m = kind == 1
    turn = np.arctan2(z - 0.28, x + 1.22)
    streak = fractal(turn * 7, y * 1.2, 540, 4, 0.6)
    blush = np.clip(0.75 + 0.55 * streak - 0.75 * step(0.42, 0.62, y) + 0.25 * np.sin(turn + 2.2), 0, 1)
    colour[m] = mix(ink("#c9b24a"), ink("#a3161c"), blush[m])
    speck = step(0.6, 0.75, noise(turn * 16, y * 34, 545))
    colour[m] = mix(colour[m], ink("#e0c690"), 0.5 * speck[m])
    gloss[m] = 0.06
    m = kind == 2
    colour[m] = mix(ink("#f0cf2e"), ink("#dfae1c"), 0.5 + 0.45 * mottle[m])
    for k, (a, b) in enumerate(((x * 30 + z * 20, y * 30), (z * 30 + y * 9, x * 30), (y * 30, z * 30 + x * 9))):
        bump[m, k] = 0.16 * noise(a[m], b[m], 550 + k)
    gloss[m], inside[m] = 0.04, 0.15
    m = kind == 3
    colour[m] = mix(
        ink("#4a2350"), ink("#7f6d96"), np.clip(0.25 + 0.5 * fractal(x[m] * 9, y[m] * 9 + z[m] * 7, 560, 3), 0, 0.7)
    )
    gloss[m], inside[m] = 0.045, 0.1
    m = kind == 4
    height = y - 0.47
    blue = step(0.006, -0.006, np.abs(height - 0.36) - 0.025) + step(0.006, -0.006, np.abs(height + 0.34) - 0.04)
    outer = (length(x - MUG[0], z - MUG[2]) > 0.35) & (length(x - MUG[0], z - MUG[2]) < 0.435)
    around = np.arctan2(x - MUG[0], z - MUG[2]) + 0.3
    text = mug_print()
    row, column = ((0.27 - height) / 0.55 * 300).astype(int), ((around / 2.3 + 0.5) * 900).astype(int)
    on = (row >= 0) & (row < 300) & (column >= 0) & (column < 900) & outer
    letters = np.where(on, text[row.clip(0, 299), column.clip(0, 899)], 0)
    glaze = mix(ink("#eee8da"), ink("#24467a"), np.clip(np.where(outer, blue, 0) + letters, 0, 1))
    colour[m] = glaze[m] * (1 + 0.02 * mottle[m])[:, None]
    gloss[m] = 0.07
    m = kind == 5
    colour[m] = ink("#4b3721")
    bent = normal + bump
    return colour, bent / np.linalg.norm(bent, axis=1, keepdims=True), gloss, inside


def shaded(p: Array, normal: Array, ray: Array, colour: Array, gloss: Array, inside: Array, smooth: Array) -> Array:
    """Light from the window (soft shadow), from the room (less in crannies), and mirrored."""
    start = p + 0.012 * smooth
    toward = np.broadcast_to(LAMP, p.shape)
    facing = np.clip(normal @ LAMP, 0, 1)
    near, far = around_things(start, toward)
    far = np.where((smooth @ LAMP > -0.1), far, 0)
    hit, open_ = march(start, toward, near + 0.01, far, 34)
    light = np.where(np.isinf(hit), step(0.0, 0.2, open_), 0)
    crannies = np.ones(len(p), np.float32)
    for reach, weight in ((0.05, 1.6), (0.14, 0.9), (0.32, 0.5)):
        q = p + reach * smooth
        free = np.minimum(still_life_distance(q), np.minimum(q[:, 1], q[:, 2] + 1.7))
        crannies -= weight * np.clip(reach - free, 0, reach)
    crannies = np.clip(crannies, 0.12, 1)[:, None]
    sun = (facing * light)[:, None] * np.array([2.0, 1.78, 1.45], np.float32)
    sun += (inside * (0.35 + 0.65 * light))[:, None] * 0.9
    ambient = (0.30 + 0.16 * normal[:, 1:2] - 0.08 * normal[:, :1]) * crannies * np.array([0.8, 0.92, 1.1], np.float32)
    bounce = np.clip(-normal[:, 1:2] + 0.2, 0, 1) * crannies * np.array([0.22, 0.1, 0.08], np.float32)
    mirrored = ray - 2 * (ray * normal).sum(axis=1, keepdims=True) * normal
    rim = gloss + (0.6 * np.sqrt(gloss) * (1 - np.clip(-(ray * normal).sum(axis=1), 0, 1)) ** 5)
    shine = rim * room(mirrored) * np.where(light > 0.3, 1, 0.35) * crannies[:, 0]
    return colour * (sun * 0.62 + ambient + bounce) + np.where(gloss > 0, shine, 0)[:, None]


def still_life() -> Image.Image:
    height, width, fine = 256, 384, 3
    eye, aim = np.array([0.0, 1.75, 4.6], np.float32), np.array([0.0, 0.43, 0.0], np.float32)
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    right = np.array([1.0, 0.0, 0.0], np.float32)
    up = np.cross(right, forward)
    total = np.zeros((height * width, 3), np.float32)
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    for k in range(fine * fine):
        sx = (u + (k % fine + 0.5) / fine - width / 2) / height
        sy = (v + (k // fine + 0.5) / fine - height / 2) / height
        ray = forward + 0.66 * (sx.reshape(-1, 1) * right - sy.reshape(-1, 1) * up)
        ray = (ray / np.linalg.norm(ray, axis=1, keepdims=True)).astype(np.float32)
        table = np.where(ray[:, 1] < 0, -eye[1] / np.minimum(ray[:, 1], -1e-6), np.inf)
        wall = (-1.7 - eye[2]) / ray[:, 2]
        back = np.minimum(table, wall)
        origin = np.broadcast_to(eye, ray.shape)
        near, far = around_things(origin, ray)
        hit, _ = march(origin, ray, near, np.minimum(far, back), 60)
        p = eye + np.minimum(hit, back)[:, None] * ray
        thing = np.isfinite(hit)
        normal = np.zeros_like(p)
        normal[:, 1] = (table < wall) & ~thing
        normal[:, 2] = (table >= wall) & ~thing
        on = p[thing]
        for axis in range(3):
            e = np.zeros(3, np.float32)
            e[axis] = 0.003
            normal[thing, axis] = still_life_distance(on + e) - still_life_distance(on - e)
        normal[thing] /= np.linalg.norm(normal[thing], axis=1, keepdims=True) + 1e-9
        smooth = normal.copy()
        colour, gloss, inside = np.zeros_like(p), np.zeros(len(p), np.float32), np.zeros(len(p), np.float32)
        colour[thing], normal[thing], gloss[thing], inside[thing] = surface(on, normal[thing])
        m = normal[:, 1] == 1
        m &= ~thing
        colour[m] = cloth(p[m, 0], p[m, 2])
        folds = fractal(p[m, 0] * 0.9, p[m, 2] * 1.5, 570, 2)
        slope = fractal(p[m, 0] * 0.9 + 0.05, p[m, 2] * 1.5, 570, 2) - folds
        normal[m, 0] = -0.9 * slope
        m = ~thing & (table >= wall)
        colour[m] = wallpaper(p[m, 0], p[m, 1])
        light = shaded(p, normal, ray, colour, gloss, inside, smooth)
        light[m] *= (0.5 + 0.32 * step(2.4, -1.4, p[m, 0] - 0.5 * p[m, 1]))[:, None]
        total += light
    return as_image(encode(total.reshape(height, width, 3) / fine**2))


# ---------------------------------------------------------------- mountain.png


def mountain() -> Image.Image:
    """A height field seen across a lake; the sun is low on the left."""
    fine = 3
    n = 256 * fine
    u, v = grid(n, n)
    # the land on a map: x to the right, z away from the eye
    zs, xs = np.linspace(0.5, 5, 700, dtype=np.float32), np.linspace(-3, 3, 900, dtype=np.float32)
    x, z = np.meshgrid(xs, zs)
    bent = 0.25 * noise(x * 1.1, z * 1.1, 300)
    crest, size = np.zeros_like(x), 1.0
    sharp = np.ones_like(x)
    for k in range(8):
        layer = (
            1 - np.abs(noise((x + bent) * 0.95 * 2.05**k + 3.7 * k, (z + bent) * 0.95 * 2.05**k + 1.3 * k, 310 + k))
        ) ** 2
        crest += size * layer * sharp
        sharp = np.clip(layer * 1.25, 0, 1)
        size *= 0.47
    peak = np.exp(-(((x - 0.25) / 0.75) ** 2) - ((z - 3.0) / 0.8) ** 2)
    second = np.exp(-(((x + 1.15) / 0.7) ** 2) - ((z - 3.5) / 0.9) ** 2)
    rise = step(1.25, 3.2, z + 0.18 * noise(x * 2, z * 2, 305))
    land = (
        rise * (0.12 + 0.3 * crest) * (0.42 + 0.95 * peak + 0.55 * second) + 0.42 * rise * (peak + 0.6 * second) - 0.035
    )
    land += 0.16 * step(0.5, 1.6, np.abs(x) / z * 1.6) * step(1.1, 1.9, z)
    sun = 0.36  # the slope of its rays
    dx = xs[1] - xs[0]
    run = np.arange(len(xs), dtype=np.float32) * dx * sun
    shade = np.maximum.accumulate(land + run, axis=1) - run - land
    lit = soften(step(0.03, 0.0, shade), 0.0016)

    def on_map(field: Array, px: Array, pz: Array) -> Array:
        i = np.clip((pz - zs[0]) / (zs[1] - zs[0]), 0, len(zs) - 1.001)
        j = np.clip((px - xs[0]) / dx, 0, len(xs) - 1.001)
        i0, j0 = i.astype(int), j.astype(int)
        a, b = i - i0, j - j0
        top = field[i0, j0] * (1 - b) + field[i0, j0 + 1] * b
        return top * (1 - a) + (field[i0 + 1, j0] * (1 - b) + field[i0 + 1, j0 + 1] * b) * a

    # march from near to far; a pixel belongs to the first step whose land rises above it
    shore, eye, lens = 0.66, 0.2, 1.35
    steps = np.geomspace(0.6, 4.9, 420, dtype=np.float32)
    heights = np.maximum(on_map(land, (u[:1] - 0.5) * steps[:, None] * 1.25, np.repeat(steps[:, None], n, axis=1)), 0)
    seen = shore - 0.02 + lens * (eye - heights) / steps[:, None] - lens * eye / 4.9  # the row of each step's land
    depth = np.full((n, n), np.inf, np.float32)
    for c, (rows, highest) in enumerate(zip(seen.T, np.minimum.accumulate(seen, axis=0).T, strict=True)):
        k = np.searchsorted(-highest, -v[:, c])
        hit = np.nonzero(k < len(steps))[0]
        k = k[hit]
        before = np.maximum(k - 1, 0)
        part = np.clip((rows[before] - v[hit, c]) / np.maximum(rows[before] - rows[k], 1e-6), 0, 1)
        depth[hit, c] = steps[before] + part * (steps[k] - steps[before])

    sky = 0.62 - 0.5 * step(0.75, 0.0, v) + 0.05 * u
    far = 1 / (0.85 - np.minimum(v, 0.7))
    cloud = step(-0.15, 0.75, fractal(u * far * 1.4 + 0.3, far * 3.0 + 0.4 * noise(u * 4, v * 4, 330), 331, 6, 0.55))
    sky = sky + cloud * (0.62 - 0.25 * v) * (0.75 + 0.3 * fractal(u * 7, v * 12, 340, 4))
    ground = np.isfinite(depth)
    pz = np.where(ground, depth, 4.9)
    px = (u - 0.5) * pz * 1.25
    height = on_map(land, px, pz)
    e = 0.012
    gx = (on_map(land, px + e, pz) - on_map(land, px - e, pz)) / (2 * e)
    gz = (on_map(land, px, pz + e) - on_map(land, px, pz - e)) / (2 * e)
    rough = fractal(px * 22, pz * 16 + height * 30, 350, 5, 0.62)
    gx = gx + 0.35 * rough
    steep = np.hypot(gx, gz)
    light = np.clip((gx * 0.9 + 0.3 + 0.25 * gz) / np.sqrt(1 + steep * steep), 0, 1) * on_map(lit, px, pz)
    snow = step(0.28, 0.5, height + 0.1 * rough + 0.1 * noise(px * 5, pz * 5, 360)) * step(
        1.75, 1.05, steep + 0.15 * rough
    )
    wood = step(0.24, 0.15, height + 0.05 * rough) * step(1.5, 0.9, steep)
    rock = 0.19 + 0.06 * rough + 0.04 * np.sin(height * 90 + rough * 3)
    albedo = rock * (1 - snow) + 1.15 * snow
    trees = np.clip(0.05 + 0.045 * noise(px * 70, height * 260 + pz * 20, 370) + 0.02 * rough, 0.008, 1)
    albedo = albedo * (1 - wood) + trees * wood
    tone = albedo * (0.17 + 1.5 * light)
    mist = 1 - np.exp(-0.09 * pz * np.exp(-2.2 * np.maximum(height, 0)))
    low = 0.34 * step(0.11, 0.0, height + 0.05 * fractal(px * 2.2, pz * 2 + height * 9, 380, 4)) * step(1.4, 2.4, pz)
    tone = tone + (0.6 - tone) * np.clip(mist + low, 0, 1)
    picture = np.where(ground & (height > 0), tone, sky)

    # the lake
    level = v > shore
    d = np.clip(v - shore, 0.003, 1)
    reach = 0.06 / d
    wave = fractal((u - 0.5) * reach * 30, reach * 55, 390, 4, 0.6)
    calm = step(-0.2, 0.6, noise((u - 0.5) * reach * 2.2, reach * 4, 395))
    push = wave * np.minimum(d, 0.2) * (0.05 + 0.22 * calm)
    mirror = sample(picture, u + 0.15 * push, np.minimum(shore - 0.003, 2 * shore - v + push))
    water = mirror * (0.78 - 0.5 * d) + 0.02 + 0.06 * step(0.35, 0.9, wave) * calm
    picture = np.where(level, water, picture)
    picture = np.where(np.abs(v - shore) < 0.0022, 0.7 * picture + 0.12, picture)

    # firs on the near bank
    rng = np.random.RandomState(17)
    bank_line = (
        0.955
        - 0.1 * step(0.42, 0.0, u[0])
        - 0.075 * step(0.62, 1.0, u[0])
        + 0.012 * fractal(u[0] * 9, u[0] * 0, 400, 4)
    )
    soil = v > bank_line[None]
    turf = (
        0.05
        + 0.05 * np.clip(fractal(u * 60, v * 45, 405, 5, 0.7) + 0.2, 0, 2)
        + 0.04 * step(0.02, 0.0, v - bank_line[None])
    )
    picture = np.where(soil, turf, picture)
    trunks = [
        (0.05, 0.62),
        (0.135, 0.44),
        (0.2, 0.3),
        (0.265, 0.2),
        (0.95, 0.52),
        (0.875, 0.3),
        (0.815, 0.2),
        (0.01, 0.36),
        (1.0, 0.36),
    ]
    for x0, tall in trunks:
        foot = float(np.interp(x0, u[0], bank_line)) + 0.02
        fir = Image.new("L", (n, n), 0)
        glow = Image.new("L", (n, n), 0)
        pen, side = ImageDraw.Draw(fir), ImageDraw.Draw(glow)
        pen.polygon(
            [
                ((x0 - 0.008 * tall / 0.5) * n, foot * n),
                ((x0 + 0.008 * tall / 0.5) * n, foot * n),
                (x0 * n, (foot - tall) * n),
            ],
            fill=255,
        )
        tiers = int(17 + 34 * tall)
        for k in range(tiers):
            t = (k + rng.uniform(-0.3, 0.3)) / tiers
            y0 = foot - tall * (0.07 + 0.92 * t)
            for way in (-1, 1):
                reach_ = tall * 0.2 * (1 - t) ** 0.85 * rng.uniform(0.5, 1.2) + 0.003
                droop = reach_ * rng.uniform(0.25, 0.6)
                bough = curve((x0, y0 - 0.004), (x0 + way * 0.5 * reach_, y0), (x0 + way * reach_, y0 + droop), 9)
                pen.polygon([*[(a * n, b * n) for a, b in bough], (x0 * n, (y0 + 0.4 * reach_ + 0.006) * n)], fill=255)
                for f in (0.35, 0.55, 0.75, 0.92):
                    a, b = bough[int(f * 8)]
                    twig = [(a * n, b * n), ((a + way * 0.004) * n, (b + rng.uniform(0.008, 0.02) * (0.5 + tall)) * n)]
                    pen.line(twig, fill=255, width=2)
                start = rng.randint(1, 6)
                sunny = [(a * n, (b + rng.uniform(0, 0.006)) * n) for a, b in bough[start : start + rng.randint(2, 5)]]
                side.line(sunny, fill=int(rng.uniform(60, 200)) if way < 0 else int(rng.uniform(10, 70)), width=2)
        cover, rim = np.asarray(fir, np.float32) / 255, np.asarray(glow, np.float32) / 255
        needles = 0.02 + 0.014 * noise(u * 140, v * 190, 420) + 0.09 * rim
        picture = picture * (1 - cover) + needles * cover
    return as_image(encode(reduce(picture[..., None] * 1.1, fine)))


# ---------------------------------------------------------------- leaf_alpha.png


def leaf() -> Image.Image:
    """A beech leaf on weathered boards; alpha is 0 in two holes, where the colour is black."""
    fine, n = 4, 192
    u, v = grid(n * fine, n * fine)
    plank = np.floor(u * 2.6 + 0.35)
    across = (u * 2.6 + 0.35) % 1
    grain_u = u * 26 + plank * 9.7
    knot = np.hypot((u - 0.83) * 2.2, v - 0.2)
    bend = 1.5 * np.exp(-((knot / 0.12) ** 2)) + 0.6 * fractal(u * 2 + plank * 3.1, v * 1.2, 600, 3)
    rings = np.sin(6.5 * (grain_u * 0.55 + 2.2 * bend))
    fibre = fractal(grain_u * 4, v * 3.2, 605, 5, 0.62)
    board = mix(ink("#8d8275"), ink("#b3a48f"), 0.5 + 0.22 * rings + 0.35 * fibre)
    board = board * (1 + 0.13 * noise(plank * 0.77 + 0.4, plank * 0, 611))[..., None]
    board = mix(board, ink("#4a3c30"), 0.85 * np.exp(-((knot / 0.035) ** 2)) + 0.25 * (np.abs(knot - 0.055) < 0.004))
    crack = step(-0.52, -0.75, fractal(grain_u * 1.1, v * 0.7, 615, 3)) * 0.6
    board = mix(board, ink("#2c241e"), np.maximum(crack, step(0.02, 0.008, np.minimum(across, 1 - across))))
    board = board * (1.05 - 0.25 * (u + v - 1))[..., None]

    # leaf axes: a along the midrib from stalk (0) to tip (1), b to its side, in halves of the greatest width
    turn, long_, wide = np.deg2rad(-52), 0.80, 0.235
    dx, dy = u - 0.21, v - 0.84
    a = (dx * np.cos(turn) + dy * np.sin(turn)) / long_
    b = (dy * np.cos(turn) - dx * np.sin(turn)) / wide + 0.16 * np.sin(np.pi * a) - 0.06
    t = np.clip(a, 0, 1)
    outline = 1.95 * t**0.62 * (1 - t) ** 0.78 * (1 - 0.12 * t)
    pitch = 11.0
    phase = (a - 0.19 * np.abs(b) ** 1.25) * pitch  # whole numbers on the side veins
    outline = outline * (1 + 0.035 * np.cos(2 * np.pi * phase))
    inside = ((np.abs(b) < outline) & (a > 0) & (a < 1)).astype(np.float32)
    stalk = ((np.abs(b + 0.05 * np.sin(a * 20)) < 0.05) & (a > -0.17) & (a < 0.02)).astype(np.float32)
    shape_ = np.maximum(inside, stalk)
    shadow = soften(sample(shape_, u - 0.02, v - 0.026), 0.014)
    picture = board * (1 - 0.72 * shadow[..., None])

    edge = np.abs(b) / np.maximum(outline, 0.02)
    vein = np.abs(phase - np.round(phase)) / pitch
    rib = np.exp(-((np.abs(b) / (0.045 * (1.25 - t))) ** 2))
    side = np.exp(-((vein / (0.006 * (1.3 - edge))) ** 2)) * step(1.0, 0.85, edge)
    net = fractal(a * 60, b * 18, 620, 3, 0.6)
    fine_net = np.exp(-((np.abs(noise(a * 75, b * 22, 625)) / 0.09) ** 2))
    autumn = np.clip(0.75 * edge**1.7 + 0.5 * fractal(u * 6, v * 6, 630, 5) + 0.25 * t - 0.1, 0, 1)
    tone = mix(mix(ink("#a9a83a"), ink("#d99a2b"), step(0.05, 0.5, autumn)), ink("#a3401f"), step(0.45, 1.0, autumn))
    spots = step(0.42, 0.62, fractal(u * 17, v * 17, 640, 3))
    tone = mix(tone, ink("#5a2d18"), 0.7 * spots)
    # between the side veins the blade bulges; the light comes from the upper left
    slope = 0.5 * np.sin(2 * np.pi * phase)
    fold = np.where(b > 0, -0.16, 0.14) * (1 - 0.5 * edge)
    light = 0.95 + 0.22 * slope * (1 - rib) + fold + 0.1 * net - 0.12 * fine_net * (1 - rib)
    tone = tone * np.clip(light, 0.25, 1.7)[..., None]
    tone = mix(tone, ink("#e7cf8a"), np.clip(0.85 * rib + 0.5 * side, 0, 1))
    tone = tone * (1 - 0.35 * step(0.04, 0.1, np.abs(b)) * np.exp(-(((np.abs(b) - 0.075) / 0.03) ** 2)))[..., None]
    shine = np.exp(-(((a - 0.55) / 0.22) ** 2)) * np.exp(-(((b + 0.45) / 0.28) ** 2)) * (0.7 + 0.5 * slope)
    tone = tone + 0.2 * shine[..., None] * ink("#fff4e0")
    picture = mix(picture, tone, inside)
    picture = mix(picture, ink("#a8783f") * np.clip(1 - 7 * b, 0.4, 1.3)[..., None], stalk * (1 - inside))
    colour = encode(reduce(picture, fine))
    u, v = grid(n, n)
    ragged = 0.022 * fractal(u * 14, v * 14, 650, 3)
    gone = (np.hypot((u - 0.6) * 0.9, v - 0.34) + ragged < 0.085) | (
        np.hypot(u - 0.3, (v - 0.66) * 1.5) + ragged < 0.07
    )
    alpha = np.where(gone, 0.0, 1.0)[..., None]
    return as_image(np.concatenate([colour * alpha, alpha], axis=2))


# ---------------------------------------------------------------- scratch_mask.png


def scratch_mask() -> Image.Image:
    """White where harbour.png is to be taken for lost: scratches, specks and a blot. Black and white only."""
    fine, n = 4, 256
    shape = n * fine, n * fine
    u, v = grid(*shape)
    rng = np.random.RandomState(23)
    mask = np.zeros(shape, np.float32)
    for (xa, ya), (xb, yb), width in (
        ((0.03, 0.09), (0.72, 0.36), 0.0115),
        ((0.985, 0.17), (0.55, 0.47), 0.009),
        ((0.4, 0.02), (0.3, 0.63), 0.0075),
        ((0.6, 0.56), (0.99, 0.9), 0.013),
        ((0.04, 0.95), (0.62, 0.7), 0.009),
        ((0.18, 0.3), (0.13, 0.83), 0.006),
    ):
        t = np.linspace(0, 1, 40)
        wander = np.cumsum(rng.normal(0, 0.0022, (2, 40)), axis=1)
        points = list(zip(xa + (xb - xa) * t + wander[0], ya + (yb - ya) * t + wander[1], strict=True))
        for k in range(0, 39, 3):  # the pressure varies along the stroke
            mask = np.maximum(mask, lines(shape, [points[k : k + 4]], width * rng.uniform(0.6, 1.15)))
    blot = np.hypot(u - 0.775, (v - 0.39) * 0.9) + 0.03 * fractal(u * 9, v * 9, 700, 4)
    mask = np.maximum(mask, blot < 0.062)
    for _ in range(26):
        x, y, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.003, 0.008)
        mask = np.maximum(mask, np.hypot(u - x, v - y) < r)
    return as_image((reduce(mask[..., None], fine) > 0.5).astype(np.float32))


def as_image(pixels: Array) -> Image.Image:
    """sRGB (H, W, C) in [0, 1] as 8 bits: L, RGB or RGBA by its channels."""
    values = np.round(pixels.clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def shake() -> Image.Image:
    """Where the light of one point falls: a curved path, slower where it turns, as wide as the lens is sharp."""
    t = np.linspace(0, 1, 400)
    x, y = 5 * np.sin(2.9 * t - 1.1) + 1.5 * t, 5.5 * t**1.5 + 1.6 * np.cos(7 * t)
    x, y = x - x.mean(), y - y.mean()
    rows, columns = np.mgrid[-9:10, -9:10]
    spots = np.exp(-((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2) / (2 * 0.6**2))
    kernel = spots.sum(-1)
    return Image.fromarray(np.rint(255 * kernel / kernel.max()).astype(np.uint8))


SCENES = {
    "harbour.png": harbour,
    "still_life.png": still_life,
    "mountain.png": mountain,
    "leaf_alpha.png": leaf,
    "scratch_mask.png": scratch_mask,
    "shake.png": shake,
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in SCENES.items():
        scene().save(folder / name, optimize=True)
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
