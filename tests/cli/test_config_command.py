"""`gpnp config`: what it prints, where, and with which exit code."""

import json
import os

import pytest
import typer
from typer.testing import CliRunner

from gpnp_cli import config
from gpnp_cli.cli.config_command import config_app
from gpnp_cli.config import COMMANDS, init_text, schema


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No test reads this machine's own file or variables, or writes outside its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "user_file", lambda: tmp_path / "home" / "config.yaml")
    for name in [name for name in os.environ if name.startswith("GPNP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run():
    """(exit code, stdout, message, hint): what an error says on stderr, taken apart."""

    def run(*args: str):
        result = CliRunner().invoke(config_app, list(args))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        message, _, hint = result.stderr.strip().removeprefix("gpnp: error: ").partition("\n  hint: ")
        return result.exit_code, result.stdout, message, hint

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_init_prints_the_file(run, command):
    assert run("init", command) == (0, init_text(command), "", "")


def test_init_writes_a_file_that_checks_and_shows(run, tmp_path):
    code, out, *_ = run("init", "inpaint", "-o", "a[b].yaml")
    assert (code, out) == (0, "a[b].yaml\n")
    assert (tmp_path / "a[b].yaml").read_text("utf-8") == init_text("inpaint")
    assert run("check", "a[b].yaml") == (0, "a[b].yaml: ok\n", "", "")
    code, out, *_ = run("show", "inpaint", "-c", "a[b].yaml")
    assert code == 0
    assert "# a[b].yaml:" in out


def test_init_never_overwrites_unasked(run, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("noise: 0.1\n")
    code, out, message, _ = run("init", "inpaint", "-o", "mine.yaml")
    assert code == 2
    assert out == ""
    assert message == "mine.yaml: exists already"
    assert path.read_text() == "noise: 0.1\n"
    assert run("init", "inpaint", "-o", "mine.yaml", "--force")[0] == 0
    assert path.read_text("utf-8") == init_text("inpaint")


def test_init_into_impossible_places(run, tmp_path):
    assert run("init", "inpaint", "-o", ".")[0] == 2
    code, _, message, _ = run("init", "inpaint", "-o", "absent/x.yaml")
    assert code == 3
    assert "absent" in message
    assert not (tmp_path / "absent").exists()


def test_show_names_origins(run, tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("noise: 0.1\nmask: alpha\n")
    (tmp_path / "b.yaml").write_text("noise: 0.2\n")
    monkeypatch.setenv("GPNP_RUN_SEED", "4")
    code, out, *_ = run("show", "inpaint", "-c", "a.yaml", "-c", "b.yaml", "--set", "sampler.beta=1e-3")
    assert code == 0
    rows = dict(line.split("  # ") for line in out.splitlines() if "  # " in line)
    rows = {key.strip(): origin for key, origin in rows.items()}
    assert rows["noise: 0.2"] == "b.yaml:1"
    assert rows["mask: alpha"] == "a.yaml:2"
    assert rows["seed: 4"] == "GPNP_RUN_SEED"
    assert rows["beta: 0.001"] == "--set"
    assert rows["generator: exact"] == "preset balanced"
    assert rows["mask_invert: false"] == "default"


def test_show_names_the_prior_that_brought_a_value(run):
    sets = ("--set", "model.denoiser=digits")
    code, out, *_ = run("show", "inpaint", *sets, "--set", "sampler.r=1.3")
    rows = {key.strip(): origin for key, origin in (line.split("  # ") for line in out.splitlines() if "  # " in line)}
    assert code == 0
    assert rows["sigma_max: 1.0"] == "prior digits"
    assert rows["r: 1.3"] == "--set"
    assert rows["sigma_min: 0.005"] == "preset balanced"
    assert "# prior" not in run("show", "inpaint", *sets, "--set", "sampler.preset=calibrated")[1]


def test_show_lists_all_problems(run, tmp_path):
    (tmp_path / "a.yaml").write_text("sampler:\n  beta: 7\nmaks: rect\n")
    code, out, message, _ = run("show", "inpaint", "-c", "a.yaml", "--set", "noise=2")
    assert (code, out) == (2, "")
    assert "a.yaml:2: sampler.beta" in message
    assert "a.yaml:3: maks: unknown key; did you mean mask?" in message
    assert "--set: noise" in message


@pytest.mark.parametrize("verb", ["init", "show", "schema"])
def test_an_unknown_command_gets_a_suggestion(run, verb):
    code, out, message, hint = run(verb, "inpiant")
    assert (code, out) == (2, "")
    assert "inpiant" in message
    assert hint == "did you mean 'inpaint'?"


def test_check_goes_on_after_a_bad_file(run, tmp_path):
    (tmp_path / "good.yaml").write_text("noise: 0.1\n")
    (tmp_path / "bad.yaml").write_text("noise: 2\nsampler: {bta: 1}\n")
    (tmp_path / "train.yaml").write_text("command: train-denoiser\nplan: {steps: 3}\n")
    code, out, message, _ = run("check", "bad.yaml", "absent.yaml", "good.yaml", "train.yaml")
    assert code == 2
    assert out == "good.yaml: ok\ntrain.yaml: ok\n"
    assert message.splitlines()[0] == "3 problems in the configuration:"
    assert "bad.yaml:1: noise" in message
    assert "bad.yaml:2: sampler.bta: unknown key; did you mean sampler.beta?" in message
    assert "absent.yaml: no such file" in message


def test_check_for_a_given_command(run, tmp_path):
    (tmp_path / "train.yaml").write_text("command: train-denoiser\n")
    assert run("check", "train.yaml", "--command", "train-denoiser")[:2] == (0, "train.yaml: ok\n")
    code, out, message, _ = run("check", "train.yaml", "--command", "inpaint")
    assert (code, out) == (2, "")
    assert message == "train.yaml:1: command: this file is for train-denoiser, not for inpaint"
    assert run("check", "train.yaml", "--command", "inpiant")[0] == 2


def test_check_wants_a_file(run):
    assert run("check")[0] == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_schema_is_json(run, command):
    code, out, *_ = run("schema", command)
    assert code == 0
    assert json.loads(out) == schema(command)


def test_it_fits_into_a_larger_app():
    app = typer.Typer()
    app.add_typer(config_app, name="config")
    result = CliRunner().invoke(app, ["config", "schema", "inpaint"])
    assert json.loads(result.stdout) == schema("inpaint")
