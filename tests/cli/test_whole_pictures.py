"""A prior for whole pictures, from training to restoring: one size, its own kind of picture, and what is said otherwise."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gpnp_cli.cli.training import reader
from gpnp_cli.denoisers.familiarity import LEVELS
from gpnp_cli.errors import InputError
from gpnp_cli.training.checkpoint import load_denoiser

SETTINGS = ["network.architecture=attention-unet", "network.widths=[8,8]", "network.blocks=[1,1]"]
SETTINGS += ["network.embedding=8", "network.attention=1", "network.channels=1", "network.sigma_data=0.4"]
SETTINGS += ["augment.scale_max=1", "augment.texture=0", "augment.flip=false", "augment.turn=false"]
SETTINGS += ["augment.colour=false", "plan.warmup=2", "plan.ema=0.9", "plan.learning_rate=1e-2", "sigma.high=5"]
SMALL = [part for setting in SETTINGS for part in ("--set", setting)]
SMALL += ["--crop", "32", "--batch", "4", "--threads", "1", "--precision", "fp32", "--device", "cpu"]
QUICK = ("--iterations", "3", "--threads", "1", "--device", "cpu", "--precision", "fp32")


def disc(size: int, radius: float) -> np.ndarray:
    """A white disc with a soft edge; the same at all sizes."""
    y, x = (np.mgrid[0:size, 0:size] - (size - 1) / 2) * 32 / size
    return np.uint8(255 / (1 + np.exp(np.hypot(x, y) - radius)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run on discs, of two sizes and among pictures that are no use."""
    from typer.testing import CliRunner

    from gpnp_cli.cli.app import app

    base = tmp_path_factory.mktemp("whole")
    (base / "discs").mkdir()
    for k in range(12):
        Image.fromarray(disc(32 if k % 3 else 64, 4 + k)).save(base / "discs" / f"{k:02}.png")
    Image.fromarray(disc(40, 8)[:36]).save(base / "discs" / "oblong.png")
    Image.fromarray(disc(24, 8)).save(base / "discs" / "small.png")
    arguments = [str(base / "discs"), "-o", str(base / "run"), "--steps", "150", *SMALL, "--set", "validation=0.2"]
    done = CliRunner().invoke(app, ["train-denoiser", *arguments])
    assert done.exit_code == 0, done.stderr
    assert "2 pictures left out" in done.stderr
    for text in ("40x36 is not a square of 32 pixels or more", "24x24 is not a square of 32 pixels or more"):
        assert text in done.stderr
    return base / "run"


def test_the_file_tells_its_size_and_what_it_knows(trained):
    denoiser = load_denoiser(trained / "denoiser.safetensors")
    assert denoiser.image_size == denoiser.metadata["architecture"]["image_size"] == 32
    found = denoiser.metadata["residual"]
    assert list(found) == [f"{level:g}" for level in LEVELS]
    for row in found.values():
        assert 0 < row["mean"] <= row["highest"] < 1
    assert "network:\n  architecture: attention-unet" in (trained / "config.yaml").read_text()


def test_a_run_goes_on(trained, gpnp):
    code, _, err = gpnp("train-denoiser", "-o", trained, "--resume", "--steps", 151)
    assert code == 0 and "going on after step 150" in err


def test_pictures_are_seen_whole(alone):
    Image.fromarray(disc(96, 10)).save("large.png")
    Image.fromarray(disc(32, 10)).save("exact.png")
    Image.fromarray(disc(96, 10)[:, :64]).save("oblong.png")
    large, exact = (reader(1, 32)(alone / name) for name in ("large.png", "exact.png"))
    assert np.array_equal(exact[:, :, 0], disc(32, 10))
    assert large.shape == (32, 32, 1) and large.dtype == np.uint8
    assert np.abs(large.astype(int) - exact).mean() < 3
    assert reader(3)(alone / "oblong.png").shape == (96, 64, 3)  # for crops any form will do
    with pytest.raises(InputError, match="64x96 is not a square"):
        reader(3, 32)(alone / "oblong.png")


def restored(gpnp, trained, *arguments):
    outcome = gpnp(*arguments, "--denoiser", trained / "denoiser.safetensors", "--json", *QUICK)
    records = [json.loads(line) for line in outcome.out.splitlines()]
    return outcome, records


def test_a_picture_of_its_kind_is_restored_without_a_word(trained, gpnp, alone):
    Image.fromarray(disc(32, 9)).save("disc.png")
    outcome, records = restored(gpnp, trained, "inpaint", "disc.png", "--simulate", "-n", "2", "--sigma-max", "0.5")
    assert outcome.code == 0, outcome.err
    assert "far from" not in outcome.err and 0 < records[0]["prior_residual"] < 1.5


@pytest.mark.parametrize("method", ["gpnp", "pnp"])
def test_a_strange_picture_is_restored_and_said_to_be_strange_once(trained, gpnp, alone, method):
    noise = torch.randint(0, 256, (32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save("noise.png")
    outcome, records = restored(gpnp, trained, "inpaint", "noise.png", "--mask", "rect:8,8@8,8", "--method", method)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("noise.png: far from what denoiser") == 1
    assert records[0]["prior_residual"] > 1.5 and records[0]["outputs"]


def test_denoise_says_it_too(trained, gpnp, alone):
    noise = torch.randint(0, 256, (32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save("noise.png")
    arguments = ("denoise", "noise.png", "--sigma", "0.006", "--device", "cpu", "--threads", "1")
    outcome = gpnp(*arguments, "--denoiser", trained / "denoiser.safetensors")
    assert outcome.code == 0 and outcome.err.count("far from what denoiser") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("inpaint", "wide.png"),
        ("deblur", "wide.png", "--kernel", "disk:2", "--border", "circular"),
        ("super-resolve", "wide.png"),
        ("denoise", "wide.png", "--sigma", "0.1"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_picture_of_another_size_fails_alone_and_in_one_sentence(trained, gpnp, alone, draw, arguments):
    draw("wide.png", 32, 40, channels=1)
    quick = QUICK[2:] if arguments[0] == "denoise" else QUICK
    outcome = gpnp(*arguments, "--denoiser", trained / "denoiser.safetensors", *quick)
    assert outcome.code == 1
    assert outcome.err.count("wide.png: this denoiser knows whole pictures of 32x32 pixels, not of ") == 1
    assert "resize to 32x32" in outcome.err
    assert not list(alone.rglob("*.inpaint*.png"))


def test_damaged_facts_are_refused(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    path = trained / "denoiser.safetensors"
    known = load_denoiser(path).metadata
    for wrong in ({"0.25": 3}, {"0.25": {"mean": 1}}, [1], {"0.25": {"highest": 0}}, {"a": {"highest": 1}}):
        save_file(load_file(path), tmp_path / "x.safetensors", {"gpnp": json.dumps({**known, "residual": wrong})})
        with pytest.raises(InputError, match="damaged metadata"):
            load_denoiser(tmp_path / "x.safetensors")
