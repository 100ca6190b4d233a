"""The work behind `gpnp denoise`, apart from its options so that `--help` need not import torch."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DivergenceError, InputError
from ..figures import Tile, contact_sheet
from ..imageio import Picture, picture_bytes
from ..noise import estimate_sigma
from . import results
from .batch import Job, Restored
from .restoration import Restoration


class Denoising(Restoration):
    """Denoises each picture by one call of the denoiser: E[X | X + sigma W = picture]."""

    def restore(self, picture: Picture, job: Job) -> Restored:
        config = self.config
        results.chosen(picture, config.output)  # what cannot be written fails now
        truth = picture.pixels if config.add_noise else self.truth(picture, job)
        pixels = self.tensor(picture.pixels)
        if config.add_noise:
            # neither clipped nor rounded, as in the papers' tables; what is shown, measured and kept as a file is
            pixels = self.noisy(pixels, config.add_noise, picture)
        sigma = self.level(pixels, job)
        noisy = pixels[0].cpu().numpy().clip(0, 1)
        denoised = self.denoise(picture, pixels, sigma)

        facts: dict[str, Any] = {"sigma": sigma, **self.check_familiar(picture, self.tensor(denoised))}
        scores = None
        if truth is not None:
            scores = {"noisy": results.measure(noisy, truth), "denoised": results.measure(denoised, truth)}
            results.table(self.report, job.input.path.name, scores)
            facts |= {"metrics": scores, "psnr": scores["denoised"]["psnr"]}
        return Restored(self.files(picture, job, sigma, noisy, denoised, truth, scores), facts)

    def level(self, pixels: Tensor, job: Job) -> float:
        """The configured sigma, or the one estimated from the noisy picture `(1, C, H, W)`."""
        if self.config.sigma != "auto":
            return self.config.sigma
        sigma = estimate_sigma(pixels).item()
        if math.isnan(sigma):
            raise InputError(
                f"{job.input.path}: too small for an estimate of its noise",
                hint="say it with --sigma, e.g. --sigma 0.1",
            )
        self.report.note(f"{job.input.path}: noise estimated as sigma {sigma:.4g} ({255 * sigma:.3g}/255)")
        return sigma

    def denoise(self, picture: Picture, pixels: Tensor, sigma: float) -> np.ndarray:
        """The denoised picture `(C, H, W)` in [0, 1]; without noise there is nothing to do."""
        if sigma > 0:
            prior = self.prior(picture)
            self.check_range(prior, sigma, sigma)
            with torch.inference_mode():
                pixels = prior.denoiser(pixels, sigma)
            if not torch.isfinite(pixels).all():
                raise DivergenceError(f"denoiser {prior.name} gave non-finite pixels at sigma {sigma:g}")
        return pixels[0].clamp(0, 1).cpu().numpy()

    def files(
        self,
        picture: Picture,
        job: Job,
        sigma: float,
        noisy: np.ndarray,
        denoised: np.ndarray,
        truth: np.ndarray | None,
        scores: dict[str, dict[str, float]] | None,
    ) -> list[tuple[str, str, Any]]:
        """What `output.save` asks for and the noisy picture, if noise was added, as (kind, extension, encode)."""
        output, scores = self.config.output, scores or {}
        format, kept = results.chosen(picture, output), results.lossless(picture, output)

        def encode(pixels: np.ndarray, kind: str):
            return lambda: picture_bytes(picture, pixels, kind, output.bits, output.quality)[0]

        made = []
        if "mean" in output.save:
            made.append(("", results.extension(picture, format), encode(denoised, format)))
        if "sheet" in output.save:
            estimated = ", estimated" if self.config.sigma == "auto" else ""
            notes = (f"sigma {sigma:.4g} ({255 * sigma:.3g}/255){estimated}", f"denoiser {self.prior(picture).name}")
            tiles = [Tile("noisy", noisy, results.caption(scores.get("noisy")))]
            if truth is not None:
                tiles.append(Tile("truth", truth))
            tiles.append(Tile("denoised", denoised, results.caption(scores.get("denoised"))))
            made.append(("sheet", "png", lambda: results.png(contact_sheet(tiles, job.input.path.name, notes))))
        if self.config.add_noise:
            made.append(("noisy", results.extension(picture, kept), encode(noisy, kept)))
        return made
