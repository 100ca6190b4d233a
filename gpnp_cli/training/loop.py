"""The training loop: a `Trainer` holds everything that must survive a kill, `run` yields progress.

Files, progress bars and signals belong to the caller. Several processes started by `torchrun` train
one model together; each draws its own crops.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..denoisers.unet import NetworkDenoiser
from ..errors import DivergenceError, EnvironmentProblem
from ..samplers.rng import generator
from .checkpoint import build_network
from .data import CropSource, luma
from .loss import SigmaLaw, denoising_loss

VALIDATION_SIGMAS = (15 / 255, 25 / 255, 50 / 255)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train. The run ends at `steps` or `minutes`, whichever is nearer."""

    steps: int = 100_000
    minutes: float | None = None
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 500
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.9995  # decay of the averaged weights, ramped up from 0 at the start
    weight_decay: float = 0.0
    grey_share: float = 0.25  # share of the batch shown as grey pictures (colour networks only)
    log_every: int = 50
    validate_every: int = 2000
    sigma: SigmaLaw = field(default_factory=SigmaLaw)


@dataclass(frozen=True)
class Progress:
    """One report: loss is the mean since the last one; `psnr` maps sigma*255 to dB, after a validation."""

    step: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    psnr: dict[str, float] | None = None


class Trainer:
    """Weights, their running average and Adam's moments; `state_dict` round-trips them exactly."""

    def __init__(
        self,
        architecture: dict,
        plan: Plan,
        source: CropSource,
        validation: Tensor | None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        self.architecture, self.plan, self.source, self.seed = architecture, plan, source, seed
        self.validation, self.dtype, self.device = validation, dtype, source.device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        with torch.random.fork_rng(devices=[]):  # initial weights: the one use of torch's global generator
            torch.manual_seed(seed)
            self.model = build_network(architecture)
            self.ema = build_network(architecture)
        self.model.to(self.device, memory_format=torch.channels_last)
        self.ema.to(self.device, memory_format=torch.channels_last).requires_grad_(False)
        self.ema.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=plan.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=plan.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.step, self.seconds = 0, 0.0
        self.forward: nn.Module = self.model
        if self.world > 1:
            self.forward = nn.parallel.DistributedDataParallel(self.model)
        if compiled:
            self.forward = torch.compile(self.forward)

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1; steers the learning rate."""
        by_time = self.seconds / (60 * self.plan.minutes) if self.plan.minutes else 0.0
        return min(1.0, max(self.step / self.plan.steps, by_time))

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress))
        return self.plan.learning_rate * min(1.0, (self.step + 1) / self.plan.warmup) * cosine

    def train_step(self) -> Tensor:
        """One optimiser step; returns the mean loss, still on the device (reading it would stall the pipeline)."""
        plan, n = self.plan, self.plan.batch
        rng = generator(self.seed, 3, self.step, self.rank)
        x = self.source.batch(self.step, n, self.rank)
        sigma = plan.sigma.draw(n, rng).to(self.device, non_blocking=True)
        noise = self._noise(x)
        grey = torch.zeros(n, device=self.device)
        if x.shape[1] == 3 and plan.grey_share:
            # a grey picture is shown as three equal channels with equal noise; which ones differs per batch
            some = (torch.rand(n, generator=rng) < plan.grey_share).to(self.device, non_blocking=True)
            grey = some.float()
            mask = some[:, None, None, None]
            x = torch.where(mask, luma(x), x)
            noise = torch.where(mask, noise[:, :1], noise)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = denoising_loss(self.forward, x, sigma, noise, grey).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), plan.clip)
        self.optimizer.step()
        self._average()
        self.step += 1
        return loss.detach()

    def _noise(self, x: Tensor) -> Tensor:
        """Standard normal noise from a generator seeded by (seed, step, rank), drawn where the batch is."""
        state = generator(self.seed, 4, self.step, self.rank).initial_seed()
        rng = torch.Generator(self.device).manual_seed(state)
        return torch.randn(x.shape, generator=rng, device=self.device)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)

    def run(self) -> Iterator[Progress]:
        """Train to the end of the plan, reporting every `log_every` steps and after each validation.

        Raises `DivergenceError` naming the step if the loss becomes NaN: what was yielded before was
        finite, so the caller's last checkpoint is good. Raises `EnvironmentProblem` when memory is
        short, naming the batch size that fits.
        """
        losses: list[Tensor] = []
        last = time.perf_counter()
        while self.progress < 1:
            try:
                losses.append(self.train_step())
            except torch.OutOfMemoryError as error:
                raise self._too_large() from error
            if self.step % self.plan.log_every and self.step < self.plan.steps:
                continue
            values = torch.stack(losses).tolist()
            bad = [i for i, value in enumerate(values) if not math.isfinite(value)]
            if bad:
                at = self.step - len(values) + bad[0] + 1
                raise DivergenceError(f"the loss became NaN at step {at}", hint="lower the learning rate; the last checkpoint is good")
            now = time.perf_counter()
            elapsed, last = now - last, now
            self.seconds += self._slowest(elapsed)
            left = self.seconds * (1 - self.progress) / max(self.progress, 1e-9)
            psnr = None
            if self.step % self.plan.validate_every < self.plan.log_every or self.progress >= 1:
                psnr = self.validate()
                last = time.perf_counter()
            rate = len(values) * self.plan.batch * self.world / elapsed
            yield Progress(self.step, sum(values) / len(values), self.learning_rate(), rate, left, psnr)
            losses.clear()

    def _slowest(self, elapsed: float) -> float:
        """All processes must agree on the time used, or they would stop at different steps."""
        if self.world == 1:
            return elapsed
        value = torch.tensor(elapsed, device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return float(value)

    def _too_large(self) -> EnvironmentProblem:
        """Find the largest halved batch that fits and say so."""
        batch = self.plan.batch
        size = self.source.size
        self.optimizer.zero_grad(set_to_none=True)
        while batch > 1:
            batch //= 2
            try:
                x = torch.rand(batch, self.model.net.channels, size, size, device=self.device)
                ones = torch.ones(batch, device=self.device)
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    denoising_loss(self.model, x, ones, x, ones).mean().backward()
                return EnvironmentProblem("out of memory", hint=f"a batch of {batch} fits: --set train.batch={batch}")
            except torch.OutOfMemoryError:
                self.optimizer.zero_grad(set_to_none=True)
        return EnvironmentProblem("out of memory even for one crop", hint="use smaller crops or a smaller network")

    def denoiser(self) -> NetworkDenoiser:
        """The averaged weights as a denoiser (a view: training on changes it)."""
        both = self.model.net.channels == 3 and self.plan.grey_share > 0
        return NetworkDenoiser(self.ema, (self.plan.sigma.low, self.plan.sigma.high), both, self.device, self.dtype)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean PSNR (dB) over the validation crops at three noise levels, always with the same noise."""
        if self.validation is None:
            return {}
        result = {}
        denoiser = self.denoiser()
        for sigma in VALIDATION_SIGMAS:
            rng = generator(self.seed, 5)
            scores = []
            for x in self.validation.split(16):
                noisy = x + sigma * torch.randn(x.shape, generator=rng)
                out = denoiser(noisy.to(self.device), sigma).clamp(0, 1).cpu()
                scores.append(-10 * (out - x).square().mean((1, 2, 3)).clamp_min(1e-12).log10())
            result[f"{sigma * 255:g}"] = float(torch.cat(scores).mean())
        return result

    def state_dict(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors and a JSON-able rest: with the plan and the data, all that the next step needs."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors, {"step": self.step, "seconds": self.seconds, "seed": self.seed, "architecture": self.architecture}

    def load_state_dict(self, tensors: dict[str, Tensor], rest: dict) -> None:
        part = {key: {} for key in ("model", "ema", "adam")}
        for key, value in tensors.items():
            head, tail = key.split(".", 1)
            part[head][tail] = value
        self.model.load_state_dict(part["model"])
        self.ema.load_state_dict(part["ema"])
        for name, parameter in self.model.named_parameters():
            state = {k: part["adam"][f"{k}.{name}"] for k in ("step", "exp_avg", "exp_avg_sq") if f"{k}.{name}" in part["adam"]}
            if state:
                for key in ("exp_avg", "exp_avg_sq"):
                    state[key] = state[key].to(self.device).contiguous(memory_format=torch.preserve_format)
                    state[key] = torch.empty_like(parameter).copy_(state[key])
                if self.device.type == "cuda":
                    state["step"] = state["step"].to(self.device)
                self.optimizer.state[parameter] = state
        self.step, self.seconds = rest["step"], rest["seconds"]
