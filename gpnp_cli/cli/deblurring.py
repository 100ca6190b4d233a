"""The work behind `gpnp deblur`, apart from its options so that `--help` need not import torch."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..figures import Roi
from ..forward.base import ForwardModel
from ..forward.blur import Blur, CircularBlur
from ..imageio import Picture, picture_bytes
from ..kernels import BlurKernel, check_fits
from ..noise import estimate_sigma
from ..samplers.rng import ChainRng
from . import results
from .batch import Job, Restored
from .options import Call
from .restoration import Sampling

NOISE_FLOOR = 1 / 255 / math.sqrt(12)  # what rounding to 8 bits leaves; a blur cannot be undone without any noise
FITTING = (0.7, 1.3)  # residual over noise level: outside, noise or kernel are not what was said


class Deblurring(Sampling):
    """Restores pictures that a known kernel blurred."""

    def __init__(self, call: Call, kernel: BlurKernel) -> None:
        super().__init__(call)
        self.kernel = kernel

    def identity(self, picture: Picture, job: Job) -> dict[str, str]:
        return super().identity(picture, job) | {"kernel": hashlib.sha256(self.kernel.values.tobytes()).hexdigest()}

    def operator(self, shape: tuple[int, int, int]) -> Blur | CircularBlur:
        """The blur whose data have this shape `(C, H, W)`."""
        kind = CircularBlur if self.config.border == "circular" else Blur
        return kind(torch.from_numpy(self.kernel.values), shape)

    def restore(self, picture: Picture, job: Job) -> Restored:
        config, name = self.config, str(job.input.path)
        results.chosen(picture, config.output)  # what cannot be written fails now, not after the chains
        check_fits(self.kernel, *picture.pixels.shape[1:], name)
        if config.simulate:
            picture, A, y = self.degrade(picture, name)
            truth = picture.pixels
        else:
            truth, y = self.truth(picture, job), self.tensor(picture.pixels)
            A = self.operator(picture.pixels.shape)
        sigma_y = self.level(y, name)
        samples, facts = self.sample(
            picture, ForwardModel(A, y, sigma_y), lambda rng: self.start(A.extend(y), rng), A.crop
        )
        self.check_residual(facts["residual"], sigma_y, name)

        damaged = y[0].cpu().numpy().clip(0, 1)
        scores = results.score(samples, damaged, truth)
        if scores:
            results.table(self.report, job.input.path.name, scores)
            facts |= {"metrics": scores, "psnr": scores["mean"]["psnr"]}
        facts["sigma_y"] = sigma_y
        kernel = self.kernel.path.name if self.kernel.path else config.kernel
        estimated = ", estimated" if config.noise == "auto" else ""
        notes = (
            f"kernel {kernel}, {config.border} border, noise {sigma_y:.4g} ({255 * sigma_y:.3g}/255){estimated}",
            f"denoiser {self.prior(picture).name}, {facts['nfe']} calls per sample, seed {self.seed}",
        )
        files = results.files(
            picture, samples, config.output, damaged, job.input.path.name, notes, scores, truth, detail(samples.mean)
        )
        if config.simulate:
            kept = results.lossless(picture, config.output)
            extension = results.extension(picture, kept)
            files.append(("damaged", extension, lambda: picture_bytes(picture, damaged, kept, config.output.bits)[0]))
        return Restored(files, facts)

    def degrade(self, picture: Picture, name: str) -> tuple[Picture, Blur | CircularBlur, Tensor]:
        """Blur an intact picture and add noise: the truth, the operator and the data.

        With real borders the outermost pixels are only ever seen blurred, by a camera that does not show them: the
        truth is what remains inside, and all results have its size.
        """
        channels, height, width = picture.pixels.shape
        intact = self.tensor(picture.pixels)
        if self.config.border == "real":
            kh, kw = self.kernel.values.shape
            A = self.operator((channels, height - kh + 1, width - kw + 1))
            rows, columns = A.frame[1:]
            planes = {
                key: None if plane is None else plane[:, rows, columns]
                for key, plane in (("pixels", picture.pixels), ("alpha", picture.alpha), ("cmyk", picture.cmyk))
            }
            picture = replace(picture, **planes)
            if A.x_shape != A.y_shape:
                self.report.note(
                    f"{name}: blurred without its borders, {width}x{height} pixels become {width - kw + 1}x{height - kh + 1}"
                )
        else:
            A = self.operator((channels, height, width))
        return picture, A, self.noisy(A.forward(intact), self.config.noise, picture)

    def level(self, y: Tensor, name: str) -> float:
        """The standard deviation of the noise of `y` `(1, C, H, W)`, as given or estimated, at least the floor."""
        sigma_y = self.config.noise
        if sigma_y == "auto":
            sigma_y = estimate_sigma(y).item()
            if math.isnan(sigma_y):
                raise InputError(f"{name}: too small for an estimate of its noise", hint="say it, e.g. --noise 0.01")
            self.report.note(f"{name}: noise estimated as {sigma_y:.4g} ({255 * sigma_y:.3g}/255)")
        if sigma_y < NOISE_FLOOR:
            self.report.note(f"{name}: noise {sigma_y:.3g} raised to {NOISE_FLOOR:.3g}, what rounding to 8 bits leaves")
        return max(sigma_y, NOISE_FLOOR)

    def start(self, extended: Tensor, rng: ChainRng) -> Tensor:
        """First states `(N, *x_shape)`: noise of std sigma_max around the blurred picture or mid-grey."""
        sampler = self.config.sampler
        centre = extended if sampler.init == "observed" else torch.full_like(extended, 0.5)
        return centre + sampler.sigma_max * rng.randn_like(centre.expand(len(rng.generators), -1, -1, -1))

    def check_residual(self, residual: list[float], sigma_y: float, name: str) -> None:
        """Warn if y - A x is not of the noise's size: given the data, a sample's is distributed as the truth's."""
        ratio = sum(residual) / len(residual) / sigma_y
        low, high = FITTING
        if ratio > high:
            cause = "there is more noise than that, or the kernel is another one"
        elif ratio < low:
            cause = "there is less noise than that"
        else:
            return
        self.report.warn(
            f"{name}: blurred again, the samples differ from the picture by {ratio * sigma_y:.3g}, "
            f"{ratio:.2g} times the noise level {sigma_y:.3g}: {cause}"
        )


def detail(pixels: np.ndarray) -> Roi:
    """The part, a fifth of each side, of `pixels` `(C, H, W)` with the strongest edges."""
    edges = np.zeros(pixels.shape[1:])
    grey = pixels.mean(0)
    edges[1:] += np.abs(np.diff(grey, axis=0))
    edges[:, 1:] += np.abs(np.diff(grey, axis=1))
    h, w = (max(1, round(side / 5)) for side in edges.shape)
    return results.densest(edges, h, w)
