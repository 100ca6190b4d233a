"""`gpnp super-resolve` on small pictures: sizes, files, what is measured, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FAST = ("--denoiser", "gaussian", "--iterations", "3", "--threads", "1", "--device", "cpu")
MEAN = ("--save", "mean", "-n", "1")


@pytest.fixture
def enlarge(gpnp):
    return lambda *arguments: gpnp("super-resolve", *FAST, *arguments)


def manifest(path="gpnp_out/pic.super-resolve.gpnp.json") -> dict:
    return json.loads(Path(path).read_text("utf-8"))


@pytest.mark.parametrize(("scale", "size"), [("2", (64, 48)), ("3", (96, 72)), ("4", (128, 96))])
def test_results_are_larger(enlarge, pic, scale, size):
    code, out, _ = enlarge("pic.png", "--scale", scale, "-n", "2")
    assert (code, out) == (0, "gpnp_out/pic.super-resolve.png\n")
    others = {"std.png", "sheet.png", "gpnp.json"}
    pictures = {f"pic.super-resolve{kind}.png" for kind in ("", ".sample-01", ".sample-02")}
    assert set(os.listdir("gpnp_out")) == pictures | {f"pic.super-resolve.{kind}" for kind in others}
    for name in pictures:
        assert (Image.open(f"gpnp_out/{name}").mode, Image.open(f"gpnp_out/{name}").size) == ("RGB", size)
    told = manifest()
    assert (told["config"]["scale"], told["nfe"], told["sigma_y"]) == (int(scale), 4, 0.004)
    assert told["residual_ratio"] == pytest.approx(np.mean(told["residual"]) / 0.004)


@pytest.mark.parametrize("method", ["gpnp", "pnp"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_picture_shrunk_by_pillow_comes_back(enlarge, draw, alone, scale, method):
    """The data say where everything is: half a pixel's shift, or a wrong filter, would be seen."""
    truth = 64 + draw(height=24 * scale, width=32 * scale, channels=1) // 2
    Image.fromarray(truth).save("truth.png")
    shrunk = Image.open("truth.png").resize((32, 24), Image.Resampling.BICUBIC)
    shrunk.save("pic.png")
    flags = ("--scale", str(scale), "--reference", "truth.png", "--iterations", "12", "--method", method, "-n", "8")
    code, _, err = enlarge("pic.png", *flags, "--denoiser", "gaussian:0.5,0.1", "--save", "mean")
    assert code == 0, err
    result = np.asarray(Image.open("gpnp_out/pic.super-resolve.png"), float)
    told, best = manifest()["metrics"], {"gpnp": "mean", "pnp": "estimate"}[method]
    assert {"interpolated", best} <= set(told)
    assert told[best]["psnr"] == pytest.approx(20 * np.log10(255 / np.sqrt(np.mean((result - truth) ** 2))), abs=0.2)
    again = np.asarray(Image.fromarray(result.astype(np.uint8)).resize((32, 24), Image.Resampling.BICUBIC), float)
    inner = slice(3, -3)
    assert np.abs(again - np.asarray(shrunk, float))[inner, inner].max() < 4


def test_simulate_shrinks_first(enlarge, draw, alone):
    pixels = draw("pic.png", height=60, width=75)
    code, _, err = enlarge("pic.png", "--scale", "2", "--simulate", "--noise", "1/255", "--method", "pnp")
    assert code == 0, err
    assert "pic.png: shrunk without its borders to 34x26 pixels; 68x52 are restored and measured" in err
    kinds = {"png", "damaged.png", "sheet.png", "gpnp.json"}
    assert set(os.listdir("gpnp_out")) == {f"pic.super-resolve.{kind}" for kind in kinds}
    damaged = np.asarray(Image.open("gpnp_out/pic.super-resolve.damaged.png"), float)
    assert damaged.shape == (26, 34, 3)
    assert Image.open("gpnp_out/pic.super-resolve.png").size == (68, 52)
    # the frame begins 3 pixels into the picture; Pillow shrinks 76x60 pixels that begin there
    expected = np.asarray(Image.fromarray(pixels[3:55, 3:71]).resize((34, 26), Image.Resampling.BICUBIC), float)
    assert np.abs(damaged - expected)[2:-2, 2:-2].std() == pytest.approx(1, rel=0.5)
    assert set(manifest()["metrics"]) == {"interpolated", "estimate"}
    assert manifest()["psnr"] == manifest()["metrics"]["estimate"]["psnr"]


def test_transparency_is_enlarged_along(enlarge, draw, alone):
    alpha = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None], 24, 0)
    Image.fromarray(np.dstack([draw(), alpha])).save("pic.png")
    assert enlarge("pic.png", *MEAN).code == 0
    large = np.asarray(Image.open("gpnp_out/pic.super-resolve.png"))
    assert large.shape == (48, 64, 4)
    assert np.abs(large[::2, ::2, 3].astype(int) - alpha).max() <= 6
    assert enlarge("pic.png", *MEAN, "--simulate", "-o", "b").code == 0
    assert Image.open("b/pic.super-resolve.png").mode == "RGBA"
    assert Image.open("b/pic.super-resolve.damaged.png").mode == "RGB"


def test_ink_and_one_pixel(enlarge, alone):
    Image.new("CMYK", (5, 4), (200, 10, 30, 40)).save("ink.tif")
    assert enlarge("ink.tif", *MEAN).code == 0
    Image.new("L", (1, 1), 90).save("dot.png")
    assert enlarge("dot.png", "--scale", "4", *MEAN).code == 0
    assert Image.open("gpnp_out/dot.super-resolve.png").size == (4, 4)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--scale", "5"], 2, ["scale", "2, 3, 4"]),
        (["--kernel", "gone.png"], 2, ["gone.png", "neither"]),
        (["--simulate", "--noise", "auto"], 2, ["--simulate", "noise"]),
        (["--simulate", "--reference", "pic.png"], 2, ["--reference"]),
        (["--reference", "pic.png"], 1, ["reference is 32x24", "64x48"]),
        (["--kernel", "disk:40"], 1, ["kernel (81x81)", "larger than the picture (64x48)"]),
        (["--simulate", "--kernel", "disk:40"], 1, ["too few to be shrunk"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_said(enlarge, pic, flags, code, words):
    outcome = enlarge("pic.png", *flags, *MEAN)
    assert (outcome.code, outcome.out) == (code, "")
    errors = [line for line in outcome.err.splitlines() if "error: " in line]
    assert len(errors) == 1
    for word in words:
        assert word in errors[0]


def test_a_manifest_as_config_repeats_the_run(enlarge, gpnp, pic):
    assert enlarge("pic.png", "-s", "3", "-k", "gaussian:1.2", "--seed", "3", "-n", "2").code == 0
    assert gpnp("super-resolve", "pic.png", "-c", "gpnp_out/pic.super-resolve.gpnp.json", "-o", "again").code == 0
    for name in os.listdir("again"):
        if not name.endswith(".json"):
            assert Path(f"again/{name}").read_bytes() == Path(f"gpnp_out/{name}").read_bytes(), name


def test_a_dry_run_writes_nothing(enlarge, pic):
    code, out, _ = enlarge("pic.png", "--dry-run", "--method", "pnp")
    assert code == 0
    assert "kernel: bicubic" in out and "method: pnp" in out
    assert os.listdir(".") == ["pic.png"]


def test_a_circular_border_restores_the_whole_picture(gpnp, draw):
    draw("pic.png")
    flags = ("--simulate", "--border", "circular", "--denoiser", "gaussian", "--iterations", "3", "--save", "mean")
    code, _, err = gpnp("super-resolve", "pic.png", *flags, "-n", "1", "--threads", "1", "--device", "cpu")
    assert code == 0, err
    assert "without its borders" not in err
    assert Image.open("gpnp_out/pic.super-resolve.png").size == Image.open("pic.png").size
