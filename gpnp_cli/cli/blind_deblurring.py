"""The work behind `gpnp blind-deblur`, apart from its options so that `--help` need not import torch."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import __version__, build, kernels
from ..alignment import BORDER, aligned, best_shift, offset, shifted
from ..config import dump
from ..denoisers.base import Denoiser
from ..errors import InputError
from ..figures import Tile
from ..forward.base import LinearOperator
from ..forward.informative import fine_detail, has_structure, richest_window, unsaturated
from ..forward.kernel_fit import (
    Connectedness,
    FreeForm,
    Parametric,
    SmallEnergy,
    Sparsity,
    likeness,
    moved_onto,
    support,
    trimmed,
)
from ..imageio import Picture
from ..kernel_figures import Snapshot, animation, kernel_picture, snapshot_strip, spread_tile
from ..kernels import BlurKernel
from ..noise import estimate_sigma
from ..samplers.em import Fits, Schedule, edges_first, misfit, nearest_odd, refine
from ..samplers.rng import ChainRng
from ..training.data import luma
from . import results
from .batch import Job, Restored, config_hash
from .deblurring import NOISE_FLOOR, Deblurring
from .options import Call
from .restoration import summarised
from .results import Samples
from .searching import ANIMATED, SETTLED, SHARES, Found, Kept, Trail, follow, padded

# --kernel-size auto: an eighth of the shorter side, 65 pixels at most; also narrower windows, down to 31. A window that is
# far too wide leads the search astray where a picture repeats itself.
AUTO_SHARE, AUTO_LARGEST, AUTO_SMALLEST = 8, 65, 31
# --crop auto: so many windows wide, within these sides. Searches go astray on the coarsest level, where kernels are 5
# pixels wide: there, too, a part must still be a picture.
CROP_SHARE, CROP_SMALLEST, CROP_LARGEST = 12, 384, 1024
SAME = 0.15  # the relative difference of two starts that are not both worth GPnP-EM
RESTLESS = 0.15  # a larger change is worth a warning
ALONE = 0.6  # so is a kernel that is less like those of all other searches
# A sharp picture's softest edges pass for a blur of a pixel or two: what finds such a kernel and has fine detail is sharp.
NARROW, DETAILED = 0.15, 0.05
SHARP = 0.8  # a kernel with such a share in one pixel hardly blurs
# Likely kernels share the result, samples or an average of estimates: by exp(-excess misfit / PLAUSIBLE), the excess
# being a share of the best one's. Where noise is above NOISY the misfit tells less, and the best kernel alone is better;
# above LARGE pixels one more estimate takes minutes.
AVERAGED, PLAUSIBLE, LEAST_SHARE, LARGE = 4, 0.003, 0.03, 2_000_000
GOLDEN = (math.sqrt(5) - 1) / 2
REFINED_ENERGY = 0.003  # SmallEnergy's weight in GPnP-EM: without it kernels scatter little by little
REGULARISERS = {"l2": SmallEnergy(0.01), "sparse": Sparsity(1e-4), "connected": Connectedness()}
# The searches by edges: the price of an edge, how it falls from round to round, and how much the kernel is spread out.
# Fine texture takes it to a point else; where noise is above NOISY, too much spreading scatters it over its window.
SEARCHES = (
    (6e-3, 1.15, 0.02),
    (2e-3, 1.1, 0.01),
    (4e-3, 1.1, 0.03),
    (2e-3, 1.1, 0.003),
    (2e-3, 1.1, 0.03),
    (4e-3, 1.1, 0.003),
)
NOISY = 0.006
NOISY_ITERATIONS = 12  # of GPnP-EM, which makes nothing better after that
NOISY_SEARCHES = (
    (4e-3, 1.1, 0.01),
    (2e-3, 1.05, 0.01),
    (4e-3, 1.1, 0.03),
    (2e-3, 1.1, 0.01),
    (1e-3, 1.05, 0.003),
    (2e-3, 1.05, 0.001),
)
PARAMETRIC_SEARCHES = ((8e-3, 1.1, 0.0), (4e-3, 1.1, 0.0), (2e-3, 1.1, 0.0))  # few parameters cannot shrink to a point


class Evidence(NamedTuple):
    """What tells of the kernel: a part `y` `(1, 1, H, W)` of the picture where `known` `(H, W)`, its noise level `floor`."""

    denoiser: Denoiser
    y: Tensor
    known: Tensor
    floor: float

    def misfit(self, h: Tensor) -> float:
        """The criterion, lower for better kernels."""
        return misfit(self.denoiser, self.y, self.known, trimmed(h))


Models = Sequence[tuple[LinearOperator, float]]  # operators, with their noise levels


class Explanation(NamedTuple):
    """A likely kernel, the level of noise and of the kernel's error together, and its share of the estimate."""

    found: Found
    sigma_y: float
    share: float


class Search(NamedTuple):
    """A search by edges: the kernel's window, the price of an edge, its fall, and how much the kernel is spread out."""

    window: tuple[int, int]
    weight: float
    decay: float
    energy: float


class BlindDeblurring(Deblurring):
    """Restores pictures that an unknown kernel blurred: looks for it, then goes on as if it had been known."""

    before = "blurred"
    border = "real"

    def __init__(self, call: Call, simulated: BlurKernel | None) -> None:
        super().__init__(call, simulated)
        self.simulated = simulated

    def identity(self, picture: Picture, job: Job) -> dict[str, str]:
        self.kernel = self.simulated or BlurKernel(np.ones((1, 1)))
        return super().identity(picture, job)

    @property
    def kernel_name(self) -> str:
        height, width = self.kernel.values.shape
        return f"estimated, {width}x{height} pixels"

    def restore(self, picture: Picture, job: Job) -> Restored:
        config, name = self.config, str(job.input.path)
        results.chosen(picture, config.output)  # what cannot be written fails now, not after the chains
        if config.simulate:
            self.kernel = self.simulated
            self.check_size(picture, name)
            picture, _, y = self.degrade(picture, name)
            truth = picture.pixels
        else:
            y, truth = self.data(picture), self.truth(picture, job)
        size = self.window(picture, name)
        grey = luma(y)
        if not has_structure(grey):
            raise InputError(
                f"{name}: holds nothing but noise or one colour, so there is no blur to be estimated",
                hint="take a picture with edges in it",
            )
        kept = self.so_far(picture, job)
        (best, sigma_y, _), *_ = self.explanations = self.look(picture, y, grey, size, kept)
        facts = self.tell(name, kept, best, sigma_y)
        values = trimmed(best.kernel).double().cpu().numpy()
        self.kernel = BlurKernel(kernels.unit(values))  # as `gpnp deblur` does with the file of it
        self.more = self.tiles(kept.found, best)
        A = self.operator(y.shape[1:]) if config.simulate else self.observed(y, name)
        restored = self.restored(picture, job, A, y, truth, sigma_y)
        return Restored(restored.files + self.files(job, kept.frames), restored.facts | facts, spent=(kept.path,))

    def explained(
        self, picture: Picture, A: LinearOperator, y: Tensor, sigma_y: float
    ) -> tuple[Samples, dict[str, Any]]:
        """What is behind the data, over all likely kernels: each has its share of an estimate by `pnp`, or of the chains."""
        best, *others = self.explanations
        if not others:
            return super().explained(picture, A, y, sigma_y)
        kernels = [trimmed(moved_onto(each.found.kernel, best.found.kernel)).double().cpu() for each in others]
        operators = [A, *(A.by(kernel / kernel.sum()) for kernel in kernels)]
        shares = [each.share for each in self.explanations]
        models = [(operator, each.sigma_y) for operator, each in zip(operators, self.explanations, strict=True)]
        over = self.estimate if self.config.sampler.method == "pnp" else self.samples
        found, facts = over(picture, models, y, shares)
        return found, facts | {"kernel_shares": shares}

    def estimate(
        self, picture: Picture, models: Models, y: Tensor, shares: list[float]
    ) -> tuple[Samples, dict[str, Any]]:
        """The mean of one estimate by each of the `models`, moved onto the first one's."""
        (A, level), *others = models
        first, facts = super().explained(picture, A, y, level)
        mean, shifts = shares[0] * first.mean, [(0.0, 0.0)]
        for (A, level), share in zip(others, shares[1:], strict=True):
            other, more = super().explained(picture, A, y, level)
            shifts.append(offset(other.mean, first.mean))
            mean += share * shifted(other.mean, *shifts[-1])
            facts["nfe"] += more["nfe"]
        return replace(first, mean=mean.clip(0, 1)), facts | {"kernel_shifts": shifts}

    def samples(
        self, picture: Picture, models: Models, y: Tensor, shares: list[float]
    ) -> tuple[Samples, dict[str, Any]]:
        """Samples of which each of the `models` draws its share; those of one model are moved onto the first sample."""
        sampler = self.config.sampler
        whose = dealt(shares, sampler.samples, 2 if sampler.antithetic else 1)
        chains = [[chain for chain, model in enumerate(whose) if model == k] for k in range(len(models))]
        parts = [self.part(A, y, level, mine) for (A, level), mine in zip(models, chains, strict=True) if mine]
        found, facts = self.sample(picture, parts)
        draws, shifts = found.draws.copy(), [(0.0, 0.0)] * len(models)
        for k in sorted({*whose} - {0}):
            shifts[k] = offset(draws[chains[k][0]], draws[0])
            for chain in chains[k]:
                draws[chain] = shifted(draws[chain], *shifts[k]).clip(0, 1)
        return summarised(draws, sampler.antithetic), facts | {"kernel_of_sample": whose, "kernel_shifts": shifts}

    def so_far(self, picture: Picture, job: Job) -> Kept:
        """What is known of the kernel beforehand: nothing, or with --resume what an interrupted run had found."""
        made_by = {"precision": str(self.dtype), "torch": torch.__version__, "gpnp": __version__}
        extra = {"input": picture.sha256, "seed": str(self.seed), "device": str(self.device), **made_by}
        identity = config_hash(dump(self.config), self.identity(picture, job) | extra)
        kept = Kept(job.path("search", "safetensors"), identity, self.report)
        if self.config.run.resume:
            kept.load(self.device)
        return kept

    def window(self, picture: Picture, name: str) -> tuple[int, int]:
        """The side of the square that the kernel is looked for in."""
        shorter, size = min(picture.pixels.shape[1:]), self.config.kernel_size
        if size == "auto":
            size = min(AUTO_LARGEST, max(3, shorter // AUTO_SHARE // 2 * 2 + 1))
        if 2 * size > shorter:
            raise InputError(
                f"{name}: a kernel of {size}x{size} pixels cannot be estimated from {picture.pixels.shape[2]}x"
                f"{picture.pixels.shape[1]} pixels",
                hint="it may have half the picture's shorter side at most" if shorter >= 6 else "take a larger picture",
            )
        return size, size

    def look(self, picture: Picture, y: Tensor, grey: Tensor, size: tuple[int, int], kept: Kept) -> list[Explanation]:
        """All searches, each by edges first, then by chains, on the part of the picture that tells most; the best first."""
        config = self.config
        known = unsaturated(y, reach=max(size))
        part = richest_window(grey, known, searched_side(max(size), config.search.crop))
        if not bool(known.all()):
            share = 100 * float((~known).float().mean())
            self.report.note(f"{picture.path}: {share:.2g} % saturated, left out of the search")
        if (height := part[0].stop - part[0].start) < grey.shape[2] or part[1].stop - part[1].start < grey.shape[3]:
            self.report.note(
                f"{picture.path}: kernel looked for in {part[1].stop - part[1].start}x{height} pixels at row {part[0].start}, "
                f"column {part[1].start}"
            )
        grey, known = grey[..., part[0], part[1]], known[part]
        floor, noise = (
            max(NOISE_FLOOR, estimate_sigma(pixels).nan_to_num(0.0).item() if config.noise == "auto" else config.noise)
            for pixels in (grey, y)
        )
        noise = math.hypot(noise, self.coding(picture))
        denoiser = self.prior(replace(picture, pixels=picture.pixels[:1])).denoiser
        evidence = Evidence(denoiser, grey, known, floor)
        with torch.inference_mode():
            best = self.search(evidence, size, kept, picture.sha256)
            none = torch.zeros_like(best.kernel)
            none[size[0] // 2, size[1] // 2] = 1
            narrow = float(best.kernel.max()) > NARROW and fine_detail(grey) > DETAILED
            if (unblurred := evidence.misfit(none)) <= best.misfit or narrow:
                self.report.note(f"{picture.path}: not blurred, as far as can be told: the kernel is one pixel")
                # detail passes for noise: do no harm
                sigma_y = NOISE_FLOOR if config.noise == "auto" else noise
                return [Explanation(replace(best, kernel=none, misfit=unblurred), sigma_y, 1.0)]
        count = config.search.average
        if count == "auto":
            count = 1 if floor > NOISY or y.shape[2] * y.shape[3] > LARGE else AVERAGED
        if config.sampler.method != "pnp" and config.sampler.samples <= 1 + config.sampler.antithetic:
            count = 1  # the first chain, or pair, has the best kernel
        every = kept.found + kept.passed
        likely = [every[k] for k in distinct(every, count)]
        shares = plausible([each.misfit for each in likely])
        levels = [total_noise(noise, floor, each.misfit) for each in likely]
        return [Explanation(*each) for each in zip(likely, levels, shares, strict=True) if each[2] > 0]

    def search(self, evidence: Evidence, size: tuple[int, int], kept: Kept, sha256: str) -> Found:
        """All searches that `kept` does not hold yet, each by edges first, then by chains; the best of them."""
        config, (denoiser, y, known, floor) = self.config.search, evidence
        noisy, iterations = floor > NOISY, config.iterations
        if iterations == "auto":
            iterations = NOISY_ITERATIONS if noisy else Schedule.iterations
        schedule = Schedule(iterations, extremes=not noisy)
        shares = SHARES if self.config.output.animation == "none" else ANIMATED
        followed = partial(follow, window=size, cost=evidence.misfit, shares=shares)

        def edges(search: Search, label: str) -> tuple[Found, Trail]:
            total, fit, trail = schedule.total(search.window), self.fits(max(search.window), search.energy), Trail()
            weighted = replace(schedule, weight=search.weight, decay=search.decay)
            steps = edges_first(y, known, search.window, fit, weighted)
            tracked = self.report.track(steps, total - iterations, label)
            return followed(tracked, fit, trail, total=total), trail

        searches = self.searches(size, noisy)
        if len(searches) > config.restarts:
            for number in range(len(kept.starts) + 1, len(searches) + 1):
                kept.started(edges(searches[number - 1], f"starts {number}/{len(searches)}  ")[0])
            searches = [searches[k] for k in distinct(kept.starts, config.restarts)]
        for number in range(len(kept.found) + 1, len(searches) + 1):
            search, label = searches[number - 1], f"{number}/{len(searches)}  "
            if kept.begun is None:
                kept.begin(*edges(search, f"edges {label}"))
            fit = self.fits(max(search.window), REFINED_ENERGY)
            rng = ChainRng(build.picture_seed(self.seed, sha256, (2, number)), config.chains, self.device)
            begun = kept.going_on(rng, fit)
            steps = kept.watched(refine(denoiser, y, known, begun, fit(1.0), schedule, floor, rng), rng, fit)
            tracked = self.report.track(steps, iterations, f"kernel {label}")
            kept.finish(followed(tracked, fit, kept.trail, total=schedule.total(search.window)))
        return kept.best()

    def searches(self, size: tuple[int, int], noisy: bool) -> list[Search]:
        """What is to be tried: each window with each of the first `restarts` weights."""
        weights, windows = PARAMETRIC_SEARCHES, [size]
        if self.config.kernel_model == "free":
            weights = NOISY_SEARCHES if noisy else SEARCHES
            if self.config.kernel_size == "auto" and not noisy:  # with noise, narrower ones are no better
                windows = narrower(size)
        weights = weights[: self.config.search.restarts]
        return [Search(window, *each) for window in windows for each in weights]

    def fits(self, size: int, energy: float = 0.0) -> Fits:
        """The M-step for each scale; `energy` is the weight of the kernel's own."""
        kind = self.config.kernel_model
        if kind == "free":
            chosen = [REGULARISERS[name] for name in self.config.search.regularise if name != "none"]
            free = FreeForm([SmallEnergy(energy), *chosen] if energy else chosen)
            return lambda scale: free
        fit = parametric(kind, size)

        def at(scale: float) -> Parametric:
            fit.scale = scale
            return fit

        return at

    def tell(self, name: str, kept: Kept, best: Found, sigma_y: float) -> dict[str, Any]:
        """What was found, on stderr and for the manifest."""
        kernel, found = best.kernel, kept.found
        number = min(range(len(found)), key=lambda k: found[k].misfit)
        height, width = trimmed(kernel).shape
        searches = f", search {number + 1} of {len(found)}" if len(found) > 1 else ""
        self.report.note(
            f"{name}: kernel {width}x{height} pixels, noise and kernel's error {sigma_y:.4g} ({255 * sigma_y:.3g}/255), "
            f"changed by {100 * best.change:.1f} % over the last {SETTLED} iterations{searches}"
        )
        phi = {}
        if best.phi is not None:
            phi = dict(zip(PARAMETERS[self.config.kernel_model], map(float, best.phi), strict=True))
            self.report.note(
                f"{name}: {self.config.kernel_model} of {', '.join(f'{key} {v:.3g}' for key, v in phi.items())}"
            )
        if len(self.explanations) > 1:
            shares = " ".join(f"{100 * each.share:.0f} %" for each in self.explanations)
            self.report.note(
                f"{name}: {len(self.explanations)} likely kernels have their shares of the result: {shares}"
            )
        if best.change > RESTLESS:
            self.report.warn(f"{name}: the kernel has not settled; more --search-iterations may help")
        others = [each for k, each in enumerate(found) if k != number]
        company = max((likeness(each.kernel, found[number].kernel) for each in others), default=1.0)
        if company < ALONE and float(kernel.max()) < SHARP:
            self.report.warn(
                f"{name}: no other search found a kernel like this one (the likest: {company:.2f}, 1 is equal), so it is "
                "doubtful; a --kernel-size that fits the shake, or a larger --crop, may help"
            )
        ring = float(kernel.sum() - kernel[1:-1, 1:-1].sum())
        if ring > 0.01:
            self.report.warn(f"{name}: the kernel reaches the border of its window; a larger --kernel-size may help")
        if float(kernel.max()) > SHARP:
            self.report.note(
                f"{name}: {100 * float(kernel.max()):.0f} % of the kernel are in one pixel: hardly blurred"
            )
        starts = {}
        if kept.starts:
            starts = {f"start_{key}": [getattr(each, key) for each in kept.starts] for key in ("misfit", "window")}
        return {
            "kernel_size": [width, height],
            "kernel_change": best.change,
            "kernel_nfe": best.nfe,
            "kernel_misfit": best.misfit,
            "kernel_likeness": company,
            "search": number,
            "search_misfit": [each.misfit for each in found],
            "search_window": [each.window for each in found],
            **starts,
            **({"kernel_parameters": phi} if phi else {}),
        }

    def tiles(self, found: list[Found], best: Found) -> tuple[Tile, ...]:
        """The kernel and its spread over the searches, for the contact sheet."""
        height, width = self.kernel.values.shape
        shown = [Tile("kernel", kernel_picture(self.kernel.values), f"{width}x{height} pixels")]
        if len(found) > 1:
            shown.append(spread_tile(spread(found, best)))
        return tuple(shown)

    def files(self, job: Job, frames: Sequence[Snapshot]) -> list[tuple[str, str, Callable[[], bytes]]]:
        """The kernel to look at and to compute with, the strip and the animation."""
        output, made, title = self.config.output, [], job.input.path.name
        frames = [replace(each, picture=self.pixels(torch.from_numpy(each.picture)).numpy()) for each in frames]
        values = self.kernel.values
        if "kernel" in output.save:
            made.append(("kernel", "png", lambda: results.png(kernel_picture(values))))
            made.append(("kernel-raw", "npy", lambda: npy(values)))
        if "strip" in output.save:
            chosen = [min(frames, key=lambda frame: abs(frame.share - share)) for share in SHARES]
            made.append(("strip", "png", lambda: results.png(snapshot_strip(chosen, title))))
        if output.animation != "none":
            made.append(("search", output.animation, lambda: animation(frames, output.animation)))
        return made

    def measure(
        self, job: Job, samples: Samples, shown: np.ndarray, truth: np.ndarray | None, facts: dict[str, Any]
    ) -> dict[str, dict[str, float]] | None:
        """The scores up to a shift, since a picture may be moved if its kernel is, without the border."""
        if truth is None:
            return None
        border = min(BORDER, min(truth.shape[1:]) // 4)
        shift = best_shift(samples.mean.clip(0, 1), truth, border=border)
        mean, inside = aligned(samples.mean, truth, shift, border)
        draws = [aligned(draw, truth, shift, border)[0] for draw in samples.draws]
        moved = Samples(np.stack(draws) if draws else samples.draws, mean, samples.std)
        facts["shift"] = list(shift)
        self.report.note(
            f"{job.input.path}: scores without a border of {border} pixels, moved by {shift[0]:g}, {shift[1]:g}"
        )
        return super().measure(job, moved, aligned(shown, truth, None, border)[0], inside, facts)


def total_noise(noise: float, floor: float, misfit: float) -> float:
    """The level for the pass that follows: the picture's `noise`, and the kernel's error, which acts like more of it.

    What the `misfit` has above the `floor`, the noise where it was taken, is the kernel's. It was taken on the brightness,
    which is less noisy than a colour picture's channels are.
    """
    return math.hypot(noise, math.sqrt(max(0.0, misfit**2 - floor**2)))


def plausible(misfits: Sequence[float]) -> list[float]:
    """The shares of kernels with these misfits, the lowest first; 0 for what hardly counts."""
    weights = [math.exp((1 - misfit / misfits[0]) / PLAUSIBLE) for misfit in misfits]
    weights = [weight if weight > LEAST_SHARE * sum(weights) else 0.0 for weight in weights]
    return [weight / sum(weights) for weight in weights]


def dealt(shares: Sequence[float], chains: int, together: int) -> list[int]:
    """Which kernel each of the chains has, `together` chains in turn the same one; the first has the first.

    The multiples of the golden ratio, modulo 1, fill the unit interval evenly however many they are, so that each kernel
    has about its share of them, and a chain's kernel does not depend on how many there are.
    """
    ends = np.cumsum(shares)
    return [int(np.searchsorted(ends[:-1], chain // together * GOLDEN % 1, side="right")) for chain in range(chains)]


def searched_side(window: int, crop: int | str) -> int:
    """The side of the part of a picture that a kernel in a `window` of that many pixels is looked for in."""
    least = 6 * window
    return max(least, min(CROP_SHARE * window, CROP_LARGEST), CROP_SMALLEST) if crop == "auto" else max(least, crop)


def narrower(size: tuple[int, int]) -> list[tuple[int, int]]:
    """A square window and those that are narrower by sqrt(2) again and again, `AUTO_SMALLEST` at least."""
    sides = [size[0]]
    while (side := nearest_odd(sides[-1] / math.sqrt(2))) >= AUTO_SMALLEST:
        sides.append(side)
    return [(side, side) for side in sides]


def distinct(starts: list[Found], count: int) -> list[int]:
    """The numbers of the best `count` of the kernels, best first; of two that are about the same only the better one."""
    chosen: list[int] = []
    for k in sorted(range(len(starts)), key=lambda k: starts[k].misfit):
        h = starts[k].kernel
        if all(float((moved_onto(starts[j].kernel, h) - h).norm() / h.norm()) > SAME for j in chosen):
            chosen.append(k)
    return chosen[:count]


def spread(found: list[Found], best: Found) -> np.ndarray:
    """The standard deviation of the kernels' entries over the searches, each moved onto the best one."""
    moved = torch.stack([moved_onto(each.kernel, best.kernel) for each in found])
    return moved.std(0)[support(best.kernel)].cpu().numpy()


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


PARAMETERS = {"motion": ("length", "degrees"), "gaussian": ("std",), "disk": ("radius",)}
DRAWN = {"motion": kernels.motion, "gaussian": kernels.gaussian, "disk": kernels.disk}
LEAST = 0.3  # pixels: a smaller motion or disk is no blur


def parametric(kind: str, size: int) -> Parametric:
    """The M-step for kernels of one kind, whose lengths are at most about `size` pixels."""

    def draw(phi: tuple[float, ...], scale: float, shape: tuple[int, int]) -> Tensor:
        length, *angles = phi
        values = torch.from_numpy(DRAWN[kind](min(max(scale * length, LEAST), 2.0 * max(shape)), *angles))
        return fitted(values, shape)

    longest = {"motion": size, "gaussian": size / 6, "disk": size / 2}[kind]
    lengths = [longest * k / 8 for k in range(1, 9)]
    if kind == "motion":
        return Parametric(draw, [(n, a) for n in lengths for a in range(0, 180, 15)], (longest / 16, 7.5))
    return Parametric(draw, [(n,) for n in lengths], (longest / 16,))


def fitted(values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A centred kernel with odd sides, cut or padded to the odd `shape`, summing to 1."""
    out = padded(values, shape)
    return out / out.sum()
