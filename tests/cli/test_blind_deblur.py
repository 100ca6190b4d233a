"""`gpnp blind-deblur` on small pictures: what is written, what is found, and what is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from gpnp_cli.cli import blind_deblurring
from gpnp_cli.cli.blind_deblurring import dealt, distinct, narrower, plausible, searched_side, total_noise
from gpnp_cli.cli.searching import Found
from gpnp_cli.imageio import read_picture
from gpnp_cli.jpeg import coding_error

FAST = ("--denoiser", "gaussian:0.5,0.2", "--iterations", "2", "--search-iterations", "2", "--restarts", "1")
SMALL = ("--threads", "1", "--device", "cpu", "--kernel-size", "5")
MEAN = ("--save", "mean", "-n", "1")


@pytest.fixture
def blind(gpnp):
    return lambda *arguments: gpnp("blind-deblur", *FAST, *SMALL, *arguments)


def manifest(path="gpnp_out/pic.blind-deblur.gpnp.json") -> dict:
    return json.loads(Path(path).read_text("utf-8"))


def refused(outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome
    assert outcome.out == ""
    errors = [line for line in outcome.err.splitlines() if line.startswith("gpnp: error: ")]
    assert len(errors) == 1, outcome.err
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_result_has_its_name(blind, draw, alone, channels):
    draw("pic.png", channels=channels)
    code, out, err = blind("pic.png", "--restarts", "2", "--animation", "webp")
    assert (code, out) == (0, "gpnp_out/pic.blind-deblur.png\n"), err
    pictures = {f"pic.blind-deblur{kind}.png" for kind in ("", ".sample-01", ".sample-02", ".sample-03")}
    kinds = ("std.png", "sheet.png", "kernel.png", "kernel-raw.npy", "strip.png", "search.webp", "gpnp.json")
    assert set(os.listdir("gpnp_out")) == pictures | {f"pic.blind-deblur.{kind}" for kind in kinds}
    for name in pictures:
        picture = Image.open(f"gpnp_out/{name}")
        assert (picture.mode, picture.size) == ({1: "L", 3: "RGB"}[channels], (32, 24))
    kernel, told = np.load("gpnp_out/pic.blind-deblur.kernel-raw.npy"), manifest()
    assert kernel.sum() == pytest.approx(1, abs=1e-12) and kernel.min() >= 0  # the pass of `deblur` with this file
    assert list(kernel.shape[::-1]) == told["kernel_size"] and all(side % 2 and side <= 5 for side in kernel.shape)
    assert told["kernel_misfit"] <= min(told["search_misfit"]) == told["search_misfit"][told["search"]]
    width, height = told["kernel_size"]
    assert f"pic.png: kernel {width}x{height} pixels, noise and kernel's error {told['sigma_y']:.4g}" in err
    assert (told["kernel_nfe"], told["nfe"]) == (2, 3)


def test_the_kernel_file_is_one_for_deblur(blind, gpnp, pic):
    assert blind("pic.png", *MEAN, "--save", "kernel,mean").code == 0
    flags = ("--denoiser", "gaussian:0.5,0.2", "--iterations", "2", "--noise", str(manifest()["sigma_y"]), *MEAN)
    kernel = "gpnp_out/pic.blind-deblur.kernel-raw.npy"
    assert gpnp("deblur", "pic.png", "--kernel", kernel, *flags).code == 0
    one, other = (Path(f"gpnp_out/pic.{command}.png").read_bytes() for command in ("blind-deblur", "deblur"))
    assert one == other  # the same pass


def rectangles(seed, side, sides):
    """Forty of them, at random, on grey: `sides` are the least and the first too large."""
    rng, pixels = np.random.Generator(np.random.PCG64(seed)), np.full((side, side), 128, np.uint8)
    for _ in range(40):
        top, left = rng.integers(0, side - sides[0], 2)
        height, width = rng.integers(*sides, 2)
        pixels[top : top + height, left : left + width] = rng.integers(12, 243)
    return pixels


@pytest.mark.parametrize("model", [pytest.param("free", marks=pytest.mark.slow), "motion"])
def test_a_straight_motion_is_found(gpnp, alone, model):
    """Rectangles are as sharp as pictures can be."""
    Image.fromarray(rectangles(0, 84, (8, 40))).save("pic.png")
    flags = ("--simulate", "--kernel", "motion:7,0", "--noise", "0.005", "--kernel-model", model, *MEAN)
    restarts = "1" if model == "motion" else "6"
    search = ("--kernel-size", "11", "--search-iterations", "1", "--restarts", restarts, "--iterations", "2")
    code, _, err = gpnp("blind-deblur", "pic.png", *flags, "--save", "kernel", *search, "--threads", "1")
    assert code == 0, err
    kernel = np.load("gpnp_out/pic.blind-deblur.kernel-raw.npy")
    p = np.arange(kernel.shape[1]) - kernel.shape[1] // 2
    assert (kernel.sum(0) * p**2).sum() == pytest.approx(4, abs=1.5)  # of seven equal pixels in a row
    q = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    assert (kernel.sum(1) * q**2).sum() < 0.6
    if model == "motion":
        found = manifest()["kernel_parameters"]
        assert found["length"] == pytest.approx(7, abs=1)
        assert abs((found["degrees"] + 90) % 180 - 90) < 10
        assert "motion of length" in err


@pytest.mark.parametrize(("noise", "steps"), [("0.003", 24), ("0.01", 12)])
def test_a_noisy_picture_takes_fewer_steps_and_no_black_and_white(blind, pic, monkeypatch, noise, steps):
    edges, schedules = blind_deblurring.edges_first, []

    def watched(*arguments):
        schedules.append(arguments[-1])
        return edges(*arguments)

    monkeypatch.setattr(blind_deblurring, "edges_first", watched)
    assert blind("pic.png", "--noise", noise, "--search-iterations", "auto", *MEAN).code == 0
    assert manifest()["kernel_nfe"] == steps
    assert [each.extremes for each in schedules] == [noise == "0.003"]


@pytest.mark.parametrize(
    ("window", "crop", "side"),
    [(31, "auto", 384), (65, "auto", 780), (101, "auto", 1024), (201, "auto", 1206), (65, 64, 390), (31, 500, 500)],
)
def test_wide_kernels_are_looked_for_in_wide_parts(window, crop, side):
    assert searched_side(window, crop) == side


def test_auto_tries_narrower_windows_too():
    assert narrower((65, 65)) == [(65, 65), (45, 45), (31, 31)]
    assert narrower((31, 31)) == [(31, 31)]
    assert narrower((5, 5)) == [(5, 5)]


def test_starts_that_are_alike_count_once():
    def start(misfit, row, column):
        kernel = torch.zeros(7, 7)
        kernel[3, 1:4] = 1 / 3
        kernel[row, column] += 0.5
        return Found(kernel, misfit, 0.0, 0, 7, None)

    starts = [start(0.04, 4, 3), start(0.02, 3, 5), start(0.01, 4, 3), start(0.03, 2, 2)]
    starts[0] = replace(starts[0], kernel=starts[0].kernel.roll((1, 1), (0, 1)))  # moved, but the same as the third
    assert distinct(starts, 6) == [2, 1, 3]
    assert distinct(starts, 2) == [2, 1]


def test_kernels_count_by_how_likely_they_are():
    first, second, third = plausible([0.005, 0.00501, 0.005015])
    assert first + second + third == pytest.approx(1)
    assert second / first == pytest.approx(np.exp(-2 / 3)) and third / first == pytest.approx(np.exp(-1))
    assert plausible([0.005, 0.006]) == [1, 0]
    assert plausible([0.005]) == [1]


@pytest.fixture
def motions(gpnp, alone, monkeypatch):
    """Runs on a picture that a box of 5x5 pixels blurred, in which two quick searches find kernels that differ a little."""
    monkeypatch.setattr(blind_deblurring, "PLAUSIBLE", 10.0)
    monkeypatch.setattr(blind_deblurring, "SAME", 0.01)
    Image.fromarray(rectangles(0, 64, (8, 30))).filter(ImageFilter.BoxBlur(2)).save("pic.png")
    flags = ("--iterations", "3", "--search-iterations", "1", "--restarts", "2")
    flags += (*SMALL[:4], "--kernel-size", "9", "--noise", "0.004", "--save", "mean,kernel", "-f")

    def run(*more):
        code, _, err = gpnp("blind-deblur", "pic.png", *flags, *more)
        assert code == 0, err
        return manifest(), read_picture(Path("gpnp_out/pic.blind-deblur.png")).pixels, err

    return run


def test_an_estimate_is_the_mean_over_likely_kernels(motions):
    told, both, err = motions("--method", "pnp", "--average", "2")
    assert len(told["kernel_shares"]) == 2 and sum(told["kernel_shares"]) == pytest.approx(1)
    assert told["nfe"] == 6
    assert "2 likely kernels have their shares of the result: 5" in err
    single, best, err = motions("--method", "pnp", "--average", "1")
    assert "kernel_shares" not in single and single["nfe"] == 3 and "likely kernels" not in err
    assert single["kernel_misfit"] == told["kernel_misfit"]
    assert 1e-4 < np.abs(both - best)[:, 5:-5, 5:-5].mean() < 5e-3


def test_each_sample_has_one_of_the_likely_kernels(motions):
    """Those of the best kernel are what they are without the others; the other kernel's lie where these do."""
    told, both, err = motions("-n", "4", "--average", "2", "--save", "mean,samples,std,kernel")
    drawn = [read_picture(Path(f"gpnp_out/pic.blind-deblur.sample-{k:02}.png")).pixels for k in range(1, 5)]
    assert told["kernel_of_sample"] == [0, 1, 0, 1] and len(told["residual"]) == 4
    assert "2 likely kernels have their shares of the result: 5" in err
    assert np.abs(both - np.mean(drawn, 0)).max() < 2 / 255
    _, single, _ = motions("-n", "4", "--average", "1", "--save", "mean,samples,std,kernel")
    alone = [read_picture(Path(f"gpnp_out/pic.blind-deblur.sample-{k:02}.png")).pixels for k in range(1, 5)]

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a - b)[:, 5:-5, 5:-5].mean())

    assert apart(drawn[0], alone[0]) == apart(drawn[2], alone[2]) == 0
    assert 0 < apart(drawn[1], alone[1]) < 1.3 * apart(alone[0], alone[1])  # other noise, for another size of states
    assert told["kernel_shifts"][0] == [0, 0] and 0 < np.abs(told["kernel_shifts"][1]).max() < 1
    assert not np.array_equal(both, single)


def test_a_kernel_that_no_other_search_confirms_is_doubtful(motions, monkeypatch):
    told, _, err = motions("--average", "1")
    assert 0.9 < told["kernel_likeness"] < 1 and "doubtful" not in err
    monkeypatch.setattr(blind_deblurring, "ALONE", (1 + told["kernel_likeness"]) / 2)
    _, _, err = motions("--average", "1")
    assert "no other search found a kernel like this one" in err and "doubtful" in err
    _, _, err = motions("--average", "1", "--restarts", "1")
    assert "doubtful" not in err  # there is none to be asked


def test_each_kernel_has_its_share_of_the_chains():
    shares = [0.5, 0.3, 0.2]
    assert dealt(shares, 5, 1) == [0, 1, 0, 2, 0]
    assert dealt(shares, 6, 2) == [0, 0, 1, 1, 0, 0]  # a pair has one kernel
    counts = np.bincount(dealt(shares, 1000, 1)) / 1000
    assert np.allclose(counts, shares, atol=0.005)


@pytest.mark.parametrize("more", [("--noise", "0.01"), ("--method", "pnp", "--noise", "0.01"), ("-n", "1"), ()])
def test_with_noise_for_one_sample_and_for_large_pictures_the_best_kernel_is_taken(motions, monkeypatch, more):
    monkeypatch.setattr(blind_deblurring, "LARGE", 5000 if more else 4000)  # it has 4096 pixels
    told, _, err = motions(*more)
    assert "kernel_shares" not in told and told["nfe"] <= 4 and "likely kernels" not in err


@pytest.fixture
def windows(monkeypatch):
    """Small pictures have several windows, too: of 9, 7 and 5 pixels for 64 of the picture."""
    monkeypatch.setattr(blind_deblurring, "AUTO_SMALLEST", 5)
    monkeypatch.setattr(blind_deblurring, "AUTO_SHARE", 7)


@pytest.fixture
def soft(alone):
    Image.fromarray(rectangles(0, 64, (8, 30))).filter(ImageFilter.GaussianBlur(1.5)).save("pic.png")


def test_the_best_starts_of_all_windows_are_refined(blind, soft, windows):
    code, _, err = blind("pic.png", "--kernel-size", "auto", "--restarts", "2", *MEAN)
    assert code == 0, err
    told = manifest()
    assert told["start_window"] == [9, 9, 7, 7, 5, 5]
    assert told["search_window"][0] == min(zip(told["start_misfit"], told["start_window"], strict=True))[1]
    assert 1 <= len(told["search_misfit"]) <= 2
    assert told["kernel_misfit"] <= min(told["start_misfit"])  # GPnP-EM of the best start, or that itself


def test_a_noisy_picture_has_one_window(blind, soft, windows):
    assert blind("pic.png", "--kernel-size", "auto", "--restarts", "2", "--noise", "0.01", *MEAN).code == 0
    assert manifest()["search_window"] == [9, 9] and "start_misfit" not in manifest()


def test_the_last_pass_knows_of_a_jpegs_compression(blind, alone):
    """The same pixels, with the step sizes that they were rounded by and without."""
    Image.fromarray(rectangles(0, 64, (8, 30))).filter(ImageFilter.GaussianBlur(1.5)).save("pic.jpg", quality=85)
    Image.open("pic.jpg").save("same.png")
    assert blind("pic.jpg", "same.png", *MEAN, "--denoiser", "default", "--kernel-size", "9").code == 0
    known, unknown = (manifest(f"gpnp_out/{name}.blind-deblur.gpnp.json") for name in ("pic", "same"))
    picture = read_picture("pic.jpg")
    error = coding_error(picture.pixels[0], np.reshape(picture.encoding["steps"], (8, 8)))
    assert unknown["sigma_y"] == pytest.approx(unknown["kernel_misfit"])  # the noise, and the kernel's error
    assert known["sigma_y"] == pytest.approx(np.hypot(known["kernel_misfit"], error))


@pytest.mark.parametrize("model", ["gaussian", "disk"])
def test_other_models_have_one_parameter(blind, pic, model):
    assert blind("pic.png", "--kernel-model", model, *MEAN).code == 0
    assert set(manifest()["kernel_parameters"]) == {{"gaussian": "std", "disk": "radius"}[model]}


def test_what_has_no_edges_is_refused_and_no_kernel_made_up(blind, draw):
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (24, 32)).astype(np.uint8)
    Image.fromarray(noise).save("noise.png")
    Image.new("L", (32, 24), 77).save("grey.png")
    Image.new("RGB", (32, 24), (9, 99, 9)).save("green.png")
    draw("pic.png")
    code, out, err = blind("noise.png", "grey.png", "green.png", "pic.png", *MEAN)
    assert (code, out) == (1, "gpnp_out/pic.blind-deblur.png\n")
    for name in ("noise", "grey", "green"):
        assert f"{name}.png: holds nothing but noise or one colour, so there is no blur to be estimated" in err
        assert not list(Path("gpnp_out").glob(f"{name}*"))


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--kernel-size", "4"], 2, ["kernel_size", "odd"]),
        (["--kernel-size", "1"], 2, ["kernel_size"]),
        (["--kernel-size", "-5"], 2, ["kernel_size"]),
        (["--kernel-size", "9999"], 2, ["kernel_size"]),
        (["--kernel-size", "31"], 1, ["31x31", "32x24"]),
        (["--kernel-size", "13"], 1, ["13x13", "32x24"]),
        (["--kernel-model", "zigzag"], 2, ["kernel_model"]),
        (["--kernel", "motion:5,0"], 2, ["--kernel", "--simulate"]),
        (["--simulate", "--noise", "0.01"], 2, ["--kernel"]),
        (["--simulate", "--kernel", "disk:2"], 2, ["noise"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_said(gpnp, pic, flags, code, words):
    size = () if "--kernel-size" in flags else ("--kernel-size", "5")
    refused(gpnp("blind-deblur", "pic.png", *FAST, *size, *flags, *MEAN), code, *words)
    assert not list(Path(".").glob("gpnp_out/*.png"))


def test_saturated_pixels_and_large_pictures_are_told(blind, draw, alone):
    pixels = draw("pic.png", height=90, width=100)
    pixels[40:44, 50:56] = 255
    Image.fromarray(pixels).save("pic.png")
    code, _, err = blind("pic.png", "--crop", "64", *MEAN)
    assert code == 0, err
    assert "saturated, left out of the search" in err
    assert "kernel looked for in 64x64 pixels at row" in err
    assert Image.open("gpnp_out/pic.blind-deblur.png").size == (100, 90)


def test_the_noise_is_that_of_the_channels_not_of_their_brightness(gpnp, alone):
    sharp = rectangles(0, 84, (8, 40)).astype(float)
    blurred = np.mean([np.roll(sharp, k, 1) for k in range(-3, 4)], 0)[:, 3:-3, None]
    noise = np.random.default_rng(0).normal(0, 255 * 0.02, (*blurred.shape[:2], 3))
    Image.fromarray(np.rint(blurred + noise).clip(0, 255).astype(np.uint8)).save("pic.png")
    search = ("--kernel-model", "motion", "--kernel-size", "11", "--search-iterations", "1", "--restarts", "1")
    assert gpnp("blind-deblur", "pic.png", *search, "--iterations", "2", *MEAN, "--threads", "1").code == 0
    assert max(manifest()["kernel_size"]) > 1
    assert manifest()["sigma_y"] > 0.019  # of their brightness: 0.013


@pytest.mark.parametrize(
    ("noise", "floor", "misfit", "total"),
    [(0.01, 0.01, 0.02, 0.02), (0.01, 0.01, 0.005, 0.01), (0.03, 0.01, 0.01, 0.03), (0.03, 0.012, 0.02, 0.034)],
)
def test_the_kernels_error_is_what_the_misfit_has_above_the_noise(noise, floor, misfit, total):
    assert total_noise(noise, floor, misfit) == pytest.approx(total)


def test_scores_are_up_to_a_shift(blind, pic):
    Image.fromarray(np.roll(pic, (1, -2), (0, 1))).save("truth.png")
    assert blind("pic.png", "--reference", "truth.png", *MEAN).code == 0
    told = manifest()
    assert told["metrics"]["blurred"]["psnr"] is None  # infinite: the same picture, elsewhere
    assert len(told["shift"]) == 2


def test_a_manifest_as_config_repeats_the_run(blind, gpnp, pic):
    assert blind("pic.png", "--seed", "3", "-n", "2").code == 0
    assert gpnp("blind-deblur", "pic.png", "-c", "gpnp_out/pic.blind-deblur.gpnp.json", "-o", "again").code == 0
    for name in os.listdir("again"):
        if not name.endswith(".json"):
            assert Path(f"again/{name}").read_bytes() == Path(f"gpnp_out/{name}").read_bytes(), name
    assert "already done" in blind("pic.png", "--seed", "3", "-n", "2").err


def test_a_dry_run_writes_nothing(blind, pic):
    code, out, _ = blind("pic.png", "--dry-run")
    assert code == 0
    assert "kernel_size: 5" in out and "restarts: 1" in out
    assert os.listdir(".") == ["pic.png"]


def test_a_sharp_picture_comes_back_as_it_is(gpnp, alone):
    pixels = rectangles(1, 64, (6, 30))
    Image.fromarray(pixels).save("pic.png")
    search = (
        "--kernel-size",
        "7",
        "--search-iterations",
        "1",
        "--restarts",
        "1",
        "--method",
        "pnp",
        "--save",
        "mean,kernel",
    )
    code, _, err = gpnp("blind-deblur", "pic.png", *search, "--threads", "1", "--device", "cpu")
    assert code == 0 and "not blurred" in err
    assert np.load("gpnp_out/pic.blind-deblur.kernel-raw.npy").tolist() == [[1.0]]
    error = np.asarray(Image.open("gpnp_out/pic.blind-deblur.png"), float) - pixels
    assert np.sqrt(np.square(error).mean()) < 255 * 10 ** (-35 / 20)
