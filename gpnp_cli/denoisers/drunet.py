"""DRUNet (Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser Prior", TPAMI 2022, fig. 2).

The network of KAIR's `models/network_unet.py`, module names included, so that the published state
dicts (`drunet_color.pth`, `drunet_gray.pth`, deepinv's DRUNet files) load as they are.
"""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import EnvironmentProblem, InputError
from .base import pad_to_stride, per_image
from .catalogue import PRIORS

REPOSITORY = "deepinv/drunet"
REVISION = "7e079a6800958ae777b48e41fc1202a2ee21ecbe"  # a commit names its content: files cannot change under us
PUBLISHED = {  # name after `drunet:` -> file in the hub repository
    "color": "drunet_color.pth",
    "gray": "drunet_gray.pth",
    "deepinv-color": "drunet_deepinv_color_finetune_22k.pth",
    "deepinv-gray": "drunet_deepinv_gray_finetune_26k.pth",
}
SPELLINGS = {"colour": "color", "grey": "gray"}
STRIDE = 8


class ResBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3, without biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res(x)


class DRUNet(nn.Module):
    """UNetRes: `(N, in_nc, H, W)` to `(N, out_nc, H, W)`, H and W multiples of 8; the last input channel is sigma."""

    def __init__(
        self, in_nc: int = 4, out_nc: int = 3, nc: tuple[int, int, int, int] = (64, 128, 256, 512), nb: int = 4
    ) -> None:
        super().__init__()

        def blocks(width: int) -> list[nn.Module]:
            return [ResBlock(width) for _ in range(nb)]

        def down(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(*blocks(a), nn.Conv2d(a, b, 2, stride=2, bias=False))

        def up(b: int, a: int) -> nn.Sequential:
            return nn.Sequential(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False), *blocks(a))

        self.m_head = nn.Conv2d(in_nc, nc[0], 3, padding=1, bias=False)
        self.m_down1, self.m_down2, self.m_down3 = down(nc[0], nc[1]), down(nc[1], nc[2]), down(nc[2], nc[3])
        self.m_body = nn.Sequential(*blocks(nc[3]))
        self.m_up3, self.m_up2, self.m_up1 = up(nc[3], nc[2]), up(nc[2], nc[1]), up(nc[1], nc[0])
        self.m_tail = nn.Conv2d(nc[0], out_nc, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.m_head(x)
        x2 = self.m_down1(x1)
        x3 = self.m_down2(x2)
        x4 = self.m_down3(x3)
        x = self.m_body(x4)
        x = self.m_up3(x + x4)
        x = self.m_up2(x + x3)
        x = self.m_up1(x + x2)
        return self.m_tail(x + x1)


class DrunetDenoiser:
    """A DRUNet as a `Denoiser`: sigma as an extra constant channel, any size by reflection and cropping.

    Raises `InputError` when the picture's channels are not the network's.
    """

    sigma_range = PRIORS["drunet"].sigma_range
    licence = PRIORS["drunet"].licence

    def __init__(
        self,
        model: DRUNet,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        weights: Path | None = None,
    ) -> None:
        self.device, self.dtype, self.weights = torch.device(device), dtype, weights
        self.model = model.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.channels = model.m_tail.out_channels

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        channels, height, width = v.shape[1:]
        if channels != self.channels:
            raise InputError(
                f"this DRUNet works on {self.channels}-channel pictures, this one has {channels}",
                hint="drunet:color is for colour pictures, drunet:gray for grey ones",
            )
        x = v.float()
        x = pad_to_stride(x, STRIDE)
        level = per_image(sigma, x).expand(-1, 1, *x.shape[2:])
        x = torch.cat([x, level], dim=1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(v.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = self.model(x)
        return out[:, :, :height, :width].to(v.dtype).contiguous()


def load_drunet(
    channels: int | None = None,
    argument: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    model_dir: str | Path | None = None,
    offline: bool = False,
) -> DrunetDenoiser:
    """The DRUNet called `argument`: a published name (`color`, `gray`, ...), or a .pth or .safetensors file.

    Without `argument` the published one for `channels` (colour if None). A published file is looked
    for in `model_dir`, then in the hub's cache (there, or under `model_dir` if given), then
    downloaded unless `offline`. Raises `EnvironmentProblem` if it cannot be had, `InputError` if it
    is damaged or another network's, naming the mismatch.
    """
    name = argument or ("gray" if channels == 1 else "color")
    name = SPELLINGS.get(name.lower(), name)
    path = fetch(PUBLISHED[name], model_dir, offline) if name in PUBLISHED else Path(name).expanduser()
    return DrunetDenoiser(network_from(read_state_dict(path), path), device, dtype, path)


def fetch(file: str, model_dir: str | Path | None = None, offline: bool = False) -> Path:
    """Path of a published file: `model_dir/file` if it exists, else from the hub's cache or the hub."""
    if model_dir is not None and (Path(model_dir) / file).is_file():
        return Path(model_dir) / file
    by_hand = f"or put {file} of huggingface.co/{REPOSITORY} into a folder and give it as --model-dir"
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise EnvironmentProblem(
            f"downloading {file} needs the huggingface_hub package", hint=f'pip install "gpnp[hub]", {by_hand}'
        ) from None
    try:
        path = Path(hf_hub_download(REPOSITORY, file, revision=REVISION, cache_dir=model_dir, local_files_only=offline))
    except Exception as error:  # the hub's client raises a dozen unrelated classes, all meaning "not to be had"
        why = "is not in the cache, and offline work was asked for" if offline else f"could not be downloaded ({error})"
        raise EnvironmentProblem(f"{file} {why}", hint=f"run once with a network connection, {by_hand}") from error
    # The cache names a large file after the sha256 the hub promised for it.
    promised = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", promised) and sha256(path) != promised:
        raise InputError(f"{path}: damaged (its sha256 is not {promised})", hint="delete it and run again")
    return path


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file by name, wrappers and `module.` prefixes taken off."""
    if not path.is_file():
        raise EnvironmentProblem(
            f"{path}: no such DRUNet weights file", hint=f"a file, or one of: {', '.join(PUBLISHED)}"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each have their own errors for a damaged file
        raise InputError(f"{path}: not a readable weights file ({str(error).splitlines()[0]})") from error
    for wrapper in ("state_dict", "params_ema", "params", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds {type(state).__name__}, not a state dict of tensors")
    return {key.removeprefix("module."): value.float() for key, value in state.items()}


def network_from(state: dict[str, Tensor], path: Path) -> DRUNet:
    """The DRUNet that `state` fits, its widths and block count read off; `InputError` names what does not fit."""
    needed = ("m_head", "m_down1.0.res.0", "m_down2.0.res.0", "m_down3.0.res.0", "m_body.0.res.0", "m_tail")
    for key in (f"{name}.weight" for name in needed):
        if key not in state or state[key].ndim != 4:
            raise InputError(f"{path}: not a DRUNet, {key} is missing", hint="the names are those of KAIR's UNetRes")
    widths = tuple(state[f"{name}.0.res.0.weight"].shape[0] for name in ("m_down1", "m_down2", "m_down3", "m_body"))
    blocks = sum(bool(re.fullmatch(r"m_body\.\d+\.res\.0\.weight", key)) for key in state)
    in_nc, out_nc = state["m_head.weight"].shape[1], state["m_tail.weight"].shape[0]
    if in_nc != out_nc + 1:
        raise InputError(f"{path}: a DRUNet from {in_nc} to {out_nc} channels, not one with a noise-level channel")
    with torch.device("meta"):
        model = DRUNet(in_nc, out_nc, widths, blocks)
    wanted = model.state_dict()
    for key in sorted(wanted.keys() | state.keys()):
        if key not in state or key not in wanted:
            raise InputError(f"{path}: not a DRUNet, {key} is {'missing' if key in wanted else 'unexpected'}")
        if wanted[key].shape != state[key].shape:
            raise InputError(f"{path}: {key} is {tuple(state[key].shape)}, DRUNet has {tuple(wanted[key].shape)}")
        if not bool(torch.isfinite(state[key]).all()):
            raise InputError(f"{path}: {key} contains NaN or infinity")
    model.load_state_dict(state, assign=True)
    return model
