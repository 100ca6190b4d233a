"""Damaged pictures of known truth, and what gpnp makes of them: shared by the benchmarks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gpnp_cli import build
from gpnp_cli.config import DeblurSampler, Sampler
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.blur import Blur, CircularBlur
from gpnp_cli.forward.mask import Mask
from gpnp_cli.forward.superres import SuperResolve, bicubic
from gpnp_cli.imageio import read_picture
from gpnp_cli.masks import parse_mask
from gpnp_cli.samplers.base import anneal, collect
from gpnp_cli.samplers.pnp import Silence
from gpnp_cli.samplers.rng import ChainRng, generator


@dataclass(frozen=True)
class Problem:
    """`truth` `(C, H, W)`; `start(sampler, rng)` makes first states, `crop` cuts the picture out of a state.

    `missing` `(H, W)` are the pixels that count; None: all.
    """

    model: ForwardModel
    truth: np.ndarray
    start: Callable[[Sampler, ChainRng], Tensor]
    crop: Callable[[Tensor], Tensor]
    missing: np.ndarray | None = None


def pictures(folder: Path, crop: int | None = None) -> dict[str, np.ndarray]:
    """The pictures of a folder by name, each cut to its central `crop` pixels a side."""
    suffixes = (".png", ".tif", ".jpg", ".bmp")
    return {
        path.stem: centre(read_picture(path).pixels, crop)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes
    }


def centre(pixels: np.ndarray, side: int | None) -> np.ndarray:
    """The middle of `pixels` `(C, H, W)`, at most `side` a side."""
    if side is None:
        return pixels
    top, left = (max(0, n - side) // 2 for n in pixels.shape[1:])
    return np.ascontiguousarray(pixels[:, top : top + side, left : left + side])


def kernels(paths: list[Path]) -> dict[str, np.ndarray]:
    """All arrays of NPZ files, as FILE:ARRAY, each summing to 1."""
    found = {}
    for path in paths:
        with np.load(path) as arrays:
            for name in arrays.files:
                h = arrays[name].astype(np.float64)
                found[f"{path.stem}:{name}"] = h / h.sum()
    return found


def _noisy(clean: Tensor, sigma_y: float, seed: int) -> Tensor:
    return clean + sigma_y * torch.randn(clean.shape, generator=generator(seed, 1))


def inpainting(truth: np.ndarray, mask: str, sigma_y: float, seed: int) -> Problem:
    missing = parse_mask(mask).draw(*truth.shape[1:])
    known = torch.from_numpy(~missing)[None]
    y = torch.where(known, _noisy(torch.from_numpy(truth)[None], sigma_y, seed), 0)
    model = ForwardModel(Mask(known, len(truth)), y, sigma_y)
    return Problem(model, truth, lambda s, rng: build.first_states(s, y, known, rng), lambda x: x, missing)


def deblurring(truth: np.ndarray, kernel: np.ndarray, sigma_y: float, seed: int, border: str = "real") -> Problem:
    """With real borders the truth is what remains inside, as in `gpnp deblur --simulate`."""
    h, x, (kh, kw) = torch.from_numpy(kernel), torch.from_numpy(truth)[None], kernel.shape
    if border == "circular":
        A = CircularBlur(h, truth.shape)
    else:
        A = Blur(h, (len(truth), truth.shape[1] - kh + 1, truth.shape[2] - kw + 1))
    return _observed(A, x, sigma_y, seed)


def enlarging(truth: np.ndarray, scale: int, sigma_y: float, seed: int) -> Problem:
    """Shrunk by the filter of resizing programs; the truth is what remains inside."""
    h = bicubic(scale)
    sides = ((side - k + 1) // scale for side, k in zip(truth.shape[1:], h.shape, strict=True))
    A = SuperResolve(h, (len(truth), *sides), scale)
    return _observed(A, torch.from_numpy(truth)[None, :, : A.x_shape[1], : A.x_shape[2]], sigma_y, seed)


def _observed(A: Blur | CircularBlur, x: Tensor, sigma_y: float, seed: int) -> Problem:
    y = _noisy(A.forward(x), sigma_y, seed)

    def start(sampler: Sampler, rng: ChainRng) -> Tensor:
        around = A.extend(y) if sampler.init == "observed" else torch.full_like(x, 0.5)
        return around + sampler.sigma_max * rng.randn_like(around.expand(len(rng.generators), -1, -1, -1))

    return Problem(ForwardModel(A, y, sigma_y), A.crop(x)[0].numpy(), start, A.crop)


def restore(problem: Problem, sampler: Sampler, denoiser, chains: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Samples `(K, C, H, W)` in [0, 1], as gpnp writes them, and denoiser calls per sample; one estimate for `pnp`."""
    point = sampler.method == "pnp"
    rng = Silence() if point else ChainRng(seed, chains, antithetic=sampler.antithetic)
    finish = not point and sampler.final == "denoise"
    levels = build.schedule(sampler, problem.model.sigma_y)
    with torch.inference_mode():
        kernel = build.kernel(sampler, denoiser, problem.model)
        steps = anneal(kernel, problem.start(sampler, rng), levels, rng, finish)
        chain = collect(steps, burn_in=len(levels) + finish - 1)
    return problem.crop(chain.draws[:, 0]).clamp(0, 1).numpy(), chain.nfe


def parse_setting(text: str, task: str) -> Sampler:
    """`preset=calibrated,r=1,iterations=200` (or `balanced`, the defaults) as a sampler's settings."""
    pairs = [part.split("=", 1) for part in text.split(",") if "=" in part]
    kind = Sampler if task == "inpaint" else DeblurSampler
    return kind(**{key: value if key == "r" and value == "auto" else _number(value) for key, value in pairs})


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
