"""`gpnp config`: write, explain and check configuration files."""

from pathlib import Path
from typing import Annotated

import typer

from ..config import COMMANDS, ConfigError, check_file, init_text, resolve, schema_text, show_text
from ..errors import EnvironmentProblem, UsageError
from .guard import guarded
from .report import write_stdout

config_app = typer.Typer(
    name="config", help="Write, show and check configuration files.", no_args_is_help=True, rich_markup_mode=None
)


def _commands(incomplete: str) -> list[str]:
    return [name for name in COMMANDS if name.startswith(incomplete)]


Command = Annotated[str, typer.Argument(help=f"One of: {', '.join(COMMANDS)}.", autocompletion=_commands)]


@config_app.command()
@guarded
def init(
    command: Command,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write instead of stdout.")] = None,
    force: Annotated[bool, typer.Option("-f", "--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a configuration with every key at its default, explained."""
    text = init_text(command)
    if output is None:
        write_stdout(text)
        return
    if output.is_dir():
        raise UsageError(f"{output}: is a folder, not a file", hint="name the file to write")
    try:
        # "x" rather than a look beforehand: nothing that appears in between is overwritten
        with open(output, "w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{output}: exists already", hint="--force replaces it") from None
    except OSError as error:
        raise EnvironmentProblem(
            f"{output}: cannot be written ({error.strerror})", hint="choose another file"
        ) from error
    write_stdout(f"{output}\n")


@config_app.command()
@guarded
def show(
    command: Command,
    files: Annotated[
        list[Path] | None, typer.Option("-c", "--config", help="Configuration file; later ones win.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key, as sampler.beta=0.3.")
    ] = None,
) -> None:
    """Show the effective values and where each comes from."""
    write_stdout(show_text(resolve(command, {}, sets or (), files or ())))


@config_app.command()
@guarded
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Configuration files.")],
    command: Annotated[
        str | None,
        typer.Option("--command", help="The command they are for, if they do not say.", autocompletion=_commands),
    ] = None,
) -> None:
    """Check files, and list every problem on stderr; the exit code is 2 if there is any."""
    problems: list[str] = []
    for path in files:
        found = check_file(path, command)
        problems += found
        if not found:
            write_stdout(f"{path}: ok\n")
    if problems:
        raise ConfigError(problems)


@config_app.command()
@guarded
def schema(command: Command) -> None:
    """Print the JSON schema of a command's configuration, for editors."""
    write_stdout(schema_text(command))
