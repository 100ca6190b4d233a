"""`gpnp diagnose` on runs that the other commands saved."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CPU = ("--threads", "1", "--device", "cpu")


@pytest.fixture
def found(gpnp):
    """`found(manifest, *flags)`: the record of a diagnosis that succeeded, and what was told."""

    def found(path, *flags) -> tuple[dict, str]:
        code, out, err = gpnp("diagnose", path, "--json", *flags)
        assert code == 0, err
        return json.loads(out), err

    return found


def test_traces_of_a_markov_chain(gpnp, found):
    run = ("--sampler", "metropolis", "--energy", "ising", "--temperature", "4", "--size", "8x8", "--iterations", "400")
    assert gpnp("sample", *run, *CPU).code == 0
    told, err = found("gpnp_out/metropolis.sample.gpnp.json")
    manifest = json.loads(Path("gpnp_out/metropolis.sample.gpnp.json").read_text())
    assert told["energy"] == pytest.approx(manifest["energy"])
    assert told["energy"]["rhat"] < 1.05 and told["energy"]["effective_samples"] > 50
    assert "effective sample size" in err
    picture = np.asarray(Image.open("gpnp_out/metropolis.sample.diagnose.png"))
    assert picture.shape[1] > 500 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 8
    assert json.loads(Path("gpnp_out/metropolis.sample.diagnose.json").read_text())["energy"] == told["energy"]


def test_traces_of_a_restoration(gpnp, found, alone, draw):
    draw("pic.png")
    flags = ("--kernel", "gaussian:1", "--noise", "0.02", "-n", "3", "--iterations", "40", "--save", "samples,trace")
    assert gpnp("deblur", "pic.png", *flags, *CPU, "--denoiser", "gaussian").code == 0
    with np.load("gpnp_out/pic.deblur.trace.npz") as trace:
        assert trace["residual"].shape == (10, 3)  # of the last quarter
    told, err = found("gpnp_out/pic.deblur.gpnp.json")
    assert told["diagnostics"]["residual"]["rhat"] > 0 and "brightness" not in told
    assert "R-hat" in err and np.asarray(Image.open("gpnp_out/pic.deblur.diagnose.png")).shape[0] > 700


def test_coverage_of_a_calibrated_run(gpnp, found, alone):
    """Truth drawn from the very prior: its rank among the samples is uniform."""
    rng = np.random.default_rng(1)
    Image.fromarray(np.uint8(np.clip(0.5 + 0.1 * rng.standard_normal((64, 64)), 0, 1) * 255 + 0.5)).save("pic.png")
    flags = ("--mask", "rect:60,60@2,2", "--simulate", "-n", "9", "--preset", "calibrated", "--save", "mean,samples")
    assert gpnp("inpaint", "pic.png", *flags, *CPU, "--denoiser", "gaussian:0.5,0.1").code == 0
    told, err = found("gpnp_out/pic.inpaint.gpnp.json", "--reference", "pic.png", "-o", "elsewhere")
    assert told["pixels"] == 3600 and told["samples"] == 9
    nominal = [item["nominal"] for item in told["coverage"]]
    assert nominal == pytest.approx([0.8, 0.6, 0.4, 0.2])
    for item in told["coverage"]:
        assert item["found"] == pytest.approx(item["nominal"], abs=4 * (0.25 / 3600) ** 0.5 + 0.01)
    assert told["calibration_ratio"] == pytest.approx(1, abs=0.12)
    assert "intervals of 80 % hold" in err
    assert os.listdir("elsewhere") == ["pic.inpaint.diagnose.json"]


def test_known_pixels_do_not_count(gpnp, found, alone, draw):
    draw("pic.png")
    Image.fromarray(np.pad(np.full((6, 6), 255, np.uint8), ((4, 14), (8, 18)))).save("mask.png")
    flags = ("--mask", "mask.png", "-n", "3", "--iterations", "5", "--save", "samples")
    assert gpnp("inpaint", "pic.png", *flags, *CPU, "--denoiser", "gaussian").code == 0
    told, _ = found("gpnp_out/pic.inpaint.gpnp.json", "--reference", "pic.png")
    assert told["pixels"] == 36


def test_a_blur_that_lost_its_border(gpnp, found, alone, draw):
    draw("pic.png")
    flags = ("--kernel", "disk:2", "--noise", "0.02", "--simulate", "-n", "4", "--iterations", "10")
    assert gpnp("deblur", "pic.png", *flags, *CPU, "--denoiser", "gaussian").code == 0
    told, _ = found("gpnp_out/pic.deblur.gpnp.json", "--reference", "pic.png")
    manifest = json.loads(Path("gpnp_out/pic.deblur.gpnp.json").read_text())
    samples = [manifest["metrics"][f"sample-0{k}"]["psnr"] for k in (1, 2, 3, 4)]
    assert told["psnr"]["samples"] == pytest.approx(samples, abs=0.05)  # 8 bits
    assert told["residual_ratio"] == pytest.approx(manifest["residual_ratio"])


def test_what_is_no_run_is_said_and_the_rest_goes_on(gpnp, alone):
    assert gpnp("sample", "--denoiser", "gaussian", "--size", "8x8", "--iterations", "3", "-n", "2", *CPU).code == 0
    Path("bad.gpnp.json").write_text('{"a": 1}')
    code, out, err = gpnp("diagnose", "bad.gpnp.json", "gone.gpnp.json", "gpnp_out/diffusion.sample.gpnp.json")
    assert (code, out) == (1, "gpnp_out/diffusion.sample.diagnose.json\n")
    assert "bad.gpnp.json: is no manifest" in err and "gone.gpnp.json: cannot be read" in err
    assert gpnp("diagnose").code == 2


def test_a_reference_of_another_size_is_refused(gpnp, alone, draw):
    draw("pic.png")
    draw("other.png", height=30)
    flags = ("--mask", "rect:8,8@4,4", "-n", "2", "--iterations", "3")
    assert gpnp("inpaint", "pic.png", *flags, *CPU, "--denoiser", "gaussian").code == 0
    code, out, err = gpnp("diagnose", "gpnp_out/pic.inpaint.gpnp.json", "--reference", "other.png")
    assert (code, out) == (1, "") and "32x30" in err and "32x24" in err


def test_a_manifest_cannot_point_elsewhere(gpnp, alone, draw):
    draw("secret.png")
    manifest = {"gpnp_manifest": 1, "command": "inpaint", "outputs": {"sample-01": "../secret.png"}, "config": {}}
    Path("x").mkdir()
    Path("x/pic.gpnp.json").write_text(json.dumps(manifest))
    code, _, err = gpnp("diagnose", "x/pic.gpnp.json")
    assert code == 1 and "outside its folder" in err
