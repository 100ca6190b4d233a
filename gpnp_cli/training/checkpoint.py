"""Weights and training states as safetensors: data only, nothing is ever unpickled as code.

A denoiser file holds the weights in float16 and, as metadata, a JSON object under `gpnp` that says
how to build the network and what it was trained on. A training state holds everything a run needs
to go on exactly where it was.
"""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..denoisers.unet import NetworkDenoiser, Preconditioned, UNet
from ..errors import EnvironmentProblem, GpnpError, InputError

ARCHITECTURES = {"unet": UNet}


def build_network(architecture: dict) -> Preconditioned:
    """A fresh network from `{"name": "unet", "channels": 3, ..., "sigma_data": 0.25}`."""
    options = dict(architecture)
    name, sigma_data = options.pop("name"), options.pop("sigma_data")
    if name not in ARCHITECTURES:
        raise InputError(f"unknown architecture '{name}'", hint=f"known: {', '.join(ARCHITECTURES)}")
    try:
        return Preconditioned(ARCHITECTURES[name](**options), sigma_data=sigma_data)
    except TypeError as error:
        raise InputError(f"architecture '{name}': {error}", hint="the file may be from a newer gpnp") from error


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict) -> None:
    """Write atomically: a temporary name in the same folder, then a rename."""
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, part, {"gpnp": json.dumps(metadata)})
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise EnvironmentProblem(f"{path}: cannot be written ({error})", hint="free space or choose another folder") from error
    finally:
        part.unlink(missing_ok=True)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata of a file gpnp wrote; `InputError` for anything else, pickles included."""
    path = Path(str(path))
    if not path.is_file():
        raise EnvironmentProblem(f"{path}: no such weights file", hint="`gpnp denoisers` lists what is available")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        return tensors, json.loads(metadata["gpnp"])
    except KeyError:
        raise InputError(f"{path}: a safetensors file, but not a gpnp denoiser (no 'gpnp' metadata)") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error})",
            hint="gpnp never unpickles weights; train or convert to safetensors",
        ) from error


def save_denoiser(path: Path, model: Preconditioned, metadata: dict) -> None:
    """Write a denoiser file; `metadata` has architecture, sigma_range, both, data and steps."""
    tensors = {key: value.half() for key, value in model.state_dict().items()}
    write_safetensors(path, tensors, {"format": "gpnp-denoiser", "version": 1, **metadata})


def load_denoiser(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> NetworkDenoiser:
    """The denoiser in a file that `save_denoiser` wrote; a mismatch is named."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != "gpnp-denoiser":
        raise InputError(f"{path}: holds '{metadata.get('format')}', not a denoiser", hint="use the run's denoiser.safetensors")
    try:
        model = build_network(metadata["architecture"])
        sigma_range, both = tuple(metadata["sigma_range"]), metadata["both"]
        wanted = model.state_dict()
        for key in sorted(wanted.keys() | tensors.keys()):
            if key not in tensors or key not in wanted:
                raise InputError(f"{path}: weights do not fit the architecture: {key} is {'missing' if key in wanted else 'unexpected'}")
            if wanted[key].shape != tensors[key].shape:
                raise InputError(f"{path}: {key} is {tuple(tensors[key].shape)}, the architecture needs {tuple(wanted[key].shape)}")
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
            raise InputError(f"{path}: the weights contain NaN or infinity", hint="use an earlier checkpoint")
        model.load_state_dict({key: value.float() for key, value in tensors.items()})
    except GpnpError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged metadata ({error!r})", hint="the file was not written by gpnp") from error
    return NetworkDenoiser(model, sigma_range, both, device, dtype, metadata)
