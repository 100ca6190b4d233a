"""Blur by a known kernel, the same for all channels: on the torus, or with real borders.

A kernel is `(kh, kw)`; its centre is its element (kh // 2, kw // 2), also where a side is even.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from .base import LinearOperator, conjugate_gradient

# Where to stop conjugate gradients: with sigma_y = 0.01 a draw is then off by 0.2 % of its standard deviation for
# gamma = 0.05 (9 steps) and less below; by 3 % for gamma = 0.25 (20 steps), which the chain forgets.
TOLERANCE = 1e-3
CG_STEPS = 200


class CircularBlur(LinearOperator):
    """A x = h * x where opposite edges touch; `x_shape` = `y_shape` = `(C, H, W)`, no smaller than the kernel."""

    def __init__(self, kernel: Tensor, x_shape: tuple[int, int, int]) -> None:
        height, width = x_shape[1:]
        kh, kw = kernel.shape
        if kh > height or kw > width:
            raise ValueError(f"a kernel of {kh}x{kw} pixels does not fit images of {height}x{width}")
        self.x_shape = self.y_shape = x_shape
        placed = torch.zeros(height, width, dtype=torch.float64)
        placed[:kh, :kw] = kernel
        self._spectrum = rfft2(placed.roll((-(kh // 2), -(kw // 2)), (0, 1)))
        self._cast: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def spectrum(self, like: Tensor) -> Tensor:
        """The kernel's real FFT `(H, W // 2 + 1)`, in the precision and on the device of `like`."""
        key = like.dtype, like.device
        if key not in self._cast:
            self._cast[key] = self._spectrum.to(like.dtype.to_complex()).to(like.device)
        return self._cast[key]

    def crop(self, x: Tensor) -> Tensor:
        """`x` itself: nothing lies beyond the frame."""
        return x

    def extend(self, y: Tensor) -> Tensor:
        """`y` itself."""
        return y

    def forward(self, x: Tensor) -> Tensor:
        return irfft2(self.spectrum(x) * rfft2(x), s=x.shape[-2:])

    def adjoint(self, y: Tensor) -> Tensor:
        return irfft2(self.spectrum(y).conj() * rfft2(y), s=y.shape[-2:])

    def prox(self, v: Tensor, y: Tensor, gamma: float, sigma_y: float) -> Tensor:
        """Frequency by frequency: (v^ + rho conj(h^) y^) / (1 + rho |h^|^2), rho = (gamma / sigma_y)^2."""
        if not sigma_y > 0:
            raise ValueError(f"a blur cannot be inverted exactly: sigma_y must be positive, not {sigma_y}")
        rho, h = (gamma / sigma_y) ** 2, self.spectrum(v)
        return irfft2((rfft2(v) + rho * h.conj() * rfft2(y)) / (1 + rho * _power(h)), s=v.shape[-2:])


class Blur(LinearOperator):
    """A x = crop(h * x): a camera's blur, in which unknown pixels beyond the frame take part.

    `y_shape` `(C, H, W)`, x is `(C, H + kh - 1, W + kw - 1)`: all pixels that y sees (valid convolution).
    `crop` cuts the frame of y out of x; `extend` continues it by its outermost pixels. `tolerance` is that of the prox, see `conjugate_gradient`.
    """

    def __init__(self, kernel: Tensor, y_shape: tuple[int, int, int], tolerance: float = TOLERANCE) -> None:
        channels, height, width = y_shape
        kh, kw = kernel.shape
        top, left = (kh - 1) // 2, (kw - 1) // 2
        self.tolerance = tolerance
        self.y_shape, self.x_shape = y_shape, (channels, height + kh - 1, width + kw - 1)
        self.frame = (..., slice(top, top + height), slice(left, left + width))
        self.observed, self.share = self.frame, 1.0  # the pixels of h * x that y holds, and their share of the frame
        # nothing that wraps around the larger torus reaches the frame
        self.circular = CircularBlur(kernel, self.x_shape)

    def crop(self, x: Tensor) -> Tensor:
        """The part of `x` `(N, *x_shape)` inside the frame."""
        return x[self.frame]

    def extend(self, x: Tensor) -> Tensor:
        """A frame `(N, C, H, W)` made as large as x by repeating its outermost pixels."""
        rows, columns = self.frame[1:]
        height, width = self.x_shape[1:]
        margins = (columns.start, width - columns.stop, rows.start, height - rows.stop)
        return F.pad(x, margins, mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        return self.circular.forward(x)[self.observed]

    def adjoint(self, y: Tensor) -> Tensor:
        return self.circular.adjoint(self._spread(y))

    def _spread(self, y: Tensor) -> Tensor:
        """`y` in its place on the torus, zeros elsewhere."""
        whole = y.new_zeros(y.shape[0], *self.x_shape)
        whole[self.observed] = y
        return whole

    def prox(self, v: Tensor, y: Tensor, gamma: float, sigma_y: float) -> Tensor:
        """Preconditioned conjugate gradients for the step d = x - v: (I + rho A^T A) d = rho A^T (y - A v).

        They run on the FFT of d, where the preconditioner 1 + rho |h^|^2 (the same without the cropping) is
        diagonal and A^T A costs two FFTs. The real FFT is scaled to keep scalar products.
        """
        if not sigma_y > 0:
            raise ValueError(f"a blur cannot be inverted exactly: sigma_y must be positive, not {sigma_y}")
        rho, h, size = (gamma / sigma_y) ** 2, self.circular.spectrum(v), self.x_shape[1:]
        twice = v.new_full((h.shape[-1],), 2.0).sqrt()  # most columns stand for their mirror image, too
        twice[0] = 1
        if size[1] % 2 == 0:
            twice[-1] = 1
        to_data, to_image = h / twice, (h.conj() * twice).resolve_conj()

        def transpose(residual: Tensor) -> Tensor:
            return torch.view_as_real(to_image * rfft2(self._spread(residual), norm="ortho"))

        def normal(d: Tensor) -> Tensor:
            blurred = irfft2(to_data * torch.view_as_complex(d), s=size, norm="ortho")
            return torch.add(d, transpose(blurred[self.observed]), alpha=rho)

        inverse = (1 / (1 + rho * self.share * _power(h)))[..., None]
        b = rho * transpose(y - self.forward(v))
        d = conjugate_gradient(normal, b, None, CG_STEPS, self.tolerance, lambda residual: residual * inverse)
        return v + irfft2(torch.view_as_complex(d) / twice, s=size, norm="ortho")


def _power(h: Tensor) -> Tensor:
    return h.real.square() + h.imag.square()
