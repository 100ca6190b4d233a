"""The `gpnp` application: its commands and what they share."""

from typing import Annotated

import typer

from .. import __version__
from .guard import EXIT_CODES

app = typer.Typer(
    name="gpnp",
    help="Restore images by sampling from the posterior: several plausible originals, their mean, and where they disagree.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # an unforeseen exception is reported by guard.py, with exit code 70
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"gpnp {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version")
    ] = False,
) -> None:
    pass


from . import doctor, inpaint, train  # noqa: F401  (each registers its commands on `app`)
from .config_command import config_app

app.add_typer(config_app, name="config")
