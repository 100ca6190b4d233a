"""Settings of every command: typed models, one merge of all their sources, YAML in and out.

Precedence, highest first: flag or `--set` (both for one key is an error), `GPNP_*` variable, config
files (later wins), the user's own config file (machine matters only), what the prior's file carries for
the sampler (`carried`), the preset or the model's default. Keys are written dotted: `sampler.beta`. A
new command is one class and one line in `COMMANDS`.

`python -m gpnp_cli.config` rewrites the JSON schemas that ship in the package.
"""

import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from .denoisers import header
from .errors import UsageError

Origin = str  # "default", "preset NAME", "prior NAME", "flag", "--set", "GPNP_X" or "file.yaml:12"

# The numbers behind `sampler.preset`; benchmarks/presets.py measures them.
# balanced: the paper's step and r with an exact forward draw, a start that knows the low frequencies and so needs no
#   more noise than its own error, and the last noise removed: the best mean and samples per denoiser call.
# calibrated: r makes up for the falling sigma instead (`samplers.gpnp.tracking_r`), over more steps: the spread of
#   the samples is nearest to the posterior's, at some cost in each sample's PSNR.
# published: Bouman & Buzzard 2023.
PRESETS: dict[str, dict[str, Any]] = {
    "balanced": {
        "iterations": 100,
        "sigma_max": 0.25,
        "sigma_min": 0.005,
        "beta": 0.25,
        "r": 1.3,
        "generator": "exact",
        "init": "interpolate",
        "final": "denoise",
    },
    "calibrated": {
        "iterations": 200,
        "sigma_max": 0.5,
        "sigma_min": 0.005,
        "beta": 0.25,
        "r": "auto",
        "generator": "exact",
        "init": "interpolate",
        "final": "denoise",
    },
    "published": {
        "iterations": 100,
        "sigma_max": 0.5,
        "sigma_min": 0.005,
        "beta": 0.25,
        "r": 1.3,
        "generator": "approximate",
        "init": "rbf",
        "final": "state",
    },
}

# What `sampler.method: pnp` takes instead of the preset's numbers: DPIR's schedule (Zhang et al. 2022), which ends at
# the noise of the data or here, whichever is higher; and what a single estimate leaves no choice about.
POINT: dict[str, Any] = {"iterations": 30, "sigma_max": 0.192, "sigma_min": 0.002}
SINGLE: dict[str, Any] = {"samples": 1, "final": "state"}
# DPIR takes 8 calls for circular blur, and more oversmooth there; what lies beyond a real border takes longer to be found.
CIRCULAR = 12

# The same for every method that differs from `gpnp`: its own numbers, and what it leaves no choice about.
METHODS: dict[str, dict[str, Any]] = {
    "pnp": POINT,
    "langevin": {"sigma_max": 0.05, "sigma_min": 0.05},
    "annealed-langevin": {},
    "dps": {"sigma_max": 2.0},
    "diffpir": {},
    "split-gibbs": {"iterations": 20},
}
FIXED: dict[str, dict[str, Any]] = {"pnp": SINGLE, "dps": {"final": "state"}, "diffpir": {"final": "state"}}

# what other programs call a key: only for "did you mean"
SYNONYMS = {
    "steps": "sampler.iterations",
    "step_size": "sampler.beta",
    "sigma_y": "noise",
    "dtype": "run.precision",
    "overwrite": "output.existing",
    "lr": "plan.learning_rate",
    "epochs": "plan.steps",
}

USER_KEYS = ("run.device", "run.threads", "model.model_dir")  # all that the user's own config file may set


def _split(value: Any) -> Any:
    """`mean,std` as well as `[mean, std]`; a shell makes the first easier."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _one(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


def _fraction(value: Any) -> Any:
    """`25/255` as the number it is: papers state noise levels for pixels from 0 to 255."""
    parts = re.fullmatch(r"\s*([0-9.]+)\s*/\s*([0-9.]+)\s*", value) if isinstance(value, str) else None
    try:
        return float(parts[1]) / float(parts[2]) if parts else value
    except (ValueError, ZeroDivisionError):  # 1.2.3, or /0: refused as the text that it is
        return value


def _distinct(value: tuple) -> tuple:
    return tuple(dict.fromkeys(value))


def _shard(value: str) -> str:
    part, count = map(int, value.split("/"))
    if not 1 <= part <= count:
        raise ValueError(f"part {part} of {count} does not exist: parts are numbered from 1 to {count}")
    return value


File = Annotated[Path, AfterValidator(Path.expanduser)]
Level = Annotated[float, Field(gt=0, le=10)]  # a noise level
Iterations = Annotated[int, Field(ge=1, le=100_000)]
Beta = Annotated[float, Field(gt=0, le=1)]  # the step of the chain, in units of sigma squared
PriorWeight = Literal["auto"] | Annotated[float, Field(gt=0, le=5)]  # r
Fraction = Annotated[str, Field(pattern=r"^\s*[0-9.]+\s*/\s*[0-9.]+\s*$")]  # what `_fraction` reads, for editors
Noise = Annotated[  # of the data; a fraction such as 2.55/255 is read, too
    Literal["auto"] | Annotated[float, Field(ge=0, le=1)],
    BeforeValidator(_fraction, json_schema_input_type=Literal["auto"] | Annotated[float, Field(ge=0, le=1)] | Fraction),
]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$")]
Shard = Annotated[str, Field(pattern=r"^[0-9]{1,9}/[0-9]{1,9}$"), AfterValidator(_shard)]

DEVICES = ["auto", "cpu", "mps", "cuda", "cuda:1"]


def _clash(message: str, *keys: str) -> PydanticCustomError:
    """An error between keys of one section; `keys` are looked up for the line to name."""
    return PydanticCustomError("clash", "{message}", {"message": message, "keys": keys})


def _must_fall(sigma_max: float | None, sigma_min: float | None) -> None:
    """Refuse a schedule that rises; None is not known yet."""
    if sigma_max is not None and sigma_min is not None and sigma_min > sigma_max:
        raise _clash(
            f"the noise level must fall, but sigma_min = {sigma_min:g} is above sigma_max = {sigma_max:g}",
            "sigma_min",
            "sigma_max",
        )


class Section(BaseModel):
    """A block of keys. Models are built on first use: importing this module must stay quick."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where they mean nothing: Python would read them as the numbers 1 and 0."""
        values = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, bool) for item in values) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("true and false have no meaning here")
        return value


class Sampler(Section):
    """How samples are drawn."""

    samples: int = Field(3, ge=1, le=10_000, description="Independent posterior samples per picture")
    method: Literal["gpnp", "pnp", "langevin", "annealed-langevin", "dps", "diffpir", "split-gibbs"] = Field(
        "gpnp", description="What draws the samples; or one sharp estimate by half-quadratic splitting (pnp)"
    )
    preset: Literal["balanced", "calibrated", "published"] = Field(
        "balanced",
        description="Values of the keys below: balanced, calibrated for an honest spread, or published as in the paper",
    )
    iterations: Iterations = Field(None, description="Annealing steps, one denoiser call each")
    sigma_max: Level = Field(None, description="First noise level, in units where pixels span 0 to 1")
    sigma_min: Level = Field(None, description="Last noise level, in the same units")
    beta: Beta = Field(None, description="Step size: smaller is more exact, and slower to mix")
    r: PriorWeight = Field(
        None, description="Weight of the prior: more is smoother; auto keeps the spread right while sigma falls"
    )
    generator: Literal["exact", "approximate"] = Field(
        None, description="Draw from the data term: the exact one, or the published approximation"
    )
    init: Literal["noise", "interpolate", "rbf"] = Field(
        None,
        description="First state: noise around mid-grey or around a quick filling, or radial-basis interpolation",
    )
    final: Literal["state", "denoise"] = Field(
        None, description="What a sample is: the last state, or that state with its last noise removed"
    )
    antithetic: bool = Field(
        False,
        description="Draw samples in pairs with opposite noise: half as many independent ones, a far better mean",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Keys not given take the preset's value, so that a `Sampler` always holds concrete numbers."""
        if not isinstance(values, Mapping):
            return values
        given = {key: value for key, value in values.items() if value is not None}
        preset = given.get("preset", cls.model_fields["preset"].default)
        numbers = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        method = given.get("method")
        if isinstance(method, str):
            numbers, given = numbers | METHODS.get(method, {}), given | FIXED.get(method, {})
        return {**{key: numbers[key] for key in numbers if _by_preset(cls.model_fields[key])}, **given}

    @model_validator(mode="after")
    def _falling(self) -> Self:
        _must_fall(self.sigma_max, self.sigma_min)
        if self.antithetic and self.method == "pnp":
            raise _clash("pnp draws no samples, so that none can come in pairs", "antithetic")
        if self.antithetic and self.samples % 2:
            raise _clash(f"pairs with opposite noise take an even number of samples, not {self.samples}", "samples")
        return self


class DeblurSampler(Sampler):
    """How samples are drawn."""

    init: Literal["noise", "observed"] = Field(
        "observed", description="First state: noise around mid-grey, or around the blurred picture"
    )


class SuperResolveSampler(Sampler):
    """How samples are drawn."""

    init: Literal["noise", "observed"] = Field(
        "observed", description="First state: noise around mid-grey, or around the interpolated picture"
    )


class Model(Section):
    """The prior."""

    denoiser: str = Field(
        "default", min_length=1, description="The prior: a name, name:argument, or a file made by train-denoiser"
    )
    tile: Literal["auto", "off"] | Annotated[int, Field(ge=64, le=65_536)] = Field(
        "auto", description="Side in pixels of the tiles that large pictures are denoised in"
    )
    model_dir: File | None = Field(None, description="Folder of downloaded weights, instead of the user's cache")
    offline: bool = Field(False, description="Never download anything")


class Destination(Section):
    """Where results go, and as which kind of file."""

    output: File = Field(
        Path("gpnp_out"), description="Folder for the results, or with a single input the result's file name"
    )
    format: Literal["keep", "png", "tif", "jpg", "webp"] = Field(
        "keep", description="File format of the results; keep is the input's own"
    )
    bits: Literal["keep", 8, 16, 32] = Field("keep", description="Bits per channel; 32 is floating point")
    quality: int = Field(95, ge=1, le=100, description="Quality of lossy formats")
    existing: Literal["skip", "overwrite", "error"] = Field(
        "skip", description="What to do with an input whose results exist"
    )


class Output(Destination):
    """What is written, and where."""

    save: Annotated[
        tuple[Literal["mean", "samples", "std", "sheet", "trace"], ...],
        Field(min_length=1),
        BeforeValidator(_split),
        AfterValidator(_distinct),
    ] = Field(
        ("mean", "samples", "std", "sheet"),
        description="What to write: posterior mean, samples, standard deviation, contact sheet, chains' trace",
    )
    raw: Literal["none", "tif", "npy"] = Field(
        "none", description="Also write the standard deviation as floating-point numbers in this format"
    )


class DenoiseOutput(Destination):
    """What is written, and where."""

    save: Annotated[
        tuple[Literal["mean", "sheet"], ...],
        Field(min_length=1),
        BeforeValidator(_split),
        AfterValidator(_distinct),
    ] = Field(("mean", "sheet"), description="Pictures to write: the denoised one (the posterior mean), contact sheet")


class TrainRun(Section):
    """Randomness and hardware."""

    seed: Annotated[int, Field(ge=0)] | Literal["random"] = Field(
        0, description="Seed of all randomness; random draws one and prints it"
    )
    device: Device = Field("auto", examples=DEVICES, description="Where to compute")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of the network; auto is bf16 where the hardware is made for it"
    )
    threads: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="CPU threads; null leaves it to PyTorch"
    )


class Run(TrainRun):
    """Randomness, hardware and how a batch is worked through."""

    shard: Shard | None = Field(
        None, examples=["1/4"], description="Do only part i of N of the inputs, as i/N, counted from 1"
    )
    fail_fast: bool = Field(False, description="Stop at the first input that fails")
    recursive: bool = Field(False, description="Look into the folders below a given folder, too")
    max_pixels: int = Field(200_000_000, ge=1, description="Refuse pictures with more pixels than this")


class Restoration(Section):
    """The sections that every restoring command has."""

    sampler: Sampler = Field(default_factory=Sampler)
    model: Model = Field(default_factory=Model)
    output: Output = Field(default_factory=Output)
    run: Run = Field(default_factory=Run)


class InpaintConfig(Restoration):
    """Settings of `gpnp inpaint`."""

    mask: str = Field(
        "rect",
        min_length=1,
        examples=["rect", "rect:64,64@96,96", "random:0.1", "scratches", "alpha", "mask.png"],
        description="What is missing; in a mask file white pixels are",
    )
    mask_invert: bool = Field(False, description="Exchange missing and known in the mask")
    noise: float = Field(
        0.0, ge=0, le=1, description="Standard deviation of the noise on the known pixels; 0 leaves them unchanged"
    )
    simulate: bool = Field(False, description="The input is intact: degrade it first, and measure the result")
    reference: File | None = Field(None, description="The true picture, or a folder of them, to measure against")


class DeblurConfig(Restoration):
    """Settings of `gpnp deblur`."""

    kernel: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        examples=["gaussian:1.6", "motion:15,30", "disk:4", "kernel.png", "kernels.npz:k1"],
        description="What blurred the picture: gaussian:STD, motion:LENGTH,DEGREES, disk:RADIUS, or a file",
    )
    border: Literal["real", "circular"] = Field(
        "real", description="A photograph's border, or one where opposite edges touch, for simulated data"
    )
    linear: bool = Field(
        False, description="The pixels follow sRGB's tone curve: undo it first, for a camera blurs light"
    )
    noise: Noise = Field(
        "auto",
        examples=["auto", "0.01", "2.55/255"],
        description="Standard deviation of the noise, pixels spanning 0 to 1; auto estimates it",
    )
    simulate: bool = Field(False, description="The input is intact: degrade it first, and measure the result")
    reference: File | None = Field(None, description="The true picture, or a folder of them, to measure against")
    sampler: DeblurSampler = Field(default_factory=DeblurSampler)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, values: Any) -> Any:
        """A single estimate with circular borders takes `CIRCULAR` calls, if not told otherwise."""
        if isinstance(values, Mapping) and values.get("border") == "circular":
            sampler = values.get("sampler")
            if isinstance(sampler, Mapping) and sampler.get("method") == "pnp" and sampler.get("iterations") is None:
                return {**values, "sampler": {**sampler, "iterations": CIRCULAR}}
        return values


class Search(Section):
    """How the blur kernel is looked for."""

    iterations: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)] = Field(
        "auto", description="Steps of GPnP-EM after each search by edges; auto takes 24, 12 with much noise"
    )
    chains: int = Field(1, ge=1, le=64, description="Chains that share a kernel")
    restarts: int = Field(
        6, ge=1, le=6, description="Weights for edges in each window, and searches that GPnP-EM goes on from"
    )
    average: Literal["auto"] | Annotated[int, Field(ge=1, le=6)] = Field(
        "auto", description="Likely kernels that share the result; auto: 4, or 1 if noisy or above 2 megapixels"
    )
    crop: Literal["auto"] | Annotated[int, Field(ge=64, le=65_536)] = Field(
        "auto",
        description="Side in pixels of the part of a large picture that is searched; auto: 12 times the window",
    )
    regularise: Annotated[
        tuple[Literal["none", "l2", "sparse", "connected"], ...],
        Field(min_length=1),
        BeforeValidator(_split),
        AfterValidator(_distinct),
    ] = Field(
        ("sparse", "connected"),
        description="What a kernel should be: small in energy (l2), of few pixels, of one piece",
    )


class BlindOutput(Output):
    """What is written, and where."""

    save: Annotated[
        tuple[Literal["mean", "samples", "std", "sheet", "kernel", "strip"], ...],
        Field(min_length=1),
        BeforeValidator(_split),
        AfterValidator(_distinct),
    ] = Field(
        ("mean", "samples", "std", "sheet", "kernel", "strip"),
        description="Files to write: mean, samples, standard deviation, contact sheet, kernel, snapshots",
    )
    animation: Literal["none", "gif", "webp"] = Field(
        "none", description="Also write picture and kernel on their way as an animation"
    )


class BlindRun(Run):
    """Randomness, hardware and how a batch is worked through."""

    resume: bool = Field(False, description="Go on where an interrupted search for the kernel was")


class BlindDeblurConfig(Restoration):
    """Settings of `gpnp blind-deblur`."""

    kernel_size: Literal["auto"] | Annotated[int, Field(ge=3, le=501)] = Field(
        "auto",
        examples=["auto", "31"],
        description="Side in pixels of the kernel's window, odd; auto tries some that suit the picture's size",
    )
    kernel_model: Literal["free", "motion", "gaussian", "disk"] = Field(
        "free", description="Any kernel, or a straight motion, a Gaussian, a disk"
    )
    kernel: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        examples=["motion:15,30", "kernel.png", "kernels.npz:k1"],
        description="What blurs the picture with --simulate; it is not used to restore it",
    )
    linear: bool = Field(
        False, description="The pixels follow sRGB's tone curve: undo it first, for a camera blurs light"
    )
    noise: Noise = Field(
        "auto",
        examples=["auto", "0.01", "2.55/255"],
        description="Standard deviation of the noise, pixels spanning 0 to 1; auto estimates it",
    )
    simulate: bool = Field(False, description="The input is intact: blur it first, and measure the result")
    reference: File | None = Field(None, description="The true picture, or a folder of them, to measure against")
    search: Search = Field(default_factory=Search)
    sampler: DeblurSampler = Field(default_factory=DeblurSampler)
    output: BlindOutput = Field(default_factory=BlindOutput)
    run: BlindRun = Field(default_factory=BlindRun)

    @model_validator(mode="after")
    def _middle(self) -> Self:
        if self.kernel_size != "auto" and self.kernel_size % 2 == 0:
            size = self.kernel_size
            raise _clash(
                f"must be odd, for a kernel has a middle: {size - 1} or {size + 1} instead of {size}", "kernel_size"
            )
        return self


class SuperResolveConfig(Restoration):
    """Settings of `gpnp super-resolve`."""

    scale: Literal[2, 3, 4] = Field(2, description="How many times larger the result is than the input, each way")
    kernel: str = Field(
        "bicubic",
        min_length=1,
        examples=["bicubic", "gaussian:1.6", "disk:4", "kernel.png", "kernels.npz:k1"],
        description="Filter before shrinking, in pixels of the result: bicubic, gaussian:STD, disk:RADIUS, or a file",
    )
    border: Literal["real", "circular"] = Field(
        "real", description="A photograph's border, or one where opposite edges touch: for priors of whole pictures"
    )
    noise: Noise = Field(
        0.004,
        examples=["auto", "0.01", "2.55/255"],
        description="Standard deviation of the noise, pixels spanning 0 to 1; auto estimates it",
    )
    simulate: bool = Field(False, description="The input is intact: shrink it first, and measure the result")
    reference: File | None = Field(None, description="The true picture, or a folder of them, to measure against")
    sampler: SuperResolveSampler = Field(default_factory=SuperResolveSampler)


class DenoiseConfig(Section):
    """Settings of `gpnp denoise`."""

    sigma: Annotated[
        Literal["auto"] | Level,
        BeforeValidator(_fraction, json_schema_input_type=Literal["auto"] | Level | Fraction),
    ] = Field(
        "auto",
        examples=["auto", "0.1", "25/255"],
        description="Standard deviation of the noise, pixels spanning 0 to 1; auto estimates it",
    )
    add_noise: Annotated[Level | None, BeforeValidator(_fraction, json_schema_input_type=Level | Fraction | None)] = (
        Field(
            None,
            examples=["0.1", "25/255"],
            description="The input is intact: add noise of this level first, and measure the result",
        )
    )
    reference: File | None = Field(None, description="The true picture, or a folder of them, to measure against")
    model: Model = Field(default_factory=Model)
    output: DenoiseOutput = Field(default_factory=DenoiseOutput)
    run: Run = Field(default_factory=Run)


class Network(Section):
    """The network to train."""

    architecture: Literal["unet", "attention-unet"] = Field(
        "unet", description="For pictures of any size (unet), or for whole pictures of one size (attention-unet)"
    )
    channels: Literal[1, 3] = Field(3, description="3 for colour (grey pictures work, too), 1 for grey only")
    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=8)] = Field(
        (64, 128, 192, 256), description="Channels per level, the first at half the picture's resolution"
    )
    blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)] = Field(
        (3, 2, 2, 2), description="Residual blocks per level, as many numbers as widths"
    )
    embedding: int = Field(64, ge=1, le=4096, description="Size of the noise level's embedding")
    sigma_data: float = Field(0.25, gt=0, le=10, description="Standard deviation of pixel values, for scaling")
    attention: Annotated[int, Field(ge=0, le=8)] | None = Field(
        None, description="Lowest levels that have self-attention, for attention-unet only, where null is 2"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """What an architecture's options are when they are not given."""
        if isinstance(values, Mapping) and values.get("architecture") == "attention-unet":
            return {**values, "attention": 2 if values.get("attention") is None else values["attention"]}
        return values

    @model_validator(mode="after")
    def _attentive(self) -> Self:
        if self.attention is not None and self.architecture == "unet":
            raise _clash("attention is an option of architecture attention-unet, not of unet", "attention")
        if (self.attention or 0) > len(self.widths):
            raise _clash(
                f"attention in {self.attention} levels, but widths has {len(self.widths)}", "attention", "widths"
            )
        return self

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if len(self.widths) != len(self.blocks):
            raise _clash(
                f"blocks and widths need as many numbers as there are levels, but blocks has {len(self.blocks)} "
                f"and widths {len(self.widths)}",
                "blocks",
                "widths",
            )
        return self


class TrainPlan(Section):
    """How long and how fast to train."""

    steps: int = Field(100_000, ge=1, description="Optimiser steps")
    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Stop after this time if the steps are not done yet; the learning rate follows"
    )
    batch: int = Field(64, ge=1, le=65_536, description="Crops per step")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Largest learning rate, reached after the warm-up")
    warmup: int = Field(500, ge=1, description="Steps over which the learning rate rises")
    clip: float = Field(1.0, gt=0, description="Largest gradient norm")
    ema: float = Field(0.9995, ge=0, lt=1, description="Decay of the averaged weights")
    ema_profiles: Annotated[tuple[Annotated[float, Field(gt=0, le=0.28)], ...], AfterValidator(_distinct)] = Field(
        (), description="Widths of power-function averages kept beside it, for `gpnp denoisers average`: [0.05, 0.1]"
    )
    ema_every: int = Field(500, ge=1, description="Steps between two snapshots of these averages")
    weight_decay: float = Field(0.0, ge=0, le=10, description="Weight decay of AdamW")
    grey_share: float = Field(0.25, ge=0, le=1, description="Share of the crops shown as grey pictures")
    log_every: int = Field(50, ge=1, description="Steps between two reports of the loss")
    validate_every: int = Field(2000, ge=1, description="Steps between two validations")


class TrainSigma(Section):
    """The noise levels to train on: log-normal around `focus`, in part log-uniform."""

    low: float = Field(0.0015, gt=0, le=10, description="Lowest noise level, in units where pixels span 0 to 1")
    high: float = Field(2.2, gt=0, le=10, description="Highest noise level")
    focus: float = Field(0.09, gt=0, le=10, description="Noise level drawn most often")
    spread: float = Field(1.1, ge=0, le=10, description="Standard deviation of its logarithm")
    uniform: float = Field(0.3, ge=0, le=1, description="Share drawn evenly over the whole range instead")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise _clash(
                f"the range of noise levels is empty: low = {self.low:g} is not below high = {self.high:g}",
                "low",
                "high",
            )
        if not self.low <= self.focus <= self.high:
            raise _clash(
                f"focus = {self.focus:g} is outside the range from low = {self.low:g} to high = {self.high:g}",
                "focus",
                "low",
                "high",
            )
        return self


class TrainAugment(Section):
    """What is done to a training crop."""

    scale_max: float = Field(4.0, ge=1, le=64, description="Pictures are shrunk by a random factor up to this")
    flip: bool = Field(True, description="Left-right")
    turn: bool = Field(True, description="Quarter turns")
    colour: bool = Field(True, description="Gamma, gain and saturation")
    texture: float = Field(0.7, ge=0, le=1, description="Share of the crops drawn where there is texture")


class Carried(Section):
    """What restorations by method gpnp take with this prior unless told otherwise; its file carries it. Null: nothing."""

    iterations: Iterations | None = Field(None, description="Annealing steps, one denoiser call each")
    sigma_max: Level | None = Field(None, description="First noise level: high enough to change what is in a hole")
    sigma_min: Level | None = Field(None, description="Last noise level")
    beta: Beta | None = Field(None, description="Step size: smaller is more exact, and slower to mix")
    r: PriorWeight | None = Field(None, description="Weight of the prior, or auto, which follows the falling sigma")

    @model_validator(mode="after")
    def _falling(self) -> Self:
        _must_fall(self.sigma_max, self.sigma_min)
        return self


class TrainConfig(Section):
    """Settings of `gpnp train-denoiser`."""

    data: Annotated[tuple[File, ...], BeforeValidator(_one)] = Field((), description="Folders of training pictures")
    folder: File = Field(Path("runs/denoiser"), description="The run's folder: checkpoints, log and the denoiser")
    resume: bool = Field(False, description="Go on where the run in this folder stopped")
    start: str | None = Field(None, description="Weights to begin with: default, or a denoiser file; none begins anew")
    crop: int = Field(
        96, ge=16, le=4096, multiple_of=16, description="Side in pixels of a training crop, or of a whole picture"
    )
    validation: float = Field(0.1, ge=0, lt=1, description="Share of the pictures kept for validation")
    cache: str = Field(
        "4G",
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?[KMGT]$",
        examples=["500M", "4G"],
        description="Memory for decoded pictures, on the device that trains",
    )
    checkpoint_minutes: float = Field(5.0, gt=0, description="Minutes between two checkpoints")
    tensorboard: bool = Field(False, description="Also log for TensorBoard")
    compile: bool = Field(False, description="Compile the network: slow to start, faster on a GPU")
    network: Network = Field(default_factory=Network)
    plan: TrainPlan = Field(default_factory=TrainPlan)
    sigma: TrainSigma = Field(default_factory=TrainSigma)
    augment: TrainAugment = Field(default_factory=TrainAugment)
    carried: Carried = Field(default_factory=Carried)
    run: TrainRun = Field(default_factory=TrainRun)

    @property
    def cache_bytes(self) -> int:
        """`cache` in bytes; K, M, G and T are powers of 1024."""
        return int(float(self.cache[:-1]) * 1024 ** ("KMGT".index(self.cache[-1]) + 1))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        stride = 2 ** len(self.network.widths)
        if self.crop % stride:
            raise _clash(
                f"crop = {self.crop} is not a multiple of {stride}, as {len(self.network.widths)} network.widths need",
                "crop",
                "network.widths",
            )
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Whole pictures are neither enlarged parts of themselves nor drawn by their texture."""
        given = {"augment.scale_max = 1": self.augment.scale_max == 1, "augment.texture = 0": self.augment.texture == 0}
        needed = [name for name, so in given.items() if not so]
        if needed and self.network.architecture == "attention-unet":
            raise _clash(
                f"architecture attention-unet learns whole pictures: it needs {' and '.join(needed)}",
                *(name.split()[0] for name in needed),
                "network.architecture",
            )
        return self


class SampleSampler(Section):
    """What is drawn, and how."""

    samples: int = Field(4, ge=1, le=10_000, description="Independent chains, one sample each")
    method: Literal["diffusion", "annealed-langevin", "langevin", "gpnp", "metropolis", "hastings", "mala"] = Field(
        "diffusion",
        description="From a denoiser: diffusion, ...langevin, gpnp; from an energy: metropolis, hastings, mala",
    )
    iterations: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, description="Steps or sweeps; null is 50 for diffusion, 1000 for an energy, 200 otherwise"
    )
    sigma_max: float = Field(2.0, gt=0, le=10, description="First noise level; langevin has but one, sigma_min")
    sigma_min: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None, description="Last noise level; null is 0.05 for langevin, which holds it, 0.005 otherwise"
    )
    beta: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Step of langevin and gpnp in units of sigma squared; null is 0.25"
    )
    churn: float = Field(
        20.0, ge=0, le=1000, description="Noise that diffusion adds on its way (S_churn of EDM); 0 is its ODE"
    )

    @model_validator(mode="after")
    def _falling(self) -> Self:
        _must_fall(self.sigma_max, self.sigma_min)
        return self


class Chains(Section):
    """Markov chains on an energy: p(x) is proportional to exp(-energy / temperature)."""

    energy: str = Field(
        "ising",
        min_length=1,
        examples=["ising", "potts:q=4", "mrf:p=1.2,theta=10", "mine.py:energy"],
        description="The energy: ising, potts or mrf with options, or a function of a Python file",
    )
    temperature: float = Field(1.0, gt=0, description="Temperature; the Ising model's critical one is 2.269")
    proposal: str = Field(
        "auto",
        min_length=1,
        examples=["auto", "walk", "log-walk", "independent:0.5,0.25", "mine.py:Proposal"],
        description="What is proposed; auto: a sweep over sites or a random walk, log-walk for hastings",
    )
    step: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Standard deviation of a walk, or epsilon of mala; null finds one by a pilot chain"
    )
    burn_in: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Iterations at the start that do not count; null is half of them"
    )


class SampleOutput(Section):
    """What is written, and where."""

    output: File = Field(Path("gpnp_out"), description="Folder for the results")
    save: Annotated[
        tuple[Literal["samples", "sheet", "trace"], ...],
        Field(min_length=1),
        BeforeValidator(_split),
        AfterValidator(_distinct),
    ] = Field(("samples", "sheet", "trace"), description="What to write: samples, contact sheet, traces of chains")
    strip: int = Field(0, ge=0, le=100, description="Also write a strip of so many states on the first chain's way")


class SampleConfig(Section):
    """Settings of `gpnp sample`."""

    size: str = Field(
        "256x256",
        pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$",
        examples=["256x256"],
        description="Height x width of a sample in pixels",
    )
    channels: Literal[1, 3] | None = Field(None, description="3 for colour, 1 for grey; null is 3, and 1 for an energy")
    sampler: SampleSampler = Field(default_factory=SampleSampler)
    chains: Chains = Field(default_factory=Chains)
    model: Model = Field(default_factory=Model)
    output: SampleOutput = Field(default_factory=SampleOutput)
    run: TrainRun = Field(default_factory=TrainRun)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        height, width = map(int, self.size.split("x"))
        return self.channels or (1 if self.has_energy else 3), height, width

    @property
    def has_energy(self) -> bool:
        return self.sampler.method in ("metropolis", "hastings", "mala")


class CompareConfig(Section):
    """Settings of `gpnp compare`."""

    mask: str | None = Field(
        None,
        min_length=1,
        examples=["rect", "rect:64,64@96,96", "random:0.1", "scratches", "mask.png"],
        description="Damage by missing pixels, as for inpaint",
    )
    kernel: str | None = Field(
        None,
        min_length=1,
        examples=["gaussian:1.6", "motion:15,30", "disk:4", "kernel.png", "kernels.npz:k1"],
        description="Damage by a blur, as for deblur",
    )
    border: Literal["real", "circular"] = Field("real", description="Border of the blur, as for deblur")
    noise: Annotated[
        float,
        Field(ge=0, le=1),
        BeforeValidator(_fraction, json_schema_input_type=Annotated[float, Field(ge=0, le=1)] | Fraction),
    ] = Field(0.0, examples=["0.01", "2.55/255"], description="Standard deviation of the noise that is added")
    samplers: Annotated[
        tuple[
            Literal[
                "gpnp",
                "gpnp:balanced",
                "gpnp:calibrated",
                "gpnp:published",
                "split-gibbs",
                "annealed-langevin",
                "langevin",
                "diffpir",
                "dps",
                "pnp",
            ],
            ...,
        ],
        Field(min_length=1),
        BeforeValidator(_split),
        AfterValidator(_distinct),
    ] = Field(
        ("gpnp", "gpnp:published", "split-gibbs", "annealed-langevin", "diffpir", "dps"),
        description="What to compare: values of --sampler, gpnp with a preset after a colon",
    )
    nfe: int = Field(100, ge=10, le=100_000, description="Denoiser calls that each sample may take")
    samples: int = Field(3, ge=1, le=1000, description="Samples of each sampler; the mean is theirs")
    output: File = Field(Path("gpnp_out"), description="Folder for the results")
    model: Model = Field(default_factory=Model)
    run: TrainRun = Field(default_factory=TrainRun)


class DiagnoseConfig(Section):
    """Settings of `gpnp diagnose`."""

    output: File | None = Field(None, description="Folder for the findings; null is the manifest's own")
    reference: File | None = Field(None, description="The true picture, to measure the intervals' coverage against")


COMMANDS: dict[str, type[Section]] = {
    "inpaint": InpaintConfig,
    "deblur": DeblurConfig,
    "blind-deblur": BlindDeblurConfig,
    "super-resolve": SuperResolveConfig,
    "denoise": DenoiseConfig,
    "train-denoiser": TrainConfig,
    "sample": SampleConfig,
    "compare": CompareConfig,
    "diagnose": DiagnoseConfig,
}


# Keys and values


def _section(info: FieldInfo) -> type[Section] | None:
    """The model behind a field that is a section, None for a plain key."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _fields(model: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of all plain keys; those outside sections come first."""
    sections = []
    for name, info in model.model_fields.items():
        inner = _section(info)
        if inner is None:
            yield prefix + name, info
        else:
            sections.append((name, inner))
    for name, inner in sections:
        yield from _fields(inner, f"{prefix}{name}.")


@cache
def keys(command: str) -> dict[str, FieldInfo]:
    """The dotted keys of a command and their fields. Raises `UsageError` for an unknown command."""
    if command not in COMMANDS:
        near = _near(command, COMMANDS)
        hint = f"did you mean '{near}'?" if near else f"known: {', '.join(COMMANDS)}"
        raise UsageError(f"there is no configuration for a command '{command}'", hint=hint)
    return dict(_fields(COMMANDS[command]))


def help_text(command: str, key: str) -> str:
    """One line for `--help`: the key's description and its default."""
    info = keys(command)[key]
    if _by_preset(info):
        own = "the prior's, else " if key.rpartition(".")[2] in Carried.model_fields else ""
        return f"{info.description} [default: {own}the preset's]"
    default = info.get_default(call_default_factory=True)
    if default is None or default is False or default == ():
        return str(info.description)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{info.description} [default: {shown}]"


def variable(key: str) -> str:
    """The environment variable of a dotted key: sampler.sigma_max is GPNP_SAMPLER_SIGMA_MAX."""
    return "GPNP_" + re.sub(r"[.-]", "_", key).upper()


def _by_preset(info: FieldInfo) -> bool:
    """Whether the default comes from `sampler.preset`; only these keys have None where None is not allowed."""
    return info.default is None and NoneType not in _kinds(info.annotation)


def _kinds(annotation: Any) -> set[Any]:
    """The types a value may have, with Annotated and unions taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {origin or annotation}


def _is_text(info: FieldInfo) -> bool:
    return _kinds(info.annotation) <= {str, Path, NoneType}


def _near(word: str, known: Any, cutoff: float = 0.6) -> str | None:
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def _suggest(key: str, model: type[Section]) -> str:
    """`; did you mean X?` for an unknown dotted key, or an empty string."""
    head, _, leaf = key.rpartition(".")
    known = [name for name, _ in _fields(model)]
    sections = [name for name, info in model.model_fields.items() if _section(info)]
    siblings = {name.rpartition(".")[2]: name for name in [*known, *sections] if name.rpartition(".")[0] == head}
    leaves = {name.rpartition(".")[2]: name for name in known}
    synonyms = {word: name for word, name in SYNONYMS.items() if name in known and word not in leaves}

    def search(word: str, names: Mapping[str, str], cutoff: float) -> str | None:
        return names.get(_near(word, names, cutoff) or "")

    near = (
        search(leaf, siblings, 0.75)
        or search(leaf, synonyms, 0.75)
        or leaves.get(leaf)  # the right name in the wrong place
        or search(leaf, siblings, 0.55)
        or search(key, dict(zip(known, known, strict=True)), 0.7)
        or search(leaf, leaves, 0.75)
    )
    if near:
        return f"; did you mean {near}?"
    other = next((command for command, kind in COMMANDS.items() if kind is not model and key in keys(command)), None)
    return f"; it belongs to {other}" if other else ""


@dataclass(frozen=True)
class _Given:
    """A value that somebody wrote: where, and as which text."""

    value: Any
    origin: Origin
    text: str | None = None


# YAML in


@cache
def _loader() -> type:
    """PyYAML's safe loader with the plain values of YAML 1.2: only true and false are booleans (`tile: off`
    stays text), 1e-3 is a number, 1:30 and 2024-01-01 are text. Aliases are refused: no config needs them, and
    a few of them can stand for gigabytes."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: ClassVar[dict] = {}  # none of YAML 1.1

        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported", mark)
            return super().compose_node(parent, index)

    number = r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
        ("float", number, "-+.0123456789"),
    ):
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))
    return Loader


class _BadYaml(Exception):
    """Not YAML, or YAML beyond plain values, lists and mappings; `line` counts from 1."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


def _compose(text: str) -> Any:
    """The root node of a YAML text, None when it is empty."""
    import yaml

    try:
        return yaml.compose(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "something is wrong"
        if "'\\t'" in problem:
            problem = "a tab cannot indent YAML; use spaces"
        elif "expected a single document" in (error.context or ""):
            problem = "only one document (no second '---') is allowed"
        raise _BadYaml(problem, mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:  # a reader error has no mark
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        raise _BadYaml("a character that YAML does not allow", line) from None
    except RecursionError:
        raise _BadYaml("it is nested too deeply") from None


def _construct(node: Any) -> Any:
    """A node as plain Python; never an object of any other class."""
    import yaml

    line = node.start_mark.line + 1
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_construct(item) for item in node.value]
    if isinstance(node, yaml.MappingNode) and kind == "map":
        return {str(_construct(key)): _construct(value) for key, value in node.value}
    if isinstance(node, yaml.ScalarNode) and kind in ("str", "null", "bool", "int", "float"):
        text = node.value
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    base = {"0x": 16, "0o": 8}.get(text[:2], 10)
                    return int(text[2:] if base != 10 else text.replace("_", ""), base)
                case "float":
                    named = text.lower().replace(".inf", "inf").replace(".nan", "nan")
                    return float(named.replace("_", ""))
        except ValueError:  # !!int x, or more digits than Python converts
            return text
        return text
    raise _BadYaml(f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not supported", line)


def _from_text(text: str, info: FieldInfo) -> Any:
    """The value of a `--set`, a flag or a variable: YAML, but text as it stands where text is wanted."""
    is_text = _is_text(info)
    try:
        node = _compose(text)
        value = None if node is None else _construct(node)
    except (_BadYaml, RecursionError):
        return text
    quoted = isinstance(value, str) and text.strip()[:1] in ("'", '"')
    return text if is_text and value is not None and not quoted else value


def _walk(
    node: Any,
    model: type[Section],
    label: str,
    problems: list[str],
    prefix: str = "",
    root: type[Section] | None = None,
) -> Iterator[tuple[str, _Given]]:
    """(dotted key, `_Given`) of all known keys below a mapping node; what is wrong with the rest goes to `problems`."""
    import yaml

    root = root or model
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        where = f"{label}:{line}"
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"{where}: a key must be a plain word")
            continue
        name = key_node.value
        key = prefix + name
        if name in seen:
            problems.append(f"{where}: {key}: given twice, first in line {seen[name]}")
            continue
        seen[name] = line
        if not prefix and name == "command":
            continue
        info = model.model_fields.get(name)
        section = _section(info) if info else None
        if info is None:
            problems.append(f"{where}: {key}: unknown key{_suggest(key, root)}")
        elif section is None:
            try:
                value = _construct(value_node)
            except _BadYaml as error:
                problems.append(f"{label}:{error.line or line}: {key}: {error.problem}")
                continue
            text = value_node.value if isinstance(value_node, yaml.ScalarNode) else None
            if _is_text(info) and isinstance(value, int | float) and not isinstance(value, bool):
                value = text  # a folder called 2024
            yield key, _Given(value, where, text)
        elif isinstance(value_node, yaml.MappingNode):
            yield from _walk(value_node, section, label, problems, f"{key}.", root)
        elif value_node.tag != "tag:yaml.org,2002:null":  # a section whose keys are all commented out is empty
            problems.append(f"{where}: {key}: is a section; its keys belong below it, indented")


def _open(path: Path, problems: list[str]) -> Any:
    """The root mapping node of a file; None when it is empty, or when a problem was noted."""
    import yaml

    try:
        text = path.read_bytes().decode("utf-8")
        root = _compose(text)
    except FileNotFoundError:
        problems.append(f"{path}: no such file")
    except IsADirectoryError:
        problems.append(f"{path}: is a folder, not a file")
    except OSError as error:
        is_folder = path.is_dir()  # Windows says "permission denied" for a folder
        problems.append(
            f"{path}: is a folder, not a file" if is_folder else f"{path}: cannot be read ({error.strerror})"
        )
    except UnicodeDecodeError:
        problems.append(f"{path}: not a text file in UTF-8")
    except _BadYaml as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        problems.append(f"{where}: not valid YAML: {error.problem}")
    else:
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return None
        if isinstance(root, yaml.MappingNode):
            return _settings(root)
        problems.append(f"{path}:{root.start_mark.line + 1}: must hold `key: value` lines")
    return None


def _settings(root: Any) -> Any:
    """The mapping that holds the settings: of a result's manifest (.gpnp.json) its `config`, else `root` itself."""
    import yaml

    parts = {key.value: value for key, value in root.value if isinstance(key, yaml.ScalarNode)}
    inner = parts.get("config") if "gpnp_manifest" in parts else None
    return inner if isinstance(inner, yaml.MappingNode) else root


def _declared(root: Any) -> tuple[str, int] | None:
    """The (value, line) of a file's top-level `command:` key."""
    for key_node, value_node in root.value if root else ():
        if key_node.value == "command":
            return str(value_node.value), key_node.start_mark.line + 1
    return None


def _from_file(path: Path, command: str, problems: list[str]) -> Iterator[tuple[str, _Given]]:
    root = _open(path, problems)
    if root is None:
        return
    declared = _declared(root)
    if declared and declared[0] != command:
        name, line = declared
        if name in COMMANDS:
            problems.append(f"{path}:{line}: command: this file is for {name}, not for {command}")
        else:
            problems.append(_unknown_command(path, line, name))
        return
    yield from _walk(root, COMMANDS[command], str(path), problems)


def _unknown_command(path: Path, line: int, name: str) -> str:
    near = _near(name, COMMANDS)
    guess = f"; did you mean {near}?" if near else ""
    return f"{path}:{line}: command: unknown value (given '{name}'; allowed: {', '.join(COMMANDS)}){guess}"


def user_file() -> Path:
    """The user's own config file; it need not exist."""
    from platformdirs import user_config_path

    return user_config_path("gpnp", appauthor=False) / "config.yaml"


def _from_user(command: str, problems: list[str]) -> Iterator[tuple[str, _Given]]:
    """The user's own file: only `USER_KEYS`, since anything else would change results behind the user's back."""
    path = user_file()
    root = _open(path, problems) if path.exists() else None
    if root is None:
        return
    for key, given in _walk(root, InpaintConfig, str(path), problems):
        if key not in USER_KEYS:
            problems.append(f"{given.origin}: {key}: cannot be set in this file (allowed: {', '.join(USER_KEYS)})")
        elif key in keys(command):
            yield key, given


def _from_environment(command: str, env: Mapping[str, str], problems: list[str]) -> Iterator[tuple[str, _Given]]:
    """`GPNP_*` variables; one of another command's keys is no error, an empty one counts as not set."""
    mine = {variable(key): key for key in keys(command)}
    known = {variable(key) for name in COMMANDS for key in keys(name)}
    for name in sorted(name for name in env if name.startswith("GPNP_")):
        if name in mine:
            if env[name].strip():
                key = mine[name]
                yield key, _Given(_from_text(env[name], keys(command)[key]), name, env[name])
        elif name not in known:
            near = _near(name, known)
            problems.append(f"{name}: no setting has this variable{f'; did you mean {near}?' if near else ''}")


def _key_problem(key: str, command: str) -> str | None:
    """What is wrong with a dotted key, None when it is a plain key of the command."""
    known = keys(command)
    if key in known:
        return None
    inner = [name for name in known if name.startswith(f"{key}.")]
    if inner:
        return f"is a section; set one of its keys: {', '.join(inner)}"
    return f"unknown key{_suggest(key, COMMANDS[command])}"


def _from_sets(command: str, sets: Sequence[str], problems: list[str]) -> Iterator[tuple[str, _Given]]:
    for item in sets:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals:
            problems.append(f"--set: {item}: a value is missing; write --set KEY=VALUE")
        elif problem := _key_problem(key, command):
            problems.append(f"--set: {key}: {problem}")
        else:
            yield key, _Given(_from_text(text, keys(command)[key]), "--set", text)


def _from_flags(command: str, flags: Mapping[str, Any], problems: list[str], prefix: str = "") -> Iterator:
    """Flags by dotted key, or nested as `dump` makes them; None and empty lists count as not given."""
    for name, value in flags.items():
        key = prefix + name
        value = value.value if isinstance(value, Enum) else value
        if value is None or value in ([], ()):
            continue
        if key == "command":
            if value != command:
                problems.append(f"command line: command: these values are for {value}, not for {command}")
        elif isinstance(value, Mapping) and key not in keys(command):
            yield from _from_flags(command, value, problems, f"{key}.")
        elif problem := _key_problem(key, command):
            problems.append(f"command line: {key}: {problem}")
        else:
            info = keys(command)[key]
            text = value if isinstance(value, str) else None
            # quotes and such were the shell's business: text stays as it is
            yield key, _Given(_from_text(value, info) if text and not _is_text(info) else value, "flag", text)


def _from_prior(command: str, merged: Mapping[str, _Given], problems: list[str]) -> Iterator[tuple[str, _Given]]:
    """What the prior's file carries for keys that nobody gave; nothing for another method or a preset that was chosen."""
    if "sampler.preset" not in keys(command):
        return
    chosen = {key: given.value for key, given in merged.items() if given.value is not None}
    denoiser = chosen.get("model.denoiser", keys(command)["model.denoiser"].default)
    if "sampler.preset" in chosen or chosen.get("sampler.method", "gpnp") != "gpnp" or not isinstance(denoiser, str):
        return
    try:
        own = carried(denoiser)
    except ConfigError as error:
        problems += error.problems
        return
    for name, value in own.items():
        if (key := f"sampler.{name}") not in chosen:
            yield key, _Given(value, f"prior {denoiser}")


def carried(denoiser: str) -> dict[str, Any]:
    """The keys of `Carried` that the file of a prior has values for; {} for a prior without a file.

    A file that is missing or damaged has none, and the message about it comes from where it is loaded. Raises
    `ConfigError` for an unknown key or an impossible value.
    """
    path, found = header.carried(denoiser)
    if not isinstance(found, dict):
        raise ConfigError([f"{path}: carried: must hold settings of the sampler by name (given {_shown(found)})"])
    problems: list[str] = []
    given = {}
    for name, value in found.items():
        if problem := _key_problem(f"carried.{name}", "train-denoiser"):
            problems.append(f"{path}: carried.{name}: {problem}")
        else:
            given[f"carried.{name}"] = _Given(value, str(path))
    config = _validate("train-denoiser", given, problems)
    if problems or config is None:
        raise ConfigError(problems)
    return config.carried.model_dump(exclude_none=True)


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings for a sentence or a table: `sigma_max 1, r auto`."""
    numbers = {name: f"{value:g}" if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(f"{name} {value}" for name, value in numbers.items())


# Merging and checking


class ConfigError(UsageError):
    """Everything that is wrong with a configuration; `problems` has one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        lines = "\n  ".join([f"{len(problems)} problems in the configuration:", *problems])
        super().__init__(problems[0] if len(problems) == 1 else lines)
        self.problems = list(problems)


@dataclass(frozen=True)
class Resolved:
    """The effective configuration of one command, and where each dotted key's value came from."""

    command: str
    config: Any
    origins: dict[str, Origin]

    @property
    def by_prior(self) -> dict[str, Any]:
        """The sampler's settings that came with the prior, without their section's name."""
        denoiser = _value(self.config, "model.denoiser") if "model.denoiser" in keys(self.command) else None
        own = [key for key, origin in self.origins.items() if origin == f"prior {denoiser}"]
        return {key.rpartition(".")[2]: _value(self.config, key) for key in own}


def resolve(
    command: str,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    env: Mapping[str, str] = os.environ,
) -> Resolved:
    """Merge all sources. Raises `ConfigError` listing every problem of every source."""
    keys(command)  # an unknown command is refused before anything is read
    problems: list[str] = []
    merged = dict(_from_user(command, problems))
    for path in files:
        merged |= dict(_from_file(Path(path), command, problems))
    merged |= dict(_from_environment(command, env, problems))
    by_set = dict(_from_sets(command, sets, problems))
    by_flag = dict(_from_flags(command, flags or {}, problems))
    problems += [
        f"command line: {key}: given both as a flag and with --set; keep one" for key in by_flag if key in by_set
    ]
    merged |= by_set | by_flag
    merged |= dict(_from_prior(command, merged, problems))
    config = _validate(command, merged, problems)
    if problems or config is None:
        raise ConfigError(problems)
    return Resolved(command, config, _origins(command, config, merged))


def _origins(command: str, config: Section, merged: Mapping[str, _Given]) -> dict[str, Origin]:
    origins = {}
    method = config.sampler.method if "sampler.preset" in keys(command) else ""
    fixed = {f"sampler.{name}" for name in FIXED.get(method, {})}
    by_method = fixed | {f"sampler.{name}" for name in METHODS.get(method, {})}
    for key, info in keys(command).items():
        absent = key not in merged or merged[key].value is None
        if key in by_method and (absent or key in fixed):
            origins[key] = f"method {method}"
        elif _by_preset(info) and absent:
            origins[key] = f"preset {config.sampler.preset}"
        else:
            origins[key] = merged[key].origin if key in merged else "default"
    return origins


def _validate(command: str, merged: Mapping[str, _Given], problems: list[str]) -> Section | None:
    """The model, or None with the reasons appended to `problems`."""
    tree: dict[str, Any] = {}
    for key, given in merged.items():
        *path, leaf = key.split(".")
        place = tree
        for name in path:
            place = place.setdefault(name, {})
        place[leaf] = given.value
    try:
        return COMMANDS[command].model_validate(tree)
    except ValidationError as error:
        grouped: dict[tuple, list] = {}
        for item in error.errors(include_url=False):
            grouped.setdefault(_locate(command, item), []).append(item)
        for (key, index), items in grouped.items():
            # a list whose items are all bad counts as too short, too
            if index is None and any(other == key and i is not None for other, i in grouped):
                continue
            problems.append(_explain(command, merged, key, index, items))
        return None


def _locate(command: str, item: Any) -> tuple[str, int | None]:
    """(dotted key, list index) of a pydantic error; a clash is filed under its first key."""
    loc = item["loc"]
    if item["type"] == "clash":
        return ".".join([*loc, item["ctx"]["keys"][0]]), None
    known = keys(command)
    for length in range(1, len(loc) + 1):
        key = ".".join(map(str, loc[:length]))
        if key in known:
            return key, next((part for part in loc[length:] if isinstance(part, int)), None)
    return ".".join(map(str, loc)), None


_REASONS = {
    "literal_error": "unknown value",
    "finite_number": "must be a finite number",
    "string_pattern_mismatch": "not understood",
    "int_from_float": "must be a whole number",
    "greater_than": "out of range",
    "greater_than_equal": "out of range",
    "less_than": "out of range",
    "less_than_equal": "out of range",
    "multiple_of": "out of range",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "too_long": "too many values",
}


def _explain(command: str, merged: Mapping[str, _Given], key: str, index: int | None, items: list) -> str:
    """One problem as `origin: key: reason (given; allowed); did you mean X?`."""
    first = items[0]
    if first["type"] == "clash":
        head = key.rpartition(".")[0]
        involved = [f"{head}.{name}" if head else name for name in first["ctx"]["keys"]]
        key = next((name for name in involved if name in merged), key)  # the one that somebody wrote
        return f"{_place(merged.get(key))}: {key}: {first['ctx']['message']}"
    given = merged.get(key)
    rule = _rules(command)[key]
    if len({item["type"] for item in items}) > 1:  # of a union, each part has its own complaint
        reason = "not allowed"
    elif first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
    else:
        reason = _REASONS.get(first["type"], "not allowed")
    value = first["input"] if index is not None or given is None or given.text is None else given.text
    guess = _near(value.lower(), _choices(rule)) if isinstance(value, str) else None
    near = f"; did you mean {guess}?" if guess else ""
    return f"{_place(given)}: {key}: {reason} (given {_shown(value)}; allowed: {_allowed(rule)}){near}"


def _place(given: _Given | None) -> str:
    if given is None:
        return "configuration"
    return "command line" if given.origin == "flag" else given.origin


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    text = repr(value) if not isinstance(value, str) or not _is_number(value) else value
    return text if len(text) <= 60 else text[:57] + "..."


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+.0-9eE_]*[0-9.][-+.0-9eE_]*|[-+]?\.(inf|nan)|true|false", text, re.IGNORECASE) is not None


def check_file(path: Path | str, command: str | None = None) -> list[str]:
    """All problems of one config file by itself; an empty list when it is good.

    Without `command` the file's own `command:` key decides, and without that the command it fits best.
    """
    path = Path(path)
    problems: list[str] = []
    declared = _declared(_open(path, problems))
    if problems:
        return problems
    if command is None and declared:
        name, line = declared
        if name not in COMMANDS:
            return [_unknown_command(path, line, name)]
        command = name
    if command is not None:
        keys(command)
        merged = dict(_from_file(path, command, problems))
        _validate(command, merged, problems)
        return problems
    return min((check_file(path, name) for name in COMMANDS), key=len)


# Schema and YAML out


@cache
def _rules(command: str) -> dict[str, dict]:
    """The JSON schema of each dotted key."""
    whole = COMMANDS[command].model_json_schema()

    def properties(part: dict, prefix: str) -> Iterator[tuple[str, dict]]:
        for name, rule in part["properties"].items():
            if "$ref" in rule:
                yield from properties(whole["$defs"][rule["$ref"].rpartition("/")[2]], f"{prefix}{name}.")
            else:
                yield prefix + name, rule

    return dict(properties(whole, ""))


def _choices(rule: dict) -> list[str]:
    """The words a value may be, for suggestions."""
    parts = [rule, *rule.get("anyOf", ()), rule.get("items", {})]
    found = [word for part in parts for word in [*part.get("enum", ()), part.get("const")]]
    return [word for word in [*found, *rule.get("examples", ())] if isinstance(word, str)]


def _allowed(rule: dict) -> str:
    """What a JSON schema allows, in words."""
    if "anyOf" in rule and "examples" not in rule:
        return " or ".join(_allowed(part) for part in rule["anyOf"])
    if "examples" in rule:
        return f"such as {', '.join(rule['examples'])}"
    if "enum" in rule:
        return ", ".join(map(str, rule["enum"]))
    if "const" in rule:
        return str(rule["const"])
    kind = rule.get("type")
    if kind == "array":
        return f"a list of: {_allowed(rule['items'])}"
    if kind not in ("integer", "number"):
        path = "a path" if rule.get("format") == "path" else "text"
        return {"boolean": "true or false", "null": "null"}.get(kind, path)
    text = "a whole number" if kind == "integer" else "a number"
    if "multipleOf" in rule:
        text = f"a multiple of {rule['multipleOf']}"
    low, above = rule.get("minimum"), rule.get("exclusiveMinimum")
    high, below = rule.get("maximum"), rule.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{text} from {low:g} to {high:g}" if max(abs(low), abs(high)) < 1e6 else f"{text} from {low} to {high}"
    bounds = [("at least", low), ("above", above), ("at most", high), ("below", below)]
    limits = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    return f"{text} {', '.join(limits)}" if limits else text


def schema(command: str) -> dict:
    """The JSON schema (2020-12) of a command's config file, for editors."""
    known = keys(command)
    whole = COMMANDS[command].model_json_schema()
    for part in [whole, *whole.get("$defs", {}).values()]:
        part.pop("title", None)
        for rule in part["properties"].values():
            rule.pop("title", None)
    for key, info in known.items():
        if _by_preset(info):  # there is no null to complain about: the key is simply left out
            *head, leaf = key.split(".")
            part = whole
            for name in head:
                part = whole["$defs"][part["properties"][name]["$ref"].rpartition("/")[2]]
            part["properties"][leaf].pop("default", None)
    whole["properties"] = {
        "command": {"const": command, "description": "The command this file is for", "type": "string"},
        **whole["properties"],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"gpnp {command}", **whole}


def schema_text(command: str) -> str:
    """`schema` as the text of the file that ships in the package."""
    return json.dumps(schema(command), indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> None:
    """Write COMMAND.schema.json for every command."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in COMMANDS:
        (folder / f"{command}.schema.json").write_text(schema_text(command), encoding="utf-8", newline="\n")


def _plain(value: Any) -> Any:
    """A config value as JSON and YAML know it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _yaml(value: Any) -> str:
    """A plain value on one line of YAML, such that the loader reads back exactly it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    boolean = value.lower() in ("on", "off", "yes", "no", "y", "n")  # to a reader of YAML 1.1
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./@+-]*(:[A-Za-z0-9_./@+-]+)*", value) is not None
    if plain and not boolean and _construct(_compose(value)) == value:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    # what YAML does not print, and halves of surrogate pairs (file names that are not UTF-8)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]", lambda m: f"\\u{ord(m[0]):04x}", quoted)


def _value(config: Section, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return _plain(config)


def dump(config: Section) -> dict[str, Any]:
    """The effective configuration as plain data for a manifest, headed by its `command`.

    `resolve` reproduces the configuration from it, given as `flags` or written to a file (JSON is YAML).
    """
    command = next(name for name, kind in COMMANDS.items() if type(config) is kind)
    tree: dict[str, Any] = {"command": command}
    for key in keys(command):
        *head, leaf = key.split(".")
        place = tree
        for name in head:
            place = place.setdefault(name, {})
        place[leaf] = _value(config, key)
    return tree


def show_text(resolved: Resolved) -> str:
    """The effective values as YAML, each with its origin in a comment."""
    rows: list[tuple[str, str]] = [(f"command: {resolved.command}", "")]
    section = ""
    for key, origin in resolved.origins.items():
        head, _, leaf = key.rpartition(".")
        if head != section:
            rows.append((f"{head}:", ""))
            section = head
        rows.append((f"{'  ' if head else ''}{leaf}: {_yaml(_value(resolved.config, key))}", origin))
    width = min(max(len(text) for text, _ in rows), 60)
    return "".join(f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in rows)


def init_text(command: str) -> str:
    """A config file with every key at its default, explained; keys that follow the prior, the preset or the machine are
    commented out, so that the file does not pin them."""
    config = COMMANDS[command]() if keys(command) else None
    lines = [
        f"# yaml-language-server: $schema={command}.schema.json",
        f"# Settings of `gpnp {command}`; use them with --config FILE.",
        f"# Editors check this file against its schema: gpnp config schema {command} > {command}.schema.json",
        f"command: {command}",
    ]
    section = ""
    for key, info in keys(command).items():
        head, _, leaf = key.rpartition(".")
        indent = "  " if head else ""
        if head != section:
            kind = COMMANDS[command].model_fields[head].annotation
            lines += ["", *textwrap.wrap(kind.__doc__, 100, initial_indent="# ", subsequent_indent="# "), f"{head}:"]
            section = head
        else:
            lines.append("")
        comment = f"{info.description} ({_allowed(_rules(command)[key])})."
        value = _yaml(_value(config, key))
        if _by_preset(info):
            values = ", ".join(f"{name} {_yaml(preset[leaf])}" for name, preset in PRESETS.items())
            own = [f"; method {name} {_yaml(rest[leaf])}" for name, rest in METHODS.items() if leaf in rest]
            comment += f" Presets: {values}{''.join(own)}."
        start = f"{indent}# "
        lines += textwrap.wrap(comment, 100, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)
        loose = _by_preset(info) or key == "sampler.preset" or key in USER_KEYS
        lines.append(f"{indent}{'# ' if loose else ''}{leaf}: {value}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_schemas(Path(__file__).parent / "schema")
