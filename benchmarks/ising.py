"""The Ising model: spin updates per second, and the magnetisation against Onsager's solution, as Markdown tables:

    python benchmarks/ising.py --out runs/ising.md

Rate: Metropolis sweeps of a periodic 512 x 512 grid by this package, by checkerboards written with NumPy (the usual way,
and with half the work), and by plain Python loops over spins. Magnetisation: mean |m| of one long chain per
temperature, from an ordered start, its standard error from the autocorrelation time; Onsager's (Yang 1952) is
(1 - sinh(2 J / T)^-4)^(1/8) below the critical temperature 2 J / ln(1 + sqrt 2) = 2.269 J and 0 above it, where a
finite grid keeps |m| of the order of the correlation length over the side. Two idle cores take two minutes.
"""

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import header

from gpnp_cli.samplers.base import iterate
from gpnp_cli.samplers.diagnostics import autocorrelation_time
from gpnp_cli.samplers.energies import Ising
from gpnp_cli.samplers.metropolis import IsingSweep, Sweep
from gpnp_cli.samplers.rng import ChainRng

SIDE, T_RATE = 512, 2.269


def rate(work: Callable[[], int], least: float = 3.0) -> float:
    """Median spin updates per second of repeated `work()`, which returns how many it made; the first does not count.

    Seconds of this process, so that what else the machine does hardly matters; all competitors have one thread.
    """
    work()
    rates, begun = [], time.process_time()
    while time.process_time() - begun < least or len(rates) < 3:
        start = time.process_time()
        count = work()
        rates.append(count / max(time.process_time() - start, 1e-9))
    return statistics.median(rates)


def package(kind) -> Callable[[], int]:
    energy, sweeps = Ising(), 10
    rng = ChainRng(0, 1)
    kernel = kind(energy, T_RATE, sweeps)
    state = [kernel.init(energy.start(torch.empty(1, 1, SIDE, SIDE), rng))]

    def work() -> int:
        state[0], _ = kernel.step(state[0], 1.0, rng)
        return sweeps * SIDE**2

    return work


def checkerboard() -> Callable[[], int]:
    rng = np.random.default_rng(0)
    spins = rng.integers(0, 2, (SIDE, SIDE), dtype=np.int8) * 2 - 1
    black = (np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 2).astype(bool)

    def work() -> int:
        nonlocal spins
        for colour in (black, ~black):
            field = np.roll(spins, 1, 0) + np.roll(spins, -1, 0) + np.roll(spins, 1, 1) + np.roll(spins, -1, 1)
            accept = rng.random((SIDE, SIDE), dtype=np.float32) < np.exp(-2 / np.float32(T_RATE) * (spins * field))
            spins = np.where(colour & accept, -spins, spins)
        return SIDE**2

    return work


def lean_checkerboard() -> Callable[[], int]:
    """The same with half the work: only the moving colour's numbers are drawn, probabilities come from a table."""
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2, (SIDE, SIDE // 2), dtype=np.int8) * 2 - 1 for _ in range(2)]
    table = np.exp(-2 / T_RATE * np.arange(-4, 5)).astype(np.float32)

    def work() -> int:
        for moving, shift in ((0, 1), (1, -1)):
            here, there = parts[moving], parts[1 - moving]
            field = there + np.roll(there, 1, 0) + np.roll(there, -1, 0)
            field[0::2] += np.roll(there[0::2], shift, 1)
            field[1::2] += np.roll(there[1::2], -shift, 1)
            accept = rng.random(here.shape, dtype=np.float32) < table[here * field + 4]
            here[accept] *= -1
        return SIDE**2

    return work


def loop(side: int = 64) -> Callable[[], int]:
    rng = random.Random(0)
    spins = [[rng.choice((-1, 1)) for _ in range(side)] for _ in range(side)]

    def work() -> int:
        for i in range(side):
            for j in range(side):
                around = spins[i - 1][j] + spins[(i + 1) % side][j] + spins[i][j - 1] + spins[i][(j + 1) % side]
                cost = 2 * spins[i][j] * around
                if cost <= 0 or rng.random() < math.exp(-cost / T_RATE):
                    spins[i][j] = -spins[i][j]
        return side**2

    return work


def array_loop(side: int = 64) -> Callable[[], int]:
    """The same loop over a NumPy array, as it is usually written first."""
    rng = np.random.default_rng(0)
    spins = rng.integers(0, 2, (side, side)) * 2 - 1

    def work() -> int:
        for i in range(side):
            for j in range(side):
                around = spins[i - 1, j] + spins[(i + 1) % side, j] + spins[i, j - 1] + spins[i, (j + 1) % side]
                cost = 2 * spins[i, j] * around
                if cost <= 0 or rng.random() < math.exp(-cost / T_RATE):
                    spins[i, j] = -spins[i, j]
        return side**2

    return work


def rates() -> list[str]:
    made = {
        "plain Python loop over lists (64 x 64)": loop(),
        "plain Python loop over a NumPy array (64 x 64)": array_loop(),
        "NumPy checkerboard, whole grid": checkerboard(),
        "NumPy checkerboard, packed colours": lean_checkerboard(),
        "gpnp, any grid energy (`Sweep`)": package(Sweep),
        "gpnp, Ising (`IsingSweep`)": package(IsingSweep),
    }
    found = {name: rate(work) for name, work in made.items()}
    slowest = found["plain Python loop over lists (64 x 64)"]
    lines = [f"## Spin updates per second of processor time, {SIDE} x {SIDE}, one thread", ""]
    lines += ["| implementation | million updates / s | times the loop over lists |", "|---|---|---|"]
    return lines + [f"| {name} | {value / 1e6:.2f} | {value / slowest:.0f} |" for name, value in found.items()]


def magnetisation(sweeps: int) -> list[str]:
    critical = 2 / math.log(1 + math.sqrt(2))
    lines = [f"## Magnetisation, {SIDE} x {SIDE}, {sweeps} sweeps after {sweeps // 4} of burn-in", ""]
    lines += ["| T / J | Onsager | gpnp | standard error | autocorrelation time in sweeps |", "|---|---|---|---|---|"]
    for temperature in (1.8, 2.0, 2.1, 2.2, 2.4, 2.6, 3.0):
        kernel, each = IsingSweep(Ising(), temperature, 10), 10
        state = kernel.init(torch.ones(1, 1, SIDE, SIDE))
        series = []
        for step in iterate(kernel, state, [temperature] * (sweeps * 5 // 4 // each), ChainRng(1, 1)):
            if step.iteration > sweeps // 4 // each:
                series.append(float(step.state.x.mean().abs()))
        kept = torch.tensor(series, dtype=torch.float64)[:, None]
        tau = max(1.0, autocorrelation_time(kept))
        error = float(kept.std()) * math.sqrt(tau / len(kept))
        exact = (1 - math.sinh(2 / temperature) ** -4) ** 0.125 if temperature < critical else 0.0
        lines.append(f"| {temperature} | {exact:.4f} | {float(kept.mean()):.4f} | {error:.4f} | {each * tau:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=4000, help="of a chain at one temperature (default 4000)")
    parser.add_argument("--out", type=Path, help="write the tables to this Markdown file too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    head = ["# Ising model", "", header()]
    text = "\n\n".join("\n".join(lines) for lines in (head, rates(), magnetisation(args.sweeps))) + "\n"
    sys.stdout.write(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
