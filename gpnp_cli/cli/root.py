"""The `gpnp` application without its commands, and a light copy of it for `gpnp --help`.

Reading every command's options takes longer than Python itself to start; the list of commands needs none of them.
"""

from typing import Annotated

import typer

from .. import __version__

EXIT_CODES = (
    "Exit codes: 0 all results exist, 1 some inputs failed, 2 usage or configuration, "
    "3 environment (weights, device, package, folder), 70 a bug in gpnp, 130 Ctrl-C, 143 SIGTERM."
)

# The first line of each command's help, in the order of the list; a test compares them with the commands.
SUMMARIES = {
    "inpaint": "Fill in missing pixels: samples, their mean, and a map of where they disagree.",
    "deblur": "Undo a known blur: samples, their mean, and a map of where they disagree.",
    "blind-deblur": "Undo an unknown blur: the kernel, samples, their mean, and a map of where they disagree.",
    "super-resolve": "Enlarge 2, 3 or 4 times: samples, their mean, and a map of where they disagree.",
    "denoise": "Remove noise: one call of the denoiser per picture. A level may be written 25/255.",
    "train-denoiser": "Train a denoiser on folders of pictures; the result is one file for `--denoiser FILE`.",
    "sample": "Draw pictures from a denoiser's prior, or by Markov chains from a Gibbs energy.",
    "compare": "Damage an intact picture, restore it by several samplers at equal cost, and compare: a table and a sheet.",
    "diagnose": "Examine saved runs: R-hat, effective samples, traces, and coverage of the intervals if the truth is known.",
    "doctor": "Check the installation: versions, devices, memory, the shipped denoiser.",
    "denoisers": "List the priors available here; check measures one.",
    "config": "Write, show and check configuration files.",
}


def new_app() -> typer.Typer:
    """An application with the options that stand before a command, and no commands yet."""
    app = typer.Typer(
        name="gpnp",
        help="Restore images by sampling from the posterior: several plausible originals, their mean, and where they "
        "disagree.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # an unforeseen exception is reported by guard.py, with exit code 70
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def main(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version")
        ] = False,
    ) -> None:
        pass

    return app


def _version(value: bool) -> None:
    if value:
        typer.echo(f"gpnp {__version__}")
        raise typer.Exit


def outline() -> typer.Typer:
    """The application as `--help` and `--version` see it: commands that have a name and a summary only."""
    app = new_app()
    for name, summary in SUMMARIES.items():
        app.command(name, help=summary)(lambda: None)
    return app
