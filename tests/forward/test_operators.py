"""Every forward operator: adjoint identity, proximal map, proximal generators; each against the dense closed form."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gpnp_cli import registry
from gpnp_cli.forward import blur
from gpnp_cli.forward.base import ForwardModel, LinearOperator, conjugate_gradient
from gpnp_cli.forward.blur import Blur, CircularBlur
from gpnp_cli.forward.mask import Mask
from gpnp_cli.forward.superres import CircularSuperResolve, SuperResolve, bicubic
from gpnp_cli.samplers.rng import ChainRng, UnitVectors, generator


class Dense(LinearOperator):
    """A full matrix: the plainest operator without a closed-form prox."""

    def __init__(self, matrix: Tensor, x_shape: tuple[int, int, int]) -> None:
        self.matrix, self.x_shape, self.y_shape = matrix, x_shape, (matrix.shape[0],)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix).reshape(-1, *self.x_shape)


def mask_shared(rng: torch.Generator) -> Mask:
    return Mask(torch.rand(1, 4, 5, generator=rng) < 0.5, channels=3)


def mask_per_channel(rng: torch.Generator) -> Mask:
    return Mask(torch.rand(3, 4, 5, generator=rng) < 0.5)


def dense(rng: torch.Generator) -> Dense:
    return Dense(torch.randn(9, 12, generator=rng, dtype=torch.float64) / 3, (1, 3, 4))


def kernel(rng: torch.Generator, height: int, width: int) -> Tensor:
    """Lopsided, so that a mirrored or shifted one is noticed."""
    values = torch.rand(height, width, generator=rng, dtype=torch.float64) ** 3
    return values / values.sum()


def circular_odd(rng: torch.Generator) -> CircularBlur:
    return CircularBlur(kernel(rng, 3, 5), (2, 6, 7))


def circular_even(rng: torch.Generator) -> CircularBlur:
    return CircularBlur(kernel(rng, 4, 2), (1, 5, 8))


def circular_as_large_as_the_image(rng: torch.Generator) -> CircularBlur:
    return CircularBlur(kernel(rng, 5, 6), (1, 5, 6))


def blur_odd(rng: torch.Generator) -> Blur:
    return Blur(kernel(rng, 3, 5), (2, 4, 5), tolerance=1e-9)  # x is 6x9


def blur_even(rng: torch.Generator) -> Blur:
    return Blur(kernel(rng, 4, 2), (1, 5, 7), tolerance=1e-9)  # x is 8x8


def blur_larger_than_the_frame(rng: torch.Generator) -> Blur:
    return Blur(kernel(rng, 5, 5), (1, 3, 1), tolerance=1e-9)


def blur_partly_known(rng: torch.Generator) -> Blur:
    known = torch.rand(5, 4, generator=rng) < 0.7
    return Blur(kernel(rng, 3, 2), (2, 5, 4), tolerance=1e-9, known=known)


def super_resolve_2(rng: torch.Generator) -> SuperResolve:
    return SuperResolve(kernel(rng, 3, 3), (2, 3, 2), 2, tolerance=1e-9)


def super_resolve_3(rng: torch.Generator) -> SuperResolve:
    return SuperResolve(kernel(rng, 5, 4), (1, 2, 3), 3, tolerance=1e-9)


def super_resolve_4(rng: torch.Generator) -> SuperResolve:
    return SuperResolve(kernel(rng, 4, 5), (1, 2, 2), 4, tolerance=1e-9)


def circular_super_resolve_2(rng: torch.Generator) -> CircularSuperResolve:
    return CircularSuperResolve(kernel(rng, 3, 4), (2, 3, 2), 2)


def circular_super_resolve_3(rng: torch.Generator) -> CircularSuperResolve:
    return CircularSuperResolve(kernel(rng, 5, 6), (1, 2, 3), 3)


INSTANCES: dict[str, list[Callable[[torch.Generator], LinearOperator]]] = {
    "mask": [mask_shared, mask_per_channel],
    "blur": [blur_odd, blur_even, blur_larger_than_the_frame, blur_partly_known],
    "circular-blur": [circular_odd, circular_even, circular_as_large_as_the_image],
    "super-resolve": [super_resolve_2, super_resolve_3, super_resolve_4],
    "circular-super-resolve": [circular_super_resolve_2, circular_super_resolve_3],
}
CLOSED_FORM = (Mask, CircularBlur)
EVERY = [make for makes in INSTANCES.values() for make in makes] + [dense]


@pytest.fixture(params=EVERY, ids=lambda make: make.__name__)
def operator(request) -> LinearOperator:
    return request.param(generator(1))


def draw(shape: tuple[int, ...], n: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=generator(2, seed), dtype=torch.float64)


def matrix(A: LinearOperator) -> Tensor:
    """A as a dense matrix `(M, D)`."""
    size = torch.Size(A.x_shape).numel()
    return A.forward(torch.eye(size, dtype=torch.float64).reshape(size, *A.x_shape)).flatten(1).T


def affine(model: ForwardModel, v: Tensor, gamma: float, exact: bool) -> tuple[Tensor, Tensor]:
    """The generator as v -> mean + L w: mean `(D,)`, L `(D, noise)`."""
    chains = v.numel() + model.y.numel() + 1
    rng = UnitVectors()
    out = model.generate(v.expand(chains, *v.shape[1:]), gamma, rng, exact).flatten(1)
    return out[-1], (out[: rng.used] - out[-1]).T


def test_every_registered_operator_is_tested_here():
    assert set(INSTANCES) == set(registry.FORWARD)
    for name, makes in INSTANCES.items():
        kind = registry.resolve(registry.FORWARD, name, "forward model")
        assert all(isinstance(make(generator(1)), kind) for make in makes)


def test_shapes_and_dtype(operator):
    for dtype in (torch.float32, torch.float64):
        if isinstance(operator, Dense):
            operator.matrix = operator.matrix.to(dtype)
        x, y = draw(operator.x_shape, n=2).to(dtype), draw(operator.y_shape, n=2).to(dtype)
        assert operator.forward(x).shape == y.shape and operator.forward(x).dtype == dtype
        assert operator.adjoint(y).shape == x.shape and operator.adjoint(y).dtype == dtype
        assert operator.prox(x, y, 0.1, 0.2).shape == x.shape and operator.prox(x, y, 0.1, 0.2).dtype == dtype


def test_adjoint_identity(operator):
    x, y = draw(operator.x_shape, n=5, seed=1), draw(operator.y_shape, n=5, seed=2)
    left = (operator.forward(x) * y).flatten(1).sum(1)
    right = (x * operator.adjoint(y)).flatten(1).sum(1)
    scale = operator.forward(x).flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
    assert ((left - right).abs() / scale).max() < 1e-10


def test_forward_is_linear(operator):
    a, b = draw(operator.x_shape, seed=1), draw(operator.x_shape, seed=2)
    torch.testing.assert_close(
        operator.forward(2 * a - 3 * b), 2 * operator.forward(a) - 3 * operator.forward(b), rtol=0, atol=1e-12
    )


# (gamma, sigma_y): balanced, data-dominated, prior-dominated
LEVELS = [(0.1, 0.1), (0.25, 0.02), (0.01, 0.3)]


@pytest.mark.parametrize(("gamma", "sigma_y"), LEVELS)
def test_prox_has_zero_gradient(operator, gamma, sigma_y):
    v, y = draw(operator.x_shape, n=3, seed=1), draw(operator.y_shape, n=1, seed=2)
    x = operator.prox(v, y, gamma, sigma_y).requires_grad_()
    energy = (y - operator.forward(x)).square().sum() / (2 * sigma_y**2) + (x - v).square().sum() / (2 * gamma**2)
    (gradient,) = torch.autograd.grad(energy, x)
    scale = operator.adjoint(y).norm() / sigma_y**2 + v.norm() / gamma**2
    assert gradient.norm() < 5e-6 * scale  # conjugate gradients stop at a relative residual of 1e-6


@pytest.mark.parametrize(("gamma", "sigma_y"), LEVELS)
def test_own_prox_is_what_conjugate_gradients_find(operator, gamma, sigma_y):
    v, y = draw(operator.x_shape, n=3, seed=1), draw(operator.y_shape, n=1, seed=2)
    closed = operator.prox(v, y, gamma, sigma_y)
    iterated = LinearOperator.prox(operator, v, y, gamma, sigma_y)
    # without a preconditioner a relative residual of 1e-6 leaves more error in x
    torch.testing.assert_close(iterated, closed, rtol=0, atol=1e-5 if type(operator) is Mask else 2e-4)


@pytest.mark.parametrize(("gamma", "sigma_y"), LEVELS)
def test_prox_is_the_dense_solution(operator, gamma, sigma_y):
    v, y = draw(operator.x_shape, n=3, seed=1), draw(operator.y_shape, n=3, seed=2)
    A = matrix(operator)
    precision = A.T @ A / sigma_y**2 + torch.eye(A.shape[1], dtype=A.dtype) / gamma**2
    expected = torch.linalg.solve(precision, (y.flatten(1) @ A / sigma_y**2 + v.flatten(1) / gamma**2).T).T
    torch.testing.assert_close(operator.prox(v, y, gamma, sigma_y).flatten(1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
def test_generator_moments(operator, exact):
    gamma, sigma_y = 0.15, 0.1
    v, y = draw(operator.x_shape, seed=1), draw(operator.y_shape, seed=2)
    A = matrix(operator)
    identity = torch.eye(A.shape[1], dtype=A.dtype)
    covariance = torch.linalg.inv(A.T @ A / sigma_y**2 + identity / gamma**2)
    expected_mean = covariance @ (A.T @ y.flatten() / sigma_y**2 + v.flatten() / gamma**2)
    expected = covariance if exact else gamma**2 * identity
    mean, L = affine(ForwardModel(operator, y, sigma_y), v, gamma, exact)
    closed_form = isinstance(operator, CLOSED_FORM)
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=1e-12 if closed_form else 1e-5)
    torch.testing.assert_close(L @ L.T, expected, rtol=0, atol=1e-12 if closed_form else 1e-6)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
def test_generator_draws_have_those_moments(exact):
    """The same once with real noise: 4000 chains, every mean and variance within 4.5 standard errors."""
    A, gamma, sigma_y, chains = mask_shared(generator(1)), 0.15, 0.1, 4000
    v, y = draw(A.x_shape, seed=1), draw(A.y_shape, seed=2)
    x = ForwardModel(A, y, sigma_y).generate(v.expand(chains, *A.x_shape), gamma, ChainRng(3, chains), exact)
    pull = gamma**2 / (gamma**2 + sigma_y**2)
    known = A.known.expand(A.x_shape)
    mean = torch.where(known, v[0] + pull * (y[0] - v[0]), v[0])
    variance = torch.where(known, pull * sigma_y**2, gamma**2) if exact else torch.full_like(mean, gamma**2)
    assert ((x.mean(0) - mean) / (variance / chains).sqrt()).abs().max() < 4.5
    assert ((x.var(0) / variance - 1) / (2 / (chains - 1)) ** 0.5).abs().max() < 4.5


def test_prox_does_not_depend_on_the_rest_of_the_batch():
    """Neighbours that need more or fewer conjugate-gradient steps, or none at all, change nothing."""
    A = dense(generator(1))
    y = draw(A.y_shape, n=4, seed=2)
    v = draw(A.x_shape, n=4, seed=1) * torch.tensor([1e-3, 1.0, 1e3, 0.0], dtype=torch.float64)[:, None, None, None]
    y[3] = 0  # the start already solves the last system
    together = A.prox(v, y, 0.5, 0.01)
    assert torch.isfinite(together).all()
    for k in range(4):
        alone = A.prox(v[k : k + 1], y[k : k + 1], 0.5, 0.01)
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-9, atol=0)


def test_conjugate_gradients_choose_each_images_own_step():
    """Seen before convergence: afterwards shared step sizes would have led to the same place."""
    A = dense(generator(1))
    b = draw(A.x_shape, n=3, seed=1) * torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)[:, None, None, None]

    def operator(x: Tensor) -> Tensor:
        return x + 25 * A.adjoint(A.forward(x))

    together = conjugate_gradient(operator, b, start=torch.zeros_like(b), steps=3)
    alone = [conjugate_gradient(operator, b[k : k + 1], start=torch.zeros_like(b[:1]), steps=3) for k in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=0)
    assert (operator(together) - b).norm() > 1e-3 * b.norm()


def test_conjugate_gradients_stop_by_themselves():
    calls = []

    def operator(x: Tensor) -> Tensor:
        calls.append(1)
        return x * torch.tensor([1.0, 4.0, 9.0], dtype=x.dtype)[:, None]  # three eigenvalues: three steps

    b = draw((1, 3, 5), seed=4)
    x = conjugate_gradient(operator, b, start=torch.zeros_like(b), steps=50)
    torch.testing.assert_close(operator(x), b, rtol=0, atol=1e-10)
    assert len(calls) - 1 <= 4 + 1  # the residual at the start, three steps, at most one for rounding


@pytest.mark.parametrize("make", [circular_odd, circular_even, blur_odd, blur_even])
def test_blur_is_convolution(make):
    """Pixel (i, j) of y is the sum over (k, l) of h[k, l] x[i - k, j - l], counted from the kernel's centre."""
    A, x = make(generator(1)), draw(make(generator(1)).x_shape, seed=3)
    h = kernel(generator(1), *{circular_odd: (3, 5), circular_even: (4, 2), blur_odd: (3, 5), blur_even: (4, 2)}[make])
    kh, kw = h.shape
    top, left = (0, 0) if isinstance(A, CircularBlur) else (kh - 1 - kh // 2, kw - 1 - kw // 2)
    rows, columns = torch.arange(A.y_shape[1]) + top, torch.arange(A.y_shape[2]) + left
    expected = torch.zeros(1, *A.y_shape, dtype=x.dtype)
    for k in range(kh):
        for m in range(kw):
            i, j = rows - (k - kh // 2), columns - (m - kw // 2)
            if not isinstance(A, CircularBlur):
                assert i.min() >= 0 and j.min() >= 0 and i.max() < x.shape[2] and j.max() < x.shape[3]
            expected += h[k, m] * x[:, :, i % x.shape[2]][..., j % x.shape[3]]
    torch.testing.assert_close(A.forward(x), expected, rtol=0, atol=1e-12)


def test_crop_is_the_frame():
    """A kernel with all its weight in the centre shows which part of x is the frame of y."""
    for size in ((3, 5), (4, 2), (1, 1)):
        h = torch.zeros(size)
        h[size[0] // 2, size[1] // 2] = 1
        A = Blur(h, (2, 5, 6))
        x = draw(A.x_shape)
        torch.testing.assert_close(A.forward(x), A.crop(x), rtol=0, atol=1e-12)
        y = draw(A.y_shape)
        assert A.extend(y).shape == x.shape and torch.equal(A.crop(A.extend(y)), y)
        for scale, first in ((2, 0), (3, 1), (4, 1)):
            B = SuperResolve(h, (2, 3, 2), scale)
            x = draw(B.x_shape)
            kept = B.crop(x)[..., first::scale, first::scale]
            torch.testing.assert_close(B.forward(x), kept, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_shrinks_as_pillow_does(scale):
    x = draw((1, 10 * scale, 12 * scale))[0]
    shrunk = np.asarray(Image.fromarray(x[0].float().numpy()).resize((12, 10), Image.Resampling.BICUBIC))
    A = SuperResolve(bicubic(scale), (1, 10, 12), scale)
    whole = draw(A.x_shape, seed=1)
    whole[A.frame] = x[None]
    y = A.forward(whole)[0, 0].numpy()
    inner = slice(2, -2)  # where no filter reaches across the border
    assert np.abs(y - shrunk)[inner, inner].max() < 1e-5
    assert np.abs(y - shrunk).max() > 0.1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_interpolated_data_are_in_place(scale):
    """A ramp, shrunk and interpolated, is the same ramp, to a fraction of a pixel's step."""
    A = SuperResolve(bicubic(scale), (1, 8, 8), scale)
    ramp = torch.arange(A.x_shape[2], dtype=torch.float64).expand(1, 1, *A.x_shape[1:])
    back = A.crop(A.extend(A.forward(ramp)))
    assert back.shape == A.crop(ramp).shape
    off = (back - A.crop(ramp))[..., 2 * scale : -2 * scale]
    assert off.mean().abs() < 1e-9 and off.abs().max() < 0.2
    assert A.extend(A.forward(ramp)).shape == ramp.shape


@pytest.mark.parametrize(("gamma", "largest"), [(0.25, 0.02), (0.05, 0.002), (0.0025, 1e-5)])
def test_default_tolerance_of_blur_is_far_below_the_draws_spread(gamma, largest):
    h = kernel(generator(1), 9, 9)
    x, sigma_y = draw((1, 48, 48), seed=3) / 4, 0.01
    y = Blur(h, (1, 40, 40)).forward(x) + sigma_y * draw((1, 40, 40), seed=2)
    v = x + gamma * draw((1, 48, 48), seed=1)
    close, quick = (Blur(h, (1, 40, 40), *tolerance).prox(v, y, gamma, sigma_y) for tolerance in ((1e-9,), ()))
    assert 1e-11 < (quick - close).square().mean().sqrt() / gamma < largest


@pytest.mark.parametrize("scale", [1, 2])
def test_blurs_conjugate_gradients_are_symmetric_and_few(scale, monkeypatch):
    """What is wrong with them would still find the solution, only later."""
    solve, systems, calls = blur.conjugate_gradient, [], []

    def spy(operator, b, *options):
        systems.append((operator, b))
        return solve(lambda d: calls.append(1) or operator(d), b, *options)

    monkeypatch.setattr(blur, "conjugate_gradient", spy)
    h, gamma, sigma_y = kernel(generator(1), 9, 9), 0.05, 0.01
    A = SuperResolve(h, (1, 40, 31), scale) if scale > 1 else Blur(h, (1, 40, 31))
    for seed in range(2):
        x = draw(A.x_shape, seed=3 + seed) / 4
        y = A.forward(x) + sigma_y * draw(A.y_shape, seed=7 + seed)
        A.prox(x + gamma * draw(A.x_shape, seed=5 + seed), y, gamma, sigma_y)
    (operator, a), (_, b) = systems
    assert (operator(a) * b).sum().item() == pytest.approx((a * operator(b)).sum().item(), rel=1e-10)
    assert len(calls) / 2 <= 4
    assert a[0, 0].numel() < A.y_shape[1] * A.y_shape[2]  # only what lies beyond the frame is unknown


def test_fft_sizes_have_small_factors():
    assert [blur._fft_size(n) for n in (1, 2, 11, 13, 121, 282, 274, 256)] == [1, 2, 12, 14, 125, 288, 280, 256]


@pytest.mark.parametrize("make", [circular_odd, blur_odd])
def test_blur_needs_noise_and_room(make):
    A = make(generator(1))
    with pytest.raises(ValueError, match="sigma_y must be positive"):
        A.prox(draw(A.x_shape), draw(A.y_shape), 0.1, 0.0)
    with pytest.raises(ValueError, match="7x3 pixels does not fit images of 6x6"):
        CircularBlur(torch.ones(7, 3), (1, 6, 6))


def test_preconditioner_saves_steps_and_changes_nothing_else():
    scale = torch.logspace(0, 4, 30, dtype=torch.float64)
    b, counts = draw((1, 1, 30), n=2), []
    for preconditioner in (None, lambda r: r / scale):
        calls = []
        x = conjugate_gradient(
            lambda d, calls=calls: calls.append(1) or scale * d + 0.1 * d.mean(-1, keepdim=True),
            b, None, 200, 1e-10, preconditioner,
        )  # fmt: skip
        torch.testing.assert_close(scale * x + 0.1 * x.mean(-1, keepdim=True), b, rtol=0, atol=1e-7)
        counts.append(len(calls))
    assert counts[1] <= 5 < counts[0]


def test_the_same_data_by_another_kernel():
    rng = generator(0)
    A, other = blur_partly_known(rng), kernel(rng, 5, 3)
    B = A.by(other)
    assert B.x_shape == (2, 9, 6)
    x = torch.randn(1, *B.x_shape, generator=rng)
    whole = Blur(other, A.y_shape).forward(x)
    assert torch.equal(B.forward(x), A.believed(whole)) and not torch.equal(B.forward(x), whole)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
def test_mask_without_noise_keeps_known_pixels_exactly(exact):
    A = mask_per_channel(generator(1))
    for dtype in (torch.float32, torch.float64):
        v, y = draw(A.x_shape, n=3, seed=1).to(dtype), draw(A.y_shape, seed=2).to(dtype)
        model = ForwardModel(A, y, sigma_y=0.0)
        x = model.prox(v, 1e-3)
        assert torch.equal(x[:, A.known], y.expand_as(v)[:, A.known])
        assert torch.equal(x[:, ~A.known], v[:, ~A.known])
        x = model.generate(v, 1e-3, ChainRng(0, 3), exact=True)
        assert torch.equal(x[:, A.known], y.expand_as(v)[:, A.known])
        assert not torch.equal(x[:, ~A.known], v[:, ~A.known])


def test_noiseless_data_need_a_closed_form():
    A = dense(generator(1))
    with pytest.raises(ValueError, match="Dense has no closed-form prox"):
        A.prox(draw(A.x_shape), draw(A.y_shape), 0.1, 0.0)


def test_residual_and_energy(operator):
    y, x = operator.believed(draw(operator.y_shape, seed=1)), draw(operator.x_shape, n=3, seed=2)
    believed = operator.believed(torch.ones_like(y)).mean()
    model = ForwardModel(operator, y, 0.2)
    gap = (y.flatten(1) - x.flatten(1) @ matrix(operator).T).square()
    torch.testing.assert_close(model.energy(x), gap.sum(1) / (2 * 0.2**2))
    torch.testing.assert_close(model.residual(x), (gap.mean(1) / believed).sqrt())
