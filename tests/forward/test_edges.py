"""Pictures of few edges."""

import torch

from gpnp_cli.forward import edges
from gpnp_cli.forward.blur import Blur, CircularBlur
from gpnp_cli.forward.edges import COUPLING_MAX, MARGIN, MARGIN_FALL, PATCH, Extremes, completed, strong_edges

SPOT = torch.ones(1, 1)


def box(height=48, width=50):
    x = torch.full((1, 1, height, width), 0.2)
    x[..., 12:36, 15:40] = 0.8
    return x


def test_faint_texture_goes_and_edges_stay():
    x = box()
    noisy = x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    flat = strong_edges(noisy, SPOT, 0.01)
    assert float((flat - x).abs().max()) < 0.06
    steps = (flat[..., 1:] - flat[..., :-1]).abs() > 0.01
    assert float(steps.float().mean()) < 0.06
    assert float((strong_edges(noisy, SPOT, 1e-6) - noisy).abs().max()) < 0.01  # for nothing, all of it stays


def test_a_known_blur_is_undone():
    x, h = box(), torch.full((1, 7), 1 / 7)
    y = CircularBlur(h, x.shape[1:]).forward(x)
    sharp = strong_edges(y, h, 2e-3)
    assert float((sharp - x).abs().mean()) < 0.35 * float((y - x).abs().mean())


def test_extremes_that_blur_took_are_given_back():
    x = torch.full((1, 1, 60, 60), 0.5)
    x[..., 20:40] = 0.0
    x[..., ::12, 50] = 0.04
    extremes = Extremes(0.0, 1.0, 0.05)
    made = extremes(x)
    assert round(PATCH * 60) == 3
    assert torch.equal(made[..., ::12, 50], torch.zeros(1, 1, 5))  # the darkest of its patch, and nearly black
    x[..., ::12, 50] = 0.0
    assert torch.equal(made, x)  # nothing else
    assert torch.equal(1 - Extremes(0.0, 1.0, 0.05)(1 - x), extremes(x))  # white is as black


def test_patches_at_the_border_are_patches():
    x = torch.full((1, 1, 64, 61), 0.5)
    x[..., 63, 60] = 0.01
    assert float(Extremes(0.0, 1.0, 0.1)(x)[..., 63, 60]) == 0.0


def test_the_range_of_a_picture_without_outliers(monkeypatch):
    y = torch.linspace(0.2, 0.6, 10000).reshape(1, 1, 100, 100).clone()
    y[0, 0, 0, 1:6], y[0, 0, 0, 11:16] = 0.0, 1.0
    extremes = Extremes.of(y)
    assert abs(extremes.black - 0.2) < 1e-3 and abs(extremes.white - 0.6) < 1e-3
    assert abs(extremes.margin - MARGIN * 0.4) < 1e-3
    monkeypatch.setattr(edges, "ENOUGH", 1000)
    fewer = Extremes.of(y)
    assert abs(fewer.black - 0.2) < 0.01 and abs(fewer.white - 0.6) < 0.01
    assert extremes.narrower() == Extremes(extremes.black, extremes.white, extremes.margin / MARGIN_FALL)


def test_data_are_completed_beyond_their_frame():
    x, h = box(), torch.full((3, 5), 1 / 15)
    A = Blur(h, (1, 46, 46))
    y = A.forward(x) + 1
    whole = completed(y, h, x, A.frame)
    assert torch.equal(A.crop(whole), y)
    assert torch.allclose(A.crop(whole - 1), A.forward(x))
    circular = CircularBlur(h, x.shape[1:]).forward(x)
    assert torch.equal(whole[..., 0, :], circular[..., 0, :])


def test_a_frame_on_the_torus_is_where_it_was_and_of_a_size_that_ffts_like():
    y = torch.rand(1, 1, 40, 46, generator=torch.Generator().manual_seed(0))
    A = Blur(torch.full((8, 5), 1 / 40), (1, 40, 46))  # x is 47x50, the torus 48x50
    x = A.on_torus(y)
    assert x.shape == (1, 1, 48, 50) and torch.equal(A.crop(x), y)
    assert torch.equal(x[..., :47, :50], A.extend(y)) and torch.equal(x[..., 47, :], x[..., 46, :])


def test_edges_cost_what_their_definition_says():
    """By dense algebra: while c doubles, x solves (H'H + c D'D) x = H'y + c D'g, g being the strong ones of D x."""
    g = torch.Generator().manual_seed(1)
    y, h = (torch.rand(size, generator=g, dtype=torch.float64) for size in ((1, 1, 6, 7), (3, 3)))
    h, weight = h / h.sum(), 0.03
    basis = torch.eye(42, dtype=torch.float64).reshape(42, 1, 6, 7)
    H = CircularBlur(h, (1, 6, 7)).forward(basis).reshape(42, 42).T
    down, right = ((basis.roll(-1, axis) - basis).reshape(42, 42).T for axis in (-2, -1))
    x, coupling = y.reshape(42), 2 * weight
    while coupling < COUPLING_MAX:
        a, b = down @ x, right @ x
        strong = a**2 + b**2 > weight / coupling
        matrix = H.T @ H + coupling * (down.T @ down + right.T @ right)
        x = torch.linalg.solve(
            matrix, H.T @ y.reshape(42) + coupling * (down.T @ (a * strong) + right.T @ (b * strong))
        )
        coupling *= 2
    assert torch.allclose(strong_edges(y, h, weight).reshape(42), x, atol=1e-6)
