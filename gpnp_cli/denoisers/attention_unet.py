"""A network for priors of whole pictures: the U-Net of `unet` with self-attention at its lowest resolutions.

What a face or a digit is depends on all of the picture at once, and on where in the picture something is. So this
network sees pictures of one size only, and cannot be tiled.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import UNet

HEAD = 32  # channels per attention head, at least


class SelfAttention(nn.Module):
    """x + W_o softmax(q^T k / sqrt(d)) v, every pixel of the level looking at every other (Vaswani et al. 2017).

    q, k, v are 1x1 convolutions of the normalised input plus a learned code of the place.
    """

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.heads = next(h for h in range(max(1, width // HEAD), 0, -1) if width % h == 0)
        self.norm = nn.GroupNorm(1, width)  # scores grow with the square of the input: without it they run away
        self.place = nn.Parameter(torch.zeros(1, width, side, side))
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.out.weight)  # as in `ResBlock`: starts as the identity

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """`x` `(N, C, side, side)`; `embedding` is for the blocks beside it."""
        n, c, h, w = x.shape
        parts = self.qkv(self.norm(x) + self.place).reshape(n, 3, self.heads, c // self.heads, h * w)
        q, k, v = parts.transpose(-1, -2).unbind(1)  # (N, heads, HW, C / heads)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(seen.reshape(n, c, h, w))


class AttentionUNet(UNet):
    """`UNet` for pictures of `image_size` x `image_size`; in the lowest `attention` levels attention follows every block.

    Raises `ValueError` for a size that the strides do not divide, or more such levels than there are.
    """

    receptive_field = None  # everything

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, ...] = (64, 128, 192),
        blocks: tuple[int, ...] = (2, 2, 2),
        embedding: int = 64,
        attention: int = 2,
        image_size: int = 32,
    ) -> None:
        super().__init__(channels, widths, blocks, embedding)
        levels = len(self.widths)
        if image_size < 1 or image_size % self.stride:
            raise ValueError(f"image size {image_size} is not a multiple of the stride {self.stride}")
        if not 0 <= attention <= levels:
            raise ValueError(f"attention in {attention} of {levels} levels")
        self.image_size = image_size
        for i in range(levels - attention, levels):
            for level in (self.body,) if i == levels - 1 else (self.encoder[i], self.decoder[i]):
                for place in range(len(level), 0, -1):
                    level.insert(place, SelfAttention(self.widths[i], image_size // 2 ** (i + 1)))
