"""Metropolis, Hastings and MALA on Gibbs energies; they ignore sigma.

All draw from p(x) proportional to exp(-u(x) / T). Whole-image kernels (`Metropolis`, `Hastings`,
`Mala`) take any energy `(N, C, H, W) -> (N,)`; the sweeps (`Sweep`, `IsingSweep`) visit every site
of a grid energy once, sites that do not touch each other at the same time.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import InputError, UsageError
from .base import State
from .energies import Energy, Ising, PairwiseGrid, check_temperature, energy_name, evaluate, evaluate_start, load_module
from .rng import ChainRng


class MetropolisInfo(NamedTuple):
    """`acceptance` `(N,)`: the share of this step's proposals that each chain accepted."""

    x0: None
    nfe: int
    acceptance: Tensor


class EnergyState(NamedTuple):
    """`x` and its energy `(N,)`, so that a step evaluates the proposal only."""

    x: Tensor
    energy: Tensor


class MalaState(NamedTuple):
    """`x`, its energy `(N,)` and the energy's gradient, shaped like x."""

    x: Tensor
    energy: Tensor
    gradient: Tensor


class Proposal(Protocol):
    """A proposal density q(w | x)."""

    def propose(self, x: Tensor, rng: ChainRng) -> Tensor: ...

    def log_density(self, w: Tensor, x: Tensor) -> Tensor:
        """log q(w | x) `(N,)`, up to a constant that depends on neither."""
        ...


@dataclass(frozen=True)
class GaussianWalk:
    """w = x + scale n: symmetric, so `Metropolis` may use it."""

    scale: float

    def propose(self, x: Tensor, rng: ChainRng) -> Tensor:
        return x + self.scale * rng.randn_like(x)

    def log_density(self, w: Tensor, x: Tensor) -> Tensor:
        return _log_normal(w - x, self.scale)


@dataclass(frozen=True)
class LogWalk:
    """w = x exp(scale n) for positive images: asymmetric, q(w | x) = N(log w; log x, scale^2) / w."""

    scale: float

    def propose(self, x: Tensor, rng: ChainRng) -> Tensor:
        return x * torch.exp(self.scale * rng.randn_like(x))

    def log_density(self, w: Tensor, x: Tensor) -> Tensor:
        log_w = torch.log(w)
        return _log_normal(log_w - torch.log(x), self.scale) - log_w.flatten(1).sum(1, dtype=torch.float64)


@dataclass(frozen=True)
class IndependentNormal:
    """w = mean + std n, whatever x is: asymmetric, can jump between far modes."""

    mean: float
    std: float

    def propose(self, x: Tensor, rng: ChainRng) -> Tensor:
        return self.mean + self.std * rng.randn_like(x)

    def log_density(self, w: Tensor, x: Tensor) -> Tensor:
        return _log_normal(w - self.mean, self.std)


def _log_normal(gap: Tensor, std: float) -> Tensor:
    """log N(gap; 0, std^2 I) `(N,)` up to its constant; in float64, for it is subtracted from another like it."""
    return -gap.square().flatten(1).sum(1, dtype=torch.float64) / (2 * std**2)


def _select(accepted: Tensor, new, old):
    """The state tuple `new` for accepted chains, `old` for the others."""
    return type(old)(
        *(torch.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True))
    )


def _accept(log_alpha: Tensor, rng: ChainRng) -> Tensor:
    """True with probability min(1, exp(log_alpha)), `(N,)`."""
    return torch.log(rng.rand_like(log_alpha)) < log_alpha


@dataclass(frozen=True)
class Metropolis:
    """Metropolis et al., 1953: accept w with probability min(1, exp(-(u(w) - u(x)) / T)).

    The proposal must be symmetric, q(w | x) = q(x | w); `Hastings` takes any.
    """

    energy: Energy
    proposal: Proposal
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def init(self, x: Tensor) -> EnergyState:
        return EnergyState(x, evaluate_start(self.energy, x).detach())

    def step(self, state: EnergyState, sigma: float, rng: ChainRng) -> tuple[EnergyState, MetropolisInfo]:
        w = self.proposal.propose(state.x, rng)
        new = EnergyState(w, evaluate(self.energy, w).detach())
        log_alpha = (state.energy - new.energy) / self.temperature + self.log_correction(w, state.x)
        accepted = _accept(log_alpha, rng)
        return _select(accepted, new, state), MetropolisInfo(None, 0, accepted.to(w.dtype))

    def log_correction(self, w: Tensor, x: Tensor) -> Tensor | float:
        """log q(x | w) - log q(w | x): zero for a symmetric proposal."""
        return 0.0


@dataclass(frozen=True)
class Hastings(Metropolis):
    """Hastings, 1970: accept w with probability min(1, q(x|w) / q(w|x) exp(-(u(w) - u(x)) / T))."""

    def log_correction(self, w: Tensor, x: Tensor) -> Tensor:
        forth, back = self.proposal.log_density(w, x), self.proposal.log_density(x, w)
        name, hint = type(self.proposal).__name__, "log_density(w, x) must be that of what propose(x) returns"
        if forth.shape != x.shape[:1] or bool((torch.isnan(back) | torch.isposinf(back)).any()):
            raise UsageError(f"proposal '{name}' returned a density that is not one number per image", hint=hint)
        if not bool(torch.isfinite(forth).all()):
            raise UsageError(f"proposal '{name}' gave density zero to an image that it had itself proposed", hint=hint)
        return back - forth  # -inf where a move cannot be undone: it is never accepted


@dataclass(frozen=True)
class Mala:
    """Metropolis-adjusted Langevin (Roberts & Tweedie, 1996): Hastings with the Langevin proposal.

    w = x - epsilon grad u(x) / T + sqrt(2 epsilon) n. The energy must be differentiable by autograd.
    Raises `UsageError` for an energy over labels.
    """

    energy: Energy
    epsilon: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if getattr(self.energy, "discrete", False):
            raise UsageError(
                f"MALA follows a gradient, but energy '{energy_name(self.energy)}' has labels",
                hint="use --sampler metropolis",
            )

    def init(self, x: Tensor) -> MalaState:
        evaluate_start(self.energy, x)
        return self._evaluate(x)

    def step(self, state: MalaState, sigma: float, rng: ChainRng) -> tuple[MalaState, MetropolisInfo]:
        w = self._drift(state) + math.sqrt(2 * self.epsilon) * rng.randn_like(state.x)
        new = self._evaluate(w)
        log_alpha = (state.energy - new.energy) / self.temperature
        log_alpha = log_alpha + self._log_density(state.x, new) - self._log_density(w, state)
        # where the energy is infinite its gradient means nothing, nor does the density of the way back
        log_alpha = torch.where(torch.isfinite(new.energy), log_alpha, -math.inf)
        accepted = _accept(log_alpha, rng)
        return _select(accepted, new, state), MetropolisInfo(None, 0, accepted.to(w.dtype))

    def _drift(self, state: MalaState) -> Tensor:
        return state.x - self.epsilon / self.temperature * state.gradient

    def _log_density(self, w: Tensor, state: MalaState) -> Tensor:
        return _log_normal(w - self._drift(state), math.sqrt(2 * self.epsilon))

    def _evaluate(self, x: Tensor) -> MalaState:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.clone().requires_grad_(True)
            energy = evaluate(self.energy, leaf)
            if not energy.requires_grad:
                raise UsageError("MALA needs a differentiable energy", hint="use --sampler metropolis for this energy")
            (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        if not bool((torch.isfinite(gradient).flatten(1).all(1) | torch.isposinf(energy)).all()):
            raise InputError(
                f"the gradient of energy '{energy_name(self.energy)}' is not finite where the energy is",
                hint="use --sampler metropolis, or smooth the energy",
            )
        return MalaState(x, energy.detach(), gradient)


# The chance that a sweep proposes anything at a site. Below one, for sites visited in a fixed order would move in
# lockstep where no move costs energy: diagonal stripes of an Ising grid would march on for ever.
ACTIVE = 15 / 16


@dataclass(frozen=True)
class Sweep:
    """Single-site Metropolis over a grid energy: `sweeps` visits of every site per step.

    The sites fall into four classes by the parity of row and column; no two sites of a class are
    neighbours (not even diagonally), so a class is updated by one vector operation. A periodic grid
    needs even sides for that.
    """

    CLASSES = ((0, 0), (1, 1), (0, 1), (1, 0))  # with 4 neighbours: all black sites, then all white ones

    energy: PairwiseGrid
    temperature: float = 1.0
    sweeps: int = 1

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def init(self, x: Tensor) -> State:
        if self.energy.periodic and (x.shape[-2] % 2 or x.shape[-1] % 2):
            raise UsageError(
                f"a periodic grid of {x.shape[-2]}x{x.shape[-1]} cannot be swept by parity classes",
                hint="use even sides or periodic=false",
            )
        evaluate_start(self.energy, x)
        return State(x)

    def step(self, state: State, sigma: float, rng: ChainRng) -> tuple[State, MetropolisInfo]:
        x = state.x.clone()
        count = torch.zeros(x.shape[0], device=x.device)
        for _ in range(self.sweeps):
            for a, b in self.CLASSES:
                count += self._update(x, a, b, rng)
        return State(x), MetropolisInfo(None, 0, count / (self.sweeps * x[0].numel()))

    def _update(self, x: Tensor, a: int, b: int, rng: ChainRng) -> Tensor:
        """Update sites (a::2, b::2) of `x` in place; returns how many each chain accepted, `(N,)`."""
        sites = x[..., a::2, b::2]
        w = self.energy.propose(sites, rng.rand_like(sites))
        rise = torch.zeros_like(sites)
        for neighbour, weight in self._neighbours(x, a, b):
            rise += weight * (self.energy.pair(w, neighbour) - self.energy.pair(sites, neighbour))
        chance = ACTIVE * torch.exp(-rise / self.temperature).clamp(max=1)
        accepted = (rng.rand_like(sites) < chance) & self.energy.legal(w)
        x[..., a::2, b::2] = torch.where(accepted, w, sites)
        return accepted.flatten(1).sum(1)

    def _neighbours(self, x: Tensor, a: int, b: int):
        """Each neighbour of the sites (a::2, b::2) with its weight (0 outside a grid that does not wrap)."""
        h, w = x.shape[-2:]
        rows, columns = torch.arange(a, h, 2, device=x.device), torch.arange(b, w, 2, device=x.device)
        for dy, dx, weight in self.energy.half_offsets():
            for sign in (1, -1):
                i, j = rows + sign * dy, columns + sign * dx
                if self.energy.periodic:
                    inside = 1.0
                else:
                    inside = (((i >= 0) & (i < h))[:, None] & ((j >= 0) & (j < w))[None, :]).to(x.dtype)
                # negative and too large indices only occur where they wrap or where the weight is zero
                yield x.index_select(-2, i % h).index_select(-1, j % w), weight * inside


@dataclass(frozen=True)
class IsingSweep:
    """Checkerboard Metropolis for the Ising model: `Sweep`'s law for 4 neighbours on a periodic grid, but faster.

    The two colours are packed into contiguous int8 halves `(N, H, W/2)`. A flip costs 2 |J| h with
    h = sign(J) s_i (sum of neighbours) in {-4, -2, 0, 2, 4}, so there are just three chances to move, for
    h <= 0, h = 2 and h = 4, kept as 32-bit thresholds: a spin flips if h is below -4, 1, 3 or 5 by how many
    of them a random integer stays below. Probabilities are exact to 2^-32.
    """

    energy: Ising
    temperature: float = 1.0
    sweeps: int = 1

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.energy.neighbours != 4 or not self.energy.periodic:
            raise UsageError("the fast Ising sweep needs 4 neighbours on a periodic grid", hint="use `Sweep`")

    def init(self, x: Tensor) -> State:
        if x.shape[1] != 1 or x.shape[-2] % 2 or x.shape[-1] % 2:
            raise UsageError(
                f"the Ising grid is {tuple(x.shape[1:])}, needs one channel and even sides", hint="use an even size"
            )
        evaluate_start(self.energy, x)
        return State(x)

    def step(self, state: State, sigma: float, rng: ChainRng) -> tuple[State, MetropolisInfo]:
        black, white = _pack(state.x)
        flips = torch.zeros(black.shape[0], dtype=torch.int64, device=black.device)
        for _ in range(self.sweeps):
            flips += self._update(black, white, 1, rng)
            flips += self._update(white, black, -1, rng)
        share = flips / (self.sweeps * state.x[0].numel())
        return State(_unpack(black, white, state.x)), MetropolisInfo(None, 0, share)

    def _update(self, spins: Tensor, others: Tensor, shift: int, rng: ChainRng) -> Tensor:
        """Update one colour in place; `shift` is where its even rows' second neighbour sits."""
        h = others.roll(1, -2).add_(others.roll(-1, -2)).add_(others)
        h[:, 0::2] += others[:, 0::2].roll(shift, -1)
        h[:, 1::2] += others[:, 1::2].roll(-shift, -1)
        h.mul_(spins)
        if self.energy.J < 0:
            h.neg_()
        bits = rng.bits_like(spins, torch.int32)
        limit = torch.full_like(spins, -4)
        for cost, rise in ((0, 5), (2, 2), (4, 2)):
            # in-place comparison keeps the dtype and is vectorised; the plain one is ten times slower
            limit.add_(bits.clone().lt_(self._threshold(cost)).to(torch.int8), alpha=rise)
        accepted = h.lt_(limit)
        flips = accepted.flatten(1).sum(1, dtype=torch.int32)
        spins.mul_(accepted.mul_(-2).add_(1))
        return flips

    def _threshold(self, h: int) -> int:
        """The int32 below which a uniform int32 falls with probability ACTIVE exp(-2 |J| h / T)."""
        return int(ACTIVE * math.exp(-2 * abs(self.energy.J) * h / self.temperature) * 2**32) - 2**31


def _pack(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two colours `(N, H, W/2)` int8: black (i, 2k + i % 2), white (i, 2k + 1 - i % 2)."""
    x = x[:, 0].to(torch.int8)
    even, odd = x[..., 0::2], x[..., 1::2]
    black, white = even.clone(), odd.clone()
    black[:, 1::2], white[:, 1::2] = odd[:, 1::2], even[:, 1::2]
    return black, white


def _unpack(black: Tensor, white: Tensor, like: Tensor) -> Tensor:
    x = torch.empty_like(like)
    x[:, 0, 0::2, 0::2], x[:, 0, 0::2, 1::2] = black[:, 0::2].to(x.dtype), white[:, 0::2].to(x.dtype)
    x[:, 0, 1::2, 1::2], x[:, 0, 1::2, 0::2] = black[:, 1::2].to(x.dtype), white[:, 1::2].to(x.dtype)
    return x


def parse_proposal(text: str, step: float) -> Proposal:
    """The proposal that `text` names: `walk`, `log-walk` (both of std `step`), `independent:MEAN,STD` or `FILE.py:NAME`.

    A file is the user's own code and is executed; NAME is a proposal, or a class or function that makes one of `step`.
    Raises `UsageError` for an unknown name or bad numbers, `InputError` for a file that does not load.
    """
    name, _, rest = text.partition(":")
    if name in ("walk", "log-walk") and not rest:
        return {"walk": GaussianWalk, "log-walk": LogWalk}[name](step)
    if name == "independent":
        try:
            mean, std = (float(part) for part in rest.split(","))
            if math.isfinite(mean) and 0 < std < math.inf:
                return IndependentNormal(mean, std)
        except ValueError:
            pass
        raise UsageError(f"proposal '{text}' is not independent:MEAN,STD", hint="e.g. independent:0.5,0.25")
    path, _, name = text.rpartition(":")
    if not path.endswith(".py"):
        raise UsageError(f"unknown proposal '{text}'", hint="known: walk, log-walk, independent:MEAN,STD, FILE.py:NAME")
    found = getattr(load_module(Path(path), "proposal"), name, None)
    proposal = found(step) if callable(found) else found
    if not (hasattr(proposal, "propose") and hasattr(proposal, "log_density")):
        raise InputError(f"{path}: '{name}' is no proposal", hint="it needs propose(x, rng) and log_density(w, x)")
    return proposal
