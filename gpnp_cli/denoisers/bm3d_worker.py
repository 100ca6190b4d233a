"""One BM3D call on one image: NumPy in, NumPy out. Free of torch, so that worker processes start quickly."""

import signal

import numpy as np

# The package's others are left out: "refilter" fails inside bm4d 4.2.5 (it unpacks a single array), "deb" is for
# deblurring, "vn_old" is superseded.
PROFILES = {
    "np": "BM3DProfile",
    "lc": "BM3DProfileLC",
    "high": "BM3DProfileHigh",
    "vn": "BM3DProfileVN",
}

# The closed library crashes the process (no exception) on pictures of exactly one block, 8x8, and
# refuses smaller ones; two blocks a side are safe in every profile (the largest block is 11).
SMALLEST = 24

# Opponent colours as in the bm3d package: luminance first, it alone is used for block matching.
OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, 0, -0.5], [0.25, -0.5, 0.25]])


def ignore_interrupt() -> None:
    """Ctrl-C reaches the whole process group; the parent alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def denoise_one(image: np.ndarray, sigma: float, profile: str) -> np.ndarray:
    """BM3D of `image` `(C, H, W)` at noise level `sigma`; values in and out on the [0, 1] scale."""
    import bm3d

    settings = getattr(bm3d.profiles, PROFILES[profile])()
    settings.num_threads = 1  # chains are spread over processes; more threads would also not be reproducible
    channels, height, width = image.shape
    bottom, right = max(0, SMALLEST - height), max(0, SMALLEST - width)
    z = np.pad(image, ((0, 0), (0, bottom), (0, right)), mode="symmetric").astype(np.float64).transpose(1, 2, 0)
    if channels == 3:
        x = _denoise_colour(bm3d.bm3d, z, sigma, settings)
    else:
        x = bm3d.bm3d(z, sigma, settings).reshape(z.shape)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[:, :height, :width], dtype=image.dtype)


def _denoise_colour(bm3d, z: np.ndarray, sigma: float, settings) -> np.ndarray:
    """`bm3d.bm3d_rgb`, except that pictures without contrast or colour come through instead of failing."""
    opponent = z @ OPPONENT.T
    low, high = opponent.min((0, 1)), opponent.max((0, 1))
    spread = np.where(high - low > 1e-6, high - low, 1.0)  # bm3d_rgb divides by 0 in a grey picture's chroma
    sigmas = sigma * np.sqrt((OPPONENT**2).sum(1)) / spread
    scaled = (opponent - low) / spread
    try:
        denoised = bm3d(scaled, sigmas, settings)
    except ValueError:
        # The package fails when the luminance estimate is one constant: there is nothing to match, and
        # the channels can as well be denoised one by one.
        denoised = np.stack([bm3d(scaled[..., c], sigmas[c], settings) for c in range(3)], axis=-1)
    return (denoised * spread + low) @ np.linalg.inv(OPPONENT).T
