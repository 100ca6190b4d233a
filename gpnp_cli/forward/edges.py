"""A first guess of the blur from strong edges alone, by FFTs: where the chains begin to look for it.

x is made of few edges, as sharp as can be (Xu, Zheng & Jia, CVPR 2013; Pan et al., CVPR 2014): argmin ||y - h * x||^2
+ weight ||grad x||_0 by half-quadratic splitting. Unlike the blurred picture, such a picture cannot explain soft edges
without a blur.

Blur also lifts the darkest pixel of a neighbourhood and lowers the brightest one (Pan et al., CVPR 2016; Yan et al., CVPR
2017), so the splitting sees x with those that are near black or white made so (the patches' minima of Wen et al., IEEE
TCSVT 2021).
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import fftfreq, irfft2, rfft2, rfftfreq

from .blur import CircularBlur, squared_modulus

COUPLING_MAX = 1e4  # at the end of the splitting; it doubles from 2 weight on

PATCH = 0.05  # the side of a neighbourhood, as a share of the picture's
ENOUGH = 2**24  # pixels to tell black and white by; PyTorch's quantiles take no more
MARGIN, MARGIN_FALL = 0.1, 1.1  # of black and white, as a share of the pixels' range; how it falls from round to round


@dataclass(frozen=True)
class Extremes:
    """The darkest and the brightest pixel of each neighbourhood become `black` or `white` where they are within `margin`."""

    black: float
    white: float
    margin: float

    @classmethod
    def of(cls, y: Tensor) -> "Extremes":
        """Those of the pixels of `y`, but for one in a thousand."""
        pixels = y.flatten()[:: -(-y.numel() // ENOUGH)]
        black, white = pixels.quantile(y.new_tensor([0.001, 0.999])).tolist()
        return cls(black, white, MARGIN * (white - black))

    def narrower(self) -> "Extremes":
        return replace(self, margin=self.margin / MARGIN_FALL)

    def __call__(self, x: Tensor) -> Tensor:
        side = max(2, round(PATCH * sum(x.shape[-2:]) / 2))
        darkest, brightest = -_largest(-x, side), _largest(x, side)
        x = torch.where((x == darkest) & (x < self.black + self.margin), self.black, x)
        return torch.where((x == brightest) & (x > self.white - self.margin), self.white, x)


def _largest(x: Tensor, side: int) -> Tensor:
    """At each pixel the largest of its patch, of those that `x` `(N, C, H, W)` is divided into."""
    patches = F.max_pool2d(x, side, ceil_mode=True)
    return patches.repeat_interleave(side, -2).repeat_interleave(side, -1)[..., : x.shape[-2], : x.shape[-1]]


def strong_edges(y: Tensor, h: Tensor, weight: float, extremes: Extremes | None = None) -> Tensor:
    """x `(1, 1, H, W)` for data `y` of the same size, on the torus."""
    size = y.shape[-2:]
    to_data = CircularBlur(h, y.shape[1:]).spectrum(y)
    data, power = to_data.conj() * rfft2(y), squared_modulus(to_data)
    roughness = _roughness(size).to(power)
    x, coupling = y, 2 * weight
    while coupling < COUPLING_MAX:
        z = extremes(x) if extremes else x
        down, right = z.roll(-1, -2) - z, z.roll(-1, -1) - z
        strong = down.square() + right.square() > weight / coupling
        down, right = torch.where(strong, down, 0), torch.where(strong, right, 0)
        divergence = down.roll(1, -2) - down + right.roll(1, -1) - right  # the differences' adjoint
        x = irfft2((data + coupling * rfft2(divergence)) / (power + coupling * roughness), s=size)
        coupling *= 2
    return x


def _roughness(size: tuple[int, int]) -> Tensor:
    """The squared modulus of the spectrum of both differences of neighbours: `(H, W // 2 + 1)`."""
    rows, columns = fftfreq(size[0], dtype=torch.float64), rfftfreq(size[1], dtype=torch.float64)
    return 4 * (torch.sin(math.pi * rows).square()[:, None] + torch.sin(math.pi * columns).square())


def completed(y: Tensor, h: Tensor, x: Tensor, frame: tuple) -> Tensor:
    """The data `y` with, beyond their frame, what `h` makes of `x` `(1, 1, *size)`: no seam on the torus."""
    whole = CircularBlur(h, x.shape[1:]).forward(x)
    whole[frame] = y
    return whole
