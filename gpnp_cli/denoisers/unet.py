"""The project's own network: a sigma-conditioned residual U-Net under EDM preconditioning.

The architecture is DRUNet's idea (Zhang et al., TPAMI 2022: residual blocks without normalisation in
a U-Net) with two changes that make it several times cheaper: the first level works on 2x2 pixel
blocks (pixel unshuffle), and sigma enters by a scale and shift per channel, which at sampling time,
where all images share one sigma, is folded into the convolution's weights and costs nothing.
"""

import math
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, UsageError
from .base import pad_to_stride, per_image
from .header import shipped_file


class ResBlock(nn.Module):
    """x + conv(relu(scale * conv(x) + shift)); scale and shift come from the noise embedding."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.film = nn.Linear(embedding, 2 * width)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv2.weight)  # every block starts as the identity: no normalisation needed
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding).chunk(2, dim=1)  # (N or 1, width)
        if embedding.shape[0] == 1:  # one sigma for the whole batch: fold it into the weights
            weight = self.conv1.weight * (1 + scale[0])[:, None, None, None]
            h = F.conv2d(x, weight.to(memory_format=torch.channels_last), shift[0], padding=1)
        else:
            h = self.conv1(x) * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
        return x + self.conv2(F.relu(h, inplace=True))


class UNet(nn.Module):
    """The raw network F: (N, channels, H, W), H and W multiples of `stride`, to the same shape.

    `widths` are the channels per level (the first at half the picture's resolution), `blocks` the
    residual blocks per level on each side; the last level has its blocks once.
    """

    image_size: int | None = None  # any; a subclass may be for one size only

    def __init__(
        self,
        channels: int = 3,
        widths: tuple[int, ...] = (64, 128, 256, 256),
        blocks: tuple[int, ...] = (5, 3, 2, 1),
        embedding: int = 64,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(f"{len(widths)} widths for {len(blocks)} block counts")
        self.channels, self.widths, self.blocks = channels, tuple(widths), tuple(blocks)
        self.stride = 2 ** len(widths)
        self.embed = nn.Sequential(
            nn.Linear(2 * 16 + 1, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-1, 4, 16), persistent=False)

        def level(i: int) -> nn.ModuleList:
            return nn.ModuleList(ResBlock(widths[i], embedding) for _ in range(blocks[i]))

        self.head = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(level(i) for i in range(len(widths) - 1))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.body = level(len(widths) - 1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.decoder = nn.ModuleList(level(i) for i in range(len(widths) - 1))
        self.tail = nn.Conv2d(widths[0], 4 * channels, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    @property
    def receptive_field(self) -> int:
        """Radius in pixels of what one output pixel can depend on, for the worst-placed pixel."""
        radius = 2 + 2  # head and tail: one cell each, a cell being 2 pixels at the first level
        for i, count in enumerate(self.blocks):
            sides = 1 if i == len(self.blocks) - 1 else 2
            radius += sides * count * 2 * 2 ** (i + 1)  # two 3x3 convolutions per block
        return radius + self.stride - 1  # strides round outwards to the coarsest grid

    def forward(self, x: Tensor, noise: Tensor, grey: Tensor) -> Tensor:
        """`noise` `(N or 1,)` is c_noise = ln(sigma)/4; `grey` `(N or 1,)` is 1 where the picture is grey."""
        angle = noise[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angle.cos(), angle.sin(), grey[:, None]], dim=1))
        x = self.head(F.pixel_unshuffle(x, 2))  # (N, widths[0], H/2, W/2)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            for block in blocks:
                x = block(x, embedding)
            skips.append(x)
            x = down(x)
        for block in self.body:
            x = block(x, embedding)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = up(x) + skips.pop()
            for block in blocks:
                x = block(x, embedding)
        return F.pixel_shuffle(self.tail(x), 2)


class Preconditioned(nn.Module):
    """D(v; sigma) around a raw network F (EDM, Karras et al. 2022, eq. 7), for images centred at 1/2.

    With sigma_data the spread of pixel values, F sees unit variance and its target has unit variance
    at every sigma. As sigma -> 0, D is the input whatever F does; as sigma -> infinity the input's own
    share vanishes and D is centre + sigma_data F.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.25, centre: float = 0.5) -> None:
        super().__init__()
        self.net, self.sigma_data, self.centre = net, sigma_data, centre

    def forward(self, v: Tensor, sigma: Tensor, grey: Tensor) -> Tensor:
        """`v` `(N, C, H, W)`; `sigma` and `grey` `(N,)`, or `(1,)` when shared by the batch."""
        s = sigma.reshape(-1, 1, 1, 1)
        total = s**2 + self.sigma_data**2
        centred = v - self.centre
        noise = sigma.clamp_min(1e-6).log() / 4  # sigma = 0 is legal: F's share is then 0, but must not be 0 * NaN
        raw = self.net(centred / total.sqrt(), noise, grey).to(v.dtype)
        return self.centre + self.sigma_data**2 / total * centred + s * self.sigma_data / total.sqrt() * raw


class NetworkDenoiser:
    """A trained `Preconditioned` network as a `Denoiser`.

    A network trained on both kinds takes grey pictures too (`channels` is None): the grey picture is
    shown to it three times, with its grey flag set. Any size works: borders are reflected up to the
    network's stride and cropped. Raises `InputError` for a channel count it was not trained for, and from a
    network for whole pictures (`image_size` is their side, None otherwise) for another size.
    `weights` is the file it came from, `metadata` what that file says.
    """

    def __init__(
        self,
        model: Preconditioned,
        sigma_range: tuple[float, float],
        both: bool,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        metadata: dict | None = None,
        weights: Path | None = None,
    ) -> None:
        self.device, self.dtype, self.sigma_range = torch.device(device), dtype, tuple(sigma_range)
        self.model = model.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.channels = None if both else model.net.channels
        self.receptive_field, self.stride = model.net.receptive_field, model.net.stride
        self.image_size = model.net.image_size
        self.metadata, self.weights = metadata or {}, weights

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        _, channels, height, width = v.shape
        net = self.model.net
        if channels != net.channels and not (self.channels is None and channels == 1):
            raise InputError(
                f"this denoiser was trained on {net.channels}-channel pictures, this one has {channels}",
                hint="choose a denoiser with the picture's channel count",
            )
        if self.image_size not in (None, height) or self.image_size not in (None, width):
            raise wrong_size(self.image_size, height, width)
        grey = channels != net.channels
        x = v.float().expand(-1, net.channels, -1, -1) if grey else v.float()
        x = pad_to_stride(x, net.stride)
        shared = not isinstance(sigma, Tensor) or sigma.numel() == 1
        levels = torch.as_tensor(sigma, dtype=torch.float32, device=v.device).reshape(-1)
        if not shared:
            levels = per_image(levels, x).reshape(-1)
        with torch.autocast(v.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = self.model(
                x.contiguous(memory_format=torch.channels_last), levels, torch.full_like(levels, float(grey))
            )
        out = out[:, :, :height, :width]
        return (out.mean(1, keepdim=True) if grey else out.contiguous()).to(v.dtype)


def wrong_size(side: int, height: int, width: int) -> InputError:
    """The sentence for a picture that a prior of whole pictures of one size cannot take."""
    return InputError(
        f"this denoiser knows whole pictures of {side}x{side} pixels, not of {width}x{height}",
        hint=f"crop or resize to {side}x{side}, as its training pictures were, or choose another denoiser",
    )


def load_default(
    channels: int | None = None,
    argument: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> NetworkDenoiser:
    """The shipped denoiser, colour and grey in one network (hence `channels` does not matter)."""
    return _shipped("default", argument, device, dtype)


def load_digits(
    channels: int | None = None,
    argument: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> NetworkDenoiser:
    """The shipped prior of handwritten digits, grey pictures of 32x32 pixels."""
    return _shipped("digits", argument, device, dtype)


def _shipped(name: str, argument: str | None, device: torch.device | str, dtype: torch.dtype) -> NetworkDenoiser:
    from ..training.checkpoint import load_denoiser

    if argument:
        raise UsageError(f"denoiser '{name}' takes no argument ('{argument}')", hint=f"{name}, or a file of your own")
    return load_denoiser(shipped_file(name), device, dtype)


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """bf16 where the hardware multiplies it natively (about twice as fast here), float32 elsewhere."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        native = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return torch.bfloat16 if native.get("avx512_bf16") or native.get("amx_bf16") else torch.float32
    return torch.float32


def parameter_count(module: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in module.parameters())
