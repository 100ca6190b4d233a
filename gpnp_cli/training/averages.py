"""Power-function averages of the weights, and any other width of them after the training.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3. With theta(tau) the
weights after step ceil(tau), the average after step t is

    theta_hat(t) = integral from 0 to t of p(tau) theta(tau) dtau,   p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1).

Its width is the standard deviation of p in units of t: the share of the training that it looks back on.
"""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import EnvironmentProblem, InputError, UsageError
from .checkpoint import load_snapshot, load_weights, save_snapshot

WIDEST = 0.28  # a little below that of gamma = 0, the plain mean of all steps: 12^(-1/2)


def exponent(width: float) -> float:
    """gamma for a width: the largest root of width^2 (gamma + 2)^2 (gamma + 3) = gamma + 1; raises `UsageError`."""
    if not 0 < width <= WIDEST:
        raise UsageError(f"width {width:g}: not above 0 and up to {WIDEST}", hint="0.05 to 0.15 is usual")
    t = width**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


class PowerAverages:
    """Averages of a network's weights, one per width; `state_dict` round-trips them exactly."""

    def __init__(self, model: nn.Module, widths: Sequence[float]) -> None:
        self.exponents = {width: exponent(width) for width in widths}
        self._averages = {width: copy.deepcopy(model).requires_grad_(False) for width in widths}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """theta_hat(t) = beta theta_hat(t - 1) + (1 - beta) theta(t), beta = (1 - 1/t)^(gamma + 1), at t = `step` >= 1.

        This is the integral itself, not an approximation of it, since theta is constant between two steps; beta is 0 at
        the first, so that what was there before does not count.
        """
        for width, average in self._averages.items():
            beta = (1 - 1 / step) ** (self.exponents[width] + 1)
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - beta)

    def state_dict(self) -> dict[str, Tensor]:
        """All weights, named `<width>/<name>`."""
        return {f"{width}/{k}": v for width, average in self._averages.items() for k, v in average.state_dict().items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave; raises `InputError` naming what is missing or does not fit."""
        for width, average in self._averages.items():
            own = of_width(tensors, width)
            if not own:
                raise InputError(f"no average of width {width:g} in the training state", hint="start the run anew")
            load_weights(average, own)


def of_width(tensors: dict[str, Tensor], width: float) -> dict[str, Tensor]:
    head = f"{width}/"
    return {key.removeprefix(head): value for key, value in tensors.items() if key.startswith(head)}


# Snapshots


def snapshots(folder: Path) -> dict[int, Path]:
    """The files `step-<step>.safetensors` of a folder by step, in that order; {} where there are none."""
    found = {path: re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in folder.glob("step-*.safetensors")}
    return dict(sorted((int(name[1]), path) for path, name in found.items() if name))


def write_snapshot(folder: Path, averages: PowerAverages, step: int, images: int) -> None:
    """Keep the averages after `step`, in float32.

    The paper's authors keep float16. Its rounding, 2e-4 of a weight, times the norm of the fitted coefficients, 14 for
    width 0.02 from 0.05 and 0.1, is more than what two widths differ by once the learning rate has come down.
    """
    facts = {"step": step, "images": images, "widths": list(averages.exponents)}
    save_snapshot(folder / f"step-{step:06d}.safetensors", averages.state_dict(), facts)


# Another width


class Average(NamedTuple):
    """Weights reconstructed from snapshots."""

    tensors: dict[str, Tensor]
    step: int  # of the last snapshot: the average is the one after this step
    images: int
    tracked: tuple[float, ...]  # the widths it was made from
    snapshots: int
    residual: float  # of the fit


def inner(gamma_a: np.ndarray, t_a: np.ndarray, gamma_b: np.ndarray, t_b: np.ndarray) -> np.ndarray:
    """Inner product of two p: the integral from 0 to the smaller t of the product of two powers (algorithm 3)."""
    t = np.minimum(t_a, t_b)
    powers = (t / t_a) ** gamma_a * (t / t_b) ** gamma_b * t / (t_a * t_b)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * powers


def fit(exponents: np.ndarray, steps: np.ndarray, gamma: float, step: float) -> tuple[np.ndarray, float]:
    """Coefficients x by which sum_i x_i p_i is nearest to the wanted p, and ||sum_i x_i p_i - p|| / ||p|| (algorithm 3).

    p_i has `exponents[i]` and ends at `steps[i]`; the wanted p has `gamma` and ends at `step`. No weight enters: by Cauchy's
    inequality any one of the average is wrong by at most residual * ||p|| * (integral of theta^2)^(1/2).
    """
    size = np.sqrt(inner(exponents, steps, exponents, steps))  # of each p_i: unit columns are better conditioned
    wanted = np.sqrt(inner(gamma, step, gamma, step))
    a = inner(exponents[:, None], steps[:, None], exponents, steps) / (size[:, None] * size)
    b = inner(exponents, steps, gamma, step) / (size * wanted)
    x = np.linalg.lstsq(a, b, rcond=None)[0]
    residual = np.sqrt(max(0.0, 1 - 2 * x @ b + x @ a @ x))
    return x * wanted / size, float(residual)


def reconstruct(folder: Path, width: float) -> Average:
    """The average of any width at the last snapshot in `folder`, from all of them.

    Raises `EnvironmentProblem` where there is no snapshot, `UsageError` for an impossible width, and `InputError` naming
    a file that is damaged or of another run.
    """
    gamma = exponent(width)
    paths = snapshots(folder)
    if not paths:
        raise EnvironmentProblem(
            f"{folder}: no snapshots of averaged weights",
            hint="train with --set 'plan.ema_profiles=[0.05,0.1]', and plan.ema_every small enough for some",
        )
    last = max(paths)
    tensors, facts = load_snapshot(paths[last])
    shapes = {key: value.shape for key, value in tensors.items()}
    tracked = tuple(facts["widths"])
    exponents = np.repeat([exponent(each) for each in tracked], len(paths))
    steps = np.tile(np.array(list(paths), float), len(tracked))
    x, residual = fit(exponents, steps, gamma, last)
    total: dict[str, Tensor] = {}
    for (step, path), coefficients in zip(paths.items(), x.reshape(len(tracked), -1).T, strict=True):
        tensors, own = load_snapshot(path)
        same = {key: value.shape for key, value in tensors.items()} == shapes
        if not same or (own["step"], tuple(own["widths"])) != (step, tracked):
            raise InputError(f"{path}: a snapshot of another run", hint="move it out of the folder")
        for each, coefficient in zip(tracked, coefficients, strict=True):
            for key, value in of_width(tensors, each).items():
                total[key] = total.get(key, 0) + coefficient * value.double()  # one after the other: all are too many
    return Average({k: v.float() for k, v in total.items()}, last, facts["images"], tracked, len(paths), residual)
