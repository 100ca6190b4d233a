"""From configuration to core objects: the only file that knows both."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import config as cfg
from .denoisers.base import Denoiser
from .denoisers.header import users_file
from .denoisers.tiled import TiledDenoiser
from .denoisers.unet import fast_dtype
from .errors import EnvironmentProblem, GpnpError, InputError
from .forward.base import ForwardModel
from .forward.interpolate import harmonic, radial_basis
from .registry import DENOISERS, resolve
from .samplers.base import Kernel
from .samplers.diffpir import DiffPir
from .samplers.diffusion import Edm
from .samplers.dps import Dps
from .samplers.gpnp import Gpnp, tracking_r
from .samplers.langevin import Langevin
from .samplers.pnp import Pnp
from .samplers.rng import ChainRng
from .samplers.schedules import geometric, power
from .samplers.split_gibbs import SplitGibbs
from .training.checkpoint import load_denoiser

DOWNLOADED = ("drunet", "ddpm")  # denoisers whose weights may come from the hub
CHAIN_PIXELS = 6_000_000  # pixels of all chains that run as one batch: about 0.7 GB of states


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device and a sentence on the choice; `auto` is cuda, then mps, then cpu.

    Raises `EnvironmentProblem` if an explicitly named one is absent: there is no silent fallback.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        if cuda:
            return torch.device("cuda"), f"device cuda ({torch.cuda.get_device_name()})"
        if mps:
            return torch.device("mps"), "device mps"
        why = "PyTorch finds no GPU" if torch.version.cuda else "this PyTorch is built without CUDA"
        return torch.device("cpu"), f"device cpu, {torch.get_num_threads()} threads ({why})"
    device = torch.device(name)
    if device.type == "cuda" and not (cuda and (device.index or 0) < torch.cuda.device_count()):
        count = torch.cuda.device_count() if cuda else 0
        raise EnvironmentProblem(
            f"--device {name}: not available, PyTorch {torch.__version__} finds {count} CUDA devices",
            hint="use --device auto",
        )
    if device.type == "mps" and not mps:
        raise EnvironmentProblem("--device mps: not available on this machine", hint="use --device auto")
    return device, f"device {name}"


def set_up(run: cfg.TrainRun) -> tuple[torch.device, torch.dtype, str]:
    """Threads, device and arithmetic as configured; also a sentence that says what was chosen."""
    if run.threads:
        torch.set_num_threads(run.threads)
    device, sentence = choose_device(run.device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(run.precision) or fast_dtype(device)
    return device, dtype, f"{sentence}, {'bf16' if dtype == torch.bfloat16 else 'fp32'}"


@dataclass(frozen=True)
class Prior:
    """A denoiser ready for use: tiled as configured, with its name and its weights' sha256 (None: it has none)."""

    denoiser: Denoiser
    name: str
    sha256: str | None


def build_prior(model: cfg.Model, channels: int, device: torch.device, dtype: torch.dtype) -> Prior:
    """The denoiser called `model.denoiser`: a registered name, name:argument, or a file from train-denoiser.

    Whatever is wrong with it concerns every input, hence never exit code 1; that it is for another kind of
    picture concerns this one only (`InputError`).
    """
    name, _, argument = model.denoiser.partition(":")
    path = users_file(model.denoiser)
    weights = None
    try:
        if path is not None:
            denoiser, weights = load_denoiser(path, device, dtype), path
        else:
            hub = {"model_dir": model.model_dir, "offline": model.offline} if name in DOWNLOADED else {}
            denoiser = resolve(DENOISERS, name, "denoiser")(channels, argument or None, device, dtype, **hub)
            weights = getattr(denoiser, "weights", None)
    except GpnpError as error:
        if error.code == 1:
            raise EnvironmentProblem(error.message, error.hint) from error
        raise
    if denoiser.channels not in (None, channels):
        kinds = {1: "grey", 3: "colour"}
        raise InputError(
            f"denoiser {model.denoiser} is for {kinds.get(denoiser.channels, denoiser.channels)} pictures, "
            f"this one is {kinds.get(channels, channels)}",
            hint="choose another --denoiser",
        )
    if model.tile != "off" and getattr(denoiser, "receptive_field", None) is not None:
        denoiser = TiledDenoiser(denoiser, None if model.tile == "auto" else model.tile)
    sha = hashlib.sha256(weights.read_bytes()).hexdigest() if weights else None
    return Prior(denoiser, path.name if path else model.denoiser, sha)


def schedule(sampler: cfg.Sampler, sigma_y: float = 0.0) -> tuple[float, ...]:
    """The noise levels of a run; those of a point estimate end no lower than the data's noise, as in DPIR.

    `langevin` stays at the lowest: sigma_max is then the noise of the start only.
    """
    if sampler.method == "langevin":
        return (sampler.sigma_min,) * sampler.iterations
    floor = sigma_y if sampler.method == "pnp" else 0.0
    return geometric(max(sampler.sigma_max, floor), max(sampler.sigma_min, floor), sampler.iterations)


def kernel(sampler: cfg.Sampler, denoiser: Denoiser, model: ForwardModel) -> Kernel:
    """The Markov kernel that `sampler.method` names."""
    exact = sampler.generator == "exact"
    match sampler.method:
        case "pnp":
            return Pnp(denoiser, model)
        case "langevin" | "annealed-langevin":
            return Langevin(denoiser, model, sampler.beta)
        case "dps":
            return Dps(denoiser, model)
        case "diffpir":
            return DiffPir(denoiser, model)
        case "split-gibbs":
            return SplitGibbs(denoiser, model, exact=exact)
    r = tracking_r(schedule(sampler), sampler.beta) if sampler.r == "auto" else sampler.r
    return Gpnp(denoiser, model, sampler.beta, r, exact)


def iterations_for(sampler: cfg.Sampler, nfe: int) -> int:
    """How many iterations of the configured method take about `nfe` denoiser calls, its last step included."""
    each = getattr(kernel(sampler, None, None), "calls", 1)
    return max(1, (nfe - (sampler.final == "denoise")) // each)


def drawing_levels(sampler: cfg.SampleSampler) -> tuple[float, ...]:
    """The noise levels of unconditional draws: Karras' spacing for diffusion, one level for langevin."""
    held, diffusion = sampler.method == "langevin", sampler.method == "diffusion"
    lowest = sampler.sigma_min or (0.05 if held else 0.005)
    n = sampler.iterations or (50 if diffusion else 200)
    if held:
        return (lowest,) * n
    spaced = power if diffusion else geometric
    return spaced(sampler.sigma_max, lowest, n)


def drawing_kernel(sampler: cfg.SampleSampler, denoiser: Denoiser) -> Kernel:
    """The kernel of unconditional draws from a denoiser's prior."""
    levels, beta = drawing_levels(sampler), sampler.beta or 0.25
    if sampler.method == "diffusion":
        return Edm(denoiser, min(sampler.churn / len(levels), math.sqrt(2) - 1))  # Karras et al. 2022, algorithm 2
    if sampler.method == "gpnp":
        return Gpnp(denoiser, None, beta, tracking_r(levels, beta))
    return Langevin(denoiser, None, beta)


def first_states(sampler: cfg.Sampler, y: Tensor, known: Tensor, rng: ChainRng) -> Tensor:
    """A chain's first state `(N, C, H, W)`: the configured filling of the holes of `y` `(1, C, H, W)`.

    noise: mid-grey plus noise of std sigma_max; interpolate: harmonic filling plus that noise; rbf: radial
    basis functions, the published start, which has none.
    """
    n = len(rng.generators)
    if sampler.init == "rbf":
        return radial_basis(y, known).expand(n, -1, -1, -1)
    centre = harmonic(y, known) if sampler.init == "interpolate" else torch.full_like(y, 0.5)
    return centre + sampler.sigma_max * rng.randn_like(y.expand(n, -1, -1, -1))


def chain_groups(chains: Sequence[int], pixels: int) -> list[list[int]]:
    """Chain numbers in batches that fit in memory; the numbers, not the batches, decide what a chain draws."""
    size = max(1, CHAIN_PIXELS // pixels)
    return [list(chains[i : i + size]) for i in range(0, len(chains), size)]


def picture_seed(seed: int, sha256: str, stream: Sequence[int] = ()) -> int:
    """A seed of this run and this picture's content: results do not depend on a batch's order or its shards."""
    words = [seed, *(int(sha256[i : i + 8], 16) for i in range(0, 32, 8)), *stream]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
