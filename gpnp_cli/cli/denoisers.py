"""`gpnp denoisers`: which priors there are, and how good one is."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import in_words, resolve
from ..denoisers.catalogue import PRIORS, Prior
from ..denoisers.header import SHIPPED, read_metadata, shipped_file
from ..errors import UsageError
from ..registry import DENOISERS
from .guard import guarded
from .report import Report, write_stdout

denoisers_app = typer.Typer(
    name="denoisers",
    help="List the priors available here; check measures one.",
    rich_markup_mode=None,
)
CHECK_SIGMAS = ("15/255", "25/255", "50/255", "0.5")  # the literature's three, and where GPnP starts
BY_ARGUMENT = {  # priors whose weights the user names
    "drunet": "drunet:FILE, or drunet:color, drunet:gray to download",
    "ddpm": "ddpm:FOLDER, or ddpm:HUB-ID to download",
}
UNKNOWN = Prior("", None, None, "unknown")  # registered, but not in the catalogue

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
DeviceName = Annotated[str | None, typer.Option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.")]
Threads = Annotated[str | None, typer.Option("--threads", metavar="N", help="CPU threads.")]
Precision = Annotated[str | None, typer.Option("--precision", metavar="fp32|bf16", help="Arithmetic of the network.")]


@denoisers_app.callback(invoke_without_command=True)
def denoisers(
    context: typer.Context,
    speed: Annotated[bool, typer.Option("--speed", help="Measure seconds per 256x256 colour picture.")] = False,
    device: DeviceName = None,
    precision: Precision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """List the priors available here; check measures one."""
    run = {"run.device": device, "run.precision": precision, "run.threads": threads}
    if context.invoked_subcommand is None:
        guarded(listing)(speed, run, as_json)
    elif speed or as_json or any(run.values()):
        guarded(misplaced)(context.invoked_subcommand)


def misplaced(subcommand: str) -> None:
    raise UsageError(
        f"options before '{subcommand}' are those of the list",
        hint=f"write them behind it: gpnp denoisers {subcommand} ...",
    )


def listing(speed: bool, run: dict[str, str | None], as_json: bool) -> None:
    """All priors on stdout: a table, or JSON lines."""
    config = resolve("denoise", run).config
    rows = [row(name, PRIORS.get(name, UNKNOWN)) for name in DENOISERS]
    if speed:
        from .denoiser_checks import add_speed

        add_speed(rows, config, Report(quiet=as_json))
    if as_json:
        write_stdout("".join(json.dumps(entry) + "\n" for entry in rows))
        return
    head = ("name", "sigma", "MB", *(["s/picture"] if speed else []), "carried", "status", "licence")
    lines = [head, *(shown(entry, speed) for entry in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        write_stdout("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n")


def row(name: str, prior: Prior) -> dict[str, Any]:
    """What is known of one prior; None where only its weights know, or for an infinite sigma."""
    sigma_range, megabytes, status, carried = prior.sigma_range, prior.weights_mb, "ready", {}
    if prior.missing:
        status = f"missing package: {prior.missing}"
    elif name in SHIPPED:
        sigma_range, megabytes, status = shipped(shipped_file(name))
        carried = read_metadata(shipped_file(name)).get("carried", {})
    elif name in BY_ARGUMENT:
        status = f"needs weights: {BY_ARGUMENT[name]}"
        if importlib.util.find_spec("huggingface_hub") is None:
            status += ' by pip install "gpnp[hub]"'
    low, high = sigma_range or (None, None)
    return {
        "name": name,
        "summary": prior.summary,
        "sigma_min": low,
        "sigma_max": None if high == float("inf") else high,
        "megabytes": megabytes,
        "carried": carried,
        "licence": prior.licence,
        "status": status,
    }


def shipped(path: Path) -> tuple[tuple[float, float] | None, float | None, str]:
    """(sigma range, megabytes, status) of a denoiser file, from its header alone: no tensor is read."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None, None, "weights missing"
    megabytes = path.stat().st_size / 1e6
    try:
        with safe_open(path, framework="np") as file:
            low, high = json.loads(file.metadata()["gpnp"])["sigma_range"]
        return (float(low), float(high)), megabytes, "ready"
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        return None, megabytes, "weights damaged"


def shown(entry: dict[str, Any], speed: bool) -> tuple[str, ...]:
    """A row of the table."""
    low, high, megabytes = entry["sigma_min"], entry["sigma_max"], entry["megabytes"]
    sigma = "?" if low is None else f"{low:.4g} to {high:.4g}" if high is not None else f"from {low:.4g}"
    size = "?" if megabytes is None else f"{megabytes:.1f}" if megabytes else "-"
    seconds = entry.get("seconds")
    measured = ["-" if seconds is None else f"{seconds:.3g}"] if speed else []
    carried = in_words(entry["carried"]) or "-"
    return (entry["name"], sigma, size, *measured, carried, entry["status"], entry["licence"])


@denoisers_app.command()
@guarded
def check(
    denoiser: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A denoiser as --denoiser takes it.")],
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE...", help="Clean pictures: files, folders, globs, @list.txt, or -."),
    ] = None,
    sigma: Annotated[
        list[str] | None,
        typer.Option("--sigma", metavar="S[,S...]", help=f"Noise levels; if left out {','.join(CHECK_SIGMAS)}."),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders below, too.")] = False,
    device: DeviceName = None,
    precision: Precision = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Measure a denoiser on clean pictures: PSNR, bias and asymmetry of the Jacobian at some noise levels.

    PSNR in dB is the mean over the pictures, bias the mean of output minus truth; the asymmetry ||J - J^T|| / ||J||
    of the score's Jacobian is 0 for the score of a probability density.
    """
    if not pictures:
        raise UsageError("a check needs at least one clean picture", hint=f"gpnp denoisers check {denoiser} photo.png")
    levels = [text for part in sigma or CHECK_SIGMAS for text in part.split(",")]
    flags = {
        "model.denoiser": denoiser,
        "run.recursive": recursive or None,
        "run.device": device,
        "run.precision": precision or "fp32",  # rounding to bf16 would count as asymmetry
        "run.threads": threads,
    }
    configs = [resolve("denoise", {**flags, "sigma": text}).config for text in levels]
    if any(config.sigma == "auto" for config in configs):
        raise UsageError("--sigma auto: a check adds its own noise", hint="give noise levels, as 25/255,0.5")
    from .denoiser_checks import check_on

    report = Report(quiet, as_json)
    check_on(pictures, configs[0], [config.sigma for config in configs], report)


@denoisers_app.command()
@guarded
def average(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run that kept plan.ema_profiles.")],
    width: Annotated[
        float, typer.Option("--width", metavar="W", help="Relative width: the share of the training it looks back on.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="If left out, RUN/denoiser-W.safetensors."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it exists.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Make a denoiser with a training's weights averaged over another width, after the training.

    It is the least-squares combination of the snapshots in RUN/ema (Karras et al. 2024, post-hoc EMA). The residual is
    how far its averaging profile is from the wanted one, relative to that.
    """
    path = output or run / f"denoiser-{width:g}.safetensors"
    if path.exists() and not force:
        raise UsageError(f"{path}: exists already", hint="--force replaces it, or name another --output")
    from .denoiser_average import average_of

    average_of(run, width, path, Report(quiet, as_json))
