"""Traces of chains: as a file, as curves, and what they say of the chains."""

import io
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..plots import Panel, plot
from ..samplers.diagnostics import autocorrelation, autocorrelation_time, effective_sample_size, rhat

FEWEST = 8  # counted draws below which nothing is said about a chain


def worth(series: Tensor) -> dict[str, float]:
    """Moments of a stationary series `(draws, chains)`, its autocorrelation time, effective sample size and R-hat."""
    found = {"mean": float(series.mean()), "std": float(series.std()) if series.numel() > 1 else 0.0}
    if len(series) >= FEWEST and found["std"] > 0:
        found |= {
            "autocorrelation_time": autocorrelation_time(series),
            "effective_samples": effective_sample_size(series),
            "rhat": rhat(series),
        }
    return found


def spoken(found: dict[str, float]) -> str:
    """What `worth` found out about the chains, in words."""
    if "rhat" not in found:
        return ""
    return (
        f", autocorrelation time {found['autocorrelation_time']:.3g}, effective sample size "
        f"{found['effective_samples']:.4g}, R-hat {found['rhat']:.3f}"
    )


def npz(series: Mapping[str, np.ndarray], burn_in: int) -> bytes:
    """The series `(iteration, chain)` as a compressed NPZ file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, burn_in=burn_in, **series)
    return buffer.getvalue()


def trace_plot(
    series: Mapping[str, np.ndarray], burn_in: int, title: str, notes: tuple[str, ...], stationary: bool = True
) -> np.ndarray:
    """Every series over the iterations, burn-in greyed, a colour per chain (six at most).

    Of stationary chains also how long the first series remembers.
    """
    shown = [
        Panel(name, values[:, :6], "iteration", 1, shaded=burn_in + 1 if burn_in else None)
        for name, values in series.items()
    ]
    first = next(iter(series))
    counted = torch.from_numpy(np.ascontiguousarray(series[first][burn_in:]))
    if stationary and len(counted) >= FEWEST:
        rho = autocorrelation(counted).numpy()
        end = min(len(rho), max(20, int(10 * autocorrelation_time(counted))) if np.isfinite(rho[0]) else 20)
        shown.append(Panel(f"autocorrelation of {first}", rho[:end, None], "distance in iterations", 0, level=0.0))
    return plot(shown, title, notes)
