"""What the restoring commands share between configuration and result: device, seed, prior; and the chains."""

import hashlib
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import build
from ..config import Resolved, in_words
from ..denoisers.familiarity import FAR, LEVEL, relative_residual
from ..errors import InputError
from ..forward.base import ForwardModel
from ..imageio import Picture, read_picture
from ..inputs import EXTENSIONS
from ..samplers.base import Moments, anneal, collect
from ..samplers.pnp import Silence
from ..samplers.rng import ChainRng, generator
from . import agreement
from .batch import Batch, Job
from .options import Call
from .report import Report
from .results import Samples, score, table
from .tracing import npz


class Restoration:
    """One call of a restoring command. Subclasses give `restore(picture, job)` and may extend `identity`."""

    def __init__(self, call: Call) -> None:
        self.config, self.report = call.config, call.report
        self.seed = self.config.run.seed
        if self.seed == "random":
            self.seed = secrets.randbelow(2**32)
            self.report.note(f"gpnp: seed {self.seed}")
        self.device, self.dtype, sentence = build.set_up(self.config.run)
        self.report.note(f"gpnp: {sentence}")
        self._priors: dict[int, build.Prior] = {}
        self._warned = False
        self._far: Path | None = None  # the picture last warned of, by `check_familiar`

    def run(self, batch: Batch) -> int:
        precision = str(self.dtype).removeprefix("torch.")
        describe = {
            "seed": self.seed,
            "denoiser": self.config.model.denoiser,
            "device": str(self.device),
            "precision": precision,
            "torch": torch.__version__,
        }
        try:
            return batch.run(self.restore, self.identity, describe)
        finally:
            self.close()

    def close(self) -> None:
        """End what denoisers keep running: processes, of some."""
        for prior in self._priors.values():
            getattr(prior.denoiser, "close", lambda: None)()

    def restore(self, picture: Picture, job: Job):
        raise NotImplementedError

    def identity(self, picture: Picture, job: Job) -> dict[str, str]:
        """Hashes of what else decides the result, besides the settings and the picture."""
        found = {"weights": self.prior(picture).sha256 or self.config.model.denoiser}
        if self.config.reference is not None:
            found["reference"] = self.digest(self.companion(self.config.reference, job, "reference"))
        return found

    @staticmethod
    def digest(path: Path) -> str:
        """The sha256 of a file beside the picture; empty if there is none, which is an error later."""
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def prior(self, picture: Picture) -> build.Prior:
        return self.prior_for(len(picture.pixels))

    def prior_for(self, channels: int) -> build.Prior:
        if channels not in self._priors:
            self._priors[channels] = build.build_prior(self.config.model, channels, self.device, self.dtype)
            denoiser = self._priors[channels].denoiser
            if licence := getattr(denoiser, "licence", None):
                self.report.note(f"gpnp: denoiser {self.config.model.denoiser}: licence {licence}")
        return self._priors[channels]

    def check_range(self, prior: build.Prior, lowest: float, highest: float) -> None:
        """Warn, once a call, if sigma from `lowest` to `highest` leaves what the denoiser was made for."""
        low, high = prior.denoiser.sigma_range
        if self._warned or low <= lowest <= highest <= high:
            return
        self._warned = True
        levels = f"{lowest:g}" if lowest == highest else f"from {lowest:g} to {highest:g}"
        self.report.warn(
            f"sigma {levels} leaves the range that denoiser {self.config.model.denoiser} was made for "
            f"({low:.4g} to {high:.4g})"
        )

    def check_familiar(self, picture: Picture, x: Tensor) -> dict[str, float]:
        """Warn if the prior hardly knows pictures like `x` `(N, C, H, W)`; {} if its file does not say what it knows.

        `prior_residual` is the denoising residual over the highest that the prior left on its validation pictures.
        """
        denoiser = self.prior(picture).denoiser
        known = getattr(denoiser, "metadata", {}).get("residual", {}).get(f"{LEVEL:g}")
        if known is None:
            return {}
        rng = generator(build.picture_seed(self.seed, picture.sha256, (2,)))
        ratio = float(relative_residual(denoiser, x, LEVEL, rng).mean()) / known["highest"]
        if ratio > FAR and self._far != picture.path:
            self._far = picture.path
            self.report.warn(
                f"{picture.path}: far from what denoiser {self.config.model.denoiser} was trained on: at sigma {LEVEL:g} "
                f"its denoising residual is {ratio:.1f} times the highest of the validation pictures"
            )
        return {"prior_residual": ratio}

    def tensor(self, pixels: np.ndarray) -> Tensor:
        """`(C, H, W)` as `(1, C, H, W)` on the device."""
        return torch.from_numpy(np.ascontiguousarray(pixels))[None].to(self.device)

    def noisy(self, pixels: Tensor, sigma: float, picture: Picture) -> Tensor:
        """`pixels` `(1, C, H, W)` plus the simulated noise of std `sigma` that this run and picture have."""
        rng = generator(build.picture_seed(self.seed, picture.sha256, (1,)))
        return pixels + sigma * torch.randn(pixels.shape, generator=rng).to(self.device)

    def companion(self, given: Path, job: Job, what: str) -> Path:
        """The file that belongs to this input: `given` itself, or the picture of the same name in folder `given`."""
        if not given.is_dir():
            return given
        relative = job.input.relative
        if (given / relative).is_file():
            return given / relative
        beside = (given / relative.parent).glob("*")
        same = sorted(path for path in beside if path.stem == relative.stem and path.suffix.lower() in EXTENSIONS)
        if not same:
            raise InputError(
                f"{job.input.path}: no {what} of that name in {given}", hint=f"add {given / relative.name}"
            )
        return same[0]

    def truth(self, picture: Picture, job: Job) -> np.ndarray | None:
        """The pixels of the reference picture, None without one; `InputError` if it does not fit."""
        if self.config.reference is None:
            return None
        path = self.companion(self.config.reference, job, "reference")
        pixels = read_picture(path, self.config.run.max_pixels).pixels
        if pixels.shape != picture.pixels.shape:
            raise InputError(
                f"{path}: the reference is {describe_shape(pixels)}, the result of {job.input.path} "
                f"{describe_shape(picture.pixels)}",
                hint="give a reference of the same size and kind",
            )
        return pixels


class Part(NamedTuple):
    """Chains that explain data by one model: their numbers, the model, their first states, the picture in a state.

    `crop` cuts the picture out of a state that reaches beyond it.
    """

    chains: Sequence[int]
    model: ForwardModel
    start: Callable[[ChainRng], Tensor]
    crop: Callable[[Tensor], Tensor] = lambda x: x


class Sampling(Restoration):
    """A restoring command whose results come from annealed chains."""

    before = "damaged"  # what the picture beside the result is called
    series: dict[str, np.ndarray] = {}  # noqa: RUF012  (replaced, never filled)

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        tell_carried(self.report, call.resolved)

    def prior(self, picture: Picture) -> build.Prior:
        prior = super().prior(picture)
        self.check_range(prior, self.config.sampler.sigma_min, self.config.sampler.sigma_max)
        return prior

    def sample(self, picture: Picture, parts: Sequence[Part]) -> tuple[Samples, dict[str, Any]]:
        """Independent posterior draws by annealed chains, in batches that fit in memory, and facts about them.

        With `--method pnp` there are no draws, and the mean is the one estimate.
        """
        sampler, denoiser = self.config.sampler, self.prior(picture).denoiser
        point, seed = sampler.method == "pnp", build.picture_seed(self.seed, picture.sha256)
        draws, residuals, series, familiar, nfe = {}, {}, {}, {}, 0
        watched = agreement.watched(sampler.iterations) if sampler.samples > 1 else 0
        groups = [
            (part, chains)
            for part in parts
            for chains in build.chain_groups(part.chains, math.prod(part.model.A.x_shape[1:]))
        ]
        with torch.inference_mode():
            for number, (part, chains) in enumerate(groups, start=1):
                model, sigmas = part.model, build.schedule(sampler, part.model.sigma_y)
                kernel = build.kernel(sampler, denoiser, model)
                finish = model.sigma_y == 0 if point else sampler.final == "denoise"
                rng = Silence() if point else ChainRng(seed, chains, self.device, sampler.antithetic)
                label = f"batch {number}/{len(groups)}  " if len(groups) > 1 else ""
                steps = anneal(kernel, part.start(rng), sigmas, rng, finish)
                total = len(sigmas) + finish
                steps = islice(self.report.track(steps, total, label), total - max(1, finish + watched), None)
                monitor = agreement.statistics(model, part.crop) if watched else {}
                chain = collect(steps, burn_in=total - 1, monitor=monitor)
                x = chain.draws[:, 0]
                nfe = chain.nfe
                for name, values in chain.diagnostics.items():  # without the last step, which is of another kind
                    series.setdefault(name, {}).update(zip(chains, values[:watched].unbind(1), strict=True))
                residuals |= zip(chains, model.residual(x).tolist(), strict=True)
                familiar = familiar or self.check_familiar(picture, x)  # once a picture
                draws |= zip(chains, part.crop(x).clamp(0, 1).cpu().numpy(), strict=True)
        samples = summarised(np.stack(in_turn(draws)), sampler.antithetic)
        facts = {"nfe": nfe, "residual": in_turn(residuals), **familiar}
        if point:
            return replace(samples, draws=samples.draws[:0]), facts
        whole = {name: torch.stack(in_turn(columns), 1) for name, columns in series.items()}
        facts["diagnostics"] = self.compare(picture, whole, sampler.samples // (2 if sampler.antithetic else 1))
        return samples, facts

    def compare(self, picture: Picture, series: dict[str, Tensor], chains: int) -> dict[str, Any]:
        """Whether the chains agree, told and returned; `series` holds each statistic `(iteration, chain)`."""
        self.series = {name: values.numpy() for name, values in series.items()}
        told = agreement.agreement(series, chains)
        if warning := agreement.complaint(told):
            self.report.warn(f"{picture.path}: {warning}")
        elif line := agreement.sentence(told):
            self.report.note(f"{picture.path}: {line}")
        return told

    def trace(self) -> list[tuple[str, str, Callable[[], bytes]]]:
        """The statistics that `compare` saw last as a file, if --save asks for it and there were any."""
        series = self.series
        return [("trace", "npz", lambda: npz(series, 0))] if "trace" in self.config.output.save and series else []

    def measure(
        self, job: Job, samples: Samples, shown: np.ndarray, truth: np.ndarray | None, facts: dict[str, Any]
    ) -> dict[str, dict[str, float]] | None:
        """The scores against the truth, also as a table on stderr and in `facts`; None if it is unknown."""
        scores = score(samples, shown, truth, self.before)
        if scores:
            table(self.report, job.input.path.name, scores)
            facts |= {"metrics": scores, "psnr": scores[samples.best]["psnr"]}
        return scores

    def cost(self, facts: dict[str, Any]) -> str:
        """What a result took, for the contact sheet."""
        if self.config.sampler.method == "pnp":
            return f"{facts['nfe']} calls for one estimate (pnp)"
        return f"{facts['nfe']} calls per sample, seed {self.seed}"


def tell_carried(report: Report, resolved: Resolved) -> None:
    """Say which settings came with the prior, if any did."""
    if own := resolved.by_prior:
        report.note(
            f"gpnp: denoiser {resolved.config.model.denoiser} brings {in_words(own)}; preset balanced goes without"
        )


def summarised(draws: np.ndarray, antithetic: bool) -> Samples:
    """Draws `(K, C, H, W)` in [0, 1], in pairs if they are `antithetic`, with their mean and spread."""
    moments = Moments()
    for draw in draws:
        moments.update(torch.from_numpy(draw)[None])
    std = moments.std()
    if antithetic:  # the mean hardly errs, so that no degree of freedom is lost to it
        std = std * math.sqrt((moments.count - 1) / moments.count)
    return Samples(draws, moments.mean.numpy(), std.numpy())


def in_turn(values: dict[int, Any]) -> list[Any]:
    """The values of chains, by their numbers."""
    return [values[chain] for chain in sorted(values)]


def describe_shape(pixels: np.ndarray) -> str:
    kind = "grey" if len(pixels) == 1 else "colour"
    return f"{pixels.shape[2]}x{pixels.shape[1]} {kind}"
