"""Where, and whether, a blurred picture says how it was blurred."""

import torch
import torch.nn.functional as F
from torch import Tensor

SATURATED = 0.995  # of full scale: 254 of 255
LEAST_STD = 1 / 255  # a picture with less is as good as constant
LEAST_CORRELATION = 0.25  # of neighbouring pixels: white noise has 0, blurred photographs 0.9 and more
CLIP = 0.1  # of differences: one hard edge must not count for more than a hundred good ones


def neighbour_correlation(y: Tensor) -> float:
    """The correlation of neighbouring pixels of `y` `(1, 1, H, W)`, mean of both directions; 0 for a constant picture."""
    centred = y - y.mean()
    variance = float(centred.square().mean())
    if variance == 0:
        return 0.0
    across = float((centred[..., 1:] * centred[..., :-1]).mean())
    down = float((centred[..., 1:, :] * centred[..., :-1, :]).mean())
    return (across + down) / 2 / variance


def has_structure(y: Tensor) -> bool:
    """Whether there is anything in `y` `(1, 1, H, W)`, besides white noise, that could be blurred."""
    return float(y.std()) >= LEAST_STD and neighbour_correlation(y) >= LEAST_CORRELATION


def fine_detail(y: Tensor) -> float:
    """The amplitude of `y` `(1, 1, H, W)` at 0.3 to 0.45 cycles per pixel relative to that at 0.05 to 0.1.

    What there is at the very highest frequencies is taken for white noise and taken off. Sharp photographs have 0.07 to
    0.2, as amplitudes fall with the frequency; blurred by a Gaussian of std 1, or a shake of 13 to 25 pixels, 0.03 at most.
    0 for a constant picture.
    """
    rows, columns = (torch.hann_window(side, periodic=False).to(y) for side in y.shape[-2:])
    power = torch.fft.fft2((y - y.mean()) * rows[:, None] * columns)[0, 0].abs().square()
    down, right = (torch.fft.fftfreq(side).abs().to(y) for side in y.shape[-2:])
    radius = torch.hypot(down[:, None], right)
    noise = power[(down[:, None] > 0.4) & (right > 0.4)].mean()
    fine = (power[(radius > 0.3) & (radius < 0.45)].mean() - noise).clamp_min(0)
    coarse = power[(radius > 0.05) & (radius < 0.1)].mean()
    return float((fine / coarse).sqrt()) if coarse > 0 else 0.0


def unsaturated(y: Tensor, reach: int, margin: int = 0) -> Tensor:
    """Which pixels of `y` `(1, C, H, W)` hold what the lens gave: `(H, W)`, false where any channel is clipped.

    Those within `margin` pixels of a clipped one are left out, too: they show a share of a light of unknown strength.
    Deep inside a clipped area, further than `reach` pixels from anything else, blurring changes nothing: such pixels
    may stay.
    """
    clipped = (y >= SATURATED).any(1, keepdim=True).float()
    if not bool(clipped.any()):
        return torch.ones(y.shape[-2:], dtype=torch.bool, device=y.device)
    inside = -F.max_pool2d(-clipped, 2 * reach + 1, stride=1, padding=reach)
    near = F.max_pool2d(clipped, 2 * margin + 1, stride=1, padding=margin)
    return (near == 0)[0, 0] | (inside == 1)[0, 0]


def believable(y: Tensor, size: tuple[int, int]) -> Tensor:
    """What is `unsaturated` in `y` `(1, C, H, W)`, which a kernel of this size has blurred, without the neighbours.

    A kernel of one pixel blurs nothing: white is white then.
    """
    reach = max(size) - 1
    return unsaturated(y, reach, margin=min(1, reach))


def richest_window(y: Tensor, known: Tensor, side: int) -> tuple[slice, slice]:
    """The window of `side` pixels (less where the picture ends) with the most edges: their differences, clipped, summed.

    `y` `(1, 1, H, W)`; pixels that are not `known` `(H, W)` do not count.
    """
    height, width = (min(side, length) for length in y.shape[-2:])
    edges = torch.zeros_like(y)
    edges[..., 1:] += (y[..., 1:] - y[..., :-1]).abs().clamp(max=CLIP)
    edges[..., 1:, :] += (y[..., 1:, :] - y[..., :-1, :]).abs().clamp(max=CLIP)
    sums = F.pad((edges[0, 0] * known).double(), (1, 0, 1, 0)).cumsum(0).cumsum(1)
    totals = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = divmod(int(totals.argmax()), totals.shape[1])
    return slice(top, top + height), slice(left, left + width)
