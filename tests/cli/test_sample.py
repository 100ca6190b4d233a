"""`gpnp sample` on small pictures: files, what is told, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CPU = ("--threads", "1", "--device", "cpu")
PRIOR = (*CPU, "--denoiser", "gaussian:0.5,0.1", "--size", "24x32", "--iterations", "60")
CHAIN = (*CPU, "--size", "16x12", "--iterations", "60")
SMALL = ("--size", "4x4", "--iterations", "400")  # whole-picture moves: a sweep does more


@pytest.fixture
def sample(gpnp):
    return lambda *arguments: gpnp("sample", *arguments)


def manifest(method: str, folder: str = "gpnp_out") -> dict:
    return json.loads(Path(f"{folder}/{method}.sample.gpnp.json").read_text("utf-8"))


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path), float) / 255


@pytest.mark.parametrize(
    ("method", "calls"), [("diffusion", 119), ("annealed-langevin", 61), ("langevin", 61), ("gpnp", 61)]
)
def test_draws_from_a_prior(sample, method, calls):
    code, out, err = sample("--sampler", method, *PRIOR, "-n", "3", "--strip", "4")
    assert (code, out) == (0, f"gpnp_out/{method}.sample.sheet.png\n"), err
    ends = ["sheet.png", "strip.png", "gpnp.json", *(f"sample-0{k}.png" for k in (1, 2, 3))]
    assert set(os.listdir("gpnp_out")) == {f"{method}.sample.{end}" for end in ends}
    draws = [pixels(f"gpnp_out/{method}.sample.sample-0{k}.png") for k in (1, 2, 3)]
    assert all(draw.shape == (24, 32, 3) for draw in draws)
    assert not np.array_equal(draws[0], draws[1])
    told = manifest(method)
    assert told["nfe"] == calls and told["outputs"]["main"] == f"{method}.sample.sheet.png"
    # so few steps of Langevin leave noise; the others are near the prior's 0.1
    assert 0.4 < np.mean(draws) < 0.6
    assert 0.07 < np.std(draws) < (0.13 if method in ("diffusion", "gpnp") else 0.25)


@pytest.mark.parametrize("churn", ["0", "20"])
def test_diffusion_draws_the_priors_moments(sample, churn):
    assert sample(*PRIOR, "--iterations", "40", "--size", "64x64", "-n", "2", "--churn", churn).code == 0
    draws = np.stack([pixels(f"gpnp_out/diffusion.sample.sample-0{k}.png") for k in (1, 2)])
    assert draws.mean() == pytest.approx(0.5, abs=0.01)
    assert draws.std() == pytest.approx(0.1, rel=0.05)


def test_a_sample_does_not_depend_on_how_many_are_drawn(sample):
    assert sample(*PRIOR, "-n", "3", "-o", "three").code == 0
    assert sample(*PRIOR, "-n", "1", "-o", "one").code == 0
    assert sample(*PRIOR, "-n", "1", "-o", "other", "--seed", "1").code == 0
    one, other = (Path(f"{name}/diffusion.sample.sample-01.png").read_bytes() for name in ("one", "other"))
    assert one == Path("three/diffusion.sample.sample-01.png").read_bytes() != other


def test_grey_on_request(sample):
    assert sample(*PRIOR, "--channels", "1", "-n", "1").code == 0
    assert Image.open("gpnp_out/diffusion.sample.sample-01.png").mode == "L"


@pytest.mark.parametrize(
    ("flags", "accepted"),
    [
        (("--sampler", "metropolis", "--energy", "ising", "--temperature", "3"), (0.2, 0.6)),
        (("--sampler", "metropolis", "--energy", "potts:q=3,neighbours=8", "--temperature", "2"), (0.2, 0.9)),
        (("--sampler", "metropolis", "--energy", "mrf:p=1.2,theta=10"), (0.2, 0.7)),
        (("--sampler", "metropolis", "--energy", "mrf:p=2,theta=5", "--proposal", "walk", *SMALL), (0.1, 0.5)),
        (("--sampler", "hastings", "--energy", "mrf:p=1.2,theta=5", *SMALL), (0.1, 0.5)),
        (("--sampler", "hastings", "--energy", "mrf:theta=0.1", "--proposal", "independent:0.5,0.2", *SMALL), (0, 1)),
        (("--sampler", "mala", "--energy", "mrf:p=2,theta=5", *SMALL), (0.3, 0.9)),
    ],
    ids=lambda value: " ".join(value[1:4:2]) if isinstance(value[0], str) else "",
)
def test_chains_on_an_energy(sample, flags, accepted):
    code, out, err = sample(*CHAIN, *flags, "--save", "samples,trace")
    method = flags[1]
    assert (code, out) == (0, f"gpnp_out/{method}.sample.sample-01.png\n"), err
    told = manifest(method)
    assert len(told["acceptance"]) == 4
    assert accepted[0] <= np.mean(told["acceptance"]) <= accepted[1]
    with np.load(f"gpnp_out/{method}.sample.trace.npz") as trace:
        n = 400 if "400" in flags else 60
        assert trace["energy"].shape == (n, 4) and int(trace["burn_in"]) == n // 2
        assert told["energy"]["mean"] == pytest.approx(trace["energy"][n // 2 :].mean())
    assert "acceptance" in err and "autocorrelation time" in err and "effective sample size" in err
    assert Image.open(f"gpnp_out/{method}.sample.trace.png").width > 500
    assert (told["step"] is None) == ("step" not in err)


def test_an_energy_of_ones_own(sample):
    """A Gaussian of known mean and std, found by a tuned walk."""
    Path("mine.py").write_text("def bowl(x):\n    return ((x - 0.3) / 0.1).square().flatten(1).sum(1) / 2\n")
    run = ("--energy", "mine.py:bowl", "--size", "2x2", "--iterations", "1000", "--save", "trace", *CPU)
    assert sample("--sampler", "mala", *run).code == 0
    told = manifest("mala")
    # the energy of a Gaussian with 4 pixels is half a chi-square: mean 2, std sqrt(2)
    ess = told["energy"]["effective_samples"]
    assert ess > 150
    assert abs(told["energy"]["mean"] - 2) < 4 * 2**0.5 / ess**0.5
    assert abs(told["mean"]["mean"] - 0.3) < 4 * 0.05 / told["mean"]["effective_samples"] ** 0.5
    assert told["energy"]["rhat"] < 1.05
    assert 0.4 < np.mean(told["acceptance"]) < 0.75


def test_a_proposal_of_ones_own(sample):
    lines = [
        "class Half:",
        "    def __init__(self, step): self.step = step",
        "    def propose(self, x, rng): return x + self.step * rng.randn_like(x)",
        "    def log_density(self, w, x): return -((w - x) / self.step).square().flatten(1).sum(1) / 2",
    ]
    Path("mine.py").write_text("\n".join(lines))
    flags = ("--energy", "mrf:p=2", "--proposal", "mine.py:Half", *CHAIN)
    assert sample("--sampler", "hastings", *flags).code == 0
    assert manifest("hastings")["step"] > 0


def test_chain_k_does_not_depend_on_the_others(sample):
    flags = ("--sampler", "metropolis", "--energy", "mrf:p=2", "--proposal", "walk", *CHAIN, "--save", "samples")
    assert sample(*flags, "-n", "3", "-o", "three").code == 0
    assert sample(*flags, "-n", "1", "-o", "one").code == 0
    name = "metropolis.sample.sample-01.png"
    assert Path("one", name).read_bytes() == Path("three", name).read_bytes()


def test_short_chains_are_warned_of(sample):
    flags = ("--sampler", "metropolis", "--energy", "ising", "--temperature", "1", "--size", "32x32", *CPU)
    code, _, err = sample(*flags, "--iterations", "20", "--burn-in", "4")
    assert code == 0
    assert "do not agree" in err and "more --iterations" in err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--size", "64"], 2, ["size", "256x256"]),
        (["--sampler", "metropolis", "--temperature", "0"], 2, ["temperature", "above 0"]),
        (["--sampler", "metropolis", "--energy", "isng"], 2, ["isng"]),
        (["--sampler", "metropolis", "--energy", "gone.py:f"], 1, ["gone.py", "no such energy file"]),
        (["--sampler", "mala", "--energy", "ising"], 2, ["labels"]),
        (["--sampler", "hastings", "--energy", "potts"], 2, ["labels"]),
        (["--sampler", "metropolis", "--energy", "mrf", "--proposal", "log-walk"], 2, ["not symmetric"]),
        (["--sampler", "hastings", "--energy", "mrf", "--proposal", "independent:1"], 2, ["independent:MEAN,STD"]),
        (["--sampler", "hastings", "--energy", "mrf", "--proposal", "jump"], 2, ["unknown proposal"]),
        (["--sampler", "metropolis", "--energy", "ising", "--size", "5x4"], 2, ["even"]),
        (["--sampler", "metropolis", "--iterations", "5", "--burn-in", "5"], 2, ["burn-in"]),
        (["--sigma-max", "0.1", "--sigma-min", "0.5"], 2, ["sigma_min"]),
        (["-o", "out.png"], 2, ["several files"]),
        (["--save", "trace"], 2, ["--save trace"]),
        (["--denoiser", "nonsense"], 2, ["nonsense"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_said(sample, flags, code, words):
    outcome = sample(*CPU, *flags)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    errors = [line for line in outcome.err.splitlines() if "error" in line]
    assert len(errors) == 1
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return x.flatten(1).sum(1) * float('nan')", "returned NaN"),
        ("return x.sum()", "returned ()"),
        ("return x.nope", "AttributeError"),
    ],
)
def test_a_bad_energy_is_named(sample, body, words):
    Path("mine.py").write_text(f"def bad(x):\n    {body}\n")
    code, out, err = sample("--sampler", "metropolis", "--energy", "mine.py:bad", *CHAIN)
    assert (code, out) == (1, "") and words in err and "hint:" in err
    assert not Path("gpnp_out").exists() or not os.listdir("gpnp_out")


def test_a_sigma_outside_the_denoisers_range_is_warned_of(sample):
    code, _, err = sample(*CPU, "--size", "16x16", "--sigma-max", "5", "--iterations", "2", "-n", "1")
    assert code == 0 and "sigma from 0.005 to 5 leaves the range" in err and "default" in err


def test_finished_results_are_kept(sample):
    assert sample(*PRIOR, "-n", "1").code == 0
    code, out, err = sample(*PRIOR, "-n", "1", "--json")
    assert code == 0 and json.loads(out)["status"] == "skipped" and "already done" in err
    refused = sample(*PRIOR, "-n", "2")
    assert refused.code == 2 and "--force" in refused.err
    assert sample(*PRIOR, "-n", "2", "--force").code == 0
    assert sample(*PRIOR, "-n", "1", "--force").code == 0
    assert not Path("gpnp_out/diffusion.sample.sample-02.png").exists()


def test_a_changed_energy_file_is_not_the_same_run(sample):
    flags = ("--sampler", "metropolis", "--energy", "mine.py:bowl", *CHAIN)
    for scale in (1, 2):
        Path("mine.py").write_text(f"def bowl(x):\n    return {scale} * (x - 0.3).square().flatten(1).sum(1)\n")
        outcome = sample(*flags)
        assert (outcome.code, "made from other settings" in outcome.err) == ((0, False), (2, True))[scale - 1]


def test_a_dry_run_writes_nothing(sample):
    code, out, _ = sample("--sampler", "gpnp", "--dry-run")
    assert code == 0 and "method: gpnp" in out and os.listdir(".") == []


def test_a_manifest_as_config_repeats_the_run(sample):
    assert sample("--sampler", "metropolis", "--energy", "potts:q=4", *CHAIN, "--seed", "3").code == 0
    assert sample("-c", "gpnp_out/metropolis.sample.gpnp.json", "-o", "again").code == 0
    for name in os.listdir("again"):
        if name.endswith(".png"):
            assert Path("again", name).read_bytes() == Path("gpnp_out", name).read_bytes(), name
