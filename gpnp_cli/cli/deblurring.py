"""The work behind `gpnp deblur`, apart from its options so that `--help` need not import torch."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..figures import Roi, Tile
from ..forward.base import ForwardModel, LinearOperator
from ..forward.blur import Blur, CircularBlur
from ..forward.informative import believable
from ..imageio import Picture, picture_bytes
from ..jpeg import coding_error
from ..kernels import BlurKernel, check_fits
from ..noise import estimate_sigma
from ..samplers.rng import ChainRng
from ..tone import from_light, to_light
from ..training.data import luma
from . import results
from .batch import Job, Restored
from .options import Call
from .restoration import Part, Sampling
from .results import Samples

NOISE_FLOOR = 1 / 255 / math.sqrt(12)  # what rounding to 8 bits leaves; a blur cannot be undone without any noise
CHANNELS = 0.668  # the std of luma of three channels' independent noise of std 1
# Residual over noise level: outside, noise or kernel are not what was said. A single estimate follows the data's noise
# the more closely, the fewer they are for its pixels.
FITTING = {"gpnp": (0.7, 1.3), "pnp": (0.3, 1.3)}


class Deblurring(Sampling):
    """Restores pictures that a known kernel blurred."""

    again = "blurred"  # what would have to be done to the result
    more: tuple[Tile, ...] = ()  # of the contact sheet, after the others

    def __init__(self, call: Call, kernel: BlurKernel) -> None:
        super().__init__(call)
        self.kernel = kernel

    def identity(self, picture: Picture, job: Job) -> dict[str, str]:
        return super().identity(picture, job) | {"kernel": hashlib.sha256(self.kernel.values.tobytes()).hexdigest()}

    def check_size(self, picture: Picture, name: str) -> None:
        """`InputError` for a picture too small for the kernel."""
        check_fits(self.kernel, *picture.pixels.shape[1:], name)

    @property
    def linear(self) -> bool:
        """Whether the data are light instead of pixels."""
        return self.config.linear

    def data(self, picture: Picture) -> Tensor:
        """What was blurred, `(1, C, H, W)`: the pixels, or the light that they stand for."""
        pixels = self.tensor(picture.pixels)
        return to_light(pixels) if self.linear else pixels

    def pixels(self, x: Tensor) -> Tensor:
        """What data or states `(N, C, H, W)` look like."""
        return from_light(x) if self.linear else x

    def operator(self, shape: tuple[int, int, int], known: Tensor | None = None) -> Blur | CircularBlur:
        """The blur whose data have this shape `(C, H, W)`, of which those `known` `(H, W)` are believed."""
        kernel = torch.from_numpy(self.kernel.values)
        return CircularBlur(kernel, shape) if self.border == "circular" else Blur(kernel, shape, known=known)

    def observed(self, y: Tensor, name: str) -> LinearOperator:
        """The blur behind a camera's picture `y` `(1, C, H, W)`; with real borders, it does not believe clipped pixels.

        A light that is brighter than white leaves white, and tails that are too strong for it: if white were believed,
        its surroundings would ring.
        """
        if self.border == "circular":
            return self.operator(y.shape[1:])
        known = believable(y, self.kernel.values.shape).cpu()
        if not bool(known.all()):
            self.report.note(f"{name}: {100 * float((~known).float().mean()):.2g} % saturated, left out")
        return self.operator(y.shape[1:], known)

    def restore(self, picture: Picture, job: Job) -> Restored:
        config, name = self.config, str(job.input.path)
        results.chosen(picture, config.output)  # what cannot be written fails now, not after the chains
        self.check_size(picture, name)
        coding = self.coding(picture)
        if config.simulate:
            picture, A, y = self.degrade(picture, name)
            truth = picture.pixels
        else:
            y = self.data(picture)
            A = self.observed(y, name)
            picture = self.framed(picture, A)
            truth = self.truth(picture, job)
        return self.restored(picture, job, A, y, truth, self.level(y, name, coding))

    def restored(
        self, picture: Picture, job: Job, A: LinearOperator, y: Tensor, truth: np.ndarray | None, sigma_y: float
    ) -> Restored:
        """The results for data `y` = A x + noise of std `sigma_y`; `picture` has the size of the result."""
        config, name = self.config, str(job.input.path)
        samples, facts = self.explained(picture, A, y, sigma_y)
        facts |= {"sigma_y": sigma_y, "residual_ratio": self.check_residual(facts["residual"], sigma_y, name)}

        damaged, shown = (self.pixels(x)[0].cpu().numpy().clip(0, 1) for x in (y, A.crop(A.extend(y))))
        scores = self.measure(job, samples, shown, truth, facts)
        estimated = ", estimated" if config.noise == "auto" else ""
        notes = (
            f"kernel {self.kernel_name}, {self.sampled}, noise {sigma_y:.4g} ({255 * sigma_y:.3g}/255){estimated}",
            f"residual {facts['residual_ratio']:.2f} times the noise",
            f"denoiser {self.prior(picture).name}, {self.cost(facts)}",
        )
        title, roi = job.input.path.name, detail(samples.mean)
        files = results.files(
            picture, samples, config.output, shown, title, notes, scores, truth, roi, before=self.before, more=self.more
        )
        if config.simulate:
            files.append(self.kept(picture, damaged))
        return Restored(files + self.trace(), facts)

    def explained(
        self, picture: Picture, A: LinearOperator, y: Tensor, sigma_y: float
    ) -> tuple[Samples, dict[str, Any]]:
        """What `sample` finds behind the data `y` = A x + noise of std `sigma_y`."""
        return self.sample(picture, [self.part(A, y, sigma_y, range(self.config.sampler.samples))])

    def part(self, A: LinearOperator, y: Tensor, sigma_y: float, chains: Sequence[int]) -> Part:
        """The chains that explain the data `y` by the operator `A`."""
        model = ForwardModel(A, A.believed(y), sigma_y)
        return Part(chains, model, lambda rng: self.start(A.extend(y), rng), lambda x: self.pixels(A.crop(x)))

    def kept(self, picture: Picture, damaged: np.ndarray) -> tuple[str, str, Callable[[], bytes]]:
        """The simulated data as a file; where they are smaller than the result, without its transparency."""
        output, alpha = self.config.output, "keep" if damaged.shape == picture.pixels.shape else None
        format = results.lossless(picture, output, alpha)

        def encode() -> bytes:
            return picture_bytes(picture, damaged, format, output.bits, alpha=alpha)[0]

        return "damaged", results.extension(picture, format), encode

    @property
    def border(self) -> str:
        """What happens at the picture's border: `real` or `circular`."""
        return self.config.border

    @property
    def kernel_name(self) -> str:
        """The kernel, for the contact sheet."""
        return self.kernel.path.name if self.kernel.path else self.config.kernel

    @property
    def sampled(self) -> str:
        """How the kernel's result was sampled, for the contact sheet."""
        return f"{self.border} border"

    def framed(self, picture: Picture, A: LinearOperator) -> Picture:
        """`picture` with pixels and transparency of the result's size."""
        return picture

    def degrade(self, picture: Picture, name: str) -> tuple[Picture, Blur | CircularBlur, Tensor]:
        """Blur an intact picture and add noise: the truth, the operator and the data.

        With real borders the outermost pixels are only ever seen blurred, by a camera that does not show them: the
        truth is what remains inside, and all results have its size.
        """
        channels, height, width = picture.pixels.shape
        intact = self.data(picture)
        if self.border == "real":
            kh, kw = self.kernel.values.shape
            A = self.operator((channels, height - kh + 1, width - kw + 1))
            picture = cut(picture, *A.frame[1:])
            if A.x_shape != A.y_shape:
                self.report.note(
                    f"{name}: blurred without its borders, {width}x{height} pixels become {width - kw + 1}x{height - kh + 1}"
                )
        else:
            A = self.operator((channels, height, width))
        return picture, A, self.noisy(A.forward(intact), self.config.noise, picture)

    def coding(self, picture: Picture) -> float:
        """What a JPEG's compression adds to an estimate of the data's noise, as a std; 0 for other files and data."""
        steps = picture.encoding.get("steps", ())
        if len(steps) != 64 or self.config.noise != "auto" or self.config.simulate:
            return 0.0
        pixels = torch.from_numpy(picture.pixels)[None]
        error = coding_error(luma(pixels)[0, 0].numpy(), np.reshape(steps, (8, 8)))
        if len(picture.pixels) == 3:
            error /= CHANNELS
        if self.linear:  # as the curve stretches it
            return float((to_light(pixels + error) - to_light(pixels - error)).square().mean().sqrt()) / 2
        return error

    def level(self, y: Tensor, name: str, coding: float) -> float:
        """The std of the noise of `y` `(1, C, H, W)`, as given, or estimated with a `coding` error; at least the floor."""
        sigma_y = self.config.noise
        if sigma_y == "auto":
            sigma_y = estimate_sigma(y).item()
            if math.isnan(sigma_y):
                raise InputError(f"{name}: too small for an estimate of its noise", hint="say it, e.g. --noise 0.01")
            sigma_y = math.hypot(sigma_y, coding)
            compressed = f", JPEG's compression {coding:.4g} of it" if coding else ""
            self.report.note(f"{name}: noise estimated as {sigma_y:.4g} ({255 * sigma_y:.3g}/255){compressed}")
        if sigma_y < NOISE_FLOOR:
            self.report.note(f"{name}: noise {sigma_y:.3g} raised to {NOISE_FLOOR:.3g}, what rounding to 8 bits leaves")
        return max(sigma_y, NOISE_FLOOR)

    def start(self, extended: Tensor, rng: ChainRng) -> Tensor:
        """First states `(N, *x_shape)`: noise of std sigma_max around the blurred picture or mid-grey."""
        sampler = self.config.sampler
        centre = extended if sampler.init == "observed" else torch.full_like(extended, 0.5)
        return centre + sampler.sigma_max * rng.randn_like(centre.expand(len(rng.generators), -1, -1, -1))

    def check_residual(self, residual: list[float], sigma_y: float, name: str) -> float:
        """||y - A x|| / sigma_y sqrt(n), averaged over the samples; a warning if it is not near 1.

        Given the data, a sample's y - A x is distributed as the truth's, which is the noise.
        """
        ratio = sum(residual) / len(residual) / sigma_y
        low, high = FITTING.get(self.config.sampler.method, FITTING["gpnp"])
        if ratio > high:
            cause = "there is more noise than that, or the kernel is another one"
        elif ratio < low and self.config.noise != "auto":  # who has not said a level need not mend it
            cause = "there is less noise than that"
        else:
            self.report.note(f"{name}: residual {ratio * sigma_y:.3g}, {ratio:.2f} times the noise level")
            return ratio
        what = "estimate differs" if self.config.sampler.method == "pnp" else "samples differ"
        self.report.warn(
            f"{name}: {self.again} again, the {what} from the picture by {ratio * sigma_y:.3g}, "
            f"{ratio:.2g} times the noise level {sigma_y:.3g}: {cause}"
        )
        return ratio


def cut(picture: Picture, rows: slice, columns: slice) -> Picture:
    """The part of `picture` in these rows and columns."""
    planes = {"pixels": picture.pixels, "alpha": picture.alpha, "cmyk": picture.cmyk}
    return replace(picture, **{key: None if p is None else p[:, rows, columns] for key, p in planes.items()})


def detail(pixels: np.ndarray) -> Roi:
    """The part, a fifth of each side, of `pixels` `(C, H, W)` with the strongest edges."""
    edges = np.zeros(pixels.shape[1:])
    grey = pixels.mean(0)
    edges[1:] += np.abs(np.diff(grey, axis=0))
    edges[:, 1:] += np.abs(np.diff(grey, axis=1))
    h, w = (max(1, round(side / 5)) for side in edges.shape)
    return results.densest(edges, h, w)
