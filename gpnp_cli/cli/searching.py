"""A search for a blur kernel: what is kept of its steps, also in a file that an interrupted run goes on from."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import EnvironmentProblem, InputError
from ..kernel_figures import Snapshot
from ..samplers.em import EmState, EmStep, Fits
from ..samplers.rng import ChainRng
from ..training.checkpoint import read_safetensors, write_safetensors
from .report import Report

SHARES = (0.2, 0.4, 0.6, 0.8)  # of the iterations, where snapshots are taken
ANIMATED = (*SHARES, *(k / 40 for k in range(1, 41)))  # and where an animation has its frames
SETTLED = 5  # iterations over which the kernel's last change is measured
PAUSE = 5.0  # seconds from one writing of the file to the next
KIND = "gpnp-kernel-search"


@dataclass(frozen=True, eq=False)
class Found:
    """What one search found: the kernel `(k, k)`, and how it went.

    `misfit` is the criterion, lower for better kernels (`samplers.em.misfit`); `change` is the kernel's relative change
    over the last iterations, `nfe` the denoiser calls per chain, `window` the side of the square that it was looked for in,
    `phi` the parameters of a kernel that has some.
    """

    kernel: Tensor
    misfit: float
    change: float
    nfe: int
    window: int
    phi: tuple[float, ...] | None


@dataclass(eq=False)
class Trail:
    """What is kept of a search under way: its last step, its last kernels, its frames."""

    step: EmStep | None = None
    recent: list[Tensor] = field(default_factory=list)
    frames: list[Snapshot] = field(default_factory=list)


def follow(
    steps: Iterator[EmStep],
    fit: Fits,
    trail: Trail,
    *,
    total: int,
    window: tuple[int, int],
    cost: Callable[[Tensor], float],
    shares: Sequence[float],
) -> Found:
    """Run a search to its end, `trail` growing with every step, by a frame at these `shares` of the `total`.

    `cost` is the criterion; the kernel is found in a window of its own and kept in the middle of `window`.
    """
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
    return Found(padded(h, window), cost(h), change, step.nfe, max(h.shape), parameters(fit))


def padded(h: Tensor, window: tuple[int, int]) -> Tensor:
    """A copy of the kernel in the middle of the `window`, padded or cut, both odd."""
    rows, columns = ((n - k) // 2 for n, k in zip(window, h.shape, strict=True))
    return F.pad(h, (columns, columns, rows, rows)).clone()


def snapshot(step: EmStep, total: int) -> Snapshot:
    return Snapshot(step.iteration / total, step.picture[0].cpu().numpy(), step.state.h.cpu().numpy())


def parameters(fit: Fits) -> tuple[float, ...] | None:
    return getattr(fit(1.0), "phi", None)


class Kept:
    """What is finished of the search for one picture's kernel, in memory and in the file `path`.

    `starts` are the kernels that the edges found where searches had to be chosen by them; `found` are the better kernels of
    the finished searches, `passed` the other ones, `frames` those of the best of them. `begun` is what the edges of the search under
    way have found, if they are done, and `trail` that search; `rng` and `phi` are the state of its GPnP-EM's generators and
    M-step. `identity` says of which input, settings and weights all this is.
    """

    def __init__(self, path: Path, identity: str, report: Report) -> None:
        self.path, self.identity, self.report = path, identity, report
        self.starts: list[Found] = []
        self.found: list[Found] = []
        self.passed: list[Found] = []
        self.frames: list[Snapshot] = []
        self.clear()
        self.written, self.writable = time.monotonic(), True

    def clear(self) -> None:
        """No search is under way."""
        self.begun: Found | None = None
        self.trail = Trail()
        self.rng: list[Tensor] = []
        self.phi: tuple[float, ...] | None = None

    def best(self) -> Found:
        """The best of the finished searches."""
        return min(self.found, key=lambda each: each.misfit)

    def started(self, start: Found) -> None:
        """The edges have found one more kernel to choose from."""
        self.starts.append(start)
        self.save()

    def begin(self, begun: Found, trail: Trail) -> None:
        """The edges of one more search have found a kernel."""
        self.begun, self.trail = begun, Trail(trail.step, [], trail.frames)
        self.save()

    def finish(self, refined: Found) -> None:
        """The search under way is finished, with two kernels."""
        begun = replace(refined, kernel=self.begun.kernel, misfit=self.begun.misfit, phi=self.begun.phi)
        better, other = (begun, refined) if begun.misfit < refined.misfit else (refined, begun)
        self.found.append(better)
        self.passed.append(other)
        if self.best() is better:
            self.frames = self.trail.frames
        self.clear()
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

    def save(self) -> None:
        """Write the file. A search that cannot be kept goes on nevertheless."""
        if not self.writable:
            return
        tensors, rest = packed("best", self.frames), {"format": KIND, "identity": self.identity}
        for name in LISTS:
            kernels = getattr(self, name)
            tensors |= {f"{name}-{k}": each.kernel for k, each in enumerate(kernels)}
            rest[name] = [numbers(each) for each in kernels]
        rest["shares"] = [frame.share for frame in self.frames]
        if self.begun is not None:
            step = self.trail.step
            tensors |= {"begun": self.begun.kernel, "x": step.state.x, "h": step.state.h, "picture": step.picture}
            tensors |= {f"recent-{k}": h for k, h in enumerate(self.trail.recent)}
            tensors |= {f"rng-{k}": state for k, state in enumerate(self.rng)}
            tensors |= packed("trail", self.trail.frames)
            rest["under_way"] = {
                "begun": numbers(self.begun),
                "step": {name: getattr(step, name) for name in ("iteration", "sigma", "nfe", "scale")},
                "sigma_y": step.state.sigma_y,
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
        step = f" and step {self.trail.step.nfe} of GPnP-EM" if self.begun is not None else ""
        after = (
            f"search {len(self.found)}" if self.found or self.begun or not self.starts else f"start {len(self.starts)}"
        )
        self.report.note(f"{self.path}: going on after {after}{step}")

    def _unpack(self, tensors: dict[str, Tensor], rest: dict, device: torch.device) -> None:
        # copies: what lies in the file's own memory is not aligned, and sums may depend on that in the last bit
        there = {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}
        lists = {
            name: [unpacked_found(there[f"{name}-{k}"], told) for k, told in enumerate(rest[name])] for name in LISTS
        }
        frames, under_way = unpacked("best", tensors, rest["shares"]), rest.get("under_way")
        if under_way is not None:
            begun = unpacked_found(there["begun"], under_way["begun"])
            state = EmState(there["x"], there["h"], under_way["sigma_y"])
            trail = Trail(EmStep(state=state, picture=there["picture"], **under_way["step"]))
            trail.recent = [there[f"recent-{k}"] for k in range(under_way["recent"])]
            trail.frames = unpacked("trail", tensors, under_way["shares"])
            rng, phi = [tensors[f"rng-{k}"].clone() for k in range(under_way["rng"])], as_tuple(under_way["phi"])
            self.begun, self.trail, self.rng, self.phi = begun, trail, rng, phi
        for name, kernels in lists.items():
            setattr(self, name, kernels)
        self.frames = frames


LISTS = ("starts", "found", "passed")  # of `Kept`, in the file
NUMBERS = ("misfit", "change", "nfe", "window", "phi")  # of a `Found`, in the file


def numbers(found: Found) -> dict[str, object]:
    return {name: getattr(found, name) for name in NUMBERS}


def unpacked_found(kernel: Tensor, told: dict) -> Found:
    return Found(kernel, **{**told, "phi": as_tuple(told["phi"])})


def packed(name: str, frames: Sequence[Snapshot]) -> dict[str, Tensor]:
    """The arrays of `frames` as the file names them."""
    tensors = {}
    for k, frame in enumerate(frames):
        tensors[f"{name}-{k}.picture"] = torch.from_numpy(frame.picture)
        tensors[f"{name}-{k}.kernel"] = torch.from_numpy(frame.kernel)
    return tensors


def unpacked(name: str, tensors: dict[str, Tensor], shares: list[float]) -> list[Snapshot]:
    return [
        Snapshot(share, tensors[f"{name}-{k}.picture"].numpy(), tensors[f"{name}-{k}.kernel"].numpy())
        for k, share in enumerate(shares)
    ]


def as_tuple(phi: list[float] | None) -> tuple[float, ...] | None:
    return None if phi is None else tuple(phi)
