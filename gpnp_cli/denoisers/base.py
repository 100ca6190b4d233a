"""What a denoiser is.

Images are float32 `(N, C, H, W)` in [0, 1] (values outside occur along a chain and are legal);
every sigma is a standard deviation in those units.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor


@runtime_checkable
class Denoiser(Protocol):
    """The MMSE estimate E[X | X + sigma W = v] under the prior of X.

    `channels`: number of channels it accepts, None for any.
    `sigma_range`: (lowest, highest) sigma it was made for; the caller decides what to do outside.
    """

    channels: int | None
    sigma_range: tuple[float, float]

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise `v` `(N, C, H, W)` at noise level `sigma`, a scalar or one value per image `(N,)`."""
        ...


def per_image(sigma: float | Tensor, v: Tensor) -> Tensor:
    """`sigma` as a `(N, 1, 1, 1)` tensor of `v`'s dtype and device, to broadcast against `v`."""
    sigma = torch.as_tensor(sigma, dtype=v.dtype, device=v.device)
    return sigma.reshape(-1, 1, 1, 1).expand(v.shape[0], 1, 1, 1)


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """`x` `(N, C, H, W)` reflected at the bottom and right until its sides are multiples of `stride`."""
    height, width = x.shape[-2:]
    bottom, right = -height % stride, -width % stride
    if not (bottom or right):
        return x
    # reflection needs padding < size; tiny pictures are replicated instead
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def score(denoiser: Denoiser, v: Tensor, sigma: float | Tensor) -> Tensor:
    """Tweedie's formula: the score of the prior blurred by sigma, (Denoise(v; sigma) - v) / sigma^2."""
    return (denoiser(v, sigma) - v) / per_image(sigma, v) ** 2
