"""A prior with sampler settings of its own: what a run says, does and writes down."""

import json
from pathlib import Path

import pytest
import torch

from gpnp_cli.denoisers.header import read_metadata
from gpnp_cli.denoisers.unet import Preconditioned, UNet
from gpnp_cli.training.checkpoint import save_denoiser

QUICK = ("--iterations", "4", "-n", "2", "--threads", "1", "--device", "cpu", "--precision", "fp32")
HOLE = ("--mask", "rect:8,8@4,4")
SHAPE = {"channels": 3, "widths": [8], "blocks": [1], "embedding": 8}


@pytest.fixture
def prior(alone):
    """`prior(**carried)` writes mine.safetensors, a small random network."""
    torch.manual_seed(0)
    model = Preconditioned(UNet(*SHAPE.values()))
    facts = {"architecture": {"name": "unet", **SHAPE, "sigma_data": 0.25}, "sigma_range": [0.001, 5], "both": True}

    def prior(**carried) -> str:
        save_denoiser(Path("mine.safetensors"), model, {**facts, **({"carried": carried} if carried else {})})
        return "mine.safetensors"

    return prior


def manifest(folder: str, command: str = "inpaint") -> dict:
    return json.loads(Path(folder, f"pic.{command}.gpnp.json").read_text())


def samples(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(folder).glob("*.sample-*.png"))]


def test_a_run_says_and_writes_down_what_the_prior_brings(gpnp, pic, prior):
    plain = gpnp("inpaint", "pic.png", *HOLE, *QUICK, "--denoiser", prior(), "-o", "plain")
    own = gpnp("inpaint", "pic.png", *HOLE, *QUICK, "--denoiser", prior(sigma_max=1, r="auto"), "-o", "own")
    line = "gpnp: denoiser mine.safetensors brings sigma_max 1, r auto; preset balanced goes without"
    assert own.code == plain.code == 0
    assert own.err.splitlines().count(line) == 1 and "brings" not in plain.err
    sampler = manifest("own")["config"]["sampler"]
    assert (sampler["sigma_max"], sampler["r"], sampler["sigma_min"]) == (1, "auto", 0.005)
    by_hand = ("--sigma-max", "1", "--r", "auto")
    told = gpnp("inpaint", "pic.png", *HOLE, *QUICK, "--denoiser", prior(), *by_hand, "-o", "by-hand")
    assert "brings" not in told.err
    assert samples("own") == samples("by-hand") != samples("plain")
    usual = gpnp(
        "inpaint", "pic.png", *HOLE, *QUICK, "--denoiser", prior(sigma_max=1), "--preset", "balanced", "-o", "usual"
    )
    assert "brings" not in usual.err and samples("usual") == samples("plain")


def test_a_manifest_repeats_the_run_whatever_the_file_carries_later(gpnp, pic, prior):
    gpnp("inpaint", "pic.png", *HOLE, *QUICK, "--denoiser", prior(sigma_max=1, r="auto"), "-o", "first")
    prior(sigma_max=0.3)
    again = gpnp("inpaint", "pic.png", "-c", "first/pic.inpaint.gpnp.json", "-o", "again")
    assert again.code == 0 and "brings" not in again.err
    assert samples("again") == samples("first")
    assert manifest("again")["config"]["sampler"] == manifest("first")["config"]["sampler"]


@pytest.mark.parametrize("command", ["deblur", "super-resolve"])
def test_the_other_commands_take_it_too(gpnp, pic, prior, command):
    damage = ("--kernel", "gaussian:1", "--noise", "0.02")
    done = gpnp(command, "pic.png", *damage, *QUICK, "--denoiser", prior(sigma_max=0.7))
    assert done.code == 0 and "brings sigma_max 0.7;" in done.err
    assert manifest("gpnp_out", command)["config"]["sampler"]["sigma_max"] == 0.7


def test_another_method_is_not_told_of_it(gpnp, pic, prior):
    done = gpnp("inpaint", "pic.png", *HOLE, *QUICK[4:], "--denoiser", prior(sigma_max=0.7), "--method", "pnp")
    assert done.code == 0 and "brings" not in done.err
    assert manifest("gpnp_out")["config"]["sampler"]["sigma_max"] == 0.192


def test_a_comparison_takes_it_where_the_command_would(gpnp, pic, prior):
    names = "gpnp,gpnp:balanced,gpnp:calibrated,annealed-langevin"
    flags = ("--samplers", names, "--nfe", "11", "-n", "2", *QUICK[4:], "--denoiser")
    done = gpnp("compare", "pic.png", *HOLE, *flags, prior(sigma_max=1, r="auto", iterations=70))
    assert done.code == 0, done.err
    assert done.err.count("brings sigma_max 1, r auto; ") == 1
    rows = {row["sampler"]: row for row in manifest("gpnp_out", "compare")["rows"]}
    assert {row["nfe"] for row in rows.values()} == {11}
    found = {name: (row["settings"]["sigma_max"], row["settings"]["r"]) for name, row in rows.items()}
    assert found == {
        "gpnp": (1, "auto"),
        "gpnp:balanced": (0.25, 1.3),
        "gpnp:calibrated": (0.5, "auto"),
        "annealed-langevin": (0.25, 1.3),
    }


def test_a_comparison_names_an_impossible_setting(gpnp, pic, prior):
    flags = ("--samplers", "gpnp,gpnp:balanced", "--nfe", "11", "-n", "2", *QUICK[4:])
    done = gpnp("compare", "pic.png", *HOLE, *flags, "--denoiser", prior(sigma_max=0.001))
    assert (done.code, done.out) == (2, "") and not Path("gpnp_out").exists()
    assert done.err.startswith("gpnp: error: prior mine.safetensors: sampler.sigma_max: the noise level must fall")


@pytest.mark.parametrize(
    ("carried", "words"),
    [({"sigma_max": 11}, "carried.sigma_max: out of range (given 11"), ({"sigma": 1}, "carried.sigma: unknown key")],
)
def test_an_impossible_setting_is_one_sentence(gpnp, pic, prior, carried, words):
    code, out, err = gpnp("inpaint", "pic.png", *HOLE, *QUICK, "--denoiser", prior(**carried))
    assert (code, out) == (2, "")
    assert err.startswith(f"gpnp: error: mine.safetensors: {words}") and len(err.splitlines()) == 1
    assert not Path("gpnp_out").exists()


def test_damaged_and_missing_files_are_told_as_ever(gpnp, pic, prior):
    whole = Path(prior(sigma_max=1)).read_bytes()
    for data, words in ((whole[:40], "not a readable safetensors file"), (b"PK\x03\x04", "not a readable safetensors")):
        Path("cut.safetensors").write_bytes(data)
        code, _, err = gpnp("inpaint", "pic.png", *HOLE, *QUICK, "--denoiser", "cut.safetensors")
        assert code == 3 and f"cut.safetensors: {words}" in err
    code, _, err = gpnp("inpaint", "pic.png", *HOLE, *QUICK, "--denoiser", "absent.safetensors")
    assert code == 3 and "absent.safetensors: no such file" in err


def test_a_dry_run_shows_it_without_torch(spawn, pic, prior):
    prior(sigma_max=1)
    code = (
        "import sys; from gpnp_cli.cli.app import app; "
        "app(['inpaint', 'pic.png', '--dry-run', '--denoiser', 'mine.safetensors'], standalone_mode=False); "
        "print('torch' in sys.modules)"
    )
    out, err = spawn(python=("-c", code)).communicate(timeout=120)
    lines = out.decode().splitlines()
    assert lines[-1] == "False", err
    assert [line.split() for line in lines if "sigma_max" in line] == [
        ["sigma_max:", "1.0", "#", "prior", "mine.safetensors"]
    ]


def test_the_shipped_digits_bring_what_the_recipe_says():
    import yaml

    from gpnp_cli.denoisers.header import shipped_file

    recipes = Path(__file__).parents[2] / "configs"
    for name in ("train-digits", "train-faces-64", "train-faces-128"):
        recipe = yaml.safe_load((recipes / f"{name}.yaml").read_text("utf-8"))
        assert recipe["carried"] == read_metadata(shipped_file("digits"))["carried"]
