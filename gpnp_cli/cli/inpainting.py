"""The work behind `gpnp inpaint`, apart from its options so that `--help` need not import torch."""

from functools import partial

import numpy as np
import torch

from .. import build
from ..errors import InputError
from ..figures import Roi, show_missing
from ..forward.base import ForwardModel
from ..forward.mask import Mask
from ..imageio import Picture, picture_bytes, read_mask
from ..masks import MaskSpec, check_mask
from . import results
from .batch import Job, Restored
from .options import Call
from .restoration import Part, Sampling


class Inpainting(Sampling):
    """Restores pictures whose missing pixels a mask tells."""

    def __init__(self, call: Call, mask: MaskSpec) -> None:
        super().__init__(call)
        self.mask = mask

    def identity(self, picture: Picture, job: Job) -> dict[str, str]:
        found = super().identity(picture, job)
        if self.mask.kind == "file":
            found["mask"] = self.digest(self.companion(self.mask.path, job, "mask"))
        return found

    def missing(self, picture: Picture, job: Job) -> np.ndarray:
        """The mask `(H, W)`, true where a pixel is missing."""
        name, shape = str(job.input.path), picture.pixels.shape[1:]
        if self.mask.kind == "alpha":
            if picture.alpha is None:
                raise InputError(f"{name}: has no transparency for --mask alpha", hint="name a mask file or form")
            missing = picture.alpha[0] < 1
        elif self.mask.kind == "file":
            path = self.companion(self.mask.path, job, "mask")
            name, missing = str(path), read_mask(path, shape, max_pixels=self.config.run.max_pixels)
        else:
            missing = self.mask.draw(*shape)
        if self.config.mask_invert:
            missing = ~missing
        check_mask(missing, name)
        return missing

    def restore(self, picture: Picture, job: Job) -> Restored:
        config = self.config
        alpha = None if self.mask.kind == "alpha" else "keep"
        results.chosen(picture, config.output, alpha)  # what cannot be written fails now, not after the chains
        missing = self.missing(picture, job)
        truth = picture.pixels if config.simulate else self.truth(picture, job)
        self.report.note(f"{job.input.path}: mask covers {100 * missing.mean():.1f} %")

        known = torch.from_numpy(~missing)[None].to(self.device)
        pixels = self.tensor(picture.pixels)
        if config.simulate and config.noise:
            pixels = self.noisy(pixels, config.noise, picture)
        y = torch.where(known, pixels, 0)
        model = ForwardModel(Mask(known, len(picture.pixels)), y, config.noise)
        start = partial(build.first_states, config.sampler, y, known)
        samples, facts = self.sample(picture, [Part(range(config.sampler.samples), model, start)])

        damaged = y[0].cpu().numpy().clip(0, 1)
        scores = self.measure(job, samples, damaged, truth, facts)
        facts["mask_share"] = float(missing.mean())
        mask = self.mask.path.name if self.mask.path else config.mask
        notes = (
            f"mask {mask} covers {100 * missing.mean():.1f} %, noise {config.noise:g}",
            f"denoiser {self.prior(picture).name}, {self.cost(facts)}",
        )
        shown = show_missing(damaged, missing)
        files = results.files(
            picture, samples, config.output, shown, job.input.path.name, notes, scores, truth, region(missing), alpha
        )
        if config.simulate:
            files.append(
                ("mask", "png", lambda: results.png(np.repeat(missing[:, :, None], 3, 2).astype(np.uint8) * 255))
            )
            kept = results.lossless(picture, config.output)
            extension = results.extension(picture, kept)
            files.append(("damaged", extension, lambda: picture_bytes(picture, damaged, kept, config.output.bits)[0]))
        return Restored(files + self.trace(), facts)


def region(missing: np.ndarray) -> Roi:
    """The part whose seam a person wants to see: the hole's bounding box; of many holes, where most is missing."""
    rows, columns = np.flatnonzero(missing.any(1)), np.flatnonzero(missing.any(0))
    y, x = int(rows[0]), int(columns[0])
    h, w = int(rows[-1]) + 1 - y, int(columns[-1]) + 1 - x
    if h * w <= missing.size / 9:
        return y, x, h, w
    h, w = (max(1, round(extent / 5)) for extent in missing.shape)
    return results.densest(missing, h, w)
