"""Missing pixels: y keeps the known ones (inpainting, sparse interpolation)."""

import torch
from torch import Tensor

from .base import LinearOperator


class Mask(LinearOperator):
    """A = diag(known): `known` is `(C, H, W)` or `(1, H, W)`, true where the pixel was measured.

    y has x's shape; its missing pixels are zero and count for nothing.
    """

    def __init__(self, known: Tensor, channels: int | None = None) -> None:
        self.known = known.bool()
        self.x_shape = self.y_shape = (channels or known.shape[0], *known.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.known, x, 0)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.where(self.known, y, 0)

    def prox(self, v: Tensor, y: Tensor, gamma: float, sigma_y: float) -> Tensor:
        """Pixelwise: v where missing, the precision-weighted mean of y and v where known (y if sigma_y = 0)."""
        trust = gamma**2 / (gamma**2 + sigma_y**2)
        return torch.where(self.known, torch.lerp(v, y.expand_as(v), trust), v)
