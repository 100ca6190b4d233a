"""`gpnp denoisers`: what is listed, and what a check measures."""

import json
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpnp_cli.cli import denoiser_checks, denoisers
from gpnp_cli.cli.denoiser_checks import seconds
from gpnp_cli.cli.denoisers import shipped
from gpnp_cli.denoisers import header
from gpnp_cli.denoisers.catalogue import PRIORS
from gpnp_cli.denoisers.unet import Preconditioned, UNet
from gpnp_cli.registry import DENOISERS
from gpnp_cli.training.averages import PowerAverages, exponent, fit, of_width, write_snapshot
from gpnp_cli.training.checkpoint import load_denoiser, save_denoiser

QUICK = ("--threads", "1", "--device", "cpu")


def listed(outcome) -> dict[str, dict]:
    assert outcome.code == 0, outcome.err
    return {entry["name"]: entry for entry in map(json.loads, outcome.out.splitlines())}


@pytest.fixture
def network(alone) -> Path:
    """A denoiser file with a small random network."""
    torch.manual_seed(0)
    model = Preconditioned(UNet(3, (8, 8), (1, 1), 8))
    torch.nn.init.normal_(model.net.tail.weight, std=0.1)
    path = alone / "mine.safetensors"
    architecture = {
        "name": "unet",
        "channels": 3,
        "widths": [8, 8],
        "blocks": [1, 1],
        "embedding": 8,
        "sigma_data": 0.25,
    }
    save_denoiser(path, model, {"architecture": architecture, "sigma_range": [0.002, 0.4], "both": True})
    return path


# ------------------------------------------------------------------------------------------------ the list


def test_every_registered_denoiser_is_listed_and_known(gpnp):
    found = listed(gpnp("denoisers", "--json"))
    assert list(found) == list(DENOISERS)
    assert set(PRIORS) == set(DENOISERS)
    for name, entry in found.items():
        assert entry["licence"] == PRIORS[name].licence
        assert "seconds" not in entry
    assert found["gaussian"]["status"] == "ready"
    assert (found["gaussian"]["sigma_min"], found["gaussian"]["sigma_max"]) == (0, None)  # JSON has no infinity
    assert found["drunet"]["megabytes"] == 130.6
    assert found["drunet"]["status"].startswith("needs weights: drunet:FILE")


def test_the_table_says_the_same(gpnp):
    code, out, _ = gpnp("denoisers")
    assert code == 0
    head, *lines = out.splitlines()
    assert head.split() == ["name", "sigma", "MB", "carried", "status", "licence"]
    assert [line.split()[0] for line in lines] == list(DENOISERS)
    drunet = next(line for line in lines if line.startswith("drunet"))
    for text in ("0 to 0.1961", "130.6", "needs weights: ", PRIORS["drunet"].licence):
        assert text in drunet
    assert lines[0].index("MIT") == head.index("licence") == drunet.index("code MIT")


def test_what_a_prior_carries_is_listed(gpnp):
    found = listed(gpnp("denoisers", "--json"))
    assert found["digits"]["carried"] == {"sigma_max": 1, "r": "auto"}
    assert found["default"]["carried"] == found["gaussian"]["carried"] == {}
    line = next(line for line in gpnp("denoisers").out.splitlines() if line.startswith("digits"))
    assert "sigma_max 1, r auto  ready" in line


def test_a_missing_package_comes_with_its_remedy(gpnp, monkeypatch):
    monkeypatch.setitem(PRIORS, "bm3d", PRIORS["bm3d"]._replace(package="no_such_package"))
    monkeypatch.setitem(PRIORS, "ddpm", PRIORS["ddpm"]._replace(package="no_such_package"))
    found = listed(gpnp("denoisers", "--json"))
    assert found["bm3d"]["status"] == "missing package: pip install no_such_package"
    assert found["ddpm"]["status"] == 'missing package: pip install "gpnp[ddpm]"'


def test_a_denoiser_that_the_catalogue_does_not_know_is_listed(gpnp, monkeypatch):
    monkeypatch.setitem(DENOISERS, "mine", "nowhere:Mine")
    line = next(line for line in gpnp("denoisers").out.splitlines() if line.startswith("mine"))
    assert line.split() == ["mine", "?", "?", "-", "ready", "unknown"]


def test_the_weights_own_words_are_read_without_their_tensors(network, alone):
    assert shipped(network) == ((0.002, 0.4), network.stat().st_size / 1e6, "ready")
    assert shipped(alone / "absent.safetensors") == (None, None, "weights missing")
    cut = alone / "cut.safetensors"
    cut.write_bytes(network.read_bytes()[:100])
    assert shipped(cut) == (None, 1e-4, "weights damaged")
    other = alone / "other.safetensors"
    other.write_bytes(b"\x02" + bytes(7) + b"{}")  # a safetensors file, but not one of ours
    assert shipped(other) == (None, 1e-5, "weights damaged")


def test_the_shipped_network_is_shown_by_its_file(gpnp, network, monkeypatch):
    (network.parent / "weights").mkdir()
    network.rename(network.parent / "weights" / "default.safetensors")
    monkeypatch.setattr(header, "WEIGHTS", network.parent / "weights")
    entry = listed(gpnp("denoisers", "--json"))["default"]
    assert (entry["sigma_min"], entry["sigma_max"], entry["status"]) == (0.002, 0.4, "ready")
    assert 0 < entry["megabytes"] < 0.1


def test_speed_measures_what_is_ready_only(gpnp, monkeypatch):
    monkeypatch.setitem(PRIORS, "bm3d", PRIORS["bm3d"]._replace(package="no_such_package"))  # it takes seconds
    monkeypatch.setattr(denoisers, "shipped", lambda path: (None, None, "weights missing"))
    found = listed(gpnp("denoisers", "--speed", "--json", *QUICK))
    assert {name for name, entry in found.items() if entry["seconds"] is not None} == {"gaussian"}
    assert 0 < found["gaussian"]["seconds"] < 5
    out = gpnp("denoisers", "--speed", *QUICK).out.splitlines()
    assert out[0].split() == ["name", "sigma", "MB", "s/picture", "carried", "status", "licence"]
    assert next(line for line in out if line.startswith("drunet")).split()[5] == "-"


def test_speed_is_the_time_of_a_colour_picture():
    shapes = []

    def slow(v, sigma):
        shapes.append(tuple(v.shape))
        time.sleep(0.5 if len(shapes) == 1 else 0.02)  # the first call sets up
        return v

    assert 0.02 <= seconds(slow, torch.device("cpu")) < 0.4
    assert set(shapes) == {(1, 3, 256, 256)}


def test_listing_imports_nothing_heavy(spawn):
    code = (
        "import atexit, sys; from gpnp_cli.__main__ import main\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'bm3d' in sys.modules))\n"
        "main()"
    )
    out, err = spawn("denoisers", python=("-c", code)).communicate(timeout=60)
    assert out.splitlines()[-1] == b"False False", err


# ------------------------------------------------------------------------------------------------ the check


def test_a_check_of_the_gaussian_denoiser_is_the_closed_form(gpnp, alone):
    """On a flat picture of level m the output is 1/2 + a (m + sigma n - 1/2): bias and PSNR follow."""
    os.mkdir("flat")
    for name in ("a", "b"):
        Image.new("L", (64, 64), 153).save(f"flat/{name}.png")  # 0.6
    code, out, err = gpnp("denoisers", "check", "gaussian", "flat", "--sigma", "0.1,51/255", "--json", *QUICK)
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["sigma"] for row in rows] == pytest.approx([0.1, 0.2])
    for row in rows:
        a = 0.0625 / (0.0625 + row["sigma"] ** 2)
        bias = (a - 1) * 0.1
        assert row["bias"] == pytest.approx(bias, abs=4 * a * row["sigma"] / math.sqrt(2 * 64 * 64))
        assert row["psnr"] == pytest.approx(-10 * math.log10(bias**2 + (a * row["sigma"]) ** 2), abs=0.3)
        assert row["asymmetry"] == pytest.approx(0, abs=1e-6)
        assert (row["denoiser"], row["pictures"]) == ("gaussian", 2)


def test_the_default_levels_and_the_table(gpnp, draw):
    draw("pic.png")
    code, out, err = gpnp("denoisers", "check", "gaussian", "pic.png", *QUICK)
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split() == ["sigma", "sigma*255", "PSNR/dB", "bias", "asymmetry"]
    assert [float(row.split()[1]) for row in rows] == [15, 25, 50, 127.5]
    assert "fp32" in err
    assert gpnp("denoisers", "check", "gaussian", "pic.png", "-q", *QUICK).err == ""


@pytest.mark.parametrize("channels", [1, 3])
def test_a_networks_file_is_checked(gpnp, network, draw, channels):
    draw("pic.png", channels=channels)
    code, out, err = gpnp(
        "denoisers", "check", network, "pic.png", "--sigma", "0.1", "--sigma", "0.5", "--json", *QUICK
    )
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["denoiser"] for row in rows] == ["mine.safetensors"] * 2
    assert all(0 < row["asymmetry"] < 2 for row in rows)  # a random network is no gradient field
    assert err.count("gpnp: warning: ") == 1
    assert "0.002 to 0.4" in err


def test_a_denoiser_without_a_jacobian_has_no_asymmetry(gpnp, draw, monkeypatch):
    from gpnp_cli.denoisers.exact import GaussianPixels

    monkeypatch.setattr(GaussianPixels, "differentiable", False, raising=False)
    monkeypatch.delattr(GaussianPixels, "receptive_field")  # as BM3D, which is never tiled
    draw("pic.png")
    out = gpnp("denoisers", "check", "gaussian", "pic.png", "--sigma", "0.1", *QUICK).out
    assert out.splitlines()[1].split()[4] == "-"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", "gaussian"], 2, ("at least one clean picture", "gpnp denoisers check gaussian")),
        (["check", "gaussian", "pic.png", "--sigma", "auto"], 2, ("auto",)),
        (["check", "gaussian", "pic.png", "--sigma", "0.1,25"], 2, ("sigma", "given 25;")),
        (["check", "gausian", "pic.png"], 2, ("did you mean 'gaussian'?",)),
        (["check", "absent.safetensors", "pic.png"], 3, ("absent.safetensors",)),
        (["check", "gaussian", "absent.png"], 1, ("absent.png",)),
        (["check", "gaussian", "pic.png", "grey.png"], 2, ("pic.png is colour", "grey.png is grey")),
        (["--json", "check", "gaussian", "pic.png"], 2, ("before 'check'",)),
        (["--device", "tpu"], 2, ("run.device", "'tpu'")),
    ],
)
def test_what_cannot_be_checked_is_said_in_one_sentence(gpnp, draw, arguments, code, words):
    draw("pic.png")
    draw("grey.png", channels=1)
    outcome = gpnp("denoisers", *arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert outcome.err.count("gpnp: error: ") == 1
    assert all(word in outcome.err for word in words), outcome.err


def test_a_slow_denoiser_is_timed_once(monkeypatch):
    clock = iter([0.0, 7.0])
    monkeypatch.setattr(denoiser_checks.time, "perf_counter", lambda: next(clock))
    assert seconds(lambda v, sigma: v, torch.device("cpu")) == 7.0


# --------------------------------------------------------------------------------------------- another average


@pytest.fixture
def run(network, alone) -> dict[float, dict[str, torch.Tensor]]:
    """A folder `run` as a training of 60 steps leaves it; the averages of some widths as tracked directly."""
    rng = torch.Generator().manual_seed(0)
    model = load_denoiser(network).model
    averages, wanted = (PowerAverages(model, widths) for widths in ((0.05, 0.1), (0.05, 0.075)))
    for step in range(1, 61):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=rng) / 20
        averages.update(model, step)
        wanted.update(model, step)
        if step % 4 == 0:
            write_snapshot(alone / "run" / "ema", averages, step, 8 * step)
    known = {**load_denoiser(network).metadata, "steps": 62, "images": 496, "psnr": {"15": 30.0}, "channels": 3}
    save_denoiser(alone / "run" / "denoiser.safetensors", model, known)
    return {width: of_width(wanted.state_dict(), width) for width in (0.05, 0.075)}


def test_an_average_is_a_denoiser_with_the_weights_of_that_width(gpnp, run):
    outcome = gpnp("denoisers", "average", "run", "--width", "0.075")
    assert (outcome.code, outcome.out) == (0, "run/denoiser-0.075.safetensors\n"), outcome.err
    steps = [4.0 * (1 + i) for i in range(15)] * 2
    expected = fit(np.repeat([exponent(0.05), exponent(0.1)], 15), np.array(steps), exponent(0.075), 60)[1]
    said = f"width 0.075 after step 60, from 15 snapshots of 0.05 and 0.1; residual of the fit {100 * expected:.2g} %"
    assert said in outcome.err and "warning" not in outcome.err
    made = load_denoiser("run/denoiser-0.075.safetensors")
    for key, value in made.model.state_dict().items():
        assert (value - run[0.075][key]).norm() < 0.1 * (run[0.05][key] - run[0.075][key]).norm() + 1e-3 * value.norm()
    facts = made.metadata
    assert (facts["steps"], facts["images"], facts["channels"], facts["sigma_range"]) == (60, 480, 3, [0.002, 0.4])
    assert "psnr" not in facts  # that was measured with other weights
    assert facts["average"] == {"width": 0.075, "tracked": [0.05, 0.1], "snapshots": 15, "residual": expected}
    assert gpnp("denoisers", "average", "run", "--width", "0.05", "-o", "same.safetensors", "-q").err == ""
    for key, value in load_denoiser("same.safetensors").model.state_dict().items():
        assert torch.allclose(value, run[0.05][key].half().float(), rtol=2e-3, atol=1e-6)


def test_an_average_as_json_and_a_poor_fit(gpnp, run, alone):
    outcome = gpnp("denoisers", "average", "run", "--width", "0.02", "-o", "a.safetensors", "--json")
    record = json.loads(outcome.out)
    assert record["outputs"] == {"denoiser": "a.safetensors"} and record["status"] == "done"
    assert (record["width"], record["steps"], record["snapshots"]) == (0.02, 60, 15)
    assert record["residual"] > 0.05 and "warning: the fit is poor" in outcome.err
    again = gpnp("denoisers", "average", "run", "--width", "0.1", "-o", "a.safetensors")
    assert again.code == 2 and "a.safetensors: exists already" in again.err
    assert gpnp("denoisers", "average", "run", "--width", "0.1", "-o", "a.safetensors", "-f").code == 0
    assert load_denoiser("a.safetensors").metadata["average"]["width"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--width", "0.3"], 2, ("width 0.3", "up to 0.28")),
        (["run", "--width", "0"], 2, ("width 0",)),
        (["absent", "--width", "0.1"], 3, ("absent: no such folder",)),
        (["empty", "--width", "0.1"], 3, ("ema: no snapshots", "plan.ema_profiles")),
        (["other", "--width", "0.1"], 1, ("ema: the weights do not fit", "another run")),
        (["headless", "--width", "0.1"], 3, ("denoiser.safetensors: no such file",)),
    ],
)
def test_what_cannot_be_averaged_is_said_in_one_sentence(gpnp, run, alone, arguments, code, words):
    (alone / "empty").mkdir()
    for name in ("other", "headless"):
        shutil.copytree("run", name)
    os.remove("headless/denoiser.safetensors")
    shutil.rmtree("other/ema")
    write_snapshot(alone / "other" / "ema", PowerAverages(torch.nn.Linear(1, 1), [0.1]), 1, 1)
    outcome = gpnp("denoisers", "average", *arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert outcome.err.count("gpnp: error: ") == 1
    assert all(word in outcome.err for word in words), outcome.err


def test_help_of_an_average_imports_nothing_heavy(spawn):
    code = (
        "import sys; from gpnp_cli.cli.app import app; app(['denoisers', 'average', '--help'], standalone_mode=False)"
    )
    out, err = spawn(python=("-c", f"{code}; print('torch' in sys.modules)")).communicate()
    assert "--width" in out.decode() and out.decode().endswith("False\n"), err
