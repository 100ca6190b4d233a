"""Super-resolution: blur, then keep one pixel of each block."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from .blur import TOLERANCE, Blur, CircularBlur, data_weight, squared_modulus


def enlarged(y: Tensor, scale: int) -> Tensor:
    """`y` `(N, C, H, W)` interpolated to `(N, C, scale H, scale W)`."""
    return F.interpolate(y, scale_factor=scale, mode="bicubic", align_corners=False)


class SuperResolve(Blur):
    """A x = one pixel of each `scale` x `scale` block of crop(h * x), the ((scale - 1) // 2)-th; `y_shape` `(C, H, W)`.

    The frame is `(C, scale H, scale W)`; x is larger by the kernel, as for `Blur`. A kernel symmetric about its middle,
    with odd sides if scale is odd and even ones otherwise, puts a pixel of y at the middle of its block, as resizing
    programs do.
    """

    def __init__(self, kernel: Tensor, y_shape: tuple[int, int, int], scale: int, tolerance: float = TOLERANCE) -> None:
        super().__init__(kernel, y_shape, tolerance, scale, (scale - 1) // 2)

    def enlarge(self, y: Tensor) -> Tensor:
        """Data `(N, *y_shape)` interpolated to the frame."""
        return enlarged(y, self.scale)

    def extend(self, y: Tensor) -> Tensor:
        """Data interpolated, and made as large as x by repeating the outermost pixels."""
        return super().extend(self.enlarge(y))


class CircularSuperResolve(CircularBlur):
    """`SuperResolve` where opposite edges touch: x is `(C, scale H, scale W)`, no larger than its data show."""

    def __init__(self, kernel: Tensor, y_shape: tuple[int, int, int], scale: int) -> None:
        channels, *sides = y_shape
        super().__init__(kernel, (channels, *(scale * side for side in sides)))
        self.y_shape, self.scale = y_shape, scale
        self.grid = (..., *2 * (slice((scale - 1) // 2, None, scale),))
        correlation = irfft2(squared_modulus(self._spectrum), s=self.x_shape[1:])
        self._gram = rfft2(correlation[::scale, ::scale]).real.clamp_min(0)  # A A^T is a convolution of the data

    def enlarge(self, y: Tensor) -> Tensor:
        """Data `(N, *y_shape)` interpolated to the frame."""
        return enlarged(y, self.scale)

    def extend(self, y: Tensor) -> Tensor:
        """Data interpolated; there is nothing beyond them."""
        return self.enlarge(y)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[self.grid]

    def adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(*y.shape[:2], *self.x_shape[1:])
        x[self.grid] = y
        return super().adjoint(x)

    def prox(self, v: Tensor, y: Tensor, gamma: float, sigma_y: float) -> Tensor:
        """v + rho A^T (I + rho A A^T)^-1 (y - A v), rho = (gamma / sigma_y)^2 (Zhao et al., TIP 2016, in this form)."""
        rho = data_weight(gamma, sigma_y)
        u = rfft2(y - self.forward(v)) / (1 + rho * self._gram.to(v))
        return v + rho * self.adjoint(irfft2(u, s=y.shape[-2:]))


def bicubic(scale: int) -> Tensor:
    """The filter that resizing programs use to shrink by `scale`: Keys' cubic with a = -1/2, stretched; float64.

    Keys, IEEE Transactions on Acoustics, Speech, and Signal Processing 1981, equation 4.
    """
    middle = 2 * scale - (1 if scale % 2 else 0.5)
    t = torch.arange(-middle, middle + 1, dtype=torch.float64).abs() / scale
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    profile = torch.where(t <= 1, near, far)
    return torch.outer(profile, profile) / profile.sum() ** 2
