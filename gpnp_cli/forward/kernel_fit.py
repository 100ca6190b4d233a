"""The M-step of blind deblurring: the blur kernel, given the sharp pictures that the chains propose.

argmin over h of sum_k ||M (D y - h * D x_k)||^2 + s(h): D are horizontal and vertical differences, which hold about the
same energy at all frequencies where pictures themselves hold nearly all at the lowest (Cho & Lee 2009, section 4.2; Levin
et al. 2011); M keeps the differences that were seen. h is a kernel `(kh, kw)` with odd sides, not negative, summing to 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from .blur import squared_modulus


class Regulariser(Protocol):
    """s(h), as a step of projected gradients needs it; both answers must leave the simplex sensible."""

    def slope(self, h: Tensor) -> Tensor | float:
        """The gradient of s at `h` (of a majoriser where s is concave), as a share of the data term's curvature."""
        ...

    def tidy(self, h: Tensor) -> Tensor:
        """`h` without what s forbids altogether, not yet summing to 1 again."""
        ...


@dataclass(frozen=True)
class SmallEnergy:
    """s(h) = weight / 2 ||h||^2: spreads the kernel, and damps what the picture does not tell."""

    weight: float

    def slope(self, h: Tensor) -> Tensor:
        return self.weight * h

    def tidy(self, h: Tensor) -> Tensor:
        return h


@dataclass(frozen=True)
class Sparsity:
    """s(h) = weight sum log(h + epsilon), entries below `floor` times the largest being dropped.

    On the simplex the l1 norm is constant; the logarithm is majorised by its tangent (Candes et al. 2008).
    """

    weight: float
    floor: float = 0.05
    epsilon: float = 0.02  # as a share of the largest entry

    def slope(self, h: Tensor) -> Tensor:
        epsilon = self.epsilon * h.max()
        return self.weight * h.max() * epsilon / (h + epsilon)

    def tidy(self, h: Tensor) -> Tensor:
        return torch.where(h < self.floor * h.max(), 0, h)


@dataclass(frozen=True)
class Connectedness:
    """The light's path is one curve: pieces that hold less than `share` of the heaviest piece's sum are dropped.

    Pixels belong to one piece if they touch, also by a corner or across a gap of one pixel.
    """

    share: float = 0.1

    def slope(self, h: Tensor) -> float:
        return 0.0

    def tidy(self, h: Tensor) -> Tensor:
        labels = components(h > 0)
        sums = torch.zeros(int(labels.max()) + 1, dtype=h.dtype, device=h.device)
        sums.index_add_(0, labels.flatten(), h.flatten())
        sums[0] = 0
        return torch.where(sums[labels] >= self.share * sums.max(), h, 0)


def components(support: Tensor) -> Tensor:
    """Numbers, from 1, of the pieces of `support` `(H, W)`; 0 outside. Two pixels at most 2 apart are of one piece."""
    numbers = torch.arange(1, support.numel() + 1, device=support.device, dtype=torch.float64).reshape(support.shape)
    labels = torch.where(support, numbers, 0)
    while True:
        spread = torch.where(support, F.max_pool2d(labels[None, None], 5, stride=1, padding=2)[0, 0], 0)
        if torch.equal(spread, labels):
            return torch.unique(labels, return_inverse=True)[1] + (0 if bool((labels == 0).any()) else 1)
        labels = spread


def onto_simplex(h: Tensor) -> Tensor:
    """The nearest array that is not negative and sums to 1 (Duchi et al. 2008, figure 1)."""
    ordered = h.flatten().sort(descending=True).values
    excess = ordered.cumsum(0) - 1
    count = torch.arange(1, len(ordered) + 1, device=h.device, dtype=h.dtype)
    rank = int((ordered - excess / count > 0).sum())
    return (h - excess[rank - 1] / rank).clamp(min=0)


def differences(x: Tensor) -> Tensor:
    """Horizontal and vertical differences of `x` `(N, 1, H, W)`, `(N, 2, H, W)`; zero in the last column and row."""
    return torch.cat(
        [F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1)), F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))], 1
    )


def seen_differences(known: Tensor) -> Tensor:
    """Where both pixels of a difference are `known` `(H, W)`: `(2, H, W)`."""
    right = F.pad(known[:, 1:] & known[:, :-1], (0, 1))
    below = F.pad(known[1:, :] & known[:-1, :], (0, 0, 0, 1))
    return torch.stack([right, below])


@dataclass(frozen=True)
class Quadratic:
    """f(h) = h' G h / 2 - b' h over kernels `(kh, kw)`: G, a Toeplitz matrix, by FFTs on a torus just large enough.

    `spectrum` is the FFT of G's autocorrelation there.
    """

    spectrum: Tensor
    torus: tuple[int, int]
    b: Tensor

    def product(self, h: Tensor) -> Tensor:
        """G h."""
        return irfft2(self.spectrum * rfft2(h, s=self.torus), s=self.torus)[: h.shape[0], : h.shape[1]]

    def gradient(self, h: Tensor) -> Tensor:
        return self.product(h) - self.b

    def value(self, h: Tensor) -> float:
        return float((h * (self.product(h) / 2 - self.b)).sum())

    @property
    def curvature(self) -> float:
        """No less than G's largest eigenvalue: G is a part of the circulant matrix."""
        return float(self.spectrum.abs().max())


class Fit(Protocol):
    """Minimises a `Quadratic` over the kernels that a model allows, starting at the present one."""

    def __call__(self, f: Quadratic, h: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class FreeForm:
    """Any kernel: accelerated projected gradients (Beck & Teboulle 2009) on the simplex."""

    regularisers: Sequence[Regulariser]
    steps: int = 30

    def __call__(self, f: Quadratic, h: Tensor) -> Tensor:
        scale = f.curvature
        if scale == 0:  # states of one colour tell nothing
            return h
        moved, t = h, 1.0
        for _ in range(self.steps):
            gradient = f.gradient(moved) / scale
            for s in self.regularisers:
                gradient = gradient + s.slope(moved)
            new = onto_simplex(moved - gradient)
            t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
            moved, h, t = new + (t - 1) / t_new * (new - h), new, t_new
        return self.tidied(h)

    def tidied(self, h: Tensor) -> Tensor:
        for s in self.regularisers:
            h = s.tidy(h)
        return h / h.sum()


@dataclass
class Parametric:
    """A kernel of few parameters, e.g. a motion's length and angle: the best of a grid, then a compass search.

    `draw` makes the kernel, of the size it is told, for parameters in pixels of the full picture and the scale of the
    present one; `grid` are the parameters to begin with, `steps` the first steps of the search. `phi` remembers the
    parameters.
    """

    draw: Callable[[tuple[float, ...], float, tuple[int, int]], Tensor]
    grid: Sequence[tuple[float, ...]]
    steps: tuple[float, ...]
    scale: float = 1.0
    phi: tuple[float, ...] | None = None
    halvings: int = 5

    def __call__(self, f: Quadratic, h: Tensor) -> Tensor:
        def drawn(phi: tuple[float, ...]) -> Tensor:
            return self.draw(phi, self.scale, tuple(h.shape)).to(h)

        def cost(phi: tuple[float, ...]) -> float:
            return f.value(drawn(phi))

        best = min([*([self.phi] if self.phi else []), *self.grid], key=cost)
        lowest, steps = cost(best), self.steps
        for _ in range(self.halvings):
            near = [
                (*best[:i], best[i] + sign * step, *best[i + 1 :]) for i, step in enumerate(steps) for sign in (-1, 1)
            ]
            for phi in near:
                if (found := cost(phi)) < lowest:
                    best, lowest = phi, found
            steps = tuple(step / 2 for step in steps)
        self.phi = best
        return drawn(best)


def quadratic(dx: Tensor, spectra: Tensor, dy: Tensor, seen: Tensor, frame: tuple, h: Tensor) -> Quadratic:
    """The data term, averaged over the states whose differences are `dx` `(K, 2, *size)` with FFT `spectra`.

    What was not seen (beyond the frame, saturated) is taken to be what the present kernel `h` predicts: then G is a
    Toeplitz matrix, and f lies above the true data term and touches it at h, so that lowering f lowers that one, too.
    """
    size, (kh, kw) = dx.shape[-2:], h.shape
    predicted = irfft2(spectra * _kernel_spectrum(h, size), s=size)
    error = torch.zeros_like(predicted)
    error[frame] = torch.where(seen, dy - predicted[frame], 0)
    # b = corr(dx, predicted + error), and corr(dx, predicted) = G h
    correlation = irfft2((spectra.conj() * rfft2(error)).mean(0).sum(0), s=size)
    torus = tuple(_fast(2 * k - 1) for k in (kh, kw))
    power = irfft2(squared_modulus(spectra).mean(0).sum(0), s=size)
    lags = power.roll((kh - 1, kw - 1), (0, 1))[: 2 * kh - 1, : 2 * kw - 1]
    placed = F.pad(lags, (0, torus[1] - 2 * kw + 1, 0, torus[0] - 2 * kh + 1)).roll((1 - kh, 1 - kw), (0, 1))
    f = Quadratic(rfft2(placed).real, torus, torch.zeros_like(h))
    b = correlation.roll((kh // 2, kw // 2), (0, 1))[:kh, :kw] + f.product(h)
    return Quadratic(f.spectrum, torus, b)


def fit_kernel(x: Tensor, y: Tensor, known: Tensor, frame: tuple, h: Tensor, fit: Fit, rounds: int = 1) -> Tensor:
    """The kernel that best explains `y` `(1, 1, H, W)`, where `known` `(H, W)`, by the states `x` `(K, 1, *size)`.

    `frame` is where y lies in x, as in `Blur`. Every round completes what was not seen with the newest kernel.
    """
    dx, dy, seen = differences(x), differences(y), seen_differences(known)
    spectra = rfft2(dx)
    for _ in range(rounds):
        h = fit(quadratic(dx, spectra, dy, seen, frame, h), h)
    return h


def _kernel_spectrum(h: Tensor, size: tuple[int, int]) -> Tensor:
    kh, kw = h.shape
    placed = F.pad(h, (0, size[1] - kw, 0, size[0] - kh)).roll((-(kh // 2), -(kw // 2)), (0, 1))
    return rfft2(placed)


def _fast(n: int) -> int:
    """The next size from `n` on without prime factors above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def centre_of_mass(h: Tensor) -> tuple[float, float]:
    """Where the kernel's centre of mass lies, from its centre element, in rows and columns."""
    kh, kw = h.shape
    rows, columns = torch.arange(kh).to(h) - kh // 2, torch.arange(kw).to(h) - kw // 2
    return float((h.sum(1) * rows).sum()), float((h.sum(0) * columns).sum())


def shift(x: Tensor, rows: int, columns: int) -> Tensor:
    """`x` `(..., H, W)` moved down and right by whole pixels; outermost pixels are repeated."""
    height, width = x.shape[-2:]
    i = (torch.arange(height, device=x.device) - rows).clamp(0, height - 1)
    j = (torch.arange(width, device=x.device) - columns).clamp(0, width - 1)
    return x[..., i[:, None], j]


def recentred(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel with its centre of mass within half a pixel of its centre, and the states moved so that h * x stays."""
    rows, columns = (round(value) for value in centre_of_mass(h))
    if rows == columns == 0:
        return h, x
    moved = torch.zeros_like(h)
    kh, kw = h.shape
    source = h[max(0, rows) : kh + min(0, rows), max(0, columns) : kw + min(0, columns)]
    moved[max(0, -rows) : kh + min(0, -rows), max(0, -columns) : kw + min(0, -columns)] = source
    if not moved.sum() > 0.5:  # a kernel of two far pieces cannot be centred inside its window
        return h, x
    return moved / moved.sum(), shift(x, rows, columns)


def resized(h: Tensor, size: tuple[int, int], factor: float) -> Tensor:
    """The kernel seen at another resolution, `factor` times finer, in a window of the odd `size`; linear in between."""
    axes = []
    for k, n in zip(h.shape, size, strict=True):
        p = (torch.arange(n, dtype=torch.float64) - n // 2) / factor
        axes.append((p, k // 2))
    (rows, r), (columns, c) = axes
    grid = torch.stack(torch.meshgrid(rows / max(r, 0.5), columns / max(c, 0.5), indexing="ij")[::-1], -1)[None]
    out = F.grid_sample(h.double()[None, None], grid.to(h.device), mode="bilinear", align_corners=True)[0, 0].to(
        h.dtype
    )
    return out / out.sum()


def support(h: Tensor) -> tuple[slice, slice]:
    """The smallest odd window around the kernel's centre that holds all of it."""
    where = (h > 0).nonzero()
    middle = [side // 2 for side in h.shape]
    reach = [int((where[:, axis] - middle[axis]).abs().max()) for axis in (0, 1)]
    return tuple(slice(m - r, m + r + 1) for m, r in zip(middle, reach, strict=True))


def trimmed(h: Tensor) -> Tensor:
    """`h` cut to its `support`."""
    return h[support(h)]


def likeness(h: Tensor, reference: Tensor) -> float:
    """The correlation of two kernels of the same size, the first moved by whole pixels to where it is largest: 1 for equal."""
    moved = moved_onto(h, reference)
    return float((moved * reference).sum() / (moved.norm() * reference.norm()))


def moved_onto(h: Tensor, reference: Tensor) -> Tensor:
    """`h` moved by whole pixels, inside its window, to where it is most like `reference` of the same size."""
    torus = tuple(_fast(2 * k) for k in h.shape)
    likeness = irfft2(rfft2(reference, s=torus) * rfft2(h, s=torus).conj(), s=torus)
    rows, columns = divmod(int(likeness.argmax()), torus[1])
    rows, columns = (n - side if n > side // 2 else n for n, side in zip((rows, columns), torus, strict=True))
    padded = F.pad(h, (h.shape[1], h.shape[1], h.shape[0], h.shape[0]))
    return padded.roll((rows, columns), (0, 1))[h.shape[0] : 2 * h.shape[0], h.shape[1] : 2 * h.shape[1]]
