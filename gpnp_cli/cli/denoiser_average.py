"""The work behind `gpnp denoisers average`."""

from pathlib import Path

from ..errors import EnvironmentProblem, InputError
from ..training.averages import reconstruct
from ..training.checkpoint import load_denoiser, load_weights, save_denoiser
from .report import Report

POOR = 0.05  # a fit with a larger residual is warned of; 32 snapshots of widths 0.05 and 0.1 are below for 0.02 to 0.25


def average_of(run: Path, width: float, path: Path, report: Report) -> None:
    """Write the denoiser with the average of `width` over the run in folder `run` to `path`, and say how good the fit is."""
    if not run.is_dir():
        raise EnvironmentProblem(f"{run}: no such folder", hint="give the folder that train-denoiser -o wrote")
    found = reconstruct(run / "ema", width)
    denoiser = load_denoiser(run / "denoiser.safetensors")
    try:
        load_weights(denoiser.model, found.tensors)
    except InputError as error:
        raise InputError(f"{run / 'ema'}: {error.message}", hint="the snapshots are those of another run") from error
    fitted = {"width": width, "tracked": found.tracked, "snapshots": found.snapshots, "residual": found.residual}
    # `psnr` was measured with the run's own average. So was `residual`, but that is a limit with a margin, and these are the
    # same network's weights.
    metadata = {key: value for key, value in denoiser.metadata.items() if key != "psnr"}
    save_denoiser(path, denoiser.model, {**metadata, "steps": found.step, "images": found.images, "average": fitted})
    tracked = " and ".join(f"{each:g}" for each in found.tracked)
    report.note(
        f"gpnp: width {width:g} after step {found.step}, from {found.snapshots} snapshots of {tracked}; "
        f"residual of the fit {100 * found.residual:.2g} %"
    )
    if found.residual > POOR:
        report.warn("the fit is poor: more snapshots (plan.ema_every) or a width nearer to those tracked would help")
    facts = {"steps": found.step, "images": found.images, **fitted}
    report.result({"status": "done", "outputs": {"denoiser": str(path)}, **facts}, str(path))
