"""Gibbs energies u(x) over images; the law drawn from is p(x) proportional to exp(-u(x) / T).

An energy is any callable `(N, C, H, W) -> (N,)`. The grid energies below also offer what single-site
sweeps need: the legal values, the energy between two neighbours and a symmetric proposal. Labels
are stored as float32 like every other image: -1, 1 (Ising), 0 .. q-1 (Potts).
"""

import difflib
import functools
import importlib.util
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from ..errors import InputError, UsageError
from .rng import ChainRng

Energy = Callable[[Tensor], Tensor]


def evaluate(energy: Energy, x: Tensor) -> Tensor:
    """`energy(x)` `(N,)` in float64, checked: `InputError` if it has another shape, is NaN or minus infinity.

    Plus infinity is legal: it is an image of probability zero.
    """
    u = energy(x)
    name = energy_name(energy)
    if not isinstance(u, Tensor) or u.shape != x.shape[:1]:
        got = tuple(u.shape) if isinstance(u, Tensor) else type(u).__name__
        raise InputError(
            f"energy '{name}' returned {got} for {x.shape[0]} images of shape {tuple(x.shape[1:])}",
            hint=f"return one value per image, a tensor of shape ({x.shape[0]},)",
        )
    if bool(torch.isnan(u).any() | torch.isneginf(u).any()):
        raise InputError(
            f"energy '{name}' returned NaN or -inf", hint="return +inf for images that must not occur, never NaN"
        )
    return u.to(torch.float64)


def evaluate_start(energy: Energy, x: Tensor) -> Tensor:
    """`evaluate` for the images that chains start from: `InputError` if one has probability zero."""
    u = evaluate(energy, x)
    if not bool(torch.isfinite(u).all()):
        chain = int((~torch.isfinite(u)).nonzero()[0])
        raise InputError(
            f"energy '{energy_name(energy)}' is infinite where chain {chain} starts",
            hint="start from an image that can occur",
        )
    return u


def energy_name(energy: Energy) -> str:
    return getattr(energy, "__name__", type(energy).__name__)


def check_temperature(temperature: float) -> float:
    """The temperature itself; `UsageError` unless it is a positive finite number."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise UsageError(f"temperature {temperature:g} is not a positive number", hint="use for example 1")
    return temperature


@dataclass(frozen=True)
class PairwiseGrid(ABC):
    """u(x) = sum over neighbouring sites {i, j} of w_ij `pair`(x_i, x_j), on a grid; +inf where x is not legal.

    `neighbours`: 4 (w = 1) or 8 (diagonal w = 1/sqrt 2, their distance's inverse).
    `periodic`: whether the grid wraps around; on a side of 2 each bond then counts twice.
    """

    neighbours: int = 4
    periodic: bool = True

    def __post_init__(self) -> None:
        if self.neighbours not in (4, 8):
            raise UsageError(f"neighbours={self.neighbours} is not a neighbourhood", hint="use 4 or 8")

    @abstractmethod
    def pair(self, a: Tensor, b: Tensor) -> Tensor:
        """Energy of the neighbouring values `a` and `b`, elementwise."""

    @abstractmethod
    def legal(self, x: Tensor) -> Tensor:
        """Which values can occur, bool, elementwise."""

    @abstractmethod
    def propose(self, x: Tensor, uniform: Tensor) -> Tensor:
        """A symmetric proposal for each site from one uniform number; it need not be legal."""

    @abstractmethod
    def start(self, x: Tensor, rng: ChainRng) -> Tensor:
        """A random legal image shaped like `x`."""

    @abstractmethod
    def to_unit(self, x: Tensor) -> Tensor:
        """The image in [0, 1], to look at."""

    @property
    def discrete(self) -> bool:
        """Whether the values are labels, so that there is no gradient to follow."""
        return True

    def half_offsets(self) -> list[tuple[int, int, float]]:
        """(dy, dx, weight) of one neighbour of each opposite pair."""
        diagonal = [(1, 1, math.sqrt(0.5)), (1, -1, math.sqrt(0.5))] if self.neighbours == 8 else []
        return [(0, 1, 1.0), (1, 0, 1.0), *diagonal]

    def __call__(self, x: Tensor) -> Tensor:
        u = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        for dy, dx, weight in self.half_offsets():
            if self.periodic:
                bonds = self.pair(x, x.roll((-dy, -dx), dims=(-2, -1)))
            else:
                h, w = x.shape[-2:]
                here = x[..., : h - dy, max(0, -dx) : w - max(0, dx)]
                there = x[..., dy:, max(0, dx) : w - max(0, -dx)]
                bonds = self.pair(here, there)
            u = u + weight * bonds.flatten(1).sum(1, dtype=torch.float64)
        return torch.where(self.legal(x).flatten(1).all(1), u, math.inf)


@dataclass(frozen=True)
class Ising(PairwiseGrid):
    """Ising model: u = -J sum w_ij s_i s_j over spins -1, 1 (Ising 1925)."""

    J: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_coupling("ising", self.J)

    def pair(self, a: Tensor, b: Tensor) -> Tensor:
        return -self.J * a * b

    def legal(self, x: Tensor) -> Tensor:
        return x.abs() == 1

    def propose(self, x: Tensor, uniform: Tensor) -> Tensor:
        return -x

    def start(self, x: Tensor, rng: ChainRng) -> Tensor:
        return 2 * torch.floor(2 * rng.rand_like(x)) - 1

    def to_unit(self, x: Tensor) -> Tensor:
        return (x + 1) / 2


@dataclass(frozen=True)
class Potts(PairwiseGrid):
    """Potts model: u = -J sum w_ij [x_i = x_j] over labels 0 .. q-1 (Potts 1952)."""

    q: int = 3
    J: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_coupling("potts", self.J)
        if self.q < 2:
            raise UsageError(f"q={self.q} is not a number of labels", hint="use q=2 or more")

    def pair(self, a: Tensor, b: Tensor) -> Tensor:
        return -self.J * (a == b).to(a.dtype)

    def legal(self, x: Tensor) -> Tensor:
        return (x >= 0) & (x < self.q) & (x == x.floor())

    def propose(self, x: Tensor, uniform: Tensor) -> Tensor:
        # one of the q - 1 other labels, each equally likely
        return torch.remainder(x + 1 + torch.floor(uniform * (self.q - 1)), self.q)

    def start(self, x: Tensor, rng: ChainRng) -> Tensor:
        return torch.floor(rng.rand_like(x) * self.q)

    def to_unit(self, x: Tensor) -> Tensor:
        return x / (self.q - 1)


@dataclass(frozen=True)
class Mrf(PairwiseGrid):
    """Pairwise Markov random field on [0, 1]: u = theta sum w_ij |x_i - x_j|^p.

    p = 2 is the Gaussian field, p = 1 total variation, 1 < p < 2 the generalised Gaussian field of
    Bouman & Sauer, 1993. `levels`: quantised to so many equidistant values; 0 keeps x continuous.
    `width`: half-width of the continuous random walk's uniform window.
    """

    p: float = 1.2
    theta: float = 10.0
    levels: int = 0
    width: float = 0.2
    periodic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.p > 0 and math.isfinite(self.p)):
            raise UsageError(f"mrf exponent p={self.p:g} is not positive", hint="use p between 1 and 2")
        if not (self.theta > 0 and math.isfinite(self.theta)):
            raise UsageError(f"mrf weight theta={self.theta:g} is not positive", hint="use for example theta=10")
        if self.levels == 1 or self.levels < 0:
            raise UsageError(f"mrf levels={self.levels} leaves nothing to draw", hint="use 2 or more, or 0: continuous")
        if not 0 < self.width <= 1:
            raise UsageError(f"mrf width={self.width:g} is outside (0, 1]", hint="use for example width=0.2")

    def pair(self, a: Tensor, b: Tensor) -> Tensor:
        gap = (a - b).abs()
        return self.theta * (gap.square() if self.p == 2 else gap if self.p == 1 else gap**self.p)

    @property
    def discrete(self) -> bool:
        return self.levels > 0

    def legal(self, x: Tensor) -> Tensor:
        inside = (x >= 0) & (x <= 1)
        if not self.levels:
            return inside
        top = self.levels - 1
        return inside & (x == torch.round(x * top) / top)

    def propose(self, x: Tensor, uniform: Tensor) -> Tensor:
        if not self.levels:
            return x + self.width * (2 * uniform - 1)
        top = self.levels - 1
        return torch.remainder(torch.round(x * top) + 1 + torch.floor(uniform * top), self.levels) / top

    def start(self, x: Tensor, rng: ChainRng) -> Tensor:
        u = rng.rand_like(x)
        return torch.floor(u * self.levels) / (self.levels - 1) if self.levels else u

    def to_unit(self, x: Tensor) -> Tensor:
        return x


def _check_coupling(name: str, J: float) -> None:
    # without coupling two labels would be swapped at every visit: sweeps would never forget their start
    if J == 0 or not math.isfinite(J):
        raise UsageError(f"{name} coupling J={J:g} is zero or not finite", hint="use J=1")


GRID_ENERGIES: dict[str, type] = {"ising": Ising, "potts": Potts, "mrf": Mrf}


def parse_energy(text: str) -> Energy:
    """The energy that `text` names: `ising`, `potts:q=3`, `mrf:p=1.2,theta=10,levels=8` or `FILE.py:function`.

    A file is the user's own code and is executed; its function maps `(N, C, H, W)` to `(N,)`.
    Raises `UsageError` for an unknown name, key or value, `InputError` for a file that does not load.
    """
    name, _, rest = text.partition(":")
    if name in GRID_ENERGIES:
        return GRID_ENERGIES[name](**_options(name, rest))
    path, _, function = text.rpartition(":")
    if path.endswith(".py"):
        return load_energy(Path(path), function)
    near = difflib.get_close_matches(name, GRID_ENERGIES, n=1)
    known = ", ".join(GRID_ENERGIES) + " or FILE.py:function"
    if text.endswith(".py"):
        raise UsageError(f"energy '{text}' names no function", hint=f"write {text}:NAME")
    raise UsageError(f"unknown energy '{text}'", hint=f"did you mean '{near[0]}'?" if near else f"known: {known}")


_KINDS = {bool: ("true or false", "true"), int: ("a whole number", "8"), float: ("a number", "1")}


def _options(name: str, text: str) -> dict:
    """`p=1.2,theta=10` as typed values for the dataclass registered as `name`."""
    types = {field.name: field.type for field in fields(GRID_ENERGIES[name])}
    options = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(types)}"
            raise UsageError(f"energy {name} has no option '{item}'", hint=hint)
        kind, example = _KINDS[types[key]]
        try:
            if types[key] is bool:
                options[key] = {"true": True, "false": False}[value.lower()]
            else:
                options[key] = types[key](value)
        except (ValueError, KeyError):
            raise UsageError(
                f"energy {name}: {key}={value} is not {kind}", hint=f"write for example {key}={example}"
            ) from None
    return options


def load_energy(path: Path, function: str) -> Energy:
    """The callable `function` of the Python file `path` (which is executed); what it raises becomes an `InputError`."""
    energy = getattr(load_module(path, "energy"), function, None)
    if not callable(energy):
        raise InputError(f"{path}: no function '{function}'", hint=f"write {path}:NAME for a function it defines")

    @functools.wraps(energy)
    def guarded(x: Tensor) -> Tensor:
        try:
            return energy(x)
        except Exception as error:
            message = f"{path}: {function}: {type(error).__name__}: {error}"
            raise InputError(message, hint="mend the energy file") from error

    return guarded


def load_module(path: Path, what: str) -> ModuleType:
    """The user's Python file `path`, executed; `what` it holds is named in the `InputError`s."""
    if not path.is_file():
        raise InputError(f"{path}: no such {what} file", hint="write FILE.py:NAME with the path of a Python file")
    spec = importlib.util.spec_from_file_location(f"gpnp_{what}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises, it is theirs to mend
        raise InputError(f"{path}: {type(error).__name__}: {error}", hint=f"mend the {what} file") from error
    return module
