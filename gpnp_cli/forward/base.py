"""Linear forward operators and the forward model y = A x + N(0, sigma_y^2 I).

An operator gives its shapes, `forward` and `adjoint`; `prox` by conjugate gradients and both proximal
generators then come free, and a closed form may override `prox`. Operators keep the caller's dtype.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..samplers.rng import ChainRng

CG_STEPS = 60

Map = Callable[[Tensor], Tensor]


class LinearOperator(ABC):
    """A: images `(N, *x_shape)` to data `(N, *y_shape)`."""

    x_shape: tuple[int, int, int]
    y_shape: tuple[int, ...]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x, `(N, *x_shape)` to `(N, *y_shape)`."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, `(N, *y_shape)` to `(N, *x_shape)`."""

    def believed(self, y: Tensor) -> Tensor:
        """`y` with zeros where it says nothing of x, where A x is 0, too; unless an operator knows better, `y` itself."""
        return y

    def prox(self, v: Tensor, y: Tensor, gamma: float, sigma_y: float) -> Tensor:
        """argmin_x ||y - A x||^2 / 2 sigma_y^2 + ||x - v||^2 / 2 gamma^2, by conjugate gradients.

        Multiplied by gamma^2 the normal equations are (I + rho A^T A) x = v + rho A^T y with
        rho = (gamma / sigma_y)^2; `v` is the starting point. Raises `ValueError` for sigma_y = 0: only a
        closed form can take that limit.
        """
        if not sigma_y > 0:
            raise ValueError(f"{type(self).__name__} has no closed-form prox: sigma_y must be positive, not {sigma_y}")
        rho = (gamma / sigma_y) ** 2
        return conjugate_gradient(
            lambda x: x + rho * self.adjoint(self.forward(x)), v + rho * self.adjoint(y), start=v, steps=CG_STEPS
        )


def conjugate_gradient(
    operator: Map,
    b: Tensor,
    start: Tensor | None,
    steps: int,
    tolerance: float = 1e-6,
    preconditioner: Map | None = None,
) -> Tensor:
    """Solve operator(x) = b for each image of the batch, operator symmetric positive definite.

    `start` None is zero. `preconditioner` M is a symmetric positive definite approximation of the operator's inverse.
    Every image has its own step sizes and stops by itself once the norm of its residual, sqrt(r M r), is below
    `tolerance` times that of b: nothing an image gets depends on its neighbours.
    """

    def dot(a: Tensor, c: Tensor) -> Tensor:
        return (a * c).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))

    precondition = preconditioner or (lambda residual: residual)
    x = torch.zeros_like(b) if start is None else start
    residual = b if start is None else b - operator(x)
    direction = wanted = precondition(residual)
    energy = dot(residual, wanted)
    goal = tolerance**2 * (energy if start is None else dot(b, precondition(b)))
    for _ in range(steps):
        active = energy > goal
        if not bool(active.any()):
            break
        image = operator(direction)
        step = torch.where(active, energy / dot(direction, image), 0)
        x = torch.addcmul(x, step, direction)
        residual = torch.addcmul(residual, step, image, value=-1)
        wanted = precondition(residual)
        fresh = dot(residual, wanted)
        direction = torch.addcmul(wanted, torch.where(active, fresh / energy, 0), direction)
        energy = fresh
    return x


@dataclass(frozen=True)
class ForwardModel:
    """y = A x + N(0, sigma_y^2 I): `y` `(1, *A.y_shape)`, shared by all chains; sigma_y on the [0, 1] scale.

    Where `A.believed` leaves nothing of y, y must be 0.
    """

    A: LinearOperator
    y: Tensor
    sigma_y: float

    def residual(self, x: Tensor) -> Tensor:
        """Root mean square of y - A x per image, `(N,)`: about sigma_y when the data are satisfied."""
        share = self.A.believed(torch.ones_like(self.y)).mean()
        return ((self.y - self.A.forward(x)).flatten(1).square().mean(1) / share).sqrt()

    def energy(self, x: Tensor) -> Tensor:
        """u1(x) = ||y - A x||^2 / 2 sigma_y^2, `(N,)`."""
        return (self.y - self.A.forward(x)).flatten(1).square().sum(1) / (2 * self.sigma_y**2)

    def prox(self, v: Tensor, gamma: float) -> Tensor:
        """The proximal map of u1 with step gamma at `v` `(N, *x_shape)`."""
        return self.A.prox(v, self.y, gamma, self.sigma_y)

    def generate(self, v: Tensor, gamma: float, rng: ChainRng, exact: bool = True) -> Tensor:
        """The forward proximal generator: a draw from q1(. | v), prop. to exp(-u1(.) - ||. - v||^2 / 2 gamma^2).

        Exact: the prox of perturbed inputs (Papandreou & Yuille 2010): a Gaussian with precision
        A^T A / sigma_y^2 + I / gamma^2. Otherwise the published approximation, the prox plus white
        noise of std gamma (Bouman & Buzzard 2023), whose covariance is too wide where data inform.
        """
        if not exact:
            return self.prox(v, gamma) + gamma * rng.randn_like(v)
        v = v + gamma * rng.randn_like(v)
        y = self.y
        if self.sigma_y > 0:
            y = y + self.sigma_y * rng.randn_like(y.expand(v.shape[0], *y.shape[1:]))
        return self.A.prox(v, y, gamma, self.sigma_y)
