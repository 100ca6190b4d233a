"""The benchmarks of known blur and of calibration: their statistics, their cache, one small run of each."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from gpnp_cli import build
from gpnp_cli.config import DeblurSampler, Model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """A benchmark by its name; they import each other from their folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("machine", "problems", "calibration", "deblurring"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in ("machine", "problems", "calibration", "deblurring"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(load, alone, monkeypatch, draw):
    """`run(name, *arguments)`: a benchmark's Markdown, on two small pictures and one kernel file."""
    Path("pics").mkdir()
    for name, phase in (("a", 0.0), ("b", 1.0)):
        draw(f"pics/{name}.png", height=40, width=40, phase=phase)
    h = np.zeros((3, 5), np.float32)
    h[1], h[0, 0] = 1, 2  # lopsided
    np.savez("ks.npz", k1=h, k2=h[:, ::-1])
    threads = torch.get_num_threads()

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments, "--denoiser", "gaussian", "--out", "out.md"])
        load(name).main()
        return Path("out.md").read_text()

    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("chains", [3, 8, 19])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_coverage_of_few_samples_has_no_bias(load, chains, width):
    """Gaussian truth and samples; samples too narrow by half are found out at every level."""
    calibration = load("calibration")
    rng, pixels = np.random.default_rng(0), 40_000
    draws, truth = width * rng.standard_normal((chains, pixels)), rng.standard_normal(pixels)
    found = calibration.held(draws, truth)
    assert set(found) == set(calibration.LEVELS)
    for level, share in found.items():
        if width == 1:
            assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / pixels)
        else:
            assert share < level - 0.05


def test_what_is_finished_is_not_done_again(load, tmp_path, capsys):
    deblurring = load("deblurring")
    path, calls = tmp_path / "runs" / "cache.jsonl", []

    def compute() -> dict:
        calls.append(1)
        return {"psnr": 30.0}

    for _ in range(2):
        cache = deblurring.Cache(path)
        assert cache.get("a", compute)["psnr"] == 30
        assert cache.get("b", compute)["psnr"] == 30
    assert len(calls) == 2
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_subset_is_spread_over_all_cases(load):
    some = load("deblurring").some
    assert some(list(range(10)), 4) == [0, 3, 6, 9]
    assert some([1, 2], 5) == some([1, 2], None) == [1, 2]


def test_a_denoised_blur_is_what_the_command_gives(load, gpnp, draw):
    """`problems` must build what `gpnp deblur` builds: the same data give the same estimate."""
    problems = load("problems")
    draw("pic.png", height=30, width=34)
    truth = 0.25 + problems.pictures(Path("."))["pic"] / 2  # a file holds no noise beyond [0, 1]
    np.savez("ks.npz", k1=np.eye(5))
    h = problems.kernels([Path("ks.npz")])["ks:k1"]
    problem = problems.deblurring(truth, h, 0.02, 3)
    y = problem.model.y[0].numpy()
    np.save("h.npy", h)
    tifffile.imwrite("y.tif", y.transpose(1, 2, 0), photometric="rgb")
    flags = ("--denoiser", "gaussian", "--method", "pnp", "--save", "mean", "--device", "cpu", "--precision", "fp32")
    outcome = gpnp("deblur", "y.tif", "-k", "h.npy", "--noise", "0.02", *flags)
    assert outcome.code == 0, outcome.err
    denoiser = build.build_prior(Model(denoiser="gaussian"), 3, torch.device("cpu"), torch.float32).denoiser
    mine, nfe = problems.restore(problem, DeblurSampler(method="pnp"), denoiser, 1)
    assert nfe == 30
    assert np.abs(mine[0].transpose(1, 2, 0) - tifffile.imread("gpnp_out/y.deblur.tif")).max() < 1e-4
    assert problem.truth.shape == mine[0].shape


@pytest.mark.parametrize("task", ["inpaint", "deblur", "super-resolve"])
def test_calibration_makes_its_table(run, task):
    settings = ("--settings", "iterations=3", "method=pnp,iterations=2", "r=auto,iterations=2")
    text = run("calibration", "pics", "--task", task, "--chains", "3", "--crop", "32", *settings)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if "iterations=" in line and line.startswith("|")]
    assert [row[0].strip() for row in rows] == list(settings[1:])
    assert [row[1].strip() for row in rows] == ["4", "2", "3"]
    assert "| 50 % | 80 % (t) | 90 % (t) | 95 % (t) |" in text
    assert all(0 <= float(share) <= 100 for share in rows[0][5:])
    assert [cell.strip() for cell in rows[1][4:]] == [""] * 5  # a single estimate has no spread


def test_deblurring_makes_its_tables_from_the_cache(run, monkeypatch, load):
    flags = ("--colour", "pics", "--photographs", "pics", "--kernels", "ks.npz", "--noise", "0.02", "--subset", "1")
    flags = (*flags, "--side", "20", "--margin", "6", "--cache", "c.jsonl")
    monkeypatch.setattr(load("deblurring"), "perceptual", lambda: None)
    text = run("deblurring", *flags, "--parts", "circular", "--methods", "pnp", "gpnp")
    assert "| pics | 5.1 | pnp | " in text and "| pics | 5.1 | gpnp | " in text
    assert "| disk:4 | pnp |" in run("deblurring", *flags, "--parts", "borders", "--methods", "pnp")
    lines = Path("c.jsonl").read_text()
    again = run("deblurring", *flags, "--parts", "circular", "--methods", "pnp", "gpnp")
    assert again.splitlines()[1:] == text.splitlines()[1:] and Path("c.jsonl").read_text() == lines
