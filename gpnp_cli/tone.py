"""The tone curve of photographs, sRGB's (IEC 61966-2-1): between pixel values and the light that a lens can blur."""

import torch
from torch import Tensor


def to_light(pixels: Tensor) -> Tensor:
    """Light, 1 for white, of `pixels` from 0 to 1."""
    curve = ((pixels.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(pixels <= 0.04045, pixels / 12.92, curve)


def from_light(light: Tensor) -> Tensor:
    """The inverse of `to_light`; its straight part goes on below 0, its curve above 1."""
    curve = 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, curve)
