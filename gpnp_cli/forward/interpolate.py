"""Starting points for chains with missing pixels: quick fillings of the holes from the known pixels."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RBF_NEIGHBOURS = 32


def pull_push(y: Tensor, known: Tensor) -> Tensor:
    """Fill the missing pixels of `y` `(1, C, H, W)` by averages at ever coarser scales; any size, linear time.

    Pull: 2x2 averages of what is known, level by level. Push: each level's holes take the coarser
    level's values (Gortler et al., "The Lumigraph", 1996, section 3.4). `known` `(C or 1, H, W)`.
    """
    weight = known.to(y.dtype).expand(y.shape[1:])[None]
    return _fill(y * weight, weight)


def _fill(values: Tensor, weight: Tensor) -> Tensor:
    """`values` already multiplied by `weight` in [0, 1]; the filled picture."""
    if min(values.shape[-2:]) == 1 and max(values.shape[-2:]) == 1:
        return torch.where(weight > 0, values / weight.clamp_min(1e-12), 0.5)
    height, width = values.shape[-2:]
    pad = (0, width % 2, 0, height % 2)
    coarse, share = F.avg_pool2d(F.pad(values, pad), 2), F.avg_pool2d(F.pad(weight, pad), 2)
    # one known pixel of four is enough to trust the average: only its value counts from there on
    trusted = (4 * share).clamp_max(1)
    coarse = _fill(coarse / share.clamp_min(1e-12) * trusted, trusted)
    smooth = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    return values + (1 - weight) * smooth


def radial_basis(y: Tensor, known: Tensor) -> Tensor:
    """Thin-plate-spline interpolation of the known pixels of `y` `(1, C, H, W)`: the published start of GPnP.

    Uses each pixel's 32 nearest known ones (SciPy's `RBFInterpolator`); about 1 s for 256x256.
    `known` is `(1, H, W)`, or `(C, H, W)` with equal channels. Where a hole's neighbours are too few or
    all on one line, no such spline exists: the result is then `pull_push`'s.
    """
    from scipy.interpolate import RBFInterpolator

    mask = known[0].cpu().numpy()
    points, holes = np.argwhere(mask), np.argwhere(~mask)
    values = y[0].cpu().double().numpy()[:, mask].T  # (points, C)
    if len(points) < 3:
        return pull_push(y, known)
    spline = RBFInterpolator(points, values, neighbors=min(RBF_NEIGHBOURS, len(points)), kernel="thin_plate_spline")
    try:
        missing = spline(holes)
    except np.linalg.LinAlgError:
        return pull_push(y, known)
    filled = y.clone()
    filled[0, :, ~known[0]] = torch.from_numpy(missing.T.clip(0, 1)).to(y)
    return filled
