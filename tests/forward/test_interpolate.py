"""Fillings that start a chain: known pixels stay, holes get something sensible, at every size."""

import pytest
import torch
from torch import Tensor

from gpnp_cli.forward import interpolate
from gpnp_cli.forward.interpolate import harmonic, radial_basis
from gpnp_cli.samplers.rng import generator


def known_pixels(shape: tuple[int, int, int], keep: float, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed)) < keep


def picture(channels: int, height: int, width: int) -> Tensor:
    return torch.rand(1, channels, height, width, generator=generator(9), dtype=torch.float64)


def ramp(height: int, width: int) -> Tensor:
    row = torch.linspace(0, 1, height, dtype=torch.float64)[:, None]
    column = torch.linspace(0, 1, width, dtype=torch.float64)
    return torch.stack([0.1 + 0.3 * row + 0.5 * column, 0.9 - 0.6 * row - 0.2 * column])[None]


SIZES = [(1, 1), (1, 7), (9, 1), (2, 2), (5, 8), (13, 17), (32, 32), (33, 64)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6, 1.0])
def test_harmonic_keeps_known_pixels_and_stays_in_their_range(height, width, keep):
    y, known = picture(3, height, width), known_pixels((1, height, width), keep)
    filled = harmonic(torch.where(known, y, 0), known)
    assert filled.shape == y.shape and filled.dtype == y.dtype
    assert torch.isfinite(filled).all()
    assert torch.equal(filled[:, :, known[0]], y[:, :, known[0]])
    for channel in range(3) if known.any() else ():
        seen = y[0, channel, known[0]]
        assert filled[0, channel].min() >= seen.min() - 1e-12 and filled[0, channel].max() <= seen.max() + 1e-12


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_harmonic_reproduces_constants(height, width):
    known = known_pixels((1, height, width), 0.2)
    known[0, -1, -1] = True
    y = (0.3 * known.double()).expand(2, -1, -1)[None]
    torch.testing.assert_close(harmonic(y, known), torch.full_like(y, 0.3), rtol=0, atol=1e-12)


def test_harmonic_of_nothing_is_grey():
    y = torch.zeros(1, 1, 6, 5)
    assert torch.equal(harmonic(y, torch.zeros(1, 6, 5, dtype=torch.bool)), torch.full_like(y, 0.5))


def test_harmonic_treats_each_channel_by_its_own_mask():
    y, known = picture(2, 9, 11), known_pixels((2, 9, 11), 0.3)
    filled = harmonic(torch.where(known, y, 0), known)
    for c in range(2):
        alone = harmonic(torch.where(known, y, 0)[:, c : c + 1], known[c : c + 1])
        assert torch.equal(filled[:, c : c + 1], alone)
    assert torch.equal(filled[0][known], y[0][known])


def test_harmonic_comes_close_to_a_ramp():
    y, known = ramp(64, 64), known_pixels((1, 64, 64), 0.3)
    error = (harmonic(torch.where(known, y, 0), known) - y).abs()
    assert error.mean() < 0.01 and error.max() < 0.1


def laplace_solution(y: Tensor, known: Tensor) -> Tensor:
    """Every missing pixel the average of its neighbours inside the picture, solved densely; `y` `(1, C, H, W)`."""
    height, width = known.shape
    system, right = torch.eye(height * width, dtype=y.dtype), y[0].flatten(1).T.clone()
    for row, column in (~known).nonzero().tolist():
        cells = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        inside = [r * width + c for r, c in cells if 0 <= r < height and 0 <= c < width]
        here = row * width + column
        system[here, inside] = -1 / len(inside)
        right[here] = 0
    return torch.linalg.solve(system, right).T.reshape(y.shape)


@pytest.mark.parametrize("corner", [(10, 8), (0, 0), (20, 14)])
def test_harmonic_fills_a_hole_by_laplaces_equation(corner):
    """To a few per cent of the picture's range, and without a step where the hole meets the known pixels."""
    y = ramp(40, 36) + 0.2 * torch.sin(6 * ramp(40, 36).flip(1))
    known = torch.ones(40, 36, dtype=torch.bool)
    known[corner[0] : corner[0] + 20, corner[1] : corner[1] + 22] = False
    y = torch.where(known, y, 0)
    exact, filled = laplace_solution(y, known), harmonic(y, known[None])
    error = (filled - exact).abs()
    reach = known[None, None].double()
    edge = ~known & (torch.nn.functional.max_pool2d(reach, 3, 1, 1)[0, 0] > 0)  # missing, beside a known pixel
    span = exact.max() - exact.min()
    assert error.max() < 0.05 * span
    assert error[..., edge].mean() < 0.01 * span


def test_harmonic_takes_linear_time(monkeypatch):
    """Counted in pixels touched, not seconds: doubling both sides costs four times as much, plus one level."""
    touched = []
    relax = interpolate._relax

    def counted(x, hole, sweeps):
        touched.append(x.numel() * sweeps)
        return relax(x, hole, sweeps)

    monkeypatch.setattr(interpolate, "_relax", counted)

    def cost(side: int) -> int:
        touched.clear()
        harmonic(torch.zeros(1, 1, side, side), torch.ones(1, side, side, dtype=torch.bool))
        return sum(touched)

    assert cost(64) < 4.2 * cost(32)
    assert cost(100) < 2 * interpolate.FINEST_SWEEPS * 1.1 * 100**2


@pytest.mark.parametrize("channels_in_mask", [1, 2])
def test_radial_basis_reproduces_linear_ramps(channels_in_mask):
    y, known = ramp(24, 31), known_pixels((1, 24, 31), 0.1).expand(channels_in_mask, -1, -1)
    filled = radial_basis(torch.where(known, y, 0), known)
    torch.testing.assert_close(filled, y, rtol=0, atol=1e-9)


def test_radial_basis_keeps_known_pixels_and_stays_in_range():
    y, known = picture(3, 16, 15).float(), known_pixels((1, 16, 15), 0.2)
    filled = radial_basis(torch.where(known, y, 0), known)
    assert filled.dtype == y.dtype
    assert torch.equal(filled[:, :, known[0]], y[:, :, known[0]])
    assert filled.min() >= 0 and filled.max() <= 1
    assert torch.equal(radial_basis(y, torch.ones(1, 16, 15, dtype=torch.bool)), y)


@pytest.mark.parametrize("case", ["nothing", "one pixel", "one row", "one-row picture"])
def test_radial_basis_falls_back_where_no_spline_exists(case):
    height = 1 if case == "one-row picture" else 12
    y, known = picture(1, height, 10), torch.zeros(1, height, 10, dtype=torch.bool)
    if case == "one pixel":
        known[0, 3, 4] = True
    elif case == "one row":
        known[0, 5] = True
    elif case == "one-row picture":
        known[0, 0, ::3] = True
    y = torch.where(known, y, 0)
    assert torch.equal(radial_basis(y, known), harmonic(y, known))
