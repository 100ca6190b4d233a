"""Blur by a known kernel, the same for all channels: on the torus, or with real borders.

A kernel is `(kh, kw)`; its centre is its element (kh // 2, kw // 2), also where a side is even.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from .base import LinearOperator, conjugate_gradient

# Where to stop conjugate gradients. What a draw is then off by, relative to its prior standard deviation gamma, with
# sigma_y = 0.01 and kernels of 9 to 27 pixels: 1.5 % for gamma = 0.25 (7 steps), 0.1 % for 0.05 (3 steps), 0.01 % for
# 0.01 (1 step). Large gammas, whose draws the chain forgets, are those of its first iterations.
TOLERANCE = 3e-2
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
        rho, h = data_weight(gamma, sigma_y), self.spectrum(v)
        return irfft2((rfft2(v) + rho * h.conj() * rfft2(y)) / (1 + rho * squared_modulus(h)), s=v.shape[-2:])


class Blur(LinearOperator):
    """A x = crop(h * x): a camera's blur, in which unknown pixels beyond the frame take part.

    `y_shape` `(C, H, W)`, x is `(C, H + kh - 1, W + kw - 1)`: all pixels that y sees (valid convolution). `crop` cuts
    the frame of y out of x; `extend` continues it by its outermost pixels. `tolerance` is that of the prox. With
    `scale` above 1, y holds the `first`-th of every `scale` pixels of the frame along each side: see `SuperResolve`.
    Where `known` `(H, W)` is false, the data say nothing: A x is 0 there, and y is taken to be.
    """

    def __init__(
        self,
        kernel: Tensor,
        y_shape: tuple[int, int, int],
        tolerance: float = TOLERANCE,
        scale: int = 1,
        first: int = 0,
        known: Tensor | None = None,
    ) -> None:
        channels, *sides = y_shape
        margins = [side - 1 for side in kernel.shape]
        lead = [margin // 2 for margin in margins]
        self.tolerance, self.scale, self.y_shape = tolerance, scale, y_shape
        self.x_shape = (channels, *(scale * side + margin for side, margin in zip(sides, margins, strict=True)))
        self.frame = (..., *(slice(a, a + scale * side) for a, side in zip(lead, sides, strict=True)))
        # x lies in the corner of a torus whose size the FFT likes: nothing that wraps around reaches the frame
        coarse = [_fft_size(-(-side // scale)) for side in self.x_shape[1:]]
        self.torus = tuple(scale * side for side in coarse)
        self.circular = CircularBlur(kernel, (channels, *self.torus))
        # every scale-th pixel of the torus is a grid of its own: which ones, and which of these y holds
        starts = [a + first for a in lead]
        self.grid = (..., *(slice(start % scale, None, scale) for start in starts))
        self.observed = (..., *(slice(a // scale, a // scale + n) for a, n in zip(starts, sides, strict=True)))
        seen = torch.zeros(coarse, dtype=torch.bool)
        seen[self.observed] = True if known is None else known
        self._known = None if known is None or bool(known.all()) else known
        self._unseen = (~seen).flatten().nonzero()[:, 0]
        correlation = irfft2(squared_modulus(self.circular._spectrum), s=self.torus)  # A A^T without the cropping
        self._gram = rfft2(correlation[::scale, ::scale]).real.clamp_min(0)

    def by(self, kernel: Tensor) -> "Blur":
        """The blur of the same data by another `kernel`; both without a `scale`."""
        return Blur(kernel, self.y_shape, self.tolerance, known=self._known)

    def crop(self, x: Tensor) -> Tensor:
        """The part of `x` `(N, *x_shape)` inside the frame."""
        return x[self.frame]

    def extend(self, y: Tensor) -> Tensor:
        """A frame `(N, C, H, W)` made as large as x by repeating its outermost pixels."""
        rows, columns = self.frame[1:]
        height, width = self.x_shape[1:]
        margins = (columns.start, width - columns.stop, rows.start, height - rows.stop)
        return F.pad(y, margins, mode="replicate")

    def on_torus(self, y: Tensor) -> Tensor:
        """A frame made as large as the torus, in the same way, where FFTs are fast; `frame` is where it lies there, too."""
        x = self.extend(y)
        (rows, columns), (height, width) = self.torus, x.shape[-2:]
        return F.pad(x, (0, columns - width, 0, rows - height), mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        blurred = irfft2(self.circular.spectrum(x) * rfft2(x, s=self.torus), s=self.torus)
        return self.believed(blurred[self.grid][self.observed])

    def believed(self, y: Tensor) -> Tensor:
        return y if self._known is None else torch.where(self._known.to(y.device), y, 0)

    def adjoint(self, y: Tensor) -> Tensor:
        whole = y.new_zeros(*y.shape[:2], *self.torus)
        whole[self.grid][self.observed] = self.believed(y)
        return self.circular.adjoint(whole)[..., : self.x_shape[1], : self.x_shape[2]]

    def prox(self, v: Tensor, y: Tensor, gamma: float, sigma_y: float) -> Tensor:
        """v + rho A^T u with u = (I + rho A A^T)^-1 (y - A v), rho = (gamma / sigma_y)^2 (the Woodbury identity).

        On the whole torus, where there is no frame, I + rho A A^T multiplies frequencies by 1 + rho |h^|^2 (if scale is
        1), and u = w - G w with G = rho |h^|^2 / (1 + rho |h^|^2), w being y - A v and, where there are no data, values
        z that must make u vanish there: z = P G (P^T z + y - A v), P picking them. Conjugate gradients solve this: the
        unknowns are few, and P (I - G)^-1 P^T nearly inverts I - P G P^T.
        """
        rho, unseen = data_weight(gamma, sigma_y), self._unseen.to(v.device)
        inverse = 1 + rho * self._gram.to(v)  # of I - G

        def multiply(w: Tensor, factor: Tensor) -> Tensor:
            return irfft2(rfft2(w).mul_(factor), s=w.shape[-2:])

        def pick(w: Tensor) -> Tensor:
            return w.flatten(-2)[..., unseen]

        residual = self.believed(y) - self.forward(v)
        data = v.new_zeros(*residual.shape[:2], *(side // self.scale for side in self.torus))
        alone = torch.zeros_like(data)  # what P^T makes of z: zero where y has its data

        def spread(z: Tensor, into: Tensor = alone) -> Tensor:
            into.flatten(-2).index_copy_(-1, unseen, z)
            return into

        data[self.observed] = residual
        z = conjugate_gradient(
            lambda z: z - pick(multiply(spread(z), 1 - 1 / inverse)),
            pick(multiply(data, 1 - 1 / inverse)),
            None,
            CG_STEPS,
            self.tolerance,
            lambda z: pick(multiply(spread(z), inverse)),
        )
        w = spread(z, data)
        if self.scale == 1:  # as below, in two FFTs less
            step = multiply(w, self.circular.spectrum(v).conj() / inverse)
        else:
            whole = v.new_zeros(*w.shape[:2], *self.torus)
            whole[self.grid] = multiply(w, 1 / inverse)
            step = self.circular.adjoint(whole)
        return v + rho * step[..., : v.shape[-2], : v.shape[-1]]


def _fft_size(n: int) -> int:
    """The smallest number from `n` on without a prime factor above 7: an FFT of 282 takes four times that of 288."""
    rest = n
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    return n if rest == 1 else _fft_size(n + 1)


def data_weight(gamma: float, sigma_y: float) -> float:
    """rho = (gamma / sigma_y)^2, the data's weight in a prox; `ValueError` without noise, since no blur can be undone then."""
    if not sigma_y > 0:
        raise ValueError(f"a blur cannot be inverted exactly: sigma_y must be positive, not {sigma_y}")
    return (gamma / sigma_y) ** 2


def squared_modulus(h: Tensor) -> Tensor:
    return h.real.square() + h.imag.square()
