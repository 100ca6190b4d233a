"""Every forward operator: adjoint identity, proximal map, proximal generators; each against the dense closed form."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gpnp_cli import registry
from gpnp_cli.forward.base import ForwardModel, LinearOperator, conjugate_gradient
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.rng import ChainRng, generator


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


INSTANCES: dict[str, list[Callable[[torch.Generator], LinearOperator]]] = {"mask": [mask_shared, mask_per_channel]}
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


class UnitVectors:
    """A false source of noise: chain k gets the k-th unit vector of all the noise drawn, later chains get zeros."""

    def __init__(self) -> None:
        self.used = 0

    def randn_like(self, x: Tensor) -> Tensor:
        size = x[0].numel()
        assert self.used + size < x.shape[0], "one chain must remain without noise"
        noise = torch.zeros(x.shape[0], size, dtype=x.dtype)
        noise[self.used : self.used + size] = torch.eye(size, dtype=x.dtype)
        self.used += size
        return noise.reshape(x.shape)


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
def test_closed_form_prox_is_what_conjugate_gradients_find(operator, gamma, sigma_y):
    v, y = draw(operator.x_shape, n=3, seed=1), draw(operator.y_shape, n=1, seed=2)
    closed = operator.prox(v, y, gamma, sigma_y)
    iterated = LinearOperator.prox(operator, v, y, gamma, sigma_y)
    torch.testing.assert_close(iterated, closed, rtol=0, atol=1e-5)


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
    closed_form = type(operator).prox is not LinearOperator.prox
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
    y, x = draw(operator.y_shape, seed=1), draw(operator.x_shape, n=3, seed=2)
    model = ForwardModel(operator, y, 0.2)
    gap = (y.flatten(1) - x.flatten(1) @ matrix(operator).T).square()
    torch.testing.assert_close(model.energy(x), gap.sum(1) / (2 * 0.2**2))
    torch.testing.assert_close(model.residual(x), gap.mean(1).sqrt())
