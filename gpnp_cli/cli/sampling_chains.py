"""`gpnp sample` by Markov chains on a Gibbs energy: samples, and what the chains are worth."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import build
from ..errors import UsageError
from ..samplers.base import Kernel, Step, collect, iterate
from ..samplers.energies import Energy, Ising, PairwiseGrid, evaluate, parse_energy
from ..samplers.metropolis import Hastings, IsingSweep, Mala, Metropolis, Sweep, parse_proposal
from ..samplers.rng import ChainRng
from ..samplers.tuning import LANGEVIN, WALK, find_step
from .results import png
from .sampling import Drawing, Files
from .tracing import npz, spoken, trace_plot, worth

PILOT = 2**31  # the pilot chain's number, which no sample has


class ChainDrawing(Drawing):
    """Draws by Metropolis, Hastings or MALA."""

    def draw(self) -> tuple[np.ndarray, Files, dict[str, Any]]:
        config, chains = self.config, self.config.chains
        energy, shape = parse_energy(chains.energy), config.shape
        iterations = config.sampler.iterations or 1000
        burn_in = iterations // 2 if chains.burn_in is None else chains.burn_in
        if burn_in >= iterations:
            raise UsageError(f"burn-in of {burn_in} leaves none of {iterations} iterations", hint="--iterations more")
        kernel, step = self.kernel(energy, shape)
        states: list[tuple[str, np.ndarray]] = []
        draws, series = [], {"energy": [], "mean": [], "acceptance": []}
        watched = self.watched(iterations)
        with torch.inference_mode():
            for group in build.chain_groups(range(config.sampler.samples), math.prod(shape)):
                rng = ChainRng(self.seed, group, self.device)
                state = kernel.init(start(energy, shape, rng, sweeps=isinstance(kernel, Sweep | IsingSweep)))
                steps = self.report.track(iterate(kernel, state, [chains.temperature] * iterations, rng), iterations)
                told: dict[str, list[Tensor]] = {name: [] for name in series}
                steps = self._record(steps, energy, told, watched if group[0] == 0 else set(), states)
                chain = collect(steps, burn_in=iterations - 1)
                for name, values in told.items():
                    series[name].append(torch.stack(values))
                draws.append(unit(energy, chain.draws[:, 0]).cpu().numpy())
        whole = {name: torch.cat(parts, 1) for name, parts in series.items()}
        facts, notes = self.diagnose(whole, burn_in, step)
        files = self.strip(states, notes)
        if "trace" in config.output.save:
            numbers, title = {k: v.numpy() for k, v in whole.items()}, f"gpnp sample --sampler {config.sampler.method}"
            files.append(("trace.png", lambda: png(trace_plot(numbers, burn_in, title, notes))))
            files.append(("trace.npz", lambda: npz(numbers, burn_in)))
        return np.concatenate(draws), files, {**facts, "notes": notes}

    def kernel(self, energy: Energy, shape: tuple[int, int, int]) -> tuple[Kernel, float | None]:
        """The kernel and its step: the configured one, or that of a pilot chain; None for a sweep, which has none."""
        method, chains = self.config.sampler.method, self.config.chains
        T, proposal = chains.temperature, chains.proposal
        grid = isinstance(energy, PairwiseGrid)
        if method == "metropolis" and grid and proposal == "auto":
            plain = isinstance(energy, Ising) and energy.neighbours == 4 and energy.periodic and shape[0] == 1
            return (IsingSweep if plain else Sweep)(energy, T), None
        if grid and energy.discrete:
            raise UsageError(
                f"--sampler {method} moves all pixels by continuous steps, but energy '{chains.energy}' has labels",
                hint="use --sampler metropolis",
            )
        if method == "mala":
            make: Callable[[float], Kernel] = lambda step: Mala(energy, step, T)
            wanted, first = LANGEVIN, 0.1 / math.prod(shape) ** (1 / 3)
        else:
            kind = Hastings if method == "hastings" else Metropolis
            name = {"hastings": "log-walk", "metropolis": "walk"}[method] if proposal == "auto" else proposal
            if method == "metropolis" and name.startswith(("log-walk", "independent")):
                raise UsageError(f"proposal '{name}' is not symmetric", hint="use --sampler hastings")
            make = lambda step: kind(energy, parse_proposal(name, step), T)
            wanted, first = WALK, 0.5 / math.sqrt(math.prod(shape))
            if name.startswith("independent"):
                return make(1.0), None
        step = chains.step
        if step is None:
            pilot = ChainRng(self.seed, [PILOT], self.device)
            step = find_step(make, start(energy, shape, pilot, sweeps=False), pilot, wanted, first)
            self.report.note(f"gpnp: step {step:.4g}, found by a pilot chain")
        return make(step), step

    @staticmethod
    def _record(
        steps: Iterator[Step], energy: Energy, told: dict[str, list[Tensor]], watched: set[int], states: list
    ) -> Iterator[Step]:
        for step in steps:
            x = step.state.x
            u = step.state.energy if hasattr(step.state, "energy") else evaluate(energy, x)
            told["energy"].append(u.cpu())
            told["mean"].append(x.flatten(1).mean(1).double().cpu())
            told["acceptance"].append(step.info.acceptance.double().cpu())
            if step.iteration in watched:
                states.append((f"iteration {step.iteration}", unit(energy, x[:1])[0].cpu().numpy()))
            yield step

    def diagnose(
        self, series: dict[str, Tensor], burn_in: int, step: float | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Facts for the manifest, and lines for people, which are also told on stderr."""
        counted = {name: values[burn_in:] for name, values in series.items()}
        facts: dict[str, Any] = {"iterations": len(series["energy"]), "burn_in": burn_in, "step": step}
        each = counted["acceptance"].mean(0)
        facts["acceptance"] = each.tolist()
        lines = [
            f"energy {self.config.chains.energy}, temperature {self.config.chains.temperature:g}, seed {self.seed}"
        ]
        lines.append(f"acceptance {float(each.mean()):.3f} ({float(each.min()):.3f} to {float(each.max()):.3f})")
        for name in ("energy", "mean"):
            found = worth(counted[name])
            facts[name] = found
            lines.append(f"{name} {found['mean']:.6g} +- {found['std']:.3g}{spoken(found)}")
        for line in lines:
            self.report.note(f"gpnp: {line}")
        if facts["energy"].get("rhat", 1) > 1.1:
            self.report.warn(
                f"the chains do not agree (R-hat {facts['energy']['rhat']:.2f}): they are too short; more --iterations"
            )
        return facts, tuple(lines)


def start(energy: Energy, shape: tuple[int, int, int], rng: ChainRng, sweeps: bool) -> Tensor:
    """A chain's first state: a grid energy's own for sweeps; otherwise nearly flat, at a level of its own.

    Whole-picture proposals leave no noise picture in [0, 1]: some pixel always steps over the edge.
    """
    like = torch.empty(len(rng.generators), *shape)
    if sweeps:
        return energy.start(like, rng)
    level = rng.rand_like(like[:, :1, :1, :1])
    return 0.3 + 0.4 * level + 0.02 * (rng.rand_like(like) - 0.5)


def unit(energy: Energy, x: Tensor) -> Tensor:
    """States as pictures."""
    return (energy.to_unit(x) if isinstance(energy, PairwiseGrid) else x).clamp(0, 1)
