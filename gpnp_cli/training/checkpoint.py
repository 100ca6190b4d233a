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
from safetensors.torch import save
from torch import Tensor, nn

from ..denoisers.attention_unet import AttentionUNet
from ..denoisers.unet import NetworkDenoiser, Preconditioned, UNet
from ..errors import EnvironmentProblem, InputError

ARCHITECTURES = {"unet": UNet, "attention-unet": AttentionUNet}
DENOISER, STATE, SNAPSHOT = "gpnp-denoiser", "gpnp-training-state", "gpnp-ema-snapshot"
VERSION = 1


def build_network(architecture: dict) -> Preconditioned:
    """A fresh network from `{"name": "unet", "channels": 3, ..., "sigma_data": 0.25}`; raises `InputError`."""
    try:
        options = dict(architecture)
        name, sigma_data = options.pop("name"), options.pop("sigma_data")
        return Preconditioned(ARCHITECTURES[name](**options), sigma_data=sigma_data)
    except KeyError as error:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"unknown or unnamed architecture ({error})", hint=f"known: {known}") from error
    except (TypeError, ValueError, RuntimeError) as error:  # wrong names, types, lengths, negative sizes
        raise InputError(f"impossible architecture ({error})", hint="the file may be from a newer gpnp") from error


def load_weights(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy `tensors` into `module`; raises `InputError` naming the first that is missing, extra, misshapen or not finite."""
    wanted = module.state_dict()
    for key in sorted(wanted.keys() | tensors.keys()):
        if key not in tensors or key not in wanted:
            fault = "missing" if key in wanted else "unexpected"
            raise InputError(f"the weights do not fit the architecture: {key} is {fault}")
        has, needs = tuple(tensors[key].shape), tuple(wanted[key].shape)
        if has != needs:
            raise InputError(f"the weights do not fit the architecture: {key} is {has}, not {needs}")
        if not torch.isfinite(tensors[key]).all():
            raise InputError(f"the weights contain NaN or infinity in {key}", hint="use an earlier checkpoint")
    if not next(iter(wanted.values())).is_meta:
        module.load_state_dict(tensors)


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict) -> None:
    """Write atomically: a temporary name in the same folder, then a rename. Raises `EnvironmentProblem`."""
    data = save({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, {"gpnp": json.dumps(metadata)})
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise EnvironmentProblem(
            f"{path}: cannot be written ({error})", hint="free space or choose another folder"
        ) from error
    finally:
        try:
            part.unlink(missing_ok=True)
        except OSError:  # its folder cannot exist
            pass


def read_safetensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata of a file gpnp wrote as `kind`; `InputError` for anything else, pickles included."""
    if not path.is_file():
        raise EnvironmentProblem(f"{path}: no such file", hint="check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("gpnp", "null"))
            keys = file.keys()
            tensors = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error})",
            hint="gpnp never unpickles weights; give a denoiser.safetensors made by train-denoiser",
        ) from error
    found = metadata.get("format") if isinstance(metadata, dict) else None
    if found != kind:
        what = f"holds '{found}'" if found else "no 'gpnp' metadata"
        raise InputError(f"{path}: not a {kind} file ({what})", hint="use the run's denoiser.safetensors")
    if metadata.get("version", VERSION) != VERSION:
        raise InputError(f"{path}: version {metadata['version']} of the format", hint="it needs a newer gpnp")
    return tensors, metadata


def save_denoiser(path: Path, model: Preconditioned, metadata: dict) -> None:
    """Write a denoiser file; `metadata` has architecture, sigma_range, both, data and steps.

    Settings that the prior is to bring into restorations are under `carried` (read by `denoisers.header`). A network for
    whole pictures also has `residual`: by sigma, what `familiarity` compares a picture with.
    """
    tensors = {key: value.half() for key, value in model.state_dict().items()}
    write_safetensors(path, tensors, {"format": DENOISER, "version": VERSION, **metadata})


def load_denoiser(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> NetworkDenoiser:
    """The denoiser in a file that `save_denoiser` wrote; raises `InputError` naming what is wrong with it."""
    path = Path(str(path))
    tensors, metadata = read_safetensors(path, DENOISER)
    try:
        low, high = (float(sigma) for sigma in metadata["sigma_range"])
        if not 0 <= low < high:
            raise ValueError(f"sigma_range {low:g} to {high:g}")
        architecture, both = metadata["architecture"], bool(metadata["both"])
        for level, found in metadata.get("residual", {}).items():
            if not (float(level) > 0 and float(found["highest"]) > 0):
                raise ValueError(f"residual {found} at {level}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged metadata ({error})", hint="the file was not written by gpnp") from error
    try:
        with torch.device("meta"):  # weights without storage: metadata that claim too much cannot fill the memory
            load_weights(build_network(architecture), tensors)
        model = build_network(architecture)
        load_weights(model, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from error
    return NetworkDenoiser(model, (low, high), both, device, dtype, metadata, path)


def save_state(path: Path, tensors: dict[str, Tensor], rest: dict) -> None:
    """Write what `Trainer.state_dict` gave."""
    write_safetensors(path, tensors, {"format": STATE, **rest})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict]:
    """What `save_state` wrote, for `Trainer.load_state_dict`; raises `InputError`."""
    tensors, rest = read_safetensors(path, STATE)
    missing = [key for key in ("step", "seconds", "seed", "architecture") if key not in rest]
    if missing:
        raise InputError(f"{path}: damaged metadata (no {missing[0]})", hint="the file was not written by gpnp")
    return tensors, rest


def save_snapshot(path: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write averaged weights as they are; `facts` has step, images and widths."""
    write_safetensors(path, tensors, {"format": SNAPSHOT, "version": VERSION, **facts})


def load_snapshot(path: Path) -> tuple[dict[str, Tensor], dict]:
    """What `save_snapshot` wrote; raises `InputError`."""
    try:
        tensors, facts = read_safetensors(path, SNAPSHOT)
    except InputError as error:
        raise InputError(error.message, hint="move it out of the folder: the other snapshots may do") from error
    try:
        step, images = int(facts["step"]), int(facts["images"])
        widths = [float(width) for width in facts["widths"]]
        if step < 1 or not widths:
            raise ValueError(f"step {step}, widths {widths}")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged metadata ({error})", hint="the file was not written by gpnp") from error
    return tensors, {"step": step, "images": images, "widths": widths}
