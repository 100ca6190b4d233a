"""The work behind `gpnp denoisers`, apart from its options so that listing need not import torch."""

import contextlib
import statistics
import sys
import time
from typing import Any

import torch

from .. import build
from ..config import DenoiseConfig, Model
from ..denoisers.base import Denoiser
from ..denoisers.check import check
from ..errors import InputError, UsageError
from ..imageio import read_picture
from ..inputs import expand_inputs
from .report import Report, write_stdout


def add_speed(rows: list[dict[str, Any]], config: DenoiseConfig, report: Report) -> None:
    """Add `seconds` per 256x256 colour picture to every row, None where the prior is not ready or takes none."""
    device, dtype, sentence = build.set_up(config.run)
    report.note(f"gpnp: {sentence}")
    for row in rows:
        row["seconds"] = None
        if row["status"] == "ready":
            with contextlib.suppress(InputError):  # it is for another kind of picture
                prior = build.build_prior(Model(denoiser=row["name"], offline=True), 3, device, dtype)
                row["seconds"] = seconds(prior.denoiser, device)


def seconds(denoiser: Denoiser, device: torch.device, side: int = 256) -> float:
    """Median time of a call on one noisy colour picture; a slow denoiser is timed once, without a first try."""
    rng = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, side).expand(1, 3, side, side)
    v = (ramp + 0.1 * torch.randn(ramp.shape, generator=rng)).to(device)
    times = []
    with torch.inference_mode():
        for _ in range(6):
            begun = time.perf_counter()
            denoiser(v, 0.1).cpu()  # waits for the device
            times.append(time.perf_counter() - begun)
            if times[0] > 2:
                return times[0]
    return statistics.median(times[1:])  # the first sets things up


def check_on(pictures: list[str], config: DenoiseConfig, sigmas: list[float], report: Report) -> None:
    """The check's table or JSON lines on stdout, row by row; all pictures must be of one kind."""
    inputs = expand_inputs(pictures, config.run.recursive, sys.stdin)
    planes = [read_picture(item.path, config.run.max_pixels).pixels for item in inputs]
    channels = len(planes[0])
    for item, pixels in zip(inputs, planes, strict=True):
        if len(pixels) != channels:
            kinds = ("grey", "colour") if channels == 1 else ("colour", "grey")
            raise UsageError(
                f"{inputs[0].path} is {kinds[0]}, {item.path} is {kinds[1]}", hint="check the two kinds in two calls"
            )
    device, dtype, sentence = build.set_up(config.run)
    prior = build.build_prior(config.model, channels, device, dtype)
    report.note(f"gpnp: {sentence}")
    if licence := getattr(prior.denoiser, "licence", None):
        report.note(f"gpnp: denoiser {prior.name}: licence {licence}")
    low, high = prior.denoiser.sigma_range
    if min(sigmas) < low or max(sigmas) > high:
        report.warn(f"denoiser {prior.name} was made for sigma from {low:.4g} to {high:.4g} only")
    if not report.as_json:
        write_stdout(f"{'sigma':>8}  {'sigma*255':>9}  {'PSNR/dB':>7}  {'bias':>9}  {'asymmetry':>9}\n")
    images = [torch.from_numpy(pixels)[None].to(device) for pixels in planes]
    for found in check(prior.denoiser, images, sigmas):
        if report.as_json:
            report.result({"denoiser": prior.name, "pictures": len(images), **found._asdict()})
        else:
            asymmetry = "-" if found.asymmetry is None else f"{found.asymmetry:.4f}"
            write_stdout(
                f"{found.sigma:8.4g}  {255 * found.sigma:9.4g}  {found.psnr:7.2f}  {found.bias:+9.5f}  {asymmetry:>9}\n"
            )
