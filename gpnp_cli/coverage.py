"""Do the samples' intervals hold the truth as often as they say? numpy only.

If truth and K samples are draws of one law, the truth's rank among them is uniform over 0 .. K, whatever that law is:
the interval between the j-th smallest and the j-th largest sample holds it with probability (K + 1 - 2j) / (K + 1).
"""

import math
from typing import NamedTuple

import numpy as np


class Coverage(NamedTuple):
    """An interval's nominal probability, and the share of the pixels whose truth it holds."""

    nominal: float
    found: float


def coverage(draws: np.ndarray, truth: np.ndarray) -> list[Coverage]:
    """The intervals of `draws` `(K, ...)`, K >= 2, from the widest (smallest to largest draw) inwards, against `truth` `(...)`.

    Where the truth ties with draws, as 8-bit pixels do, it counts as any of the ranks it may have, equally.
    """
    count = len(draws)
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    found = []
    for j in range(1, count // 2 + 1):
        low, high = np.maximum(below, j), np.minimum(below + equal, count - j)
        share = np.clip(high - low + 1, 0, None) / (equal + 1)
        found.append(Coverage((count + 1 - 2 * j) / (count + 1), float(share.mean())))
    return found


def calibration_ratio(draws: np.ndarray, truth: np.ndarray) -> float:
    """Variance over the draws `(K, ...)`, by the mean squared error of their mean; 1 if the truth is one more draw.

    That error is the truth's own deviation and the mean's, (1 + 1 / K) times the variance. NaN for a single draw.
    """
    count = len(draws)
    if count < 2:
        return math.nan
    error = float(np.square(draws.mean(0) - truth).mean())
    spread = (1 + 1 / count) * float(draws.var(0, ddof=1).mean())
    return spread / error if error > 0 else (math.inf if spread > 0 else math.nan)
