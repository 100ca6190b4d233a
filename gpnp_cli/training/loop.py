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

from ..denoisers.familiarity import LEVELS, relative_residual
from ..denoisers.unet import NetworkDenoiser
from ..errors import DivergenceError, EnvironmentProblem, InputError, UsageError
from ..samplers.rng import generator
from .averages import PowerAverages
from .checkpoint import build_network, load_weights
from .data import CropSource, luma
from .loss import SigmaLaw, denoising_loss

VALIDATION_SIGMAS = (15 / 255, 25 / 255, 50 / 255)
REPORT_SECONDS = 5.0  # a report comes at least this often, however slow the steps, so that progress is seen to be live


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
    ema_profiles: tuple[float, ...] = ()  # relative widths of power-function averages, tracked beside it
    ema_every: int = 500  # steps between two snapshots of those
    weight_decay: float = 0.0
    grey_share: float = 0.25  # share of the batch shown as grey pictures (colour networks only)
    log_every: int = 50
    validate_every: int = 2000
    sigma: SigmaLaw = field(default_factory=SigmaLaw)

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is done after so many steps and seconds, 0 to 1."""
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, by_time))


@dataclass(frozen=True)
class Progress:
    """One report: loss is the mean since the last one; `psnr` maps sigma*255 to dB, after a validation."""

    step: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds: float  # of training so far, earlier parts of a resumed run included
    seconds_left: float
    psnr: dict[str, float] | None = None


class Trainer:
    """Weights, their running averages and Adam's moments; `state_dict` round-trips them exactly."""

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
        # lists for tuples, so that it equals itself after a trip through JSON
        self.architecture = {k: list(v) if isinstance(v, tuple) else v for k, v in architecture.items()}
        self.plan, self.source, self.seed = plan, source, seed
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
        self.averages = PowerAverages(self.ema, plan.ema_profiles)
        if source.size % self.model.net.stride:
            raise UsageError(
                f"crop size {source.size} is not a multiple of the network's stride {self.model.net.stride}"
            )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=plan.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=plan.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.step, self.seconds = 0, 0.0
        self._asked_to_stop = False
        self.forward: nn.Module = self.model
        if self.world > 1:
            self.forward = nn.parallel.DistributedDataParallel(self.model)
        if compiled:
            self.forward = torch.compile(self.forward)

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1; steers the learning rate."""
        return self.plan.progress(self.step, self.seconds)

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress))
        return self.plan.learning_rate * min(1.0, (self.step + 1) / max(1, self.plan.warmup)) * cosine

    def stop(self) -> None:
        """End `run` after the current step (with several processes: at the next report); safe in a signal handler."""
        self._asked_to_stop = True

    def train_step(self) -> Tensor:
        """One optimiser step; returns the mean loss, still on the device (reading it would stall the pipeline).

        It is NaN if the gradient is not finite, since the weights then no longer are.
        """
        plan, n = self.plan, self.plan.batch
        rng = generator(self.seed, 3, self.step, self.rank)
        x = self.source.batch(self.step, n, self.rank)
        sigma = plan.sigma.draw(n, rng).to(self.device, non_blocking=True)
        noise = self._noise(x)
        grey = torch.zeros(n, device=self.device)
        if self.both:
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
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), plan.clip)
        self.optimizer.step()
        self._average()
        self.step += 1
        return torch.where(norm.isfinite(), loss.detach(), torch.nan)

    def _noise(self, x: Tensor) -> Tensor:
        """Standard normal noise from a generator seeded by (seed, step, rank), drawn where the batch is."""
        state = generator(self.seed, 4, self.step, self.rank).initial_seed()
        rng = torch.Generator(self.device).manual_seed(state)
        return torch.randn(x.shape, generator=rng, device=self.device)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
        self.averages.update(self.model, self.step + 1)

    def run(self) -> Iterator[Progress]:
        """Train to the end of the plan (or `stop`), reporting at least every `log_every` steps and after a validation.

        Raises `DivergenceError` naming the step if the loss or the gradient becomes NaN: at every report
        before, the weights were finite, so a checkpoint the caller took then is good. Raises
        `EnvironmentProblem` when memory is short, naming the batch size that fits.
        """
        losses: list[Tensor] = []
        counted = began = time.perf_counter()
        stopped = False
        while self.progress < 1 and not stopped:
            try:
                losses.append(self.train_step())
            except torch.OutOfMemoryError as error:
                raise self._too_large() from error
            due = (
                self.step == self.plan.steps
                or self.snapshot_due
                or any(self.step % every == 0 for every in (self.plan.log_every, self.plan.validate_every))
            )
            if self.world == 1:  # several processes must report together, and only steps are common to them
                due = due or self._asked_to_stop or time.perf_counter() - began > REPORT_SECONDS
            if not due:
                continue
            values = torch.stack(losses).tolist()
            bad = [i for i, value in enumerate(values) if not math.isfinite(value)]
            if bad:
                raise DivergenceError(
                    f"the loss became NaN at step {self.step - len(values) + bad[0] + 1}",
                    hint="lower the learning rate; the last checkpoint is good",
                )
            now = time.perf_counter()
            rate = len(values) * self.plan.batch * self.world / (now - began)
            elapsed, stopped = self._agree(now - counted)
            self.seconds += elapsed
            counted = now
            psnr = None
            if self.step % self.plan.validate_every == 0 or self.progress >= 1:
                psnr = self.validate()
            left = self.seconds * (1 - self.progress) / max(self.progress, 1e-9)
            mean = sum(values) / len(values)
            losses.clear()
            yield Progress(self.step, mean, self.learning_rate(), rate, self.seconds, left, psnr)
            began = time.perf_counter()  # validation and the caller's checkpoints count as time, but not in the rate

    @property
    def snapshot_due(self) -> bool:
        """Whether a snapshot of `averages` is to be kept after this step: every `ema_every`, and at the end."""
        return bool(self.plan.ema_profiles) and (self.step % self.plan.ema_every == 0 or self.progress >= 1)

    def _agree(self, elapsed: float) -> tuple[float, bool]:
        """(seconds used, whether to stop): the same for all processes, or they would end at different steps."""
        if self.world == 1:
            return elapsed, self._asked_to_stop
        both = torch.tensor([elapsed, float(self._asked_to_stop)], device=self.device)
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
        return float(both[0]), bool(both[1])

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
                return EnvironmentProblem("out of memory", hint=f"a batch of {batch} fits: --batch {batch}")
            except torch.OutOfMemoryError:
                self.optimizer.zero_grad(set_to_none=True)
        return EnvironmentProblem("out of memory even for one crop", hint="use smaller crops or a smaller network")

    @property
    def both(self) -> bool:
        """Whether the network learns colour and grey pictures."""
        return self.model.net.channels == 3 and self.plan.grey_share > 0

    def denoiser(self) -> NetworkDenoiser:
        """The averaged weights as a denoiser (a view: training on changes it)."""
        sigma = self.plan.sigma
        return NetworkDenoiser(self.ema, (sigma.low, sigma.high), self.both, self.device, self.dtype)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean PSNR (dB) over the validation crops at three noise levels, always with the same noise; {} without crops."""
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

    @torch.no_grad()
    def residuals(self) -> dict[str, dict[str, float]]:
        """Mean and highest `relative_residual` of the validation pictures by sigma; {} without, or for parts of pictures."""
        if self.validation is None or self.model.net.image_size is None:
            return {}
        denoiser, result = self.denoiser(), {}
        for sigma in LEVELS:
            rng = generator(self.seed, 6)
            parts = [relative_residual(denoiser, x.to(self.device), sigma, rng) for x in self.validation.split(16)]
            found = torch.cat(parts)
            result[f"{sigma:g}"] = {"mean": float(found.mean()), "highest": float(found.max())}
        return result

    def start_from(self, denoiser: NetworkDenoiser) -> None:
        """Begin with a trained denoiser's weights; raises `InputError` where its network is another."""
        for module in (self.model, self.ema):
            try:
                load_weights(module, {key: value.float() for key, value in denoiser.model.state_dict().items()})
            except InputError as error:
                raise InputError(
                    f"the weights to start from do not fit ({error.message})",
                    hint="the network.* keys must be those they were trained with; they are in the file's metadata",
                ) from error

    def state_dict(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors and a JSON-able rest: with the plan and the data, all that the next step needs."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {f"power.{k}": v for k, v in self.averages.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors, {
            "step": self.step,
            "seconds": self.seconds,
            "seed": self.seed,
            "architecture": self.architecture,
        }

    def load_state_dict(self, tensors: dict[str, Tensor], rest: dict) -> None:
        """Take over what `state_dict` gave; raises `InputError` naming what is missing or does not fit."""
        if rest["architecture"] != self.architecture:
            raise InputError("the training state belongs to another architecture")

        def part(head: str) -> dict[str, Tensor]:
            return {key.removeprefix(head): value for key, value in tensors.items() if key.startswith(head)}

        load_weights(self.model, part("model."))
        load_weights(self.ema, part("ema."))
        self.averages.load_state_dict(part("power."))
        adam = part("adam.")
        for name, parameter in self.model.named_parameters():
            if f"step.{name}" not in adam:  # saved before the first step
                continue
            try:
                step, *moments = (adam[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq"))
                # in the parameter's memory format, as Adam itself would have made them
                first, second = (torch.empty_like(parameter).copy_(moment) for moment in moments)
            except (KeyError, RuntimeError) as error:
                raise InputError(f"Adam's moments of {name} are missing or do not fit ({error})") from error
            step = step.to(self.device) if self.device.type == "cuda" else step
            self.optimizer.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
        self.step, self.seconds = int(rest["step"]), float(rest["seconds"])
