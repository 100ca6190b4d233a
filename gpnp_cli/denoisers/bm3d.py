"""BM3D (Dabov et al. 2007; Makinen et al. 2020) through the `bm3d` package, chains spread over processes."""

import importlib.util
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ..errors import DivergenceError, EnvironmentProblem, UsageError
from .base import per_image
from .bm3d_worker import PROFILES, denoise_one, ignore_interrupt
from .catalogue import PRIORS


class Bm3dDenoiser:
    """BM3D as a `Denoiser`: grey and colour, any size, values outside [0, 1] welcome.

    `profile`: 'np' (normal), 'lc' (quicker), 'high' (slower, better), 'vn' (very noisy).
    `processes`: worker processes for a batch, by default one per core; 1 works in this process. A
    picture is always worked on by one thread, so results do not depend on the number of processes.
    The pool starts with the first batch; `close()`, or leaving a `with` block, ends it.

    Raises `EnvironmentProblem` without the package or when a worker dies, `DivergenceError` for
    non-finite pixels (the library would crash on them).
    """

    channels = None
    sigma_range = PRIORS["bm3d"].sigma_range
    licence = PRIORS["bm3d"].licence
    differentiable = False

    def __init__(
        self,
        channels: int | None = None,
        argument: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        profile: str | None = None,
        processes: int | None = None,
    ) -> None:
        profile = profile or argument or "np"
        if profile not in PROFILES:
            raise UsageError(f"BM3D has no profile '{profile}'", hint=f"known: {', '.join(PROFILES)}")
        if importlib.util.find_spec("bm3d") is None:
            raise EnvironmentProblem(
                "denoiser 'bm3d' needs the bm3d package, which is not installed",
                hint="pip install bm3d (licence: non-commercial use only)",
            )
        self.profile = profile
        self.processes = processes or _cores()
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        images = v.detach().cpu().numpy()
        if not np.isfinite(images).all():
            raise DivergenceError("BM3D was given a picture with non-finite pixels")
        sigmas = per_image(sigma, v).flatten().tolist()
        profiles = [self.profile] * len(sigmas)
        if min(len(sigmas), self.processes) == 1:
            results = map(denoise_one, images, sigmas, profiles)
        else:
            results = self._workers().map(denoise_one, images, sigmas, profiles)
        try:
            return torch.from_numpy(np.stack(list(results))).to(v)
        except BrokenProcessPool as error:
            self.close()
            raise EnvironmentProblem(
                "a BM3D worker process died", hint="most often memory: use fewer chains or processes"
            ) from error

    def _workers(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: forking a process in which torch runs threads can deadlock the child
            self._pool = ProcessPoolExecutor(self.processes, get_context("spawn"), initializer=ignore_interrupt)
        return self._pool

    def close(self) -> None:
        """End the worker processes; a later call starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
