"""A first guess of the blur from strong edges alone, by FFTs: where the chains begin to look for it.

x is made of few edges, as sharp as can be (Xu, Zheng & Jia, CVPR 2013; Pan et al., CVPR 2014): argmin ||y - h * x||^2
+ weight ||grad x||_0 by half-quadratic splitting. Unlike the blurred picture, such a picture cannot explain soft edges
without a blur.
"""

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2

from .blur import CircularBlur, squared_modulus

COUPLING_MAX = 1e4  # at the end of the splitting; it doubles from 2 weight on


def strong_edges(y: Tensor, h: Tensor, weight: float) -> Tensor:
    """x `(1, 1, H, W)` for data `y` of the same size, on the torus."""
    size = y.shape[-2:]
    A = CircularBlur(h, y.shape[1:])
    to_data = A.spectrum(y)
    steps = torch.stack([_difference(size, axis, y) for axis in (0, 1)])  # (2, H, W // 2 + 1)
    data, power = to_data.conj() * rfft2(y), squared_modulus(to_data)
    roughness = squared_modulus(steps).sum(0)
    x, coupling = y, 2 * weight
    while coupling < COUPLING_MAX:
        g = irfft2(steps * rfft2(x), s=size)  # (1, 2, H, W)
        g = torch.where(g.square().sum(1, keepdim=True) > weight / coupling, g, 0)
        x = irfft2(
            (data + coupling * (steps.conj() * rfft2(g)).sum(1, keepdim=True)) / (power + coupling * roughness), s=size
        )
        coupling *= 2
    return x


def _difference(size: tuple[int, int], axis: int, like: Tensor) -> Tensor:
    """The spectrum of the difference of neighbours along one axis."""
    d = like.new_zeros(size)
    d[0, 0] = -1
    d[(-1, 0) if axis == 0 else (0, -1)] = 1
    return rfft2(d)


def completed(y: Tensor, h: Tensor, x: Tensor, frame: tuple) -> Tensor:
    """The data `y` with, beyond their frame, what `h` makes of `x` `(1, 1, *size)`: no seam on the torus."""
    whole = CircularBlur(h, x.shape[1:]).forward(x)
    whole[frame] = y
    return whole
