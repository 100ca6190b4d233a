"""Options shared by the commands: each stands for one configuration key, and takes its help from there.

A command lists its `Flag`s; `command` builds the signature that Typer reads. Every option is optional
and untyped here: the configuration's schema checks the value, whatever source it came from.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from ..config import Resolved, dump, help_text, resolve, show_text
from ..errors import UsageError
from .guard import guarded
from .report import Report, write_stdout


class Flag(NamedTuple):
    """One option: its names, the dotted key it sets, its help panel and metavar (None: it is a switch)."""

    names: tuple[str, ...]
    key: str
    panel: str
    metavar: str | None = None


RUN_FLAGS = (
    Flag(("--seed",), "run.seed", "Run", "INT|random"),
    Flag(("--device",), "run.device", "Run", "auto|cpu|cuda[:N]|mps"),
    Flag(("--precision",), "run.precision", "Run", "auto|fp32|bf16"),
    Flag(("--threads",), "run.threads", "Run", "N"),
)

PICTURE_FLAGS = (
    Flag(("--output", "-o"), "output.output", "Input/Output", "PATH"),
    Flag(("--recursive", "-r"), "run.recursive", "Input/Output"),
    Flag(("--format",), "output.format", "Input/Output", "keep|png|tif|jpg|webp"),
    Flag(("--bits",), "output.bits", "Input/Output", "keep|8|16|32"),
    Flag(("--quality",), "output.quality", "Input/Output", "1..100"),
    Flag(("--existing",), "output.existing", "Input/Output", "skip|overwrite|error"),
    Flag(("--max-pixels",), "run.max_pixels", "Input/Output", "N"),
    Flag(("--denoiser",), "model.denoiser", "Model", "NAME|FILE"),
    Flag(("--tile",), "model.tile", "Model", "auto|off|PX"),
    Flag(("--model-dir",), "model.model_dir", "Model", "FOLDER"),
    Flag(("--offline",), "model.offline", "Model"),
    *RUN_FLAGS,
    Flag(("--shard",), "run.shard", "Run", "I/N"),
    Flag(("--fail-fast",), "run.fail_fast", "Run"),
)

SAMPLING_FLAGS = (
    Flag(("--save",), "output.save", "Input/Output", "mean,samples,std,sheet,trace"),
    Flag(("--raw",), "output.raw", "Input/Output", "none|tif|npy"),
    Flag(("--method", "--sampler"), "sampler.method", "Sampler", "gpnp|pnp|split-gibbs|diffpir|dps|..."),
    Flag(("--samples", "-n"), "sampler.samples", "Sampler", "K"),
    Flag(("--preset",), "sampler.preset", "Sampler", "balanced|calibrated|published"),
    Flag(("--iterations",), "sampler.iterations", "Sampler", "N"),
    Flag(("--sigma-max",), "sampler.sigma_max", "Sampler", "S"),
    Flag(("--sigma-min",), "sampler.sigma_min", "Sampler", "S"),
    Flag(("--beta",), "sampler.beta", "Sampler", "B"),
    Flag(("--r",), "sampler.r", "Sampler", "R"),
    Flag(("--generator",), "sampler.generator", "Sampler", "exact|approximate"),
    Flag(("--antithetic",), "sampler.antithetic", "Sampler"),
)


@dataclass(frozen=True)
class Call:
    """A command line, taken apart: the inputs, the resolved configuration, and how to speak."""

    command: str
    inputs: tuple[str, ...]
    resolved: Resolved
    report: Report
    dry_run: bool
    force: bool

    @property
    def config(self) -> Any:
        return self.resolved.config

    def show(self) -> None:
        """The effective configuration on stdout, as --dry-run promises: YAML with origins, or JSON."""
        if self.report.as_json:
            self.report.result(dump(self.config))
        else:
            write_stdout(show_text(self.resolved))

    def check_simulation(self) -> None:
        """`UsageError` if `--simulate` meets what it cannot go with."""
        if self.config.simulate and self.config.reference:
            raise UsageError(
                "--simulate and --reference exclude each other", hint="with --simulate the input is the truth"
            )
        if self.config.simulate and self.config.noise == "auto":
            raise UsageError("--simulate needs to know how much noise to add", hint="add for example --noise 2.55/255")


COMMON = {
    "config": Annotated[
        list[Path] | None,
        typer.Option("--config", "-c", metavar="FILE", help="YAML configuration, or a result's .gpnp.json; later files win", rich_help_panel="Run"),
    ],
    "sets": Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any configuration key", rich_help_panel="Run")
    ],
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration, do nothing", rich_help_panel="Run")],
    "force": Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing results", rich_help_panel="Input/Output")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Errors only", rich_help_panel="Output style")],
    "as_json": Annotated[bool, typer.Option("--json", help="One JSON object per input on stdout, then a summary", rich_help_panel="Output style")],
    "progress": Annotated[str, typer.Option("--progress", metavar="auto|bar|plain|none", help="Progress on stderr", rich_help_panel="Output style")],
}  # fmt: skip
COMMON_DEFAULTS = {
    "config": None,
    "sets": None,
    "dry_run": False,
    "force": False,
    "quiet": False,
    "as_json": False,
    "progress": "auto",
}


def command(app: typer.Typer, name: str, flags: tuple[Flag, ...], inputs: str | None) -> Callable:
    """Register `body(call: Call) -> exit code` as the command `name`; `inputs` is the arguments' metavar, None: none."""

    def register(body: Callable[[Call], int | None]) -> Callable:
        parameters = []
        if inputs is not None:
            argument = typer.Argument(metavar=inputs, help=INPUT_HELP[inputs], show_default=False)
            annotation = Annotated[list[str] | None, argument]
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(inspect.Parameter("inputs", kind, annotation=annotation, default=None))
        by_parameter = {}
        for flag in flags:
            parameter = flag.key.replace(".", "__")
            by_parameter[parameter] = flag.key
            parameters.append(
                inspect.Parameter(
                    parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name, flag)
                )
            )
        for parameter, annotation in COMMON.items():
            parameters.append(
                inspect.Parameter(
                    parameter, inspect.Parameter.KEYWORD_ONLY, default=COMMON_DEFAULTS[parameter], annotation=annotation
                )
            )

        def run(config, sets, dry_run, force, quiet, as_json, progress, inputs=(), **options):
            report = Report(quiet, as_json, progress)
            given = {by_parameter[key]: value for key, value in options.items() if value is not None}
            resolved = resolve(name, given, sets or (), config or ())
            return body(Call(name, tuple(inputs or ()), resolved, report, dry_run, force))

        run.__name__, run.__doc__ = body.__name__, body.__doc__
        wrapped = guarded(run)
        wrapped.__signature__ = inspect.Signature(parameters)
        app.command(name)(wrapped)
        return body

    return register


INPUT_HELP = {
    "IMAGE...": "Pictures, folders, globs, @list.txt, or - for a list on standard input",
    "IMAGE": "An intact picture: it is the truth that results are measured against",
    "MANIFEST...": "Manifests of finished runs, NAME.gpnp.json",
    "DIR...": "Folders of pictures, or single pictures",
}


def _annotation(command_name: str, flag: Flag) -> Any:
    text = help_text(command_name, flag.key).replace("[", r"\[")  # "[default: 3]" is no markup
    common = {"help": text, "rich_help_panel": flag.panel, "show_default": False}
    if flag.metavar is None:
        names = (f"{flag.names[0]}/--no-{flag.names[0].removeprefix('--')}", *flag.names[1:])
        return Annotated[bool | None, typer.Option(*names, **common)]
    return Annotated[str | None, typer.Option(*flag.names, metavar=flag.metavar, **common)]
