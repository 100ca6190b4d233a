"""Starting points for chains with missing pixels: quick fillings of the holes from the known pixels."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RBF_NEIGHBOURS = 32
FINEST_SWEEPS, MOST_SWEEPS = 4, 64  # doubled from grid to grid: coarse ones are cheap and carry the hole's colours


def harmonic(y: Tensor, known: Tensor) -> Tensor:
    """Fill the missing pixels of `y` `(1, C, H, W)` by Laplace's equation, about: any size, linear time.

    A harmonic filling meets the known pixels at the hole's edge without a step and stays between their
    extremes. Solved from coarse to fine (cascadic multigrid, Bornemann & Deuflhard, "The cascadic multigrid
    method for elliptic problems", Numer. Math. 1996). The grids are pull-push's (Gortler et al., "The
    Lumigraph", 1996, section 3.4): 2x2 averages of what is known, whose holes take the coarser grid's values
    and are then relaxed. Below the largest scales the solution need not have converged: what is left is
    far below the noise that a chain adds to its start. `known` `(C or 1, H, W)`.
    """
    weight = known.to(y.dtype).expand(y.shape[1:])[None]
    return _fill(y * weight, weight, FINEST_SWEEPS)


def _fill(values: Tensor, weight: Tensor, sweeps: int) -> Tensor:
    """`values` already multiplied by `weight` in [0, 1]; the filled picture."""
    if max(values.shape[-2:]) == 1:
        return torch.where(weight > 0, values / weight.clamp_min(1e-12), 0.5)
    height, width = values.shape[-2:]
    pad = (0, width % 2, 0, height % 2)
    coarse, share = F.avg_pool2d(F.pad(values, pad), 2), F.avg_pool2d(F.pad(weight, pad), 2)
    # one known pixel of four is enough to trust the average: only its value counts from there on
    trusted = (4 * share).clamp_max(1)
    coarse = _fill(coarse / share.clamp_min(1e-12) * trusted, trusted, min(2 * sweeps, MOST_SWEEPS))
    smooth = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    return _relax(values + (1 - weight) * smooth, weight == 0, sweeps)


def _relax(x: Tensor, hole: Tensor, sweeps: int) -> Tensor:
    """Gauss-Seidel sweeps for Laplace's equation in the `hole`, on a checkerboard; no flow across the picture's border."""
    if not hole.any():
        return x
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape[-2:])
    black = (rows[:, None] + columns) % 2 == 1
    for mine in (hole & ~black, hole & black) * sweeps:
        around = F.pad(x, (1, 1, 1, 1), mode="replicate")
        mean = around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
        x = torch.where(mine, mean / 4, x)
    return x


def radial_basis(y: Tensor, known: Tensor) -> Tensor:
    """Thin-plate-spline interpolation of the known pixels of `y` `(1, C, H, W)`: the published start of GPnP.

    Uses each pixel's 32 nearest known ones (SciPy's `RBFInterpolator`); about 1 s for 256x256.
    `known` is `(1, H, W)`, or `(C, H, W)` with equal channels. Where a hole's neighbours are too few or
    all on one line, no such spline exists: the result is then `harmonic`'s.
    """
    from scipy.interpolate import RBFInterpolator

    mask = known[0].cpu().numpy()
    points, holes = np.argwhere(mask), np.argwhere(~mask)
    values = y[0].cpu().double().numpy()[:, mask].T  # (points, C)
    if len(points) < 3:
        return harmonic(y, known)
    spline = RBFInterpolator(points, values, neighbors=min(RBF_NEIGHBOURS, len(points)), kernel="thin_plate_spline")
    try:
        missing = spline(holes)
    except np.linalg.LinAlgError:
        return harmonic(y, known)
    filled = y.clone()
    filled[0, :, ~known[0]] = torch.from_numpy(missing.T.clip(0, 1)).to(y)
    return filled
