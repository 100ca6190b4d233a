"""A variance-preserving diffusion model (DDPM, Ho et al. 2020) used as a denoiser at any sigma."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import EnvironmentProblem, InputError, UsageError
from .base import pad_to_stride, per_image

PREDICTIONS = ("epsilon", "sample", "v_prediction")


class DdpmDenoiser:
    """E[X | X + sigma W = v] from a network trained on x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise, x in [-1, 1].

    With u = 2v - 1 the noise is 2 sigma, and u sqrt(abar) is an x_t with abar = 1 / (1 + (2 sigma)^2).
    The time t fed to the network interpolates log sqrt((1 - abar_t) / abar_t) linearly between the
    model's steps and stops at its first and last step; `sigma_range` says where those lie. The
    implied clean image (Ho et al., eq. 15) is mapped back to [0, 1].

    `network(x_t, t)` takes `(N, C, H, W)` and float times `(N,)` and returns what `prediction` says:
    'epsilon' (the noise), 'sample' (the clean image) or 'v_prediction' (Salimans & Ho 2022); of more
    than C channels (a learned variance) the first C count. `stride`: the sides it accepts are multiples.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        alphas_cumprod: Tensor,
        channels: int,
        prediction: str = "epsilon",
        stride: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if prediction not in PREDICTIONS:
            raise InputError(f"the model predicts '{prediction}'", hint=f"supported: {', '.join(PREDICTIONS)}")
        abar = alphas_cumprod.double().cpu()
        # A last step with abar = 0 (zero terminal SNR) is at infinite sigma.
        self.log_levels = (0.5 * ((1 - abar) / abar).log())[abar > 0]
        if len(self.log_levels) < 2 or not bool((self.log_levels.diff() > 0).all()):
            raise InputError("the model's noise schedule does not grow from step to step")
        self.network, self.prediction, self.stride = network, prediction, stride
        self.channels, self.device, self.dtype = channels, torch.device(device), dtype
        self.sigma_range = tuple(self.log_levels[[0, -1]].exp().div(2).tolist())

    def times(self, sigma: Tensor) -> Tensor:
        """The fractional steps `(N,)` at which the model's noise is that of `sigma` `(N,)` in [0, 1] units."""
        wanted = (2 * sigma.double().cpu()).log()
        i = torch.searchsorted(self.log_levels, wanted).clamp(1, len(self.log_levels) - 1)
        low, high = self.log_levels[i - 1], self.log_levels[i]
        return (i - 1 + ((wanted - low) / (high - low)).clamp(0, 1)).to(sigma)

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        channels, height, width = v.shape[1:]
        if channels != self.channels:
            raise InputError(f"this diffusion model works on {self.channels}-channel pictures, this one has {channels}")
        s = per_image(sigma, v)
        u = 2 * v - 1
        u = pad_to_stride(u, self.stride)
        root_abar = (1 + 4 * s**2).rsqrt()
        with torch.autocast(v.device.type, self.dtype, enabled=self.dtype in (torch.bfloat16, torch.float16)):
            out = self.network(root_abar * u, self.times(s.flatten()))[:, :channels].to(v.dtype)
        if self.prediction == "epsilon":
            x = u - 2 * s * out
        elif self.prediction == "sample":
            x = out
        else:
            x = root_abar**2 * u - 2 * s * root_abar * out  # sqrt(1 - abar) = 2 sigma sqrt(abar)
        return ((x + 1) / 2)[:, :, :height, :width].contiguous()


def load_ddpm(
    channels: int | None = None,
    argument: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    model_dir: str | Path | None = None,
    offline: bool = False,
) -> DdpmDenoiser:
    """The unconditional `diffusers` pipeline in folder `argument`, or with that hub id, as a `DdpmDenoiser`.

    Raises `UsageError` without an argument, `EnvironmentProblem` without the package or when the
    model cannot be had, `InputError` when it is not an unconditional pixel-space diffusion model.
    """
    if not argument:
        raise UsageError(
            "denoiser 'ddpm' needs a model", hint="ddpm:FOLDER or ddpm:HUB-ID, e.g. ddpm:google/ddpm-celebahq-256"
        )
    unet, scheduler = _read_pipeline(argument, model_dir, offline)
    _check(unet, scheduler, argument)
    if channels is not None and unet.config.in_channels != channels:
        raise InputError(f"ddpm:{argument} works on {unet.config.in_channels}-channel pictures, these have {channels}")
    unet = unet.to(device).eval().requires_grad_(False)
    return DdpmDenoiser(
        lambda x, t: unet(x, t).sample,
        scheduler.alphas_cumprod,
        unet.config.in_channels,
        scheduler.config.prediction_type,
        stride=2 ** (len(unet.config.block_out_channels) - 1),
        device=device,
        dtype=dtype,
    )


def _read_pipeline(argument: str, model_dir: str | Path | None, offline: bool):
    """The U-Net and scheduler of a pipeline folder or hub id."""
    try:
        from diffusers import DiffusionPipeline
    except ImportError:
        raise EnvironmentProblem(
            "denoiser 'ddpm' needs the diffusers package", hint='pip install "gpnp[ddpm]"'
        ) from None
    folder = Path(argument).expanduser()
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise InputError(f"{folder}: not a diffusers pipeline folder (no model_index.json)")
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(folder) if folder.is_dir() else argument, cache_dir=model_dir, local_files_only=offline
        )
    except Exception as error:  # hub, JSON, safetensors and diffusers each have their own errors here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if folder.is_dir():
            raise InputError(f"{folder}: not a readable diffusers pipeline ({reason})") from error
        raise EnvironmentProblem(
            f"ddpm:{argument} is neither a folder here nor to be had from the hub ({reason})",
            hint="check the name, or run once with a network connection",
        ) from error
    unet, scheduler = getattr(pipeline, "unet", None), getattr(pipeline, "scheduler", None)
    if unet is None or scheduler is None:
        raise InputError(f"ddpm:{argument} has no U-Net and scheduler: {type(pipeline).__name__}")
    return unet, scheduler


def _check(unet, scheduler, argument: str) -> None:
    """Refuse what is not an unconditional, variance-preserving, pixel-space model."""
    if type(unet).__name__ != "UNet2DModel" or unet.config.num_class_embeds or unet.config.class_embed_type:
        raise InputError(
            f"ddpm:{argument} is a conditional model ({type(unet).__name__}); an unconditional one is needed"
        )
    if unet.config.time_embedding_type != "positional" or getattr(scheduler, "alphas_cumprod", None) is None:
        raise InputError(f"ddpm:{argument} is not variance-preserving ({type(scheduler).__name__})")
    if unet.config.out_channels not in (unet.config.in_channels, 2 * unet.config.in_channels):
        raise InputError(
            f"ddpm:{argument} maps {unet.config.in_channels} channels to {unet.config.out_channels}, not to an image"
        )
