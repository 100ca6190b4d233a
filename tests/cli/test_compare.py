"""`gpnp compare`, and every sampler in the restoring commands."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CPU = ("--threads", "1", "--device", "cpu", "--denoiser", "gaussian:0.5,0.15")
METHODS = {"gpnp": 21, "langevin": 21, "annealed-langevin": 21, "dps": 20, "diffpir": 20, "split-gibbs": 101}


def records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_inpaint_takes_every_sampler(gpnp, pic, method):
    flags = ("--mask", "rect:8,8@4,4", "--simulate", "--iterations", "20", "-n", "2", "--json")
    code, out, err = gpnp("inpaint", "pic.png", *flags, *CPU, "--sampler", method)
    assert code == 0, err
    told = records(out)[0]
    assert told["nfe"] == METHODS[method]
    config = json.loads(Path("gpnp_out/pic.inpaint.gpnp.json").read_text())["config"]
    assert config["sampler"]["method"] == method
    first = np.asarray(Image.open("gpnp_out/pic.inpaint.sample-01.png"), int)
    known = np.ones((24, 32), bool)
    known[4:12, 4:12] = False
    if method != "dps":  # which follows the data, and never sets them
        assert np.array_equal(first[known], pic[known])
    second = np.asarray(Image.open("gpnp_out/pic.inpaint.sample-02.png"), int)
    assert np.abs(first - second)[~known].mean() > 5
    assert (first[~known] != pic[~known]).any()


@pytest.mark.parametrize("method", ["annealed-langevin", "diffpir", "split-gibbs", "dps"])
@pytest.mark.parametrize("command", ["deblur", "super-resolve"])
def test_the_other_commands_take_them_too(gpnp, pic, command, method):
    flags = ("--kernel", "gaussian:1", "--noise", "0.02", "--simulate", "--iterations", "30", "-n", "2", "--json")
    code, out, err = gpnp(command, "pic.png", *flags, *CPU, "--method", method)
    assert code == 0, err
    scores = records(out)[0]["metrics"]
    assert {"mean", "sample-01", "sample-02"} <= set(scores)
    assert scores["mean"]["psnr"] > 14


def test_samplers_that_end_denoised_say_so(gpnp, pic):
    flags = ("--mask", "rect:8,8@4,4", "--dry-run", "--set", "sampler.final=denoise")
    code, out, _ = gpnp("inpaint", "pic.png", *flags, "--sampler", "diffpir")
    assert code == 0
    assert "final: state" in out and "# method diffpir" in out


def test_compare_by_a_mask(gpnp, pic):
    names = "gpnp,gpnp:published,split-gibbs,annealed-langevin,langevin,diffpir,dps,pnp"
    flags = ("--mask", "rect:8,8@4,4", "--samplers", names, "--nfe", "26", "-n", "2")
    code, out, err = gpnp("compare", "pic.png", *flags, *CPU)
    assert (code, out) == (0, "gpnp_out/pic.compare.sheet.png\n"), err
    assert set(os.listdir("gpnp_out")) == {f"pic.compare.{end}" for end in ("sheet.png", "md", "gpnp.json")}
    told = json.loads(Path("gpnp_out/pic.compare.gpnp.json").read_text())
    rows = {row["sampler"]: row for row in told["rows"]}
    assert list(rows) == names.split(",")
    for name, row in rows.items():
        assert row["nfe"] == 26, name
        assert len(row["psnr_samples"]) == (0 if name == "pnp" else 2)
        assert row["psnr_mean"] > 10 and row["seconds"] > 0 and row["lpips_sample"] is None
    assert rows["gpnp"]["psnr_mean"] > np.mean(rows["gpnp"]["psnr_samples"])
    table = [line for line in err.splitlines() if " | " in line]
    assert len(table) == len(rows) + 1 and "PSNR mean" in table[0]
    assert f"{rows['diffpir']['psnr_mean']:.2f}" in next(line for line in table if line.startswith("diffpir"))
    assert Path("gpnp_out/pic.compare.md").read_text().count("\n| ") == len(rows) + 2


def test_compare_is_the_command_itself(gpnp, pic):
    """A row is what `gpnp deblur --simulate` measures with the same settings."""
    damage = ("--kernel", "gaussian:1", "--noise", "0.02")
    code, out, _ = gpnp(
        "compare", "pic.png", *damage, "--samplers", "diffpir", "--nfe", "12", "-n", "2", *CPU, "--json"
    )
    assert code == 0
    row = records(out)[0]
    same = ("--sampler", "diffpir", "--iterations", "12", "-n", "2", "--simulate", "--json", "-o", "own")
    told = records(gpnp("deblur", "pic.png", *damage, *same, *CPU).out)[0]
    assert row["psnr_mean"] == told["psnr"] and row["nfe"] == told["nfe"]
    assert row["residual"] == pytest.approx(np.mean(told["residual"]))


def test_one_sampler_that_fails_does_not_stop_the_others(gpnp, pic, monkeypatch):
    from gpnp_cli.denoisers.exact import GaussianPixels

    call = GaussianPixels.__call__
    monkeypatch.setattr(GaussianPixels, "__call__", lambda self, v, sigma: call(self, v, sigma).detach())
    flags = ("--mask", "rect:8,8@4,4", "--samplers", "dps,diffpir", "--nfe", "10", "-n", "2")
    code, out, err = gpnp("compare", "pic.png", *flags, *CPU)
    assert code == 1 and out == "gpnp_out/pic.compare.sheet.png\n"
    assert "error: dps: dps follows the gradient" in err


def test_one_picture_at_a_time(gpnp, pic, draw):
    draw("other.png")
    outcome = gpnp("compare", "pic.png", "other.png", "--mask", "rect")
    assert outcome.code == 2 and "one intact picture" in outcome.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--mask or --kernel"]),
        (["--mask", "rect", "--kernel", "disk:1"], ["one of them"]),
        (["--mask", "rect", "--samplers", "gpnp,diffpr"], ["diffpir"]),
        (["--mask", "rect", "--nfe", "2"], ["nfe", "10"]),
        (["--mask", "rect", "--seed", "random"], ["same seed"]),
        (["--mask", "rect", "-o", "x.png"], ["several files"]),
    ],
    ids=lambda value: " ".join(value) or "none",
)
def test_what_cannot_be_compared_is_said(gpnp, pic, flags, words):
    outcome = gpnp("compare", "pic.png", *flags)
    assert (outcome.code, outcome.out) == (2, "")
    for word in words:
        assert word in outcome.err
