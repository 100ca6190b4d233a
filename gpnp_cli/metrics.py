"""How close an estimate is to the truth: PSNR, SSIM, NRMSE on `(C, H, W)` arrays in [0, 1].

Every function takes numpy arrays or torch tensors and clips the estimate to [0, 1] first: a picture file
can hold nothing else, so the figure belongs to what gets written. The truth is taken as it is. Pixels that
are not finite make the result NaN. All sums run in float64 on strips of rows, so that a 12-megapixel picture
needs little memory beyond its own.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import InputError

_RADIUS, _SIGMA = 5, 1.5  # SSIM's window: 11 x 11, Gaussian (Wang et al. 2004, section III-C)
_C1, _C2 = 0.01**2, 0.03**2
# A strip's intermediate arrays should stay in the processor's cache; 2^16 float64 are half a megabyte.
_STRIP_PIXELS = 1 << 16


def psnr(estimate: Any, truth: Any) -> float:
    """Peak signal-to-noise ratio 10 log10(1 / mean e^2) in dB, over all channels together; inf if identical.

    Raises `InputError` if the two are not `(C, H, W)` arrays of the same shape.
    """
    estimate, truth = _pair(estimate, truth)
    mean_square = _sum_of_squares(estimate, truth)[0] / truth.size
    return -10 * math.log10(mean_square) if mean_square > 0 else (math.inf if mean_square == 0 else math.nan)


def nrmse(estimate: Any, truth: Any) -> float:
    """Root-mean-square error relative to the truth's own, ||e|| / ||truth||; 0 is perfect.

    A black truth gives 0 for a black estimate and inf for any other. Raises as `psnr`.
    """
    estimate, truth = _pair(estimate, truth)
    error, scale = _sum_of_squares(estimate, truth)
    if scale == 0:
        return 0.0 if error == 0 else math.inf
    return math.sqrt(error / scale)


def ssim(estimate: Any, truth: Any) -> float:
    """Structural similarity (Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 2004, eq. 13), mean over the channels.

    (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x^2 + s_y^2 + C2)) with means, variances and
    covariance weighted by an 11 x 11 Gaussian window of standard deviation 1.5 (population moments, weights
    summing to 1), C1 = 0.01^2, C2 = 0.03^2, averaged over the windows that lie within the picture. An axis
    shorter than 11 pixels has none: along it the picture is mirrored at its edges (the edge pixel repeated)
    and the windows centred on each of its pixels count. Raises as `psnr`.
    """
    estimate, truth = _pair(estimate, truth)
    height, width = truth.shape[1:]
    pad = [(_RADIUS, _RADIUS) if n < 2 * _RADIUS + 1 else (0, 0) for n in (height, width)]
    total, count = 0.0, 0
    for x, y in zip(estimate, truth, strict=True):
        if any(map(any, pad)):
            x, y = np.pad(x, pad, mode="symmetric"), np.pad(y, pad, mode="symmetric")
        for rows in _strips(x.shape, overlap=2 * _RADIUS):
            values = _ssim_map(np.clip(x[rows], 0, 1).astype(np.float64), y[rows].astype(np.float64))
            total += float(values.sum())
            count += values.size
    return total / count


def _ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # The variances enter only as their sum, hence four filtered pictures and not five.
    mean_x, mean_y = _smooth(x), _smooth(y)
    squares, product = _smooth(x * x + y * y), _smooth(x * y)
    mean_squares, mean_product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    top = (2 * mean_product + _C1) * (2 * (product - mean_product) + _C2)
    bottom = (mean_squares + _C1) * (squares - mean_squares + _C2)
    return top / bottom


def _smooth(plane: np.ndarray) -> np.ndarray:
    """`plane` `(H, W)` filtered with the window where it fits: `(H - 10, W - 10)`."""
    weights = np.exp(-0.5 * (np.arange(_RADIUS + 1) / _SIGMA) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    for axis in (0, 1):
        n = plane.shape[axis] - 2 * _RADIUS

        def shifted(by: int, plane: np.ndarray = plane, axis: int = axis, n: int = n) -> np.ndarray:
            start = _RADIUS + by
            return plane[start : start + n] if axis == 0 else plane[:, start : start + n]

        filtered = weights[0] * shifted(0)
        for k in range(1, _RADIUS + 1):
            both = shifted(k) + shifted(-k)
            both *= weights[k]
            filtered += both
        plane = filtered
    return plane


def _sum_of_squares(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """||clip(estimate) - truth||^2 and ||truth||^2."""
    error = scale = 0.0
    for x, y in zip(estimate, truth, strict=True):
        for rows in _strips(x.shape):
            reference = y[rows].astype(np.float64)
            difference = np.clip(x[rows], 0, 1) - reference
            error += float(np.square(difference).sum())
            scale += float(np.square(reference).sum())
    return error, scale


def _strips(shape: tuple[int, int], overlap: int = 0) -> Iterator[slice]:
    """Slices of rows which cover the picture, each sharing `overlap` rows with the next."""
    height, width = shape
    step = max(16, _STRIP_PIXELS // width)
    for start in range(0, height - overlap, step):
        yield slice(start, min(start + step + overlap, height))


def _pair(estimate: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    estimate, truth = _as_array(estimate), _as_array(truth)
    if estimate.shape != truth.shape or truth.ndim != 3 or truth.size == 0:
        sizes = " and ".join("x".join(map(str, a.shape)) or "a number" for a in (estimate, truth))
        raise InputError(
            f"an estimate and its reference must be (C, H, W) arrays of one size, these are {sizes}",
            hint="give a reference with the picture's own size and number of channels",
        )
    return estimate, truth


def _as_array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # a torch tensor, perhaps on a GPU or bfloat16; torch itself is not imported
        values = values.detach().cpu()
        values = (values.float() if values.dtype.itemsize < 4 else values).numpy()
    values = np.asarray(values)
    if values.dtype.kind != "f":
        raise InputError(
            f"pixels must be floats in [0, 1], not {values.dtype}", hint="divide by 255 (8 bits) or 65535 (16 bits)"
        )
    return values
