"""What a JPEG's compression did to a picture, as far as the file tells. numpy only."""

import math

import numpy as np

SIDE = 8  # of a block
BLOCKS = 20_000  # that are looked at: enough for a level, however large the picture


def coding_error(luma: np.ndarray, steps: np.ndarray) -> float:
    """Root mean square of what rounding the DCT by `steps` `(8, 8)`, in levels of 255, changed in `luma` `(H, W)` in [0, 1].

    A coefficient that was kept is off by its step / sqrt(12). What became 0 cannot be seen, but how often one did not tells
    the scale b of a Laplacian (Lam & Goodman, "A mathematical analysis of the DCT coefficient distributions for
    images", IEEE TIP 2000): P(|c| >= a) = exp(-a / b) for a = step / 2. Where none was kept, b is at most what makes half
    a coefficient likely, and the least of the others, for spectra fall. 0 for pictures without a whole block.

    It is no white noise, and no estimate of noise from the finest detail sees it: there, compression leaves less.
    """
    rows, columns = (side // SIDE for side in luma.shape)
    if rows == 0 or columns == 0:
        return 0.0
    blocks = luma[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2)
    blocks = blocks.reshape(-1, SIDE, SIDE)
    blocks = blocks[:: -(-len(blocks) // BLOCKS)].astype(np.float64)
    dct = cosines()
    coefficients = np.abs(dct @ (255 * blocks - 128) @ dct.T)
    a = np.asarray(steps, dtype=np.float64) / 2
    kept = (coefficients >= a).mean(0)
    scale = a / -np.log(np.clip(kept, 0.5 / len(blocks), 1 - 1e-6))
    if (kept > 0).any():
        scale = np.where(kept > 0, scale, np.minimum(scale, scale[kept > 0].min()))
    lost = 2 * scale**2 - np.exp(-a / scale) * (a**2 + 2 * a * scale + 2 * scale**2)  # of c^2 below a
    return math.sqrt(float((kept * a**2 / 3 + lost).mean())) / 255


def cosines() -> np.ndarray:
    """The orthonormal DCT-II of 8 points, a row for each frequency."""
    k = np.arange(SIDE)
    rows = np.cos(np.pi * (2 * k + 1) * k[:, None] / (2 * SIDE)) / 2
    rows[0] /= math.sqrt(2)
    return rows
