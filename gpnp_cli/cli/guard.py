"""From exceptions and signals to exit codes: the last line between a mistake and a traceback."""

import contextlib
import functools
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

import typer

from ..errors import GpnpError
from .report import ReaderLeft, Report, discard_stdout


class Terminated(BaseException):
    """SIGTERM arrived; raised in the main thread so that `finally` blocks run."""


def install_signals() -> None:
    """SIGTERM ends a run cleanly (SLURM sends it); a second signal leaves at once.

    A job started with `&` in a script has SIGINT ignored: it is left so, as the shell wants it.
    """

    def leave(number, frame):
        os._exit(128 + number)

    def first(number, frame):
        signal.signal(number, leave)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    with contextlib.suppress(ValueError, AttributeError):  # not the main thread, or no such signal
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, first)
        signal.signal(signal.SIGTERM, first)


def report_bug(error: BaseException) -> None:
    """One sentence on stderr, the traceback in a file of its own."""
    text = f"{' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    try:
        with tempfile.NamedTemporaryFile("wb", prefix="gpnp-bug-", suffix=".log", delete=False) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        where = file.name
    except OSError:  # no room for it, and the sentence must come out nevertheless
        where = "this message"
    summary = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    report = Report()
    report.note(f"gpnp: this is a bug in gpnp: {summary}")
    report.note(f"  hint: please report it with {where} and the output of `gpnp doctor`")


def guarded(command: Callable) -> Callable:
    """`command` returns its exit code (None is 0); whatever it raises becomes a sentence and a code."""

    @functools.wraps(command)
    def run(*args, **kwargs):
        install_signals()
        raise typer.Exit(exit_code(lambda: command(*args, **kwargs)))

    return run


def exit_code(call: Callable[[], int | None]) -> int:
    """Run `call` and turn its outcome into an exit code."""
    try:
        return call() or 0
    except typer.Exit:
        raise
    except GpnpError as error:
        Report().error(error)
        return error.code
    except KeyboardInterrupt:
        Report().note("gpnp: interrupted; finished results are kept")
        return 130
    except Terminated:
        Report().note("gpnp: terminated; finished results are kept")
        return 143
    except ReaderLeft:
        return 141
    except BrokenPipeError:  # the same, from a plain print
        discard_stdout()
        return 141
    except Exception as error:  # noqa: BLE001  the last line of defence
        report_bug(error)
        return 70
