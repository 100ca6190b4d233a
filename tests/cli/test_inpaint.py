"""`gpnp inpaint` on one picture: what is written, that it is right, and what is refused."""

import hashlib
import json
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import gpnp_cli
from gpnp_cli.cli.results import FILE_FORMATS
from gpnp_cli.imageio import WRITABLE, read_picture

HOLE = (slice(9, 15), slice(12, 20))  # what `--mask rect` hides of 24x32
MEAN = ("--save", "mean", "-n", "1")  # one small file, where no more is looked at


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def levels(path) -> np.ndarray:
    """The pixels as integers, whatever the format: `(C, H, W)`."""
    picture = read_picture(path)
    return np.rint(picture.pixels * (2**picture.bits - 1)).astype(int)


def refused(outcome, code: int, *words: str) -> None:
    """Nothing on stdout, the code, and one sentence on stderr that says all `words`."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    errors = [line for line in outcome.err.splitlines() if line.startswith("gpnp: error: ")]
    assert len(errors) == 1, outcome.err
    for word in words:
        assert str(word) in errors[0]


# ------------------------------------------------------------------------------------------------ what is written


def test_every_result_has_its_name_size_and_mode(gpnp, pic):
    code, out, err = gpnp.inpaint("pic.png", "--raw", "npy")
    assert (code, out) == (0, "gpnp_out/pic.inpaint.png\n")
    assert "pic.png: mask covers 6.2 %" in err
    kinds = ["", ".sample-01", ".sample-02", ".sample-03", ".std", ".sheet"]
    names = {f"pic.inpaint{kind}.png" for kind in kinds} | {"pic.inpaint.std-raw.npy", "pic.inpaint.gpnp.json"}
    assert set(os.listdir("gpnp_out")) == names
    for kind in kinds:
        picture = Image.open(f"gpnp_out/pic.inpaint{kind}.png")
        assert picture.mode == "RGB"
        if kind in ("", ".sample-01", ".sample-02", ".sample-03"):
            assert picture.size == (32, 24)
    assert Image.open("gpnp_out/pic.inpaint.std.png").width >= 32  # a scale stands below the map
    assert Image.open("gpnp_out/pic.inpaint.sheet.png").width > 300


def test_the_mean_is_that_of_the_samples_and_the_map_their_spread(gpnp, pic):
    assert gpnp.inpaint("pic.png", "-n", "5", "--raw", "tif").code == 0
    samples = np.stack([pixels(f"gpnp_out/pic.inpaint.sample-{k:02}.png") for k in range(1, 6)]).astype(float)
    mean, std = pixels("gpnp_out/pic.inpaint.png"), tifffile.imread("gpnp_out/pic.inpaint.std-raw.tif")
    assert np.abs(samples.mean(0) - mean).max() <= 1.001  # each sample is rounded, and the mean is
    assert std.shape == (24, 32, 3)
    assert np.abs(samples.std(0, ddof=1) / 255 - std).max() < 1.5 / 255
    outside = np.ones((24, 32), bool)
    outside[HOLE] = False
    assert (std[outside] == 0).all()
    assert (std[~outside] > 0).all()


@pytest.mark.parametrize("mask", ["rect", "random:0.5", "scratches"])
def test_known_pixels_are_returned_bit_for_bit(gpnp, pic, draw, mask):
    draw("deep.tif", dtype=np.uint16, channels=1)
    assert gpnp.inpaint("pic.png", "deep.tif", "--mask", mask, "--simulate").code == 0
    for name, ext in (("pic", "png"), ("deep", "tif")):
        known = pixels(f"gpnp_out/{name}.inpaint.mask.png")[:, :, 0] == 0
        assert 0 < known.mean() < 1
        for kind in ("", ".sample-01", ".damaged"):
            assert np.array_equal(pixels(f"gpnp_out/{name}.inpaint{kind}.{ext}")[known], pixels(f"{name}.{ext}")[known])
        assert not np.array_equal(pixels(f"gpnp_out/{name}.inpaint.{ext}"), pixels(f"{name}.{ext}"))


def test_known_pixels_stay_within_the_noise(gpnp, pic):
    assert gpnp.inpaint("pic.png", "--noise", "0.02", "--iterations", "30", "--save", "samples", "-n", "1").code == 0
    gap = (pixels("gpnp_out/pic.inpaint.sample-01.png").astype(float) - pic) / 255
    known = np.ones((24, 32), bool)
    known[HOLE] = False
    assert 0 < np.sqrt((gap[known] ** 2).mean()) < 0.04


def test_the_manifest_says_how_the_result_was_made(gpnp, pic):
    assert gpnp.inpaint("pic.png", "--seed", "7").code == 0
    manifest = json.loads(Path("gpnp_out/pic.inpaint.gpnp.json").read_text("utf-8"))
    expected = {
        "gpnp": gpnp_cli.__version__,
        "command": "inpaint",
        "input": "pic.png",
        "input_sha256": hashlib.sha256(Path("pic.png").read_bytes()).hexdigest(),
        "status": "done",
        "seed": 7,
        "denoiser": "gaussian",
        "device": "cpu",
        "torch": torch.__version__,
        "nfe": 4,
        "mask_share": 48 / 768,
    }
    assert {key: manifest[key] for key in expected} == expected
    assert manifest["outputs"]["main"] == "pic.inpaint.png"
    assert set(manifest["outputs"].values()) == set(os.listdir("gpnp_out")) - {"pic.inpaint.gpnp.json"}
    assert manifest["config"]["sampler"]["iterations"] == 3
    assert manifest["config"]["run"]["seed"] == 7
    assert manifest["seconds"] > 0


def test_a_manifest_as_config_repeats_the_run_bit_for_bit(gpnp, pic):
    assert (
        gpnp.inpaint("pic.png", "--seed", "random", "-n", "2", "--mask", "random:0.3,seed=4", "--beta", "0.125").code
        == 0
    )
    again = gpnp("inpaint", "pic.png", "-c", "gpnp_out/pic.inpaint.gpnp.json", "-o", "again")
    assert again.code == 0, again.err
    names = set(os.listdir("gpnp_out"))
    assert set(os.listdir("again")) == names
    for name in names - {"pic.inpaint.gpnp.json"}:
        assert Path(f"again/{name}").read_bytes() == Path(f"gpnp_out/{name}").read_bytes(), name
    # and in the first folder it is recognised as done
    assert "already done" in gpnp("inpaint", "pic.png", "-c", "gpnp_out/pic.inpaint.gpnp.json").err


def test_the_seed_decides_and_is_told_if_drawn(gpnp, pic):
    def draw_with(folder, *flags):
        assert gpnp.inpaint("pic.png", "-o", folder, *flags).code == 0
        return {name: Path(f"{folder}/{name}").read_bytes() for name in os.listdir(folder) if "sample" in name}

    first = draw_with("a")
    assert draw_with("b", "--seed", "0") == first
    other = draw_with("c", "--seed", "1")
    assert all(other[name] != first[name] for name in first)
    fewer = draw_with("d", "-n", "2")  # a sample does not depend on how many there are
    assert fewer == {name: first[name] for name in fewer}
    assert len(set(first.values())) == 3
    err = gpnp.inpaint("pic.png", "-o", "e", "--seed", "random", "-q").err
    assert err == ""
    err = gpnp.inpaint("pic.png", "-o", "f", "--seed", "random").err
    seed = json.loads(Path("f/pic.inpaint.gpnp.json").read_text("utf-8"))["seed"]
    assert f"gpnp: seed {seed}\n" in err


def test_one_picture_as_a_file_of_its_own(gpnp, pic):
    assert gpnp.inpaint("pic.png", "-o", "fresh/out.jpg", "-n", "1")[:2] == (0, "fresh/out.jpg\n")
    assert Image.open("fresh/out.jpg").format == "JPEG"  # the name decides, not the input
    assert set(os.listdir("fresh")) == {"out.jpg", "out.gpnp.json", "out.sample-01.png", "out.sheet.png"}
    assert "already done" in gpnp.inpaint("pic.png", "-o", "fresh/out.jpg", "-n", "1").err
    refused(gpnp.inpaint("pic.png", "-o", "fresh/out.png", "-n", "1"), 1, "out.gpnp.json", "other settings")
    Path("mine.png").write_bytes(b"precious")
    refused(gpnp.inpaint("pic.png", "-o", "mine.png"), 1, "mine.png exists")
    assert Path("mine.png").read_bytes() == b"precious"


@pytest.mark.parametrize("suffix", FILE_FORMATS)
def test_every_file_name_gets_its_format(gpnp, pic, suffix):
    assert gpnp.inpaint("pic.png", "-o", f"out{suffix}", *MEAN).code == 0
    assert Image.open(f"out{suffix}").format.lower()[:3] == FILE_FORMATS[suffix].replace("jpg", "jpe")[:3]
    assert FILE_FORMATS[suffix] in WRITABLE


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["-o", "out.gif"], ".gif"),
        (["-o", "pic.png"], "pic.png"),
        (["-o", "pic.png", "--force"], "pic.png"),
        (["-o", "link.png", "--force"], "link.png"),
        (["-o", "mask.png", "--mask", "mask.png", "--force"], "mask.png"),
        (["-o", "o.png", "--format", "tif"], "o.png"),
        (["-o", "o.png", "--save", "samples"], "o.png"),
        (["-o", "o", "--format", "jpg", "--bits", "16"], "--bits 16"),
        (["-o", "o", "-n", "1", "--save", "std"], "--save std"),
        (["-o", "o", "--simulate", "--reference", "pic.png"], "--reference"),
        (["-o", "o", "--progress", "fancy"], "--progress fancy"),
    ],
)
def test_contradictions_are_refused_before_anything_happens(gpnp, pic, flags, word):
    Image.new("L", (32, 24)).save("mask.png")
    os.symlink("pic.png", "link.png")
    before = {name: Path(name).read_bytes() for name in os.listdir(".")}
    refused(gpnp.inpaint("pic.png", *flags), 2, word)
    assert {name: Path(name).read_bytes() for name in os.listdir(".")} == before


def test_a_result_never_replaces_an_input_through_a_link(gpnp, pic, draw):
    draw("other.png", phase=1)
    os.mkdir("out")
    os.link("other.png", "out/pic.inpaint.sample-01.png")
    data = Path("other.png").read_bytes()
    code, out, err = gpnp.inpaint("pic.png", "other.png", "-o", "out", "--force")
    assert code == 1
    assert out == "out/other.inpaint.png\n"
    assert "out/pic.inpaint.sample-01.png: would overwrite the input other.png" in err
    assert Path("other.png").read_bytes() == data
    assert not os.path.exists("out/pic.inpaint.png")


def test_results_of_other_settings_are_kept_unless_forced(gpnp, pic):
    assert gpnp.inpaint("pic.png").code == 0
    before = Path("gpnp_out/pic.inpaint.png").read_bytes()
    outcome = gpnp.inpaint("pic.png", "--seed", "1", "-n", "2")
    refused(outcome, 1, "pic.png", "other settings")
    assert "--force" in outcome.err
    assert Path("gpnp_out/pic.inpaint.png").read_bytes() == before
    assert gpnp.inpaint("pic.png", "--seed", "1", "-n", "2", "--force").code == 0
    assert Path("gpnp_out/pic.inpaint.png").read_bytes() != before
    assert not os.path.exists("gpnp_out/pic.inpaint.sample-03.png")  # it would pass for one of the new samples
    refused(gpnp.inpaint("pic.png", "--seed", "1", "-n", "2", "--existing", "error"), 1, "done already")


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '{"config_hash": 1, "outputs": ["a"]}', "\x00\xff"])
def test_a_damaged_manifest_is_not_trusted(gpnp, pic, text):
    assert gpnp.inpaint("pic.png", *MEAN).code == 0
    Path("gpnp_out/pic.inpaint.gpnp.json").write_text(text)
    refused(gpnp.inpaint("pic.png", *MEAN), 1, "pic.inpaint.gpnp.json")
    assert gpnp.inpaint("pic.png", *MEAN, "--force").code == 0


@pytest.mark.parametrize(
    "hostile", ["../precious", "mine.txt", "../pic.inpaint.x", "{absolute}", ".", "pic.inpaint.d/../../precious"]
)
def test_a_hostile_manifest_deletes_nothing_else(gpnp, pic, hostile):
    os.makedirs("gpnp_out/pic.inpaint.d")
    others = [Path("precious"), Path("pic.inpaint.x"), Path("gpnp_out/mine.txt")]
    for path in others:
        path.touch()
    names = ["pic.inpaint.old.png", hostile.replace("{absolute}", os.path.abspath("precious"))]
    Path("gpnp_out/pic.inpaint.old.png").touch()
    Path("gpnp_out/pic.inpaint.gpnp.json").write_text(json.dumps({"outputs": dict(enumerate(names))}))
    assert gpnp.inpaint("pic.png", *MEAN, "--force").code == 0
    assert all(path.exists() for path in others)
    assert not os.path.exists("gpnp_out/pic.inpaint.old.png")


# ------------------------------------------------------------------------------------------------ kinds of pictures


def write_kinds(draw) -> dict[str, tuple]:
    """Pictures of every kind in the current folder: name to (extension, mode, bits, alpha) of the result."""
    grey, rgb = draw(channels=1), draw()
    draw("grey.png", channels=1)
    draw("rgb.png")
    rgba = np.dstack([rgb, np.uint8(grey // 2 + 90)])
    Image.fromarray(rgba).save("rgba.png")
    Image.fromarray(np.dstack([grey, rgba[:, :, 3]])).save("la.png")
    Image.fromarray(rgb).quantize(8, dither=Image.Dither.NONE).save("palette.png")
    draw("deep.png", channels=1, dtype=np.uint16)
    import cv2

    cv2.imwrite("deepcolour.png", draw(dtype=np.uint16))
    tifffile.imwrite("deepcolour.tif", draw(dtype=np.uint16), photometric="rgb")
    tifffile.imwrite("float.tif", (draw(dtype=np.uint16) / 65535).astype(np.float32), photometric="rgb")
    Image.fromarray(np.dstack([rgb // 2, grey // 4]), "CMYK").save("ink.jpg", quality=95)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(rgb).save("turned.jpg", exif=exif, quality=95)
    Image.fromarray(grey).save("old.gif")
    return {
        "grey.png": ("png", "grey", 8, False),
        "rgb.png": ("png", "rgb", 8, False),
        "rgba.png": ("png", "rgb", 8, True),
        "la.png": ("png", "grey", 8, True),
        "palette.png": ("png", "palette", 8, False),
        "deep.png": ("png", "grey", 16, False),
        "deepcolour.png": ("png", "rgb", 16, False),
        "deepcolour.tif": ("tif", "rgb", 16, False),
        "float.tif": ("tif", "rgb", 32, False),
        "ink.jpg": ("jpg", "cmyk", 8, False),
        "turned.jpg": ("jpg", "rgb", 8, False),
        "old.gif": ("png", "palette", 8, False),
    }


def test_each_kind_comes_out_as_what_it_was(gpnp, draw):
    kinds = write_kinds(draw)
    # few pixels are hidden, so that a palette has room for the new colours
    code, out, err = gpnp.inpaint(*kinds, "--mask", "rect:3,3@4,4", *MEAN)
    assert code == 0, err
    assert len(out.splitlines()) == len(kinds)
    for (name, (extension, mode, bits, alpha)), path in zip(kinds.items(), out.splitlines(), strict=True):
        before, after = read_picture(name), read_picture(path)
        assert path.endswith(f".inpaint.{extension}"), name
        assert (after.mode, after.bits, after.alpha is not None) == (mode, bits, alpha), name
        assert after.pixels.shape == before.pixels.shape == (len(before.pixels), *after.pixels.shape[1:])
        if extension != "jpg":
            known = np.ones(after.pixels.shape[1:], bool)
            known[4:7, 4:7] = False
            assert np.array_equal(levels(path)[:, known], levels(name)[:, known]), name
            assert not np.array_equal(levels(path), levels(name)), name
        if alpha:
            assert np.array_equal(after.alpha, before.alpha), name
    assert Image.open("gpnp_out/ink.inpaint.jpg").mode == "CMYK"
    turned = Image.open("gpnp_out/turned.inpaint.jpg")
    assert turned.size == (24, 32)  # upright
    assert turned.getexif().get(274, 1) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (13, 17)])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiny_and_odd_sizes(gpnp, draw, size, channels):
    draw("p.png", *size, channels)
    Image.fromarray(np.uint8(255 * (np.arange(size[0] * size[1]).reshape(size) % 2))).save("m.png")
    for mask in ("rect", "m.png"):
        outcome = gpnp.inpaint("p.png", "--mask", mask, "-o", mask[0], "--simulate")
        if size == (1, 1):  # nothing can be both hidden and left
            refused(outcome, 1, "m.png" if mask == "m.png" else "p.png", "nothing" if mask == "m.png" else "whole")
        else:
            assert outcome.code == 0, outcome.err
            assert pixels(f"{mask[0]}/p.inpaint.png").shape == pixels("p.png").shape


# ------------------------------------------------------------------------------------------------ masks


def test_a_mask_file_and_its_inverse(gpnp, pic):
    white = np.zeros((24, 32), np.uint8)
    white[2:6, 3:9] = 255
    Image.fromarray(white).save("mask.png")
    for flags in ([], ["--mask-invert"]):
        out = f"out{len(flags)}"
        assert gpnp.inpaint("pic.png", "--mask", "mask.png", "-o", out, *MEAN, *flags).code == 0
        changed = (pixels(f"{out}/pic.inpaint.png") != pic).any(2)
        hidden = (white == 255) != bool(flags)
        assert not changed[~hidden].any()
        assert changed[hidden].mean() > 0.9


def test_a_folder_of_masks(gpnp, draw):
    os.makedirs("pics/deep")
    os.makedirs("masks/deep")
    for name, row in (("a", 0), ("deep/b", 9)):
        draw(f"pics/{name}.png")
        mask = np.zeros((24, 32), np.uint8)
        mask[row : row + 3] = 255
        Image.fromarray(mask).save(f"masks/{name}.bmp")  # the stem counts
    draw("pics/alone.png")
    code, out, err = gpnp.inpaint("pics", "-r", "--mask", "masks", *MEAN)
    assert code == 1
    assert out == "gpnp_out/a.inpaint.png\ngpnp_out/deep/b.inpaint.png\n"
    assert "pics/alone.png: no mask of that name in masks" in err
    for name, row in (("a", 0), ("deep/b", 9)):
        changed = (pixels(f"gpnp_out/{name}.inpaint.png") != pixels(f"pics/{name}.png")).any((1, 2))
        assert list(np.flatnonzero(changed)) == [row, row + 1, row + 2]


def test_transparent_pixels_as_mask(gpnp, draw):
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[5:8, 5:8] = 0
    Image.fromarray(np.dstack([draw(), alpha])).save("hole.png")
    assert gpnp.inpaint("hole.png", "--mask", "alpha", *MEAN).code == 0
    result = Image.open("gpnp_out/hole.inpaint.png")
    assert result.mode == "RGB"  # it has no holes any more
    changed = (np.asarray(result) != draw()).any(2)
    assert np.array_equal(np.flatnonzero(changed.any(0)), [5, 6, 7])
    assert not changed[alpha == 255].any()


def test_a_mask_that_was_edited_makes_another_result(gpnp, pic):
    mask = np.zeros((24, 32), np.uint8)
    mask[3, 3] = 255
    Image.fromarray(mask).save("m.png")
    assert gpnp.inpaint("pic.png", "--mask", "m.png", *MEAN).code == 0
    mask[4, 4] = 255
    Image.fromarray(mask).save("m.png")
    refused(gpnp.inpaint("pic.png", "--mask", "m.png", *MEAN), 1, "another input")


def test_an_edited_reference_is_measured_anew(gpnp, pic, draw):
    draw("truth.png", phase=1)
    assert gpnp.inpaint("pic.png", "--reference", "truth.png", *MEAN).code == 0
    draw("truth.png", phase=2)
    refused(gpnp.inpaint("pic.png", "--reference", "truth.png", *MEAN), 1, "another input")


def bomb(path, width=60_000, height=60_000) -> None:
    """A PNG of a few hundred bytes whose header claims gigapixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ("rect:30,4", ("rect:30,4", "32 wide and 24 high")),
        ("rect:4,4@21,0", ("rect:4,4@21,0",)),
        ("alpha", ("no transparency",)),
        ("black.png", ("black.png", "hides nothing")),
        ("white.png", ("white.png", "whole picture")),
        ("small.png", ("small.png", "16x12", "32x24")),
        ("empty.png", ("empty.png", "empty")),
        ("text.png", ("text.png", "not a picture")),
        ("bomb.png", ("bomb.png", "3600 megapixels")),
        ("gone.png", ("gone.png", "does not exist")),
    ],
)
def test_masks_that_do_not_work_name_picture_and_mask(gpnp, pic, alone, mask, words):
    Image.new("L", (32, 24), 0).save("black.png")
    Image.new("L", (32, 24), 255).save("white.png")
    Image.new("L", (16, 12), 255).save("small.png")
    (alone / "empty.png").touch()
    (alone / "text.png").write_text("not a picture\n")
    bomb(alone / "bomb.png")
    os.symlink("nowhere", "gone.png")
    refused(gpnp.inpaint("pic.png", "--mask", mask), 1, "pic.png", *words)
    assert not os.path.exists("gpnp_out")  # not even an empty folder is left


@pytest.mark.parametrize("mask", ["nonsense", "rect:a,b", "random:2", "scratches:0", "nowhere/m.png"])
def test_a_nonsense_mask_is_a_usage_error(gpnp, pic, mask):
    refused(gpnp.inpaint("pic.png", "--mask", mask), 2, f"--mask {mask}")
    assert not os.path.exists("gpnp_out")


# ------------------------------------------------------------------------------------------------ the truth


def rows(err: str) -> dict[str, list[float]]:
    found = {}
    for line in err.splitlines():
        label, *numbers = line.split()
        if len(numbers) == 3 and label in ("damaged", "mean") or label.startswith("sample-"):
            found[label] = [float(number) for number in numbers]
    return found


def test_simulation_measures_damage_samples_and_mean(gpnp, pic):
    code, out, err = gpnp.inpaint("pic.png", "--simulate", "--noise", "0.05", "--json")
    assert code == 0
    assert ["pic.png", "PSNR/dB", "SSIM", "NRMSE"] in [line.split() for line in err.splitlines()]
    table = rows(err)
    assert list(table) == ["damaged", "sample-01", "sample-02", "sample-03", "mean"]
    record = json.loads(out.splitlines()[0])
    assert list(record["metrics"]) == list(table)
    for label, (psnr, ssim, nrmse) in table.items():
        exact = record["metrics"][label]
        assert [psnr, ssim, nrmse] == pytest.approx([exact["psnr"], exact["ssim"], exact["nrmse"]], abs=0.006)
    for kind, label in ((".damaged", "damaged"), (".sample-02", "sample-02"), ("", "mean")):
        error = (pixels(f"gpnp_out/pic.inpaint{kind}.png") / 255 - pic / 255).ravel()
        assert -10 * np.log10((error**2).mean()) == pytest.approx(record["metrics"][label]["psnr"], abs=0.05), label
    assert record["psnr"] == record["metrics"]["mean"]["psnr"]
    damaged = pixels("gpnp_out/pic.inpaint.damaged.png")
    assert (damaged[HOLE] == 0).all()
    noise = (damaged.astype(float) - pic)[:8] / 255
    assert noise.std() == pytest.approx(0.05, rel=0.15)


def test_a_reference_file_or_folder(gpnp, draw):
    truth = draw("truth.png")
    os.mkdir("truths")
    damaged = truth.copy()
    damaged[HOLE] = 0
    for name in ("a", "b"):
        Image.fromarray(damaged).save(f"{name}.png")
        Image.fromarray(truth).save(f"truths/{name}.tif")
    single = gpnp.inpaint("a.png", "--reference", "truth.png", "-o", "one")
    both = gpnp.inpaint("a.png", "b.png", "--reference", "truths", "-o", "two")
    assert (single.code, both.code) == (0, 0)
    assert rows(single.err)["mean"] == rows(gpnp.inpaint("a.png", "--reference", "truths", "-o", "three").err)["mean"]
    assert both.err.count("PSNR/dB") == 2
    assert rows(single.err)["damaged"][0] == pytest.approx(
        -10 * np.log10(((damaged / 255 - truth / 255) ** 2).mean()), abs=0.01
    )
    assert not os.path.exists("one/a.inpaint.damaged.png")  # the input is that


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("small.png", ("16x12",)),
        ("grey.png", ("32x24 grey",)),
        ("absent.png", ("does not exist",)),
        (".", ("no reference",)),
    ],
)
def test_a_reference_that_does_not_fit(gpnp, draw, reference, words):
    os.mkdir("in")
    draw("in/pic.png")
    draw("small.png", 12, 16)
    draw("grey.png", channels=1)
    refused(gpnp.inpaint("in/pic.png", "--reference", reference), 1, "in/pic.png", *words)


def test_identical_pictures_give_valid_json(gpnp, alone):
    """Their PSNR is infinite, which JSON has no word for."""
    grey = np.full((24, 32), 128, np.uint8)
    grey[HOLE] = 0
    Image.fromarray(grey).save("pic.png")  # what is hidden was black: "damaged" is the truth
    code, out, _ = gpnp.inpaint("pic.png", "--simulate", "--json", "-q")
    assert code == 0

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    record = json.loads(out.splitlines()[0], parse_constant=no_constant)
    assert record["metrics"]["damaged"]["psnr"] is None
    json.loads(Path("gpnp_out/pic.inpaint.gpnp.json").read_text("utf-8"), parse_constant=no_constant)


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sampler: {beta: .nan}\n", ("bad.yaml:1", "sampler.beta", "finite")),
        ("noise: .inf\n", ("bad.yaml:1", "noise")),
        ("sampler:\n  beta: 0\n", ("bad.yaml:2", "sampler.beta", "out of range")),
        ("sampler:\n  beta: 1.5\n", ("bad.yaml:2", "sampler.beta", "out of range")),
        ("sampler: {sigma_min: 0.9}\n", ("bad.yaml:1", "sampler.sigma_min", "sigma_max = 0.25")),
        ("sampler: {stpes: 3}\n", ("bad.yaml:1", "sampler.stpes", "did you mean sampler.iterations?")),
        ("maks: rect\n", ("bad.yaml:1", "maks", "did you mean mask?")),
        ("noise: lots\n", ("bad.yaml:1", "noise", "lots")),
        ("noise: [1\n", ("bad.yaml", "YAML")),
    ],
)
def test_a_bad_config_file_is_refused_with_file_and_key(gpnp, pic, alone, text, words):
    (alone / "bad.yaml").write_text(text)
    refused(gpnp.inpaint("pic.png", "-c", "bad.yaml"), 2, *words)
    assert not os.path.exists("gpnp_out")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--beta", "nan"], ("sampler.beta",)),
        (["--beta", "0"], ("sampler.beta",)),
        (["--sigma-min", "0.6"], ("sampler.sigma_min", "sigma_max")),
        (["--samples", "0"], ("sampler.samples",)),
        (["--samples", "two"], ("sampler.samples", "two")),
        (["--set", "sampler.samples=2", "--samples", "2"], ("sampler.samples", "--set")),
        (["--set", "sampler.bta=0.5"], ("sampler.bta", "did you mean sampler.beta?")),
        (["--seed", "-1"], ("run.seed",)),
        (["--shard", "3/2"], ("run.shard",)),
        (["--device", "cdua"], ("run.device", "did you mean cuda?")),
        (["-c", "absent.yaml"], ("absent.yaml", "no such file")),
    ],
)
def test_bad_options_are_refused_by_key(gpnp, pic, flags, words):
    refused(gpnp("inpaint", "pic.png", "--denoiser", "gaussian", *flags), 2, *words)
    assert not os.path.exists("gpnp_out")


@pytest.mark.parametrize(
    "arguments", [["inpaint", "--bogus"], ["inpaint"], ["frobnicate"], ["inpaint", "nothing/*.png"]]
)
def test_a_wrong_command_line_is_code_2(gpnp, arguments):
    code, out, err = gpnp(*arguments)
    assert (code, out) == (2, "")
    assert arguments[-1] in err


def test_dry_run_shows_and_writes_nothing(gpnp, pic):
    code, out, err = gpnp.inpaint("pic.png", "--dry-run", "--beta", "0.5")
    assert code == 0
    assert "beta: 0.5" in out
    assert "# flag" in out
    assert "# pic.png -> gpnp_out/pic.inpaint." in err
    code, out, _ = gpnp.inpaint("pic.png", "--dry-run", "--beta", "0.5", "--json")
    assert json.loads(out)["sampler"]["beta"] == 0.5
    assert os.listdir(".") == ["pic.png"]


# ------------------------------------------------------------------------------------------------ priors and devices


class Touch:
    """Unpickling this makes a file."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_a_denoiser_file_is_never_executed(gpnp, pic, alone):
    hostile = alone / "hostile.pt"
    hostile.write_bytes(pickle.dumps({"state_dict": Touch()}))
    torch.save({"state_dict": Touch()}, alone / "zipped.pth")
    for name in ("hostile.pt", "zipped.pth"):
        outcome = gpnp("inpaint", "pic.png", "--denoiser", name)
        refused(outcome, 3, name)
        assert "never unpickles" in outcome.err
    assert not os.path.exists("hacked")
    assert not os.path.exists("gpnp_out")


def test_broken_denoiser_files(gpnp, pic, alone):
    from safetensors.torch import save

    whole = save({"w": torch.zeros(3)}, {"gpnp": "{}"})
    broken = {
        "empty": b"",
        "cut": whole[:-5],
        "head": b"\xff" * 64,
        "other": save({"w": torch.zeros(3)}),
        "blank": whole,
    }
    for name, data in broken.items():
        (alone / f"{name}.safetensors").write_bytes(data)
        refused(gpnp("inpaint", "pic.png", "--denoiser", f"{name}.safetensors"), 3, f"{name}.safetensors")
    os.mkdir("folder.safetensors")
    for name in ("absent.safetensors", "folder.safetensors"):
        refused(gpnp("inpaint", "pic.png", "--denoiser", name), 3, name)


def test_an_unknown_denoiser_gets_a_suggestion(gpnp, pic):
    outcome = gpnp("inpaint", "pic.png", "--denoiser", "gausian")
    refused(outcome, 2, "gausian")
    assert "did you mean 'gaussian'?" in outcome.err
    refused(gpnp("inpaint", "pic.png", "--denoiser", "gaussian:1,2,3"), 2, "gaussian:1,2,3")
    assert not os.path.exists("gpnp_out")


def test_a_trained_file_works_at_once_and_only_for_its_kind(gpnp, draw, alone):
    from gpnp_cli.denoisers.unet import Preconditioned, UNet
    from gpnp_cli.training.checkpoint import save_denoiser

    architecture = {"name": "unet", "channels": 3, "widths": [4], "blocks": [1], "embedding": 4, "sigma_data": 0.25}
    torch.manual_seed(0)
    model = Preconditioned(UNet(3, (4,), (1,), 4), 0.25)
    metadata = {"architecture": architecture, "sigma_range": [0.001, 2.0], "both": False, "data": "none", "steps": 1}
    save_denoiser(alone / "mine.safetensors", model, metadata)
    draw("colour.png")
    draw("grey.png", channels=1)
    code, out, err = gpnp.inpaint("grey.png", "colour.png", "--denoiser", "mine.safetensors", *MEAN)
    assert (code, out) == (1, "gpnp_out/colour.inpaint.png\n")
    assert "grey.png: denoiser mine.safetensors is for colour pictures, this one is grey" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_device_is_never_replaced(gpnp, pic):
    refused(
        gpnp("inpaint", "pic.png", "--denoiser", "gaussian", "--device", "cuda"), 3, "--device cuda", "not available"
    )
    assert not os.path.exists("gpnp_out")


def test_a_chain_that_diverges_names_the_picture(gpnp, pic, monkeypatch):
    from gpnp_cli.denoisers.exact import GaussianPixels

    monkeypatch.setattr(GaussianPixels, "__call__", lambda self, v, sigma: v / 0)
    refused(gpnp.inpaint("pic.png"), 1, "pic.png", "non-finite")
    assert not os.path.exists("gpnp_out")


def test_running_out_of_memory_is_one_sentence(gpnp, pic, draw, monkeypatch):
    from gpnp_cli.denoisers.exact import GaussianPixels

    draw("small.png", 8, 8)
    plain = GaussianPixels.__call__

    def hungry(self, v, sigma):
        if v.shape[-1] > 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        return plain(self, v, sigma)

    monkeypatch.setattr(GaussianPixels, "__call__", hungry)
    code, out, err = gpnp.inpaint("pic.png", "small.png", *MEAN)
    assert (code, out) == (1, "gpnp_out/small.inpaint.png\n")
    assert "gpnp: error: pic.png: out of memory" in err


def test_a_bug_is_code_70_with_a_sentence_and_a_log(gpnp, pic, draw, monkeypatch, tmp_path):
    from gpnp_cli.cli.inpainting import Inpainting

    draw("good.png", 8, 8)
    restore = Inpainting.restore

    def broken(self, picture, job):
        if job.input.path.name == "pic.png":
            raise ZeroDivisionError("of all things")
        return restore(self, picture, job)

    monkeypatch.setattr(Inpainting, "restore", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = gpnp.inpaint("pic.png", "good.png", *MEAN)
    assert (code, out) == (70, "gpnp_out/good.inpaint.png\n")
    assert "gpnp: this is a bug in gpnp: ZeroDivisionError: of all things\n" in err
    (log,) = tmp_path.glob("gpnp-bug-*.log")
    assert str(log) in err
    assert "Traceback" in log.read_text()
    assert "def broken" not in err


def test_a_picture_that_cannot_be_written_as_asked_fails_before_the_chains(gpnp, draw, monkeypatch):
    from gpnp_cli.denoisers.exact import GaussianPixels

    monkeypatch.setattr(GaussianPixels, "__call__", lambda *_: pytest.fail("sampled in vain"))
    Image.fromarray(np.dstack([draw(), draw(channels=1)])).save("clear.png")
    refused(gpnp.inpaint("clear.png", "--format", "jpg"), 1, "clear.png", "JPG")
    draw("p.jpg")
    refused(gpnp.inpaint("p.jpg", "--bits", "16"), 1, "p.jpg", "16 bits")


def test_raw_maps_can_be_read_back(gpnp, pic):
    assert gpnp.inpaint("pic.png", "--raw", "npy", "--save", "std").code == 0
    raw = np.load("gpnp_out/pic.inpaint.std-raw.npy")
    assert raw.shape == (3, 24, 32)
    assert raw.dtype == np.float32


def test_pnp_keeps_known_pixels(gpnp, draw, alone):
    pixels = draw("pic.png")
    flags = ("pic.png", "--mask", "rect:8,8@4,4", "--method", "pnp", "--json")
    code, out, err = gpnp.inpaint(*flags, "--simulate", "--save", "mean,samples,std")
    assert code == 0, err
    assert set(os.listdir("gpnp_out")) == {
        f"pic.inpaint.{kind}" for kind in ("png", "gpnp.json", "mask.png", "damaged.png")
    }
    result = np.asarray(Image.open("gpnp_out/pic.inpaint.png"))
    hole = np.zeros((24, 32), bool)
    hole[4:12, 4:12] = True
    assert np.array_equal(result[~hole], pixels[~hole]) and not np.array_equal(result[hole], pixels[hole])
    assert set(json.loads(out.splitlines()[0])["metrics"]) == {"damaged", "estimate"}
