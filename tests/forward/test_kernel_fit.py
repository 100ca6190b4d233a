"""The M-step against brute force, and the small operations on kernels."""

import pytest
import torch
import torch.nn.functional as F

from gpnp_cli.forward.blur import Blur
from gpnp_cli.forward.kernel_fit import (
    Connectedness,
    FreeForm,
    Parametric,
    SmallEnergy,
    Sparsity,
    centre_of_mass,
    components,
    differences,
    fit_kernel,
    likeness,
    moved_onto,
    onto_simplex,
    quadratic,
    recentred,
    resized,
    seen_differences,
    support,
    trimmed,
)

SHAPE = (5, 7)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def kernel():
    h = torch.zeros(SHAPE, dtype=torch.float64)
    h[2, 1:6], h[1, 4], h[3, 5] = torch.tensor([1, 2, 4, 2, 1]), 2, 1
    return h / h.sum()


@pytest.fixture
def blurred(kernel):
    """A random picture `x` and what `kernel` makes of it."""
    x = rand(1, 1, 44, 42)
    A = Blur(kernel, (1, 40, 36))
    return x, A.forward(x), A.frame


def data_term(h, x, y, known):
    """||M (D y - h * D x)||^2 / 2 by explicit convolutions."""
    predicted = F.conv2d(x, h.flip(0, 1)[None, None])
    error = differences(y) - differences(predicted)
    return 0.5 * (torch.where(seen_differences(known), error, 0) ** 2).sum() / len(x)


def test_projection_is_the_nearest_point_of_the_simplex():
    z = rand(4, 5) - 0.4
    p = onto_simplex(z)
    assert float(p.min()) >= 0 and float(p.sum()) == pytest.approx(1)
    towards = torch.eye(20, dtype=z.dtype).reshape(20, 4, 5) - p
    assert float(((z - p) * towards).sum((1, 2)).max()) < 1e-12  # no way inside is downhill
    assert torch.equal(onto_simplex(p), p) or torch.allclose(onto_simplex(p), p)


def test_the_quadratic_touches_the_data_term_from_above(blurred):
    x, y, frame = blurred
    x = torch.cat([x, rand(1, 1, 44, 42, seed=1)])
    known = torch.ones(40, 36, dtype=torch.bool)
    known[10:15, 8:20] = False
    y = torch.where(known, y, 1.0)
    h = onto_simplex(rand(*SHAPE, seed=2)).requires_grad_()
    true = data_term(h, x, y, known)
    (slope,) = torch.autograd.grad(true, h)
    h, true = h.detach(), true.detach()
    dx = differences(x)
    f = quadratic(dx, torch.fft.rfft2(dx), differences(y), seen_differences(known), frame, h)
    assert torch.allclose(f.gradient(h), slope, rtol=1e-9, atol=1e-9)
    for seed in range(3, 8):
        other = onto_simplex(rand(*SHAPE, seed=seed))
        assert f.value(other) - f.value(h) >= float(data_term(other, x, y, known) - true) - 1e-9
    step = rand(*SHAPE, seed=9)
    assert float((step * f.product(step)).sum()) <= f.curvature * float((step**2).sum())


@pytest.mark.parametrize("saturated", [False, True])
def test_the_kernel_is_found_from_the_sharp_picture(blurred, kernel, saturated):
    x, y, frame = blurred
    known = torch.ones(40, 36, dtype=torch.bool)
    if saturated:
        known[5:20, 5:20] = False
        y = torch.where(known, y, 1.0)
    start = torch.full(SHAPE, 1 / 35, dtype=torch.float64)
    found = fit_kernel(x, y, known, frame, start, FreeForm((), steps=60), rounds=20)
    assert float((found - kernel).abs().max()) < 1e-3
    if saturated:  # and not if they were believed
        wrong = fit_kernel(x, y, known | True, frame, start, FreeForm((), steps=60), rounds=20)
        assert float((wrong - kernel).abs().max()) > 1e-2


def test_regularisers_do_what_they_say(blurred, kernel):
    x, y, frame = blurred
    y = y + 0.02 * (rand(*y.shape, seed=5) - 0.5)
    known = torch.ones(40, 36, dtype=torch.bool)

    def fitted(*regularisers):
        return fit_kernel(x, y, known, frame, kernel, FreeForm(regularisers, steps=60), rounds=5)

    free = fitted()
    assert float(fitted(SmallEnergy(0.05)).square().sum()) < float(free.square().sum())
    sparse = fitted(Sparsity(1e-3, floor=0.05))
    assert int((sparse > 0).sum()) < int((free > 0).sum())
    assert float(sparse[sparse > 0].min()) >= 0.05 * float(sparse.max())
    assert float(sparse.sum()) == pytest.approx(1)


def test_specks_are_dropped_and_large_pieces_stay():
    h = torch.zeros(9, 9)
    h[0, 0], h[2, 2:5], h[8, 8] = 0.05, 0.2, 0.3
    pieces = components(h > 0)
    assert pieces[0, 0] == pieces[2, 3] != pieces[8, 8]  # (0, 0) is 2 pixels from (2, 2)
    h[0, 0], h[0, 8] = 0, 0.05
    tidy = Connectedness(share=0.1).tidy(h)
    assert tidy[0, 8] == 0 and tidy[2, 3] > 0 and tidy[8, 8] > 0
    assert components(torch.zeros(3, 3, dtype=torch.bool)).max() == 0
    assert components(torch.ones(3, 3, dtype=torch.bool)).unique().tolist() == [1]


def test_recentring_moves_the_picture_along():
    h = torch.zeros(9, 9, dtype=torch.float64)
    h[1:4, 6:8] = rand(3, 2)
    h /= h.sum()
    x = rand(2, 1, 40, 40)
    centred, moved = recentred(h, x)
    assert max(map(abs, centre_of_mass(centred))) <= 0.5 < max(map(abs, centre_of_mass(h)))
    before, after = (Blur(k, (1, 32, 32)).forward(s) for k, s in ((h, x), (centred, moved)))
    assert torch.allclose(before[..., 4:-4, 4:-4], after[..., 4:-4, 4:-4])
    assert recentred(centred, moved)[0] is centred


def test_resizing_keeps_the_middle_and_the_sum():
    h = torch.zeros(5, 5)
    h[2, 2], h[2, 4] = 3, 1
    large = resized(h, (11, 11), 2.0)
    assert float(large.sum()) == pytest.approx(1)
    assert large.argmax() == 5 * 11 + 5
    assert large[5, 9] > large[5, 10] > 0 and large[5, 1] == 0
    assert centre_of_mass(large)[1] == pytest.approx(2 * centre_of_mass(h / 4)[1], abs=0.01)


def test_support_is_odd_and_centred():
    h = torch.zeros(9, 11)
    h[4, 5], h[3, 8] = 1, 1
    assert trimmed(h).shape == (3, 7)
    assert support(h) == (slice(3, 6), slice(2, 9))


def test_kernels_are_laid_on_one_another():
    h = torch.zeros(7, 7)
    h[1:3, 1:4] = rand(2, 3).float()
    other = h.roll((3, 2), (0, 1))
    assert torch.equal(moved_onto(h, other), other)


def test_parameters_are_found(blurred):
    x, _, frame = blurred

    def draw(phi, scale, shape):
        p = torch.arange(shape[1], dtype=torch.float64) - shape[1] // 2
        q = torch.arange(shape[0], dtype=torch.float64) - shape[0] // 2
        h = torch.exp(-((p / (scale * phi[0])) ** 2) - (q[:, None] / (scale * phi[1])) ** 2)
        return h / h.sum()

    y = Blur(draw((2.3, 0.9), 1.0, SHAPE), (1, 40, 36)).forward(x)
    fit = Parametric(draw, [(a, b) for a in (1.0, 2.0) for b in (1.0, 2.0)], (0.5, 0.5), halvings=8)
    known = torch.ones(40, 36, dtype=torch.bool)
    h = fit_kernel(x, y, known, frame, draw((1, 1), 1.0, SHAPE), fit, rounds=4)
    assert fit.phi == pytest.approx((2.3, 0.9), abs=0.02)
    assert torch.equal(h, draw(fit.phi, 1.0, SHAPE))


def test_likeness_is_a_correlation_up_to_a_shift():
    h = torch.zeros(9, 9)
    h[2, 1:4] = torch.tensor([0.5, 0.3, 0.2])
    moved, across = h.roll((4, 3), (0, 1)), h.T.contiguous()
    assert likeness(moved, h) == pytest.approx(1)
    assert likeness(across, h) == pytest.approx(0.5**2 / float(h.square().sum()))  # their largest entries meet
