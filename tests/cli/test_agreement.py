"""What is recorded of the chains of one picture, and what is told of them."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gpnp_cli.cli import agreement
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.blur import Blur
from gpnp_cli.samplers.rng import generator


def series(levels: list[float], fluctuation: float) -> Tensor:
    return torch.tensor(levels) + fluctuation * torch.randn(25, len(levels), generator=generator(1))


def facts(**statistics) -> dict:
    return agreement.agreement(statistics, 3)


def test_statistics_are_those_of_the_frame():
    model = ForwardModel(Blur(torch.ones(3, 3) / 9, (2, 5, 6)), torch.zeros(1, 2, 5, 6), 0.1)
    x = torch.rand(3, 2, 7, 8, generator=generator(2))
    found = agreement.statistics(model, model.A.crop)
    inside = x[:, :, 1:6, 1:7]
    steps = (inside[..., 1:] - inside[..., :-1]).square().sum((1, 2, 3)) + (
        inside[:, :, 1:] - inside[:, :, :-1]
    ).square().sum((1, 2, 3))
    torch.testing.assert_close(found["brightness"](x), inside.mean((1, 2, 3)))
    torch.testing.assert_close(found["gradient"](x), steps / (2 * 5 * 6))
    torch.testing.assert_close(found["residual"](x), model.residual(x))
    assert "residual" not in agreement.statistics(ForwardModel(model.A, model.y, 0.0), model.A.crop)


def test_the_last_quarter_is_watched_if_it_is_long_enough():
    assert [agreement.watched(n) for n in (1, 15, 16, 100, 201)] == [0, 0, 4, 25, 50]


def test_chains_that_agree_are_told_in_one_line():
    told = facts(brightness=series([0.4, 0.4, 0.4], 1e-3), gradient=series([0.02, 0.0204, 0.0196], 1e-4))
    assert told["effective_samples"] == 3 and told["iterations"] == 25
    assert told["brightness"]["rhat"] == pytest.approx(1, abs=0.15)
    assert told["gradient"]["spread"] == pytest.approx(4e-4, rel=0.1) and told["gradient"]["rhat"] > 3
    assert agreement.complaint(told) == ""  # too little to be seen
    assert agreement.sentence(told).startswith("3 independent samples differ in mean brightness by 0.0")
    assert "sharpness by 2 %" in agreement.sentence(told)


@pytest.mark.parametrize(
    ("statistics", "words"),
    [
        ({"brightness": series([0.4, 0.45, 0.5], 1e-3)}, ["mean brightness", "--samples"]),
        ({"gradient": series([0.01, 0.02, 0.03], 1e-3)}, ["sharpness", "--iterations"]),
        ({"residual": series([0.01, 0.01, 0.02], 1e-4)}, ["fit to the data", "explanation", "--iterations"]),
        ({"brightness": series([0.4, 0.4, 0.4], 0.2)}, None),  # each chain wanders as much
    ],
)
def test_a_warning_needs_a_visible_spread_and_a_large_rhat(statistics, words):
    warning = agreement.complaint(facts(**statistics))
    assert (warning == "") == (words is None)
    for word in words or ():
        assert word in warning


def test_one_chain_and_short_runs_have_nothing_to_compare():
    assert agreement.agreement({"brightness": series([0.4], 0.1)}, 1) == {"effective_samples": 1}
    assert agreement.agreement({}, 3) == {"effective_samples": 3}
    assert agreement.sentence(agreement.agreement({}, 3)) == agreement.complaint(agreement.agreement({}, 3)) == ""


def manifest(name: str) -> dict:
    return json.loads(Path(f"{name}/pic.deblur.gpnp.json").read_text("utf-8"))


@pytest.mark.parametrize("final", ["state", "denoise"])
def test_a_run_writes_and_tells_it(gpnp, draw, final):
    draw("pic.png", height=16, width=16)
    run = ("deblur", "pic.png", "-k", "disk:1", "--noise", "0.02", "--denoiser", "gaussian", "--save", "mean")
    run = (*run, "--set", f"sampler.final={final}")
    outcome = gpnp(*run, "--iterations", "40", "-o", "a")
    assert outcome.code == 0, outcome.err
    told = manifest("a")["diagnostics"]
    assert set(told) == {"effective_samples", "iterations", "brightness", "gradient", "residual"}
    assert (told["effective_samples"], told["iterations"]) == (3, 10)
    assert told["residual"]["mean"] == pytest.approx(sum(manifest("a")["residual"]) / 3, rel=0.3)
    assert 0 < told["gradient"]["spread"] < told["gradient"]["mean"] and told["gradient"]["rhat"] > 0.9
    assert outcome.err.count("pic.png: 3 independent samples differ in") == 1
    for short in (("--iterations", "12"), ("--iterations", "40", "-n", "1")):
        outcome = gpnp(*run, *short, "-o", "b", "-f")
        assert outcome.code == 0 and "differ in" not in outcome.err
        assert set(manifest("b")["diagnostics"]) == {"effective_samples"}
    outcome = gpnp(*run, "--method", "pnp", "-o", "c")
    assert outcome.code == 0 and "diagnostics" not in manifest("c")


def test_batches_of_chains_are_compared_together(gpnp, draw, monkeypatch):
    from gpnp_cli import build

    draw("pic.png", height=16, width=16)
    run = ("deblur", "pic.png", "-k", "disk:1", "--noise", "0.02", "--denoiser", "gaussian", "--save", "mean")
    assert gpnp(*run, "--iterations", "20", "-o", "together").code == 0
    monkeypatch.setattr(build, "CHAIN_PIXELS", 800)
    assert gpnp(*run, "--iterations", "20", "-o", "apart").code == 0
    together, apart = (manifest(name)["diagnostics"] for name in ("together", "apart"))
    for name in ("brightness", "gradient", "residual"):
        assert together[name] == pytest.approx(apart[name], rel=1e-3)
