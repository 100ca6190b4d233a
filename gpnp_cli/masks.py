"""Which pixels are missing: `rect`, `random`, `scratches`, `alpha`, or a mask file.

Masks are boolean `(H, W)`, true where the pixel is missing. A drawn mask depends on its own seed
(`seed=` in the specification, 0 if absent), never on the run's.
"""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError, UsageError

FORMS = "rect[:H,W[@Y,X]], random:KEEP, scratches[:COUNT], alpha, or a mask file (white = missing)"
_SEED = re.compile(r",?seed=([0-9]{1,10})$")


@dataclass(frozen=True)
class MaskSpec:
    """A parsed `--mask`: `kind` is rect, random, scratches, alpha or file."""

    kind: str
    numbers: tuple[float, ...] = ()
    seed: int = 0
    path: Path | None = None

    def draw(self, height: int, width: int) -> np.ndarray:
        """The mask of a picture of this size, for the kinds that need nothing else."""
        return {"rect": self._rect, "random": self._random, "scratches": self._scratches}[self.kind](height, width)

    def _rect(self, height: int, width: int) -> np.ndarray:
        h, w = (int(n) for n in self.numbers[:2]) if self.numbers else (max(1, height // 4), max(1, width // 4))
        y, x = (int(n) for n in self.numbers[2:]) if len(self.numbers) == 4 else ((height - h) // 2, (width - w) // 2)
        if y < 0 or x < 0 or y + h > height or x + w > width:
            raise InputError(
                f"mask rect:{h},{w}@{y},{x} does not fit a picture {width} wide and {height} high",
                hint="the form is rect:HEIGHT,WIDTH@TOP,LEFT in pixels",
            )
        missing = np.zeros((height, width), bool)
        missing[y : y + h, x : x + w] = True
        return missing

    def _random(self, height: int, width: int) -> np.ndarray:
        # the legacy generator: masks of published experiments are quoted with its seeds
        return ~(np.random.RandomState(self.seed).rand(height, width) < self.numbers[0])

    def _scratches(self, height: int, width: int) -> np.ndarray:
        from PIL import Image, ImageDraw

        rng = np.random.Generator(np.random.PCG64([self.seed, height, width]))
        side = min(height, width)
        picture = Image.new("1", (width, height))
        pen = ImageDraw.Draw(picture)
        for _ in range(int(self.numbers[0]) if self.numbers else 8):
            thickness = max(1, round(side * rng.uniform(0.004, 0.014)))
            angle, length = rng.uniform(0, 2 * math.pi), side * rng.uniform(0.3, 1.0)
            y, x = rng.uniform(0, height), rng.uniform(0, width)
            points = [(x, y)]
            for _ in range(24):  # a scratch wanders a little
                angle += rng.normal(0, 0.12)
                x, y = x + length / 24 * math.cos(angle), y + length / 24 * math.sin(angle)
                points.append((x, y))
            pen.line(points, fill=1, width=thickness, joint="curve")
        return np.array(picture)


def parse_mask(text: str) -> MaskSpec:
    """The mask that `text` names; raises `UsageError` for anything that is neither a form nor a file."""
    if text == "alpha":
        return MaskSpec("alpha")
    kind, _, rest = text.partition(":")
    if kind in ("rect", "random", "scratches"):
        return _parse_drawn(text, kind, rest)
    path = Path(text).expanduser()
    if text and os.path.lexists(path):
        return MaskSpec("file", path=path)
    raise UsageError(f"--mask {text}: neither a file nor a mask form", hint=f"use {FORMS}")


def _parse_drawn(text: str, kind: str, rest: str) -> MaskSpec:
    seed = 0
    if match := _SEED.search(rest):
        seed, rest = int(match[1]), rest[: match.start()]
    if kind == "rect":
        match = re.fullmatch(r"([0-9]{1,9}),([0-9]{1,9})(?:@([0-9]{1,9}),([0-9]{1,9}))?", rest)
        good = not rest or (match and int(match[1]) > 0 and int(match[2]) > 0)
        numbers = tuple(int(n) for n in match.groups() if n is not None) if match else ()
    elif kind == "random":
        keep = _number(rest)
        good, numbers = keep is not None and 0 < keep < 1, (keep,)
    else:
        numbers = (int(rest),) if re.fullmatch(r"[0-9]{1,5}", rest) else ()
        good = not rest or (numbers and 0 < numbers[0] <= 10_000)
    if not good or seed >= 2**32:
        example = {"rect": "rect:64,64@96,96", "random": "random:0.1 (the share kept)", "scratches": "scratches:8"}[
            kind
        ]
        raise UsageError(f"--mask {text}: not a {kind} mask", hint=f"write for example {example}")
    return MaskSpec(kind, numbers, seed)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def check_mask(missing: np.ndarray, name: str) -> None:
    """`InputError` if the mask hides everything or nothing."""
    if not missing.any():
        raise InputError(f"{name}: the mask hides nothing", hint="white pixels are missing; --mask-invert swaps")
    if missing.all():
        raise InputError(
            f"{name}: the mask hides the whole picture", hint="black pixels are known; --mask-invert swaps"
        )
