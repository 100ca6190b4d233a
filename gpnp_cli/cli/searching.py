"""A search for a blur kernel: what is kept of its steps, also in a file that an interrupted run goes on from."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import EnvironmentProblem, InputError
from ..kernel_figures import Snapshot
from ..samplers.em import EmState, EmStep, Fits
from ..samplers.rng import ChainRng
from ..training.checkpoint import read_safetensors, write_safetensors
from .report import Report

SHARES = (0.2, 0.4, 0.6, 0.8)  # of the iterations, where snapshots are taken
FRAMES = 40  # of an animation, about
SETTLED = 5  # iterations over which the kernel's last change is measured
PAUSE = 5.0  # seconds from one writing of the file to the next
KIND = "gpnp-kernel-search"


@dataclass(frozen=True, eq=False)
class Found:
    """What one search found: the kernel `(k, k)`, and how it went.

    `misfit` is the criterion, lower for better kernels (`samplers.em.misfit`); `change` is the kernel's relative change
    over the last iterations, `nfe` the denoiser calls per chain, `phi` the parameters of a kernel that has some.
    """

    kernel: Tensor
    misfit: float
    change: float
    nfe: int
    phi: tuple[float, ...] | None
    frames: Sequence[Snapshot] = ()


@dataclass(eq=False)
class Trail:
    """What is kept of a search under way: its last step, its last kernels, its frames."""

    step: EmStep | None = None
    recent: list[Tensor] = field(default_factory=list)
    frames: list[Snapshot] = field(default_factory=list)


def follow(steps: Iterator[EmStep], total: int, fit: Fits, cost: Callable[[Tensor], float], trail: Trail) -> Found:
    """Run a search to its end, `trail` growing with every step; `cost` is the criterion."""
    shares = {*SHARES, *(k / FRAMES for k in range(1, FRAMES + 1))}
    wanted = {max(1, round(share * total)) for share in shares}
    for step in steps:
        trail.step = step
        trail.recent = [*trail.recent[-SETTLED:], step.state.h]
        if step.iteration in wanted:
            trail.frames.append(snapshot(step, total))
    step, old = trail.step, trail.recent[0]
    h = step.state.h
    old = old if old.shape == h.shape else torch.zeros_like(h)
    change = float((h - old).norm() / h.norm())
    return Found(h.clone(), cost(h), change, step.nfe, parameters(fit))


def snapshot(step: EmStep, total: int) -> Snapshot:
    return Snapshot(step.iteration / total, step.picture[0].cpu().numpy(), step.state.h.cpu().numpy())


def parameters(fit: Fits) -> tuple[float, ...] | None:
    return getattr(fit(1.0), "phi", None)


class Kept:
    """What is finished of the search for one picture's kernel, in memory and in the file `path`.

    `found` are the finished searches by edges; `trail` that of the best of them, or of the GPnP-EM that went on from
    there. `rng` and `phi` are the state of GPnP-EM's generators and of its M-step, once it has begun. `identity` says of
    which input, settings and weights all this is.
    """

    def __init__(self, path: Path, identity: str, report: Report) -> None:
        self.path, self.identity, self.report = path, identity, report
        self.found: list[Found] = []
        self.trail = Trail()
        self.rng: list[Tensor] = []
        self.phi: tuple[float, ...] | None = None
        self.written, self.writable = time.monotonic(), True

    def best(self) -> Found:
        """The best of the searches by edges."""
        return min(self.found, key=lambda each: each.misfit)

    def add(self, one: Found, trail: Trail) -> None:
        """One more search by edges is finished."""
        self.found.append(one)
        if self.best() is one:
            self.trail = Trail(trail.step, [], trail.frames)
        self.save()

    def going_on(self, rng: ChainRng, fit: Fits) -> EmStep:
        """The step where GPnP-EM is to go on, `rng` and the M-step being brought to where they were then."""
        if self.rng:
            rng.load_state_dict(self.rng)
        if self.phi is not None:
            fit(1.0).phi = self.phi
        return self.trail.step

    def watched(self, steps: Iterator[EmStep], rng: ChainRng, fit: Fits) -> Iterator[EmStep]:
        """Pass the steps of GPnP-EM on to whoever lets `trail` grow, and write the file now and then, and at the end."""
        for step in steps:
            yield step
            self.rng, self.phi = rng.state_dict(), parameters(fit)
            if time.monotonic() - self.written >= PAUSE:
                self.save()
        self.save()

    def save(self) -> None:
        """Write the file. A search that cannot be kept goes on nevertheless."""
        if not self.writable:
            return
        step = self.trail.step
        tensors = {"x": step.state.x, "h": step.state.h, "picture": step.picture}
        tensors |= {f"search-{k}": each.kernel for k, each in enumerate(self.found)}
        tensors |= {f"recent-{k}": h for k, h in enumerate(self.trail.recent)}
        for k, frame in enumerate(self.trail.frames):
            tensors[f"frame-{k}.picture"] = torch.from_numpy(frame.picture)
            tensors[f"frame-{k}.kernel"] = torch.from_numpy(frame.kernel)
        tensors |= {f"rng-{k}": state for k, state in enumerate(self.rng)}
        rest = {
            "format": KIND,
            "identity": self.identity,
            "step": {name: getattr(step, name) for name in ("iteration", "sigma", "nfe", "scale")},
            "sigma_y": step.state.sigma_y,
            "found": [{name: getattr(each, name) for name in NUMBERS} for each in self.found],
            "recent": len(self.trail.recent),
            "shares": [frame.share for frame in self.trail.frames],
            "rng": len(self.rng),
            "phi": self.phi,
        }
        try:  # copies, for some are views of others, which the format does not allow
            write_safetensors(self.path, {name: tensor.clone() for name, tensor in tensors.items()}, rest)
        except EnvironmentProblem as error:
            self.report.warn(f"{error.message}; the search goes on, but --resume cannot")
            self.writable = False
        self.written = time.monotonic()

    def load(self, device: torch.device) -> None:
        """Take over what an interrupted run kept in the file, if that is whole and of this identity."""
        if not self.path.is_file():
            self.report.note(f"{self.path}: nothing to resume, starting anew")
            return
        try:
            tensors, rest = read_safetensors(self.path, KIND)
            if rest["identity"] != self.identity:
                self.report.note(f"{self.path}: of another input, other settings or another gpnp, starting anew")
                return
            self._unpack(tensors, rest, device)
        except (InputError, KeyError, TypeError, ValueError):
            self.report.warn(f"{self.path}: damaged, starting anew")
            return
        step = f" and step {self.trail.step.nfe} of GPnP-EM" if self.rng else ""
        self.report.note(f"{self.path}: going on after search {len(self.found)} by edges{step}")

    def _unpack(self, tensors: dict[str, Tensor], rest: dict, device: torch.device) -> None:
        # copies: what lies in the file's own memory is not aligned, and sums may depend on that in the last bit
        there = {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}
        found = [
            Found(there[f"search-{k}"], **{**numbers, "phi": as_tuple(numbers["phi"])})
            for k, numbers in enumerate(rest["found"])
        ]
        state = EmState(there["x"], there["h"], rest["sigma_y"])
        trail = Trail(EmStep(state=state, picture=there["picture"], **rest["step"]))
        trail.recent = [there[f"recent-{k}"] for k in range(rest["recent"])]
        for k, share in enumerate(rest["shares"]):
            picture, kernel = (tensors[f"frame-{k}.{name}"].numpy() for name in ("picture", "kernel"))
            trail.frames.append(Snapshot(share, picture, kernel))
        rng, phi = [tensors[f"rng-{k}"].clone() for k in range(rest["rng"])], as_tuple(rest["phi"])
        self.found, self.trail, self.rng, self.phi = found, trail, rng, phi


NUMBERS = ("misfit", "change", "nfe", "phi")  # of a `Found`, in the file


def as_tuple(phi: list[float] | None) -> tuple[float, ...] | None:
    return None if phi is None else tuple(phi)
