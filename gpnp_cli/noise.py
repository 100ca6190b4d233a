"""Noise level of a picture, estimated from the picture alone."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Daubechies' high-pass filter with two vanishing moments: blind to constants and linear ramps.
_ROOT3 = math.sqrt(3)
_DB2_HIGH = [(1 - _ROOT3), (_ROOT3 - 3), (3 + _ROOT3), (-1 - _ROOT3)]


def estimate_sigma(images: Tensor) -> Tensor:
    """Standard deviation `(N,)` of white Gaussian noise in `images` `(N, C, H, W)`, in the pixels' units.

    sigma = median |d| / 0.6745 over the finest diagonal db2 wavelet coefficients d, which hold little
    besides noise; averaged over the channels (Donoho & Johnstone, Biometrika 1994, section 3.1).
    Coefficients that are 0 up to rounding (saturated or painted areas) are left out. Too high for finely
    textured pictures, too low where noise was clipped. NaN for pictures under 4 pixels a side.
    """
    n, channels, height, width = images.shape
    if min(height, width) < 4:
        return torch.full((n,), math.nan, dtype=images.dtype, device=images.device)
    high = torch.tensor(_DB2_HIGH, dtype=images.dtype, device=images.device) / (4 * math.sqrt(2))
    kernel = torch.outer(high, high)[None, None]
    detail = F.conv2d(images.reshape(-1, 1, height, width), kernel, stride=2).abs().flatten(1)
    rounding = 8 * torch.finfo(images.dtype).eps * images.abs().max()
    detail = detail.masked_fill(detail <= rounding, math.nan)
    quartile = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.75)).item()  # 0.6745
    return (detail.nanmedian(1).values.nan_to_num(0.0) / quartile).reshape(n, channels).mean(1)
