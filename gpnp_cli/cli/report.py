"""What a command says: results on stdout, everything else on stderr.

stdout is written with plain writes, never through Rich, which would wrap paths and read brackets as
markup. On stderr Rich draws bars in a terminal; `plain` prints a line every half minute instead.
"""

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import EnvironmentProblem, GpnpError, UsageError

PLAIN_SECONDS = 30.0
MODES = ("auto", "bar", "plain", "none")


class ReaderLeft(BaseException):
    """Whoever read stdout has gone (`| head -1`): there is nothing left to do, and nobody to tell."""


def write_stdout(text: str) -> None:
    """Write `text` as it is: not wrapped, not coloured, in stdout's encoding, names that are no valid text included."""
    stream = sys.stdout
    if stream is None:  # the shell closed it (`>&-`)
        return
    encoding = stream.encoding or "utf-8"
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "backslashreplace")
    try:
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
    except BrokenPipeError:
        discard_stdout()
        raise ReaderLeft from None
    except OSError as error:
        discard_stdout()
        raise EnvironmentProblem(
            f"standard output cannot be written: {error.strerror}", hint="free some space"
        ) from error


def discard_stdout() -> None:
    """Let what Python still wants to flush at its exit go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Report:
    """One command's voice. `progress`: auto (bars in a terminal, else nothing), bar, plain or none."""

    def __init__(self, quiet: bool = False, as_json: bool = False, progress: str = "auto") -> None:
        if progress not in MODES:
            raise UsageError(f"--progress {progress}: unknown", hint=f"use one of {', '.join(MODES)}")
        if progress == "auto":
            progress = "bar" if sys.stderr is not None and sys.stderr.isatty() else "none"
        self.quiet, self.as_json = quiet, as_json
        self.mode = "none" if quiet else progress
        self._live = None  # the rich Progress while bars are shown
        self._chain = self._files = None
        self._prefix = ""
        self._spoke = 0.0

    # stdout

    def result(self, record: dict[str, Any], path: str | None = None) -> None:
        """One finished input: its record with --json, else the path of its main result (if there is one)."""
        if self.as_json:  # in ASCII: valid JSON in whatever encoding stdout has
            self._out(json.dumps(finite(record)) + "\n")
        elif path is not None:
            self._out(path + "\n")

    def _out(self, line: str) -> None:
        # where both streams are one terminal, the line would be put behind a bar
        pause = self._live is not None and sys.stdout is not None and sys.stdout.isatty()
        if pause:
            self._live.stop()
        write_stdout(line)
        if pause:
            self._live.start()

    # stderr

    def note(self, text: str) -> None:
        """A line for people; silent with --quiet."""
        if not self.quiet:
            self._err(text)

    def warn(self, text: str) -> None:
        self.note(f"gpnp: warning: {text}")

    def error(self, error: GpnpError) -> None:
        self._err(f"gpnp: error: {error.message}")
        if error.hint:
            self._err(f"  hint: {error.hint}")

    def _err(self, text: str) -> None:
        if sys.stderr is None:
            return
        encoding = sys.stderr.encoding or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    # progress

    @contextmanager
    def files(self, total: int) -> Iterator[None]:
        """Everything inside belongs to a batch of `total` inputs."""
        if self.mode != "bar":
            yield
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as self._live:
            self._files = self._live.add_task("pictures", total=total, detail="") if total > 1 else None
            self._chain = self._live.add_task("", total=None, detail="", visible=False)
            try:
                yield
            finally:
                self._live.stop()
                self._live = None

    def start(self, number: int, total: int, name: str) -> None:
        """Input `number` of `total` begins."""
        self._prefix = f"[{number}/{total}] {name}" if total > 1 else name
        self._spoke = time.monotonic()
        if self._live is not None:
            self._live.reset(self._chain, description=name[-40:], total=None, detail="", visible=True)

    def track(self, steps: Iterator, total: int, label: str = "") -> Iterator:
        """Pass sampler steps through, showing iteration, sigma and denoiser calls."""
        begun = time.monotonic()
        if self._live is not None:
            self._live.reset(self._chain, total=total, detail="", visible=True)
        for step in steps:
            detail = f"{label}sigma {step.sigma:.4f}  NFE {step.nfe}"
            if self._live is not None:
                self._live.update(self._chain, completed=step.iteration, detail=detail)
            elif self.mode == "plain" and time.monotonic() - self._spoke >= PLAIN_SECONDS:
                self._spoke = time.monotonic()
                left = (self._spoke - begun) * (total - step.iteration) / step.iteration
                clock = time.strftime("%H:%M:%S", time.gmtime(left))
                self._err(f"{self._prefix}  iteration {step.iteration}/{total}  {detail}  left {clock}")
            yield step

    def finished(self, text: str) -> None:
        """The current input is done; a line in plain mode."""
        if self.mode == "plain":
            self._err(f"{self._prefix}  {text}")
        elif self._live is not None and self._files is not None:
            self._live.advance(self._files)


def finite(record: Any) -> Any:
    """`record` with null where a number is infinite or NaN (the PSNR of identical pictures): JSON has neither."""
    if isinstance(record, dict):
        return {key: finite(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [finite(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record
