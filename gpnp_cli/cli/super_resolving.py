"""The work behind `gpnp super-resolve`, apart from its options so that `--help` need not import torch."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..forward.superres import CircularSuperResolve, SuperResolve, bicubic
from ..imageio import Picture
from ..kernels import BlurKernel, check_fits
from .deblurring import Deblurring, cut
from .options import Call


class SuperResolving(Deblurring):
    """Restores pictures that were filtered and shrunk: a blur of which one pixel in each block was kept."""

    before, again = "interpolated", "shrunk"
    linear = False

    def __init__(self, call: Call, kernel: BlurKernel | None) -> None:
        super().__init__(call, kernel or BlurKernel(bicubic(call.config.scale).numpy()))

    @property
    def sampled(self) -> str:
        return f"scale {self.config.scale}, {self.border} border"

    def check_size(self, picture: Picture, name: str) -> None:
        """The kernel belongs to the large picture; the standard one fits all."""
        if self.config.kernel != "bicubic" and not self.config.simulate:
            check_fits(self.kernel, *(self.config.scale * side for side in picture.pixels.shape[1:]), name)

    def operator(self, shape: tuple[int, int, int]) -> SuperResolve | CircularSuperResolve:
        """The shrinking whose data have this shape `(C, H, W)`."""
        kind = CircularSuperResolve if self.border == "circular" else SuperResolve
        return kind(torch.from_numpy(self.kernel.values), shape, self.config.scale)

    def observed(self, y: Tensor, name: str) -> SuperResolve | CircularSuperResolve:
        """The shrinking behind a picture `y` `(1, C, H, W)`; white pixels are believed, for its filter is narrow."""
        return self.operator(y.shape[1:])

    def framed(self, picture: Picture, A: SuperResolve | CircularSuperResolve) -> Picture:
        """`picture` interpolated to the result's size; inks are then converted anew."""

        def enlarge(planes: np.ndarray | None) -> np.ndarray | None:
            return None if planes is None else A.enlarge(torch.from_numpy(planes)[None])[0].clamp(0, 1).numpy()

        return replace(picture, pixels=enlarge(picture.pixels), alpha=enlarge(picture.alpha), cmyk=None)

    def degrade(self, picture: Picture, name: str) -> tuple[Picture, SuperResolve | CircularSuperResolve, Tensor]:
        """Shrink an intact picture and add noise: the truth, the operator and the data.

        As with a blur's real borders, the truth is what remains inside; its sides are multiples of the scale.
        """
        channels, height, width = picture.pixels.shape
        kh, kw = self.kernel.values.shape if self.border == "real" else (1, 1)
        h, w = (height - kh + 1) // self.config.scale, (width - kw + 1) // self.config.scale
        if min(h, w) < 1:
            raise InputError(f"{name}: {width}x{height} pixels are too few to be shrunk", hint="take a larger picture")
        A = self.operator((channels, h, w))
        x = cut(picture, slice(A.x_shape[1]), slice(A.x_shape[2]))
        inside = cut(x, *A.frame[1:]) if self.border == "real" else x
        size = f"{inside.pixels.shape[2]}x{inside.pixels.shape[1]}"
        cutting = " without its borders" if self.border == "real" else ""
        self.report.note(f"{name}: shrunk{cutting} to {w}x{h} pixels; {size} are restored and measured")
        return inside, A, self.noisy(A.forward(self.tensor(x.pixels)), self.config.noise, picture)
