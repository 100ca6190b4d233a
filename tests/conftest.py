"""Fixtures that several files use: small pictures, and the command run in this process or as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import gpnp_cli

# Typer asks for these when it is imported; its boxes must not depend on the terminal that runs the tests.
os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"
os.environ["TERMINAL_WIDTH"] = "200"
# The tests are many small operations: threads that spin while they wait only get in each other's way.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

FAST = ("--denoiser", "gaussian", "--iterations", "3", "--threads", "1", "--device", "cpu")


class Outcome(NamedTuple):
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def unchanged_process():
    """A command sets signal handlers and threads for its process; in-process that is pytest's."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if torch:
        torch.set_num_threads(threads)


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """An empty current folder; nothing of this machine's own settings is seen, by subprocesses neither."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("PYTHONPATH", str(Path(gpnp_cli.__file__).parent.parent))
    for name in [
        name for name in os.environ if name.startswith("GPNP_") or name in ("PYTHONUNBUFFERED", "PYTHONIOENCODING")
    ]:
        monkeypatch.delenv(name)
    return work


@pytest.fixture
def gpnp(alone):
    """`gpnp(*arguments) -> Outcome`, in this process; `gpnp.inpaint` adds the quick Gaussian denoiser."""
    from typer.testing import CliRunner

    from gpnp_cli.cli.app import app

    class Gpnp:
        def __call__(self, *arguments, stdin=None) -> Outcome:
            result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert "Traceback" not in result.stderr
            return Outcome(result.exit_code, result.stdout, result.stderr)

        def inpaint(self, *arguments, stdin=None) -> Outcome:
            return self("inpaint", *FAST, *arguments, stdin=stdin)

    return Gpnp()


@pytest.fixture
def spawn(alone):
    """`spawn(*arguments, **options)` starts `python -m gpnp_cli ...` (or other `python` arguments) with pipes."""
    started = []

    def spawn(*arguments, python=("-m", "gpnp_cli"), program=sys.executable, env=None, **options) -> subprocess.Popen:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        started.append(
            subprocess.Popen([program, *python, *map(os.fspath, arguments)], env=os.environ | (env or {}), **options)
        )
        return started[-1]

    yield spawn
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def carrying(tmp_path):
    """`carrying(name="own.safetensors", **settings)`: a file that has nothing but a denoiser's header, which carries them."""

    def carrying(name: str = "own.safetensors", **settings) -> Path:
        metadata = {"format": "gpnp-denoiser", "carried": settings}
        header = json.dumps({"__metadata__": {"gpnp": json.dumps(metadata)}}).encode()
        path = tmp_path / name
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        return path

    return carrying


@pytest.fixture
def draw():
    """`draw(path, height=24, width=32, channels=3, dtype=uint8)`: smooth pixels, saved to `path` and returned.

    `path` None only returns them, `(H, W)` or `(H, W, C)`.
    """

    def draw(path=None, height=24, width=32, channels=3, dtype=np.uint8, phase=0.0, **options) -> np.ndarray:
        y, x = np.mgrid[0:height, 0:width]
        planes = [np.sin(x / 5 + i + phase) + np.cos(y / 4 - i) for i in range(channels)]
        pixels = np.rint((np.stack(planes, 2) + 2) / 4 * np.iinfo(dtype).max).astype(dtype)
        pixels = pixels[:, :, 0] if channels == 1 else pixels
        if path is not None:
            Image.fromarray(pixels).save(path, **options)
        return pixels

    return draw


@pytest.fixture
def pic(alone, draw) -> np.ndarray:
    """pic.png in an empty current folder, and its pixels."""
    return draw("pic.png")
