"""Super-resolution: blur, then keep one pixel of each block."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .blur import TOLERANCE, Blur


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
        return F.interpolate(y, scale_factor=self.scale, mode="bicubic", align_corners=False)

    def extend(self, y: Tensor) -> Tensor:
        """Data interpolated, and made as large as x by repeating the outermost pixels."""
        return super().extend(self.enlarge(y))


def bicubic(scale: int) -> Tensor:
    """The filter that resizing programs use to shrink by `scale`: Keys' cubic with a = -1/2, stretched; float64.

    Keys, IEEE Transactions on Acoustics, Speech, and Signal Processing 1981, equation 4.
    """
    middle = 2 * scale - (1 if scale % 2 else 0.5)
    t = torch.arange(-middle, middle + 1, dtype=torch.float64).abs() / scale
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    profile = torch.where(t <= 1, near, far)
    return torch.outer(profile, profile) / profile.sum() ** 2
