"""`gpnp deblur` on small pictures: what is written, that it is right, and what is refused."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from gpnp_cli.cli.deblurring import Deblurring
from gpnp_cli.imageio import read_picture
from gpnp_cli.kernels import parse_kernel
from gpnp_cli.tone import from_light, to_light

FAST = ("--denoiser", "gaussian", "--iterations", "3", "--threads", "1", "--device", "cpu")
MEAN = ("--save", "mean", "-n", "1")  # one small file, where no more is looked at


@pytest.fixture
def deblur(gpnp):
    return lambda *arguments: gpnp("deblur", *FAST, *arguments)


def manifest(path="gpnp_out/pic.deblur.gpnp.json") -> dict:
    return json.loads(Path(path).read_text("utf-8"))


def refused(outcome, code: int, *words: str) -> None:
    """Nothing on stdout, the code, and one sentence on stderr that says all `words`."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    errors = [line for line in outcome.err.splitlines() if line.startswith("gpnp: error: ")]
    assert len(errors) == 1, outcome.err
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize("border", ["real", "circular"])
def test_every_result_has_its_name_and_the_pictures_size(deblur, pic, border):
    code, out, _ = deblur("pic.png", "-k", "disk:2", "--noise", "0.01", "--border", border, "--raw", "npy")
    assert (code, out) == (0, "gpnp_out/pic.deblur.png\n")
    pictures = {f"pic.deblur{kind}.png" for kind in ("", ".sample-01", ".sample-02", ".sample-03")}
    others = {"pic.deblur.std.png", "pic.deblur.std-raw.npy", "pic.deblur.sheet.png", "pic.deblur.gpnp.json"}
    assert set(os.listdir("gpnp_out")) == pictures | others
    for name in pictures:
        picture = Image.open(f"gpnp_out/{name}")
        assert (picture.mode, picture.size) == ("RGB", (32, 24))
    std = np.load("gpnp_out/pic.deblur.std-raw.npy")
    assert std.shape == (3, 24, 32) and np.median(std) > 0.01
    told = manifest()
    assert told["sigma_y"] == 0.01
    assert len(told["residual"]) == 3 and min(told["residual"]) > 0
    assert told["residual_ratio"] == pytest.approx(np.mean(told["residual"]) / 0.01)
    assert told["nfe"] == 4
    assert told["config"]["border"] == border
    assert told["config"]["kernel"] == "disk:2"


PRIOR = (0.5, 0.1)  # mean and standard deviation of the pixels in the next test


def wiener(y: np.ndarray, kernel: np.ndarray, border: str, sigma_y: float) -> np.ndarray:
    """Posterior mean for independent pixels of that distribution, by a dense matrix, of one channel `(H, W)`."""
    (height, width), (kh, kw) = y.shape, kernel.shape
    top, left = (0, 0) if border == "circular" else ((kh - 1) // 2, (kw - 1) // 2)
    rows, columns = (height, width) if border == "circular" else (height + kh - 1, width + kw - 1)
    A = np.zeros((height, width, rows, columns))
    i, j = np.indices(y.shape)
    for k in range(kh):
        for m in range(kw):
            A[i, j, (i + top - k + kh // 2) % rows, (j + left - m + kw // 2) % columns] += kernel[k, m]
    A = A.reshape(y.size, -1)
    mean, variance = PRIOR[0], PRIOR[1] ** 2
    gain = np.linalg.solve(variance * A @ A.T + sigma_y**2 * np.eye(y.size), y.ravel() - mean)
    return (mean + variance * A.T @ gain).reshape(rows, columns)[top : top + height, left : left + width]


@pytest.mark.parametrize("border", ["real", "circular"])
def test_the_mean_is_the_posteriors(deblur, alone, border):
    """For the Gaussian denoiser there is a closed form; the chains' mean must be near it, and not one pixel off."""
    y = np.random.Generator(np.random.PCG64(0)).normal(0.5, 0.04, (16, 18)).astype(np.float32)
    tifffile.imwrite("pic.tif", y)
    np.save("k.npy", [[0.0, 0.1, 0.2, 0.1], [0.3, 0.1, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0]])
    options = ("-k", "k.npy", "--border", border, "--noise", "0.02", "--r", "auto", "--iterations", "60")
    prior = ("--denoiser", "gaussian:{},{}".format(*PRIOR))
    assert deblur("pic.tif", *options, *prior, "-n", "40", "--save", "mean", "--raw", "tif").code == 0
    mean, std = (tifffile.imread(f"gpnp_out/pic.deblur{kind}.tif") for kind in ("", ".std-raw"))
    expected = wiener(y, parse_kernel("k.npy", 100).values, border, 0.02)

    def z(estimate: np.ndarray) -> float:
        return np.sqrt(np.mean(((estimate - expected) / (std / np.sqrt(40))) ** 2))

    assert z(mean) < 1.3  # 1 but for a short schedule
    assert z(np.roll(mean, 1, 0)) > 2 and z(np.roll(mean, 1, 1)) > 2  # seen


def test_simulate_with_real_borders_keeps_the_interior(deblur, pic):
    code, _, err = deblur("pic.png", "--kernel", "motion:9,0", "--noise", "5/255", "--simulate", "-n", "2")
    assert code == 0, err
    assert "pic.png: blurred without its borders, 32x24 pixels become 24x24\n" in err
    for kind in ("", ".sample-01", ".sample-02", ".damaged"):
        assert read_picture(f"gpnp_out/pic.deblur{kind}.png").pixels.shape == (3, 24, 24)
    told = manifest()
    assert set(told["metrics"]) == {"damaged", "sample-01", "sample-02", "mean"}
    assert told["psnr"] == told["metrics"]["mean"]["psnr"]
    assert "PSNR/dB" in err
    damaged, truth = (
        np.asarray(Image.open(path), float) / 255 for path in ("gpnp_out/pic.deblur.damaged.png", "pic.png")
    )
    columns = np.lib.stride_tricks.sliding_window_view(truth, 9, axis=1).mean(-1)
    assert np.sqrt(np.mean((damaged - columns) ** 2)) == pytest.approx(5 / 255, rel=0.1)
    inside = truth[:, 4:-4]
    psnr = -10 * np.log10(np.mean((damaged - inside) ** 2))
    assert told["metrics"]["damaged"]["psnr"] == pytest.approx(psnr, abs=0.05)  # the file is rounded


@pytest.mark.parametrize("noise", ["0", "1e-06"])
def test_simulate_with_circular_borders_keeps_the_size(deblur, pic, noise):
    flags = ("--kernel", "motion:9,0", "--noise", noise, "--simulate", "--border", "circular")
    code, _, err = deblur("pic.png", *flags, *MEAN)
    assert code == 0, err
    assert "become" not in err
    assert f"noise {noise} raised to 0.00113, what rounding to 8 bits leaves" in err
    assert manifest()["sigma_y"] == pytest.approx(1 / 255 / 12**0.5)
    damaged, truth = (np.asarray(Image.open(path), float) for path in ("gpnp_out/pic.deblur.damaged.png", "pic.png"))
    expected = np.mean([np.roll(truth, shift, 1) for shift in range(-4, 5)], 0)
    assert np.abs(damaged - expected).max() <= 0.51


def test_alpha_is_cut_with_the_picture(deblur, draw):
    alpha = (np.arange(768).reshape(24, 32) % 251).astype(np.uint8)
    Image.fromarray(np.dstack([draw(), alpha])).save("pic.png")
    np.save("even.npy", np.ones((2, 4)))
    code, _, err = deblur("pic.png", "--kernel", "even.npy", "--noise", "0.01", "--simulate", *MEAN)
    assert code == 0, err
    assert "kernel even.npy sums to 8: divided by that" in err
    assert "kernel even.npy has an even side (4x2): its centre is row 1, column 2, counted from 0" in err
    assert np.array_equal(np.asarray(Image.open("gpnp_out/pic.deblur.png"))[:, :, 3], alpha[:23, 1:30])


def test_reference_is_measured_against(deblur, draw, pic):
    draw("truth.png", phase=0.3)
    assert deblur("pic.png", "-k", "disk:2", "--noise", "0.02", "--reference", "truth.png", *MEAN).code == 0
    assert set(manifest()["metrics"]) == {"damaged", "sample-01", "mean"}
    draw("small.png", height=20)
    outcome = deblur("pic.png", "-k", "disk:2", "--noise", "0.02", "--reference", "small.png", *MEAN, "-o", "b")
    refused(outcome, 1, "small.png", "32x20", "32x24")


def test_noise_is_estimated(deblur, alone):
    noise = np.random.Generator(np.random.PCG64(0)).normal(0.5, 0.05, (64, 64)).astype(np.float32)
    tifffile.imwrite("noisy.tif", noise)
    code, _, err = deblur("noisy.tif", "--kernel", "gaussian:1", *MEAN)  # auto is the default
    assert code == 0, err
    sigma_y = manifest("gpnp_out/noisy.deblur.gpnp.json")["sigma_y"]
    assert sigma_y == pytest.approx(0.05, rel=0.1)
    assert f"noisy.tif: noise estimated as {sigma_y:.4g}" in err


@pytest.mark.parametrize(("noise", "warnings"), [("auto", 0), (0.01, 1)])
def test_who_said_no_level_is_not_warned_of_less_noise(noise, warnings):
    told = []
    report = SimpleNamespace(warn=told.append, note=lambda line: None)
    config = SimpleNamespace(noise=noise, sampler=SimpleNamespace(method="gpnp"))
    Deblurring.check_residual(SimpleNamespace(config=config, report=report, again="blurred"), [0.001], 0.01, "pic")
    assert len(told) == warnings


@pytest.mark.parametrize(("channels", "linear"), [(1, False), (3, False), (3, True)])
def test_what_a_jpegs_compression_changed_counts_as_noise(deblur, alone, channels, linear):
    """The finest detail, which shows the noise, is what compression removes."""
    rng = np.random.Generator(np.random.PCG64(0))
    waves = 128 + 90 * np.sin(np.arange(96) / 7)[:, None, None] * np.sin(np.arange(96) / 9)[:, None]
    pixels = np.rint(waves + rng.normal(0, 3, (96, 96, channels))).astype(np.uint8)
    Image.fromarray(pixels.squeeze()).save("pic.jpg", quality=70)
    flags = ("-k", "disk:1", *MEAN, *(("--linear",) if linear else ()))
    code, _, err = deblur("pic.jpg", *flags)
    assert code == 0, err
    assert "noise estimated as" in err and "JPEG's compression" in err
    found = manifest()["sigma_y"]

    def data(file):
        values = torch.from_numpy(read_picture(file).pixels)
        return to_light(values) if linear else values

    picture = read_picture("pic.jpg")
    Image.fromarray(np.rint(255 * picture.pixels.transpose(1, 2, 0)).astype(np.uint8).squeeze()).save("same.png")
    assert deblur("same.png", *flags).code == 0
    alone_found = manifest("gpnp_out/same.deblur.gpnp.json")["sigma_y"]
    Image.fromarray(pixels.squeeze()).save("before.png")
    actual = float((data("pic.jpg") - data("before.png")).square().mean().sqrt())
    assert 0.6 * actual < np.sqrt(found**2 - alone_found**2) < 1.6 * actual
    assert deblur("pic.jpg", *flags, "--noise", "0.02", "-f").code == 0
    assert manifest()["sigma_y"] == 0.02  # as it is told


@pytest.mark.parametrize(("noise", "says"), [("0.004", "more noise"), ("0.05", None), ("0.5", "less noise")])
def test_a_noise_level_that_does_not_fit_is_told(deblur, alone, noise, says):
    # blurring leaves hardly any of it: what is seen is noise
    values = np.random.Generator(np.random.PCG64(1)).normal(0.5, 0.05, (40, 40)).astype(np.float32)
    tifffile.imwrite("noisy.tif", values)
    code, _, err = deblur("noisy.tif", "--kernel", "gaussian:2", "--noise", noise, "--iterations", "40", "-n", "1")
    assert code == 0, err
    warnings = [line for line in err.splitlines() if "warning" in line]
    if says is None:
        assert warnings == []
        assert f"residual {manifest('gpnp_out/noisy.deblur.gpnp.json')['residual'][0]:.3g}, " in err
    else:
        assert len(warnings) == 1 and says in warnings[0] and "noisy.tif" in warnings[0]
        ratio = manifest("gpnp_out/noisy.deblur.gpnp.json")["residual"][0] / float(noise)
        assert f"{ratio:.2g} times the noise level {float(noise):.3g}" in warnings[0]


def test_init_decides_where_chains_begin(deblur, pic):
    flags = ("--kernel", "disk:3", "--noise", "0.1", "--iterations", "1", *MEAN)
    for init in ("observed", "noise"):
        assert deblur("pic.png", *flags, "--init", init, "-o", init).code == 0
    a, b = (np.asarray(Image.open(f"{init}/pic.deblur.png"), float) for init in ("observed", "noise"))
    assert not np.array_equal(a, b)
    assert np.abs(a - pic).mean() < np.abs(b - pic).mean()
    assert deblur("pic.png", "-k", "disk:3", "--noise", "0.1", "--preset", "published", *MEAN, "-o", "p").code == 0


@pytest.mark.parametrize("save", ["mean,samples,std,sheet", "samples,std"])
def test_pnp_makes_one_estimate(deblur, pic, save):
    flags = ("-k", "disk:2", "--noise", "0.01", "--method", "pnp", "--raw", "npy", "-n", "5", "--save", save, "--json")
    code, out, err = deblur("pic.png", *flags, "--simulate")
    assert code == 0, err
    sheet = {"pic.deblur.sheet.png"} if "sheet" in save else set()
    main = {"pic.deblur.png", "pic.deblur.damaged.png", "pic.deblur.gpnp.json"}
    assert set(os.listdir("gpnp_out")) == main | sheet
    record = json.loads(out.splitlines()[0])
    assert record["outputs"]["main"] == "gpnp_out/pic.deblur.png"
    assert record["nfe"] == 3 and len(record["residual"]) == 1
    assert set(record["metrics"]) == {"damaged", "estimate"}
    assert record["psnr"] == record["metrics"]["estimate"]["psnr"]
    assert manifest()["config"]["sampler"]["samples"] == 1
    refused(deblur("pic.png", "-k", "disk:2", "--method", "pnp", "--save", "std"), 2, "--save std")


def test_pnp_is_not_random(deblur, pic):
    flags = ("-k", "disk:2", "--noise", "0.01", "--method", "pnp", "--save", "mean")
    for seed in ("1", "2"):
        assert deblur("pic.png", *flags, "--seed", seed, "-o", seed).code == 0
    assert Path("1/pic.deblur.png").read_bytes() == Path("2/pic.deblur.png").read_bytes()


def test_pnp_is_half_quadratic_splitting(deblur, alone):
    """The file is what the paper's two lines give for the Gaussian denoiser, with a circular blur done by FFT."""
    y = np.random.Generator(np.random.PCG64(0)).normal(0.5, 0.1, (16, 18)).astype(np.float32)
    tifffile.imwrite("pic.tif", y)
    flags = ("-k", "gaussian:0.8", "--border", "circular", "--noise", "0.02", "--method", "pnp", "--save", "mean")
    assert deblur("pic.tif", *flags, "--denoiser", "gaussian:0.5,0.2", "--iterations", "5").code == 0
    kernel = parse_kernel("gaussian:0.8", 100).values
    placed = np.zeros(y.shape)
    placed[:9, :9] = kernel
    h, z = np.fft.fft2(np.roll(placed, (-4, -4), (0, 1))), y
    for sigma in np.geomspace(0.192, 0.02, 5):
        rho = 0.23 * 0.02**2 / sigma**2
        x = np.fft.ifft2((h.conj() * np.fft.fft2(y) + rho * np.fft.fft2(z)) / (abs(h) ** 2 + rho)).real
        z = 0.5 + 0.04 / (0.04 + sigma**2) * (x - 0.5)
    assert np.abs(tifffile.imread("gpnp_out/pic.deblur.tif") - z.clip(0, 1)).max() < 1e-5


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--kernel"]),
        (["--kernel", "gone.png"], ["gone.png", "neither"]),
        (["--kernel", "motion:5"], ["motion:5"]),
        (["--kernel", "black.png"], ["black.png", "zero everywhere"]),
        (["--kernel", "nan.npy"], ["nan.npy", "not numbers"]),
        (["--kernel", "negative.npy"], ["negative.npy", "negative"]),
        (["--kernel", "red.png"], ["red.png", "colour channels"]),
        (["--kernel", "disk:2", "--noise", "2"], ["noise", "given 2"]),
        (["--kernel", "disk:2", "--border", "mirror"], ["border"]),
        (["--kernel", "disk:2", "--init", "rbf"], ["sampler.init"]),
        (["--kernel", "disk:2", "--simulate"], ["--simulate", "noise"]),
        (["--kernel", "disk:2", "--noise", "0.1", "--simulate", "--reference", "pic.png"], ["--reference"]),
        (["--kernel", "k.npz:k2"], ["k.npz", "k2"]),
        (["--kernel", "grey.png", "-o", "grey.png"], ["grey.png", "input"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_concerns_every_picture_is_refused_before_anything_happens(deblur, pic, flags, words):
    Image.new("L", (3, 3)).save("black.png")
    Image.new("L", (3, 3), 9).save("grey.png")
    Image.new("RGB", (3, 3), (9, 0, 0)).save("red.png")
    np.save("nan.npy", np.array([[1, np.nan]]))
    np.save("negative.npy", np.array([[1, -1]]))
    np.savez("k.npz", k1=np.ones((3, 3)))
    before = {name: Path(name).read_bytes() for name in os.listdir(".") if Path(name).is_file()}
    refused(deblur("pic.png", *flags), 2, *words)
    assert {name: Path(name).read_bytes() for name in os.listdir(".") if Path(name).is_file()} == before


def test_a_kernel_too_large_fails_that_picture_only(deblur, draw):
    draw("large.png")
    draw("small.png", height=6, width=40)
    code, out, err = deblur("large.png", "small.png", "--kernel", "disk:4", "--noise", "0.01", *MEAN)
    assert (code, out) == (1, "gpnp_out/large.deblur.png\n")
    assert "small.png: the kernel (9x9) is larger than the picture (40x6)" in err
    draw("dot.png", height=1, width=3)
    refused(deblur("dot.png", "--kernel", "gaussian:0.1", *MEAN), 1, "dot.png", "larger")
    refused(deblur("dot.png", "--kernel", "motion:3,0", *MEAN), 1, "dot.png", "too small for an estimate of its noise")
    assert deblur("dot.png", "--kernel", "motion:3,0", "--noise", "0.1", "--simulate", *MEAN).code == 0  # 1x1 remains


def test_another_kernel_makes_another_result(deblur, pic):
    np.save("k.npy", np.ones((3, 3)))
    flags = ("pic.png", "--kernel", "k.npy", "--noise", "0.02", *MEAN)
    assert deblur(*flags).code == 0
    assert "already done" in deblur(*flags).err
    np.save("k.npy", np.ones((3, 5)))
    refused(deblur(*flags), 1, "pic.png", "other settings")


def test_a_light_brighter_than_white_does_not_ring(deblur, gpnp, alone):
    sharp = np.full((60, 60), 0.4)
    sharp[28:32, 28:32] = 5
    offsets = [(i, j) for i in range(-3, 4) for j in range(-3, 4) if i * i + j * j <= 9.5]
    blurred = np.mean([np.roll(sharp, offset, (0, 1)) for offset in offsets], 0)
    Image.fromarray(np.rint(255 * blurred.clip(0, 1)).astype(np.uint8)).save("light.png")
    kernel = np.zeros((7, 7))
    for i, j in offsets:
        kernel[i + 3, j + 3] = 1
    np.save("k.npy", kernel / kernel.sum())
    flags = ("--kernel", "k.npy", "--method", "pnp", "--noise", "0.004", "--save", "mean", "--threads", "1")
    code, _, err = gpnp("deblur", "light.png", *flags)
    assert code == 0 and "light.png: 2.4 % saturated, left out" in err
    found = np.asarray(Image.open("gpnp_out/light.deblur.png"), float) / 255
    p = np.hypot(*np.meshgrid(np.arange(60) - 29.5, np.arange(60) - 29.5))
    around = (p > 4) & (p < 12)
    assert np.abs(found[around] - 0.4).max() < 0.02


def test_light_is_blurred_not_pixel_values(deblur, gpnp, alone):
    sharp = np.full((48, 48), 0.1)
    sharp[:, 24:], sharp[12:36, 16:20] = 0.9, 0.8
    light = np.mean([np.roll(to_light(torch.from_numpy(sharp)).numpy(), k, 1) for k in range(-3, 4)], 0)
    pixels = from_light(torch.from_numpy(light)).numpy()
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save("pic.png")
    np.save("k.npy", np.full((1, 7), 1 / 7))
    flags = ("--kernel", "k.npy", "--method", "pnp", "--noise", "0.004", "--iterations", "10", "--save", "mean")
    errors = []
    for name, more in (("with", ["--linear"]), ("without", [])):
        assert gpnp("deblur", "pic.png", *flags, "--threads", "1", "-o", name, *more).code == 0
        found = np.asarray(Image.open(f"{name}/pic.deblur.png"), float) / 255
        errors.append(np.sqrt(np.square(found - sharp)[:, 8:-8].mean()))
    assert errors[0] < errors[1] / 2


def test_a_simulation_in_light_is_shown_and_kept_in_pixels(deblur, draw, alone):
    pixels = draw("pic.png", channels=1)
    flags = ("--simulate", "--linear", "--kernel", "motion:3,0", "--noise", "0", "--iterations", "2", "--save", "mean")
    assert deblur("pic.png", *flags).code == 0
    kept = np.asarray(Image.open("gpnp_out/pic.deblur.damaged.png"), float) / 255
    light = to_light(torch.from_numpy(pixels / 255)).numpy()
    blurred = (light[:, :-2] + light[:, 1:-1] + light[:, 2:]) / 3
    assert np.abs(kept - from_light(torch.from_numpy(blurred)).numpy()).max() < 1 / 255


def test_white_is_believed_where_nothing_was_blurred(deblur, gpnp, alone, draw):
    pixels = draw("pic.png", channels=1)
    pixels[10:14, 8:12] = 255
    Image.fromarray(pixels).save("pic.png")
    np.save("k.npy", np.ones((1, 1)))
    flags = ("--kernel", "k.npy", "--method", "pnp", "--noise", "0.0012", "--save", "mean", "--threads", "1")
    code, _, err = gpnp("deblur", "pic.png", *flags)
    assert code == 0 and "saturated" not in err
    assert np.abs(np.asarray(Image.open("gpnp_out/pic.deblur.png"), float) - pixels).max() <= 3


def test_a_manifest_as_config_repeats_the_run(deblur, gpnp, pic):
    assert deblur("pic.png", "-k", "gaussian:1.2", "--noise", "2.55/255", "-n", "2", "--seed", "3").code == 0
    assert gpnp("deblur", "pic.png", "-c", "gpnp_out/pic.deblur.gpnp.json", "-o", "again").code == 0
    for name in os.listdir("again"):
        if not name.endswith(".json"):
            assert Path(f"again/{name}").read_bytes() == Path(f"gpnp_out/{name}").read_bytes(), name


def test_a_dry_run_writes_nothing(deblur, pic):
    code, out, _ = deblur("pic.png", "--kernel", "disk:2", "--dry-run")
    assert code == 0
    assert "kernel: disk:2" in out and "init: observed" in out
    assert os.listdir(".") == ["pic.png"]


def test_antithetic_samples_come_in_pairs(deblur, draw):
    draw("pic.png")
    options = ("-k", "disk:2", "--noise", "0.01", "--antithetic", "--raw", "npy", "--save", "mean,samples,std")
    code, _, err = deblur("pic.png", *options)
    assert code == 2 and "even number of samples, not 3" in err
    code, _, err = deblur("pic.png", *options, "-n", "4", "--method", "pnp")
    assert code == 2 and "pnp draws no samples" in err
    assert deblur("pic.png", *options, "-n", "2", "--iterations", "20").code == 0
    one, other = (np.asarray(Image.open(f"gpnp_out/pic.deblur.sample-0{k}.png"), float) / 255 for k in (1, 2))
    std = np.load("gpnp_out/pic.deblur.std-raw.npy")
    assert std.mean() == pytest.approx(np.abs(one - other).mean() / 2, rel=0.05)  # two, of which none for the mean
    told = json.loads(Path("gpnp_out/pic.deblur.gpnp.json").read_text("utf-8"))
    assert told["diagnostics"]["effective_samples"] == 1
