"""Imports point one way, and a quick answer needs no heavy package."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "scipy", "bm3d", "cv2", "tifffile")

PROBE = """
import atexit, os, sys

@atexit.register
def tell():
    loaded = sorted({name.partition(".")[0] for name in sys.modules} | set(sys.modules))
    os.write(3, "\\n".join(loaded).encode())

"""


def loaded_by(code: str, tmp_path, *arguments: str) -> set[str]:
    """The modules that a new Python has loaded at its end, after `code`."""
    path = tmp_path / "modules"
    with open(path, "wb") as file:
        move = f"import os; os.dup2({file.fileno()}, 3, inheritable=True)\n"
        subprocess.run(
            [sys.executable, "-c", move + PROBE + code, *arguments],
            pass_fds=[file.fileno()],
            capture_output=True,
            check=False,
            timeout=120,
        )
    return set(path.read_text().split())


MAIN = "from gpnp_cli.__main__ import main\nmain()\n"


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are inherited otherwise there")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["inpaint", "--help"],
        ["config", "show", "inpaint"],
        ["inpaint", "x.png", "--beta", "2"],
        ["deblur", "--help"],
        ["blind-deblur", "--help"],
        ["deblur", "x.png", "--noise", "2"],
        ["super-resolve", "--help"],
        ["sample", "--help"],
        ["sample", "--temperature", "0"],
        ["compare", "--help"],
        ["diagnose", "--help"],
        ["inpaint", "x.png", "-c", "absent.yaml"],
    ],
    ids=" ".join,
)
def test_quick_answers_load_nothing_heavy(alone, tmp_path, arguments):
    loaded = loaded_by(MAIN, tmp_path, *arguments)
    assert "gpnp_cli.cli.root" in loaded
    assert len(arguments) > 1 or "pydantic" not in loaded  # the list of commands needs no configuration
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def forbidden(kind: str) -> set[str]:
    outer = {"typer", "rich", "pydantic", "gpnp_cli.cli", "gpnp_cli.config", "gpnp_cli.build", "gpnp_cli.imageio"}
    return {
        "core": outer | {"PIL", "tifffile", "cv2"},
        "config": {"torch", "numpy", "typer", "rich", "gpnp_cli.cli", "gpnp_cli.build"},
        "files": {"torch", "typer", "rich", "pydantic", "gpnp_cli.cli", "gpnp_cli.config", "gpnp_cli.build"},
        "nothing": {"torch", "numpy", "typer", "rich", "pydantic", "yaml"},
    }[kind]


CORE = """
import importlib, pkgutil
import gpnp_cli.denoisers, gpnp_cli.forward, gpnp_cli.samplers, gpnp_cli.training
for package in (gpnp_cli.denoisers, gpnp_cli.forward, gpnp_cli.samplers, gpnp_cli.training):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are inherited otherwise there")
@pytest.mark.parametrize(
    ("kind", "code", "loads"),
    [
        ("core", CORE, "gpnp_cli.training.loop"),
        ("config", "import gpnp_cli.config", "gpnp_cli.config"),
        (
            "files",
            "import gpnp_cli.imageio, gpnp_cli.inputs, gpnp_cli.kernels, gpnp_cli.masks, gpnp_cli.metrics, gpnp_cli.alignment, gpnp_cli.kernel_figures",
            "gpnp_cli.imageio",
        ),
        (
            "nothing",
            "import gpnp_cli, gpnp_cli.errors, gpnp_cli.registry, gpnp_cli.denoisers.catalogue",
            "gpnp_cli.registry",
        ),
    ],
)
def test_imports_point_one_way(alone, tmp_path, kind, code, loads):
    loaded = loaded_by(code, tmp_path)
    assert loads in loaded
    assert loaded.isdisjoint(forbidden(kind)), loaded & forbidden(kind)


def test_the_probe_notices(alone, tmp_path):
    assert "numpy" in loaded_by("import numpy", tmp_path)


def test_the_quick_help_shows_what_the_commands_say():
    from typer.testing import CliRunner

    from gpnp_cli.cli.app import app
    from gpnp_cli.cli.root import outline

    quick, full = (CliRunner().invoke(each, ["--help"]).stdout for each in (outline(), app))
    assert quick == full
    assert "train-denoiser" in quick
