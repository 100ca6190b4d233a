"""`gpnp denoise`: the right pixels at the right level, measured, and what is refused."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpnp_cli.imageio import read_picture
from gpnp_cli.noise import estimate_sigma

PLAIN = ("--denoiser", "gaussian", "--threads", "1", "--device", "cpu")
MEAN = ("--save", "mean")


def levels(path) -> np.ndarray:
    """The pixels `(C, H, W)` as integers."""
    picture = read_picture(path)
    return np.rint(picture.pixels * (2**picture.bits - 1)).astype(int)


def shrunk(path, sigma: float) -> np.ndarray:
    """What the Gaussian prior of mean 1/2 and std 1/4 makes of the picture, as integers."""
    picture = read_picture(path)
    pixels = 0.5 + 0.25**2 / (0.25**2 + sigma**2) * (picture.pixels - 0.5)
    return np.rint(pixels * (2**picture.bits - 1)).astype(int)


def manifest(name: str) -> dict:
    return json.loads(Path(f"gpnp_out/{name}.denoise.gpnp.json").read_text("utf-8"))


@pytest.fixture
def denoise(gpnp):
    return lambda *arguments: gpnp("denoise", *PLAIN, *arguments)


@pytest.fixture
def noisy(alone) -> torch.Tensor:
    """`noisy.png`: grey, noise of sigma 0.05 around mid-grey; its pixels `(1, 1, H, W)`."""
    noise = torch.randn(96, 96, generator=torch.Generator().manual_seed(0))
    Image.fromarray(np.uint8(np.rint(255 * (0.5 + 0.05 * noise.numpy())))).save("noisy.png")
    return torch.from_numpy(read_picture("noisy.png").pixels)[None]


@pytest.mark.parametrize(("text", "sigma"), [("0.1", 0.1), ("25/255", 25 / 255), (" 51 / 255 ", 0.2), ("1e-1", 0.1)])
def test_the_denoiser_is_called_with_the_level_asked_for(denoise, draw, text, sigma):
    draw("pic.png")
    code, out, err = denoise("pic.png", "--sigma", text)
    assert (code, out) == (0, "gpnp_out/pic.denoise.png\n"), err
    assert np.array_equal(levels("gpnp_out/pic.denoise.png"), shrunk("pic.png", sigma))
    assert set(os.listdir("gpnp_out")) == {f"pic.denoise{end}" for end in (".png", ".sheet.png", ".gpnp.json")}
    assert manifest("pic")["sigma"] == pytest.approx(sigma)
    assert manifest("pic")["config"]["sigma"] == pytest.approx(sigma)
    assert "metrics" not in manifest("pic")


def test_auto_estimates_and_says_so(denoise, noisy):
    code, _, err = denoise("noisy.png", *MEAN)
    assert code == 0
    found = manifest("noisy")
    assert found["sigma"] == pytest.approx(estimate_sigma(noisy).item())
    assert found["sigma"] == pytest.approx(0.05, rel=0.1)
    assert found["config"]["sigma"] == "auto"
    assert f"noisy.png: noise estimated as sigma {found['sigma']:.4g}" in err
    assert np.array_equal(levels("gpnp_out/noisy.denoise.png"), shrunk("noisy.png", found["sigma"]))
    again = denoise("noisy.png", "-c", "gpnp_out/noisy.denoise.gpnp.json")
    assert "already done" in again.err


def test_a_picture_without_noise_is_returned_as_it_is(denoise, alone):
    Image.new("RGB", (16, 16), (10, 200, 30)).save("flat.png")
    assert denoise("flat.png", *MEAN).code == 0
    assert manifest("flat")["sigma"] == 0
    assert np.array_equal(levels("gpnp_out/flat.denoise.png"), levels("flat.png"))


def test_a_picture_too_small_for_an_estimate_needs_a_level(denoise, draw):
    draw("tiny.png", 3, 9)
    draw("pic.png")
    code, out, err = denoise("tiny.png", "pic.png", *MEAN)
    assert (code, out) == (1, "gpnp_out/pic.denoise.png\n")
    assert "tiny.png: too small" in err
    assert "--sigma" in err
    assert denoise("tiny.png", *MEAN, "--sigma", "0.1").code == 0


def test_added_noise_is_kept_and_measured(denoise, draw):
    truth = draw("pic.png", 64, 64) / 255
    code, out, err = denoise("pic.png", "--add-noise", "51/255", "--sigma", "0.2", "--json")
    assert code == 0
    record, summary = map(json.loads, out.splitlines())
    assert summary["summary"] == {"done": 1, "skipped": 0, "failed": 0}
    assert set(record["outputs"]) == {"main", "sheet", "noisy", "manifest"}
    kept = np.asarray(Image.open(record["outputs"]["noisy"])) / 255
    inner = (truth > 0.4) & (truth < 0.6)  # where clipping changes little
    gap = (kept - truth)[inner]
    assert gap.std() == pytest.approx(0.2, abs=4 * 0.2 / math.sqrt(2 * gap.size) + 0.005)
    for kind, path in (("noisy", record["outputs"]["noisy"]), ("denoised", record["outputs"]["main"])):
        scores = record["metrics"][kind]
        mean_square = ((np.asarray(Image.open(path)) / 255 - truth) ** 2).mean()  # of 8 bits: nearly the same
        assert scores["psnr"] == pytest.approx(-10 * math.log10(mean_square), abs=0.02)
        assert scores["nrmse"] == pytest.approx(math.sqrt(mean_square / (truth**2).mean()), rel=0.005)
        row = next(line for line in err.splitlines() if line.split()[:1] == [kind])
        assert row.split()[1:] == [f"{scores['psnr']:.2f}", f"{scores['ssim']:.3f}", f"{scores['nrmse']:.4f}"]
    assert record["metrics"]["denoised"]["psnr"] > record["metrics"]["noisy"]["psnr"] + 1
    assert record["psnr"] == record["metrics"]["denoised"]["psnr"]


def test_added_noise_follows_seed_and_content_only(denoise, draw):
    draw("a.png")
    draw("b.png", phase=1)

    def noise_of(folder, *arguments):
        assert denoise("--add-noise", "0.1", *MEAN, "-o", folder, *arguments).code == 0
        return {name: Path(folder, name).read_bytes() for name in os.listdir(folder) if "noisy" in name}

    both = noise_of("1", "a.png", "b.png")
    assert set(both) == {"a.denoise.noisy.png", "b.denoise.noisy.png"}
    assert noise_of("2", "b.png") == {"b.denoise.noisy.png": both["b.denoise.noisy.png"]}
    assert noise_of("3", "b.png", "--seed", "1")["b.denoise.noisy.png"] != both["b.denoise.noisy.png"]


def test_the_noisy_file_of_a_jpeg_is_lossless(denoise, draw):
    draw("photo.jpg")
    assert denoise("photo.jpg", "--add-noise", "0.1", *MEAN).code == 0
    names = {"photo.denoise.jpg", "photo.denoise.noisy.png", "photo.denoise.gpnp.json"}
    assert set(os.listdir("gpnp_out")) == names


def test_a_reference_measures_without_touching_the_input(denoise, noisy):
    Image.new("L", (96, 96), 128).save("truth.png")
    code, _, err = denoise("noisy.png", "--sigma", "0.05", "--reference", "truth.png", *MEAN)
    assert code == 0
    scores = manifest("noisy")["metrics"]
    assert scores["noisy"]["psnr"] == pytest.approx(-20 * math.log10(0.05), abs=0.3)
    assert scores["denoised"]["psnr"] > scores["noisy"]["psnr"]
    assert "denoised" in err
    assert set(os.listdir("gpnp_out")) == {"noisy.denoise.png", "noisy.denoise.gpnp.json"}
    Image.new("L", (96, 96), 120).save("truth.png")  # another truth is another result
    assert "another input" in denoise("noisy.png", "--sigma", "0.05", "--reference", "truth.png", *MEAN).err


def test_kinds_of_pictures_come_out_as_what_they_were(denoise, draw):
    import tifffile

    grey, rgb = draw(channels=1), draw()
    alpha = np.uint8(grey // 2 + 90)
    Image.fromarray(np.dstack([rgb, alpha])).save("rgba.png")
    draw("deep.png", channels=1, dtype=np.uint16)
    tifffile.imwrite("deep.tif", draw(dtype=np.uint16), photometric="rgb")
    names = ["rgba.png", "deep.png", "deep.tif"]
    code, out, err = denoise(*names, "--sigma", "0.1", *MEAN)
    assert code == 0, err
    for name, path in zip(names, out.splitlines(), strict=True):
        before, after = read_picture(name), read_picture(path)
        assert (after.mode, after.bits, after.format) == (before.mode, before.bits, before.format)
        assert np.abs(levels(path) - shrunk(name, 0.1)).max() <= (1 if before.bits == 8 else 2)
    assert np.array_equal(np.asarray(Image.open("gpnp_out/rgba.denoise.png"))[:, :, 3], alpha)


def test_what_is_done_is_skipped_unless_the_level_changes(denoise, draw):
    draw("pic.png")
    assert denoise("pic.png", "--sigma", "25/255", *MEAN).code == 0
    again = denoise("pic.png", "--sigma", str(25 / 255), *MEAN, "--json")
    assert json.loads(again.out.splitlines()[0])["status"] == "skipped"
    assert denoise("pic.png", "--sigma", "0.2", *MEAN).code == 1
    assert denoise("pic.png", "--sigma", "0.2", *MEAN, "--force").code == 0


def test_a_level_outside_the_denoisers_range_warns_once(denoise, draw, monkeypatch):
    from gpnp_cli.denoisers.exact import GaussianPixels

    monkeypatch.setattr(GaussianPixels, "sigma_range", (0.01, 0.15))
    draw("a.png")
    draw("b.png", channels=1)
    err = denoise("a.png", "b.png", "--sigma", "0.2", *MEAN).err
    assert err.count("leaves the range") == 1
    assert "sigma 0.2 leaves the range that denoiser gaussian was made for (0.01 to 0.15)" in err
    assert "leaves the range" not in denoise("a.png", "b.png", "--sigma", "0.15", *MEAN, "--force").err


def test_pixels_that_are_not_finite_are_never_written(denoise, draw, monkeypatch):
    from gpnp_cli.denoisers.exact import GaussianPixels

    monkeypatch.setattr(GaussianPixels, "__call__", lambda self, v, sigma: v / 0)
    draw("pic.png")
    code, out, err = denoise("pic.png", "--sigma", "0.2")
    assert (code, out) == (1, "")
    assert "pic.png" in err
    assert "non-finite" in err
    assert not os.path.exists("gpnp_out")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sigma", "25"], ("sigma", "25/255")),
        (["--sigma", "0"], ("sigma",)),
        (["--sigma", "1/0"], ("sigma", "'1/0'")),
        (["--sigma", "auot"], ("did you mean auto?",)),
        (["--add-noise", "auto"], ("add_noise",)),
        (["--add-noise", "0.1", "--reference", "pic.png"], ("--add-noise", "--reference")),
        (["--save", "std"], ("output.save", "mean, sheet")),
        (["--set", "sampler.beta=0.1"], ("sampler.beta", "inpaint")),
        (["-o", "pic.png"], ("pic.png",)),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_happens(denoise, draw, flags, words):
    draw("pic.png")
    code, out, err = denoise("pic.png", *flags)
    assert (code, out) == (2, ""), err
    assert all(word in err for word in words), err
    assert os.listdir(".") == ["pic.png"]


def test_a_dry_run_writes_nothing(denoise, draw):
    draw("pic.png")
    code, out, err = denoise("pic.png", "--dry-run", "--sigma", "25/255")
    assert code == 0
    assert out.startswith("command: denoise\n")
    assert "pic.png -> gpnp_out" in err
    assert os.listdir(".") == ["pic.png"]
