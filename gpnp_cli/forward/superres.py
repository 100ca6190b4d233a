"""Super-resolution: blur, then keep one pixel of each block."""

from torch import Tensor

from .blur import TOLERANCE, Blur


class SuperResolve(Blur):
    """A x = every `scale`-th pixel of crop(h * x), the first of each block; `y_shape` `(C, H, W)`.

    The frame is `(C, scale H, scale W)`; x is larger by the kernel, as for `Blur`.
    """

    def __init__(self, kernel: Tensor, y_shape: tuple[int, int, int], scale: int, tolerance: float = TOLERANCE) -> None:
        channels, height, width = y_shape
        super().__init__(kernel, (channels, scale * height, scale * width), tolerance)
        self.y_shape, self.share = y_shape, 1 / scale**2
        self.observed = (..., *(slice(side.start, side.stop, scale) for side in self.frame[1:]))
