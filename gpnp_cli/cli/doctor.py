"""`gpnp doctor`: what this installation has; the text to put into a bug report."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import typer

from .. import __version__
from .app import app
from .guard import guarded

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pillow",
    "tifffile",
    "opencv-python-headless",
    "typer",
    "rich",
    "pydantic",
    "safetensors",
    "bm3d",
)
OPTIONAL = ("diffusers", "huggingface_hub", "tensorboard")


@app.command("doctor")
@guarded
def doctor() -> int:
    """Check the installation: versions, devices, memory, the shipped denoiser."""
    lines = [f"gpnp {__version__}", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    problems = []
    for name in PACKAGES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} MISSING")
            if name != "bm3d":  # it has no build for some platforms, and only the bm3d denoiser needs it
                problems.append(f"package {name} is not installed")
    for name in OPTIONAL:
        try:
            lines.append(f"{name} {version(name)} (optional)")
        except PackageNotFoundError:
            lines.append(f"{name} absent (optional)")
    lines += _hardware(problems)
    lines += [f"problem: {text}" for text in problems] or ["all well"]
    for line in lines:
        typer.echo(line)
    return 3 if problems else 0


def _hardware(problems: list[str]) -> list[str]:
    try:
        import torch
    except ImportError as error:
        problems.append(f"PyTorch cannot be imported ({error})")
        return []
    import time

    from ..build import build_prior, choose_device
    from ..config import Model
    from ..denoisers.unet import fast_dtype
    from ..errors import GpnpError

    device, sentence = choose_device("auto")
    dtype = fast_dtype(device)
    lines = [
        sentence,
        f"arithmetic {str(dtype).removeprefix('torch.')}",
        f"memory {_memory()}",
        f"encoding {sys.getfilesystemencoding()}",
    ]
    try:
        prior = build_prior(Model(), 3, device, dtype)
    except GpnpError as error:
        problems.append(error.message)
        return lines
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        prior.denoiser(x, 0.1)
        begun = time.perf_counter()
        prior.denoiser(x, 0.1).cpu()
    seconds = time.perf_counter() - begun
    lines.append(f"denoiser default: sha256 {prior.sha256[:12]}, {seconds:.3f} s per 256x256 colour picture")
    return lines


def _memory() -> str:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    return f"{pages * size / 2**30:.1f} GiB"
