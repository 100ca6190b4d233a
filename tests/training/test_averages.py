"""Power-function averages: the recursion is the integral, and other widths come back from snapshots within the fit's error."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from gpnp_cli.errors import EnvironmentProblem, InputError, UsageError
from gpnp_cli.training.averages import (
    WIDEST,
    PowerAverages,
    exponent,
    fit,
    of_width,
    reconstruct,
    snapshots,
    write_snapshot,
)
from gpnp_cli.training.checkpoint import load_snapshot, save_snapshot

STEPS = 320


@pytest.fixture(scope="module")
def walk() -> torch.Tensor:
    """Weights of a made-up training, `(STEPS, 4)`: a drift that slows down, and noise."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(STEPS, 4, generator=rng)
    return (noise.cumsum(0) / 10 + torch.arange(1, STEPS + 1)[:, None].log() + noise).float()


def shown(vector: torch.Tensor) -> nn.Linear:
    """A network whose weights are these four numbers."""
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.copy_(vector[None, :3])
        model.bias.copy_(vector[3:])
    return model


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors["weight"].flatten(), tensors["bias"]])


def tracked(walk, widths, folder=None, every=10) -> PowerAverages:
    """The averages at the end of the walk; with `folder`, snapshots on the way."""
    averages = PowerAverages(shown(torch.full((4,), 1e3)), widths)  # what was there before must not count
    for step, theta in enumerate(walk, 1):
        averages.update(shown(theta), step)
        if folder is not None and (step % every == 0 or step == len(walk)):
            write_snapshot(folder, averages, step, 8 * step)
    return averages


def test_exponents_are_the_papers():
    """Section 3.2: gamma = 16.97 and 6.94 for widths 0.05 and 0.10."""
    assert round(exponent(0.05), 2) == 16.97 and round(exponent(0.10), 2) == 6.94
    for width in (0.001, 0.02, 0.075, 0.25, WIDEST):
        gamma = exponent(width)
        assert math.sqrt(gamma + 1) / (gamma + 2) / math.sqrt(gamma + 3) == pytest.approx(width, rel=1e-6)
    assert 0 < exponent(WIDEST) < 0.2


@pytest.mark.parametrize("width", [0, -0.1, 0.29, float("nan"), float("inf")])
def test_an_impossible_width_is_one_sentence(width):
    with pytest.raises(UsageError, match=r"^width .*: not above 0 and up to 0.28$"):
        exponent(width)


def test_the_width_is_the_standard_deviation_of_the_profile():
    gamma, tau = exponent(0.1), (np.arange(10**5) + 0.5) / 10**5
    p = (gamma + 1) * tau**gamma / 10**5
    assert p.sum() == pytest.approx(1, rel=1e-6)
    assert math.sqrt(p @ tau**2 - (p @ tau) ** 2) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("width", [0.03, 0.1, 0.28])
def test_the_recursion_is_the_integral_over_the_steps(walk, width):
    """Step k counts with the integral of p from k - 1 to k, (k^(gamma+1) - (k-1)^(gamma+1)) / t^(gamma+1)."""
    edges = (np.arange(STEPS + 1) / STEPS) ** (exponent(width) + 1)
    expected = np.diff(edges) @ walk.double().numpy()
    found = flat(of_width(tracked(walk, [width]).state_dict(), width)).numpy()
    assert found == pytest.approx(expected, rel=3e-6)  # float32
    assert abs(expected - walk[-1].numpy()).max() > 0.1


def profiles(exponents, steps, at=40_000):
    """p_i at the middles of a fine grid over the walk, `(at, i)`."""
    tau = ((np.arange(at) + 0.5) * STEPS / at)[:, None]
    return np.where(tau < steps, (exponents + 1) / steps * (tau / steps) ** exponents, 0)


def test_the_fit_is_the_least_squares_one_of_the_profiles_themselves():
    steps = np.tile([100.0, 200.0, 320.0], 2)
    exponents = np.repeat([exponent(0.05), exponent(0.1)], 3)
    gamma = exponent(0.15)
    x, residual = fit(exponents, steps, gamma, STEPS)
    p, wanted = profiles(exponents, steps), profiles(np.array([gamma]), np.array([320.0]))[:, 0]
    assert x == pytest.approx(np.linalg.lstsq(p, wanted, rcond=None)[0], abs=2e-3)
    expected = np.linalg.norm(p @ x - wanted) / np.linalg.norm(wanted)
    assert 0.02 < expected < 0.3 and residual == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("every", [10, 40])
@pytest.mark.parametrize("width", [0.03, 0.075, 0.15, 0.25])
def test_another_width_comes_back_within_the_error_that_the_fit_predicts(walk, tmp_path, width, every):
    tracked(walk, (0.05, 0.1), tmp_path, every)
    made = reconstruct(tmp_path, width)
    assert (made.step, made.images, made.tracked, made.snapshots) == (320, 2560, (0.05, 0.1), 320 // every)
    wanted = flat(of_width(tracked(walk, [width]).state_dict(), width))
    off = (flat(made.tensors) - wanted).abs()
    # Cauchy: |integral of (fitted - p) theta| <= ||fitted - p|| ||theta||, to which float32 adds its rounding of each snapshot
    gamma = exponent(width)
    size = (gamma + 1) / math.sqrt((2 * gamma + 1) * STEPS)
    exponents, steps = np.repeat([exponent(0.05), exponent(0.1)], 320 // every), np.arange(every, 321, every)
    x, _ = fit(exponents, np.tile(steps, 2).astype(float), gamma, STEPS)
    rounding = 2**-20 * abs(x).sum() * walk.abs().amax(0)
    assert (off <= made.residual * size * walk.square().sum(0).sqrt() + rounding).all()
    if every == 10 and width != 0.25:
        near = min((0.05, 0.1), key=lambda each: abs(each - width))
        other = flat(of_width(tracked(walk, [near]).state_dict(), near))
        assert made.residual < 0.02 and off.norm() < 0.1 * (other - wanted).norm()


def test_more_snapshots_fit_better_and_a_tracked_width_fits_exactly():
    def residual(width, count):
        steps = np.tile(np.arange(1, count + 1) / count, 2)
        return fit(np.repeat([exponent(0.05), exponent(0.1)], count), steps, exponent(width), 1.0)[1]

    for width in (0.02, 0.075, 0.2):
        found = [residual(width, count) for count in (4, 8, 16, 32)]
        assert all(b < a for a, b in itertools.pairwise(found)) and found[-1] < 0.05
    assert residual(0.05, 8) < 1e-6


def test_a_state_goes_on_with_the_same_bits(walk):
    straight = tracked(walk, (0.05, 0.1))
    half = tracked(walk[:200], (0.05, 0.1))
    again = PowerAverages(shown(torch.zeros(4)), (0.05, 0.1))
    again.load_state_dict({key: value.clone() for key, value in half.state_dict().items()})
    for step, theta in enumerate(walk[200:], 201):
        again.update(shown(theta), step)
    first, second = straight.state_dict(), again.state_dict()
    assert first.keys() == second.keys() == {f"{w}/{k}" for w in (0.05, 0.1) for k in ("weight", "bias")}
    assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(InputError, match=r"no average of width 0.07"):
        PowerAverages(shown(torch.zeros(4)), [0.07]).load_state_dict(first)
    with pytest.raises(InputError, match="bias is missing"):
        PowerAverages(shown(torch.zeros(4)), [0.1]).load_state_dict({"0.1/weight": first["0.1/weight"]})


def test_a_snapshot_holds_every_bit_of_both_averages(walk, tmp_path):
    averages = tracked(walk, (0.05, 0.1), tmp_path, every=160)
    assert list(snapshots(tmp_path)) == [160, 320]
    tensors, facts = load_snapshot(tmp_path / "step-000320.safetensors")
    assert facts == {"step": 320, "images": 2560, "widths": [0.05, 0.1]}
    assert all(torch.equal(tensors[key], value) for key, value in averages.state_dict().items())


def test_what_cannot_be_averaged_is_one_sentence(walk, tmp_path):
    with pytest.raises(EnvironmentProblem, match="ema: no snapshots"):
        reconstruct(tmp_path / "ema", 0.075)
    tracked(walk, (0.05, 0.1), tmp_path, every=160)
    path = tmp_path / "step-000160.safetensors"
    whole, good = path.read_bytes(), load_snapshot(path)
    for tensors, facts in [
        (good[0], {**good[1], "step": 150}),
        (good[0], {**good[1], "widths": [0.05]}),
        ({key: value for key, value in good[0].items() if key != "0.1/bias"}, good[1]),
        ({**good[0], "0.1/bias": torch.zeros(1, 1)}, good[1]),
    ]:
        save_snapshot(path, tensors, facts)
        with pytest.raises(InputError, match=r"step-000160.safetensors: a snapshot of another run"):
            reconstruct(tmp_path, 0.075)
    save_snapshot(path, good[0], {**good[1], "widths": []})
    with pytest.raises(InputError, match=r"step-000160.safetensors: damaged metadata"):
        reconstruct(tmp_path, 0.075)
    path.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"step-000160.safetensors: not a readable") as caught:
        reconstruct(tmp_path, 0.075)
    assert "move it out of the folder" in caught.value.hint
