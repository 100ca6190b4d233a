"""A training run: its folder, its checkpoints, its progress, and what a signal does to it.

The folder holds config.yaml (the effective settings), log.jsonl (every report), state.safetensors (all
that going on needs) and denoiser.safetensors (the averaged weights, for use); with `plan.ema_profiles` also ema/,
the snapshots from which `gpnp denoisers average` makes an average of any width. Started by `torchrun`, several
processes train one model; only the first writes and speaks.
"""

import contextlib
import datetime
import hashlib
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from .. import __version__, build
from .. import config as cfg
from ..denoisers import header
from ..denoisers.unet import load_default
from ..errors import EnvironmentProblem, InputError, UsageError
from ..imageio import read_picture, write_atomic
from ..inputs import Input, expand_inputs
from ..training.averages import snapshots, write_snapshot
from ..training.checkpoint import load_denoiser, load_state, save_denoiser, save_state
from ..training.data import Augmentation, CropSource, centre_crops, held_out
from ..training.loop import Plan, Progress, Trainer
from ..training.loss import SigmaLaw
from .options import Call
from .report import PLAIN_SECONDS, Report

# Settings that may differ when a run goes on: they do not change what a step computes (more steps or
# minutes stretch the learning rate's schedule, which is the point of giving more).
FREE = frozenset(
    ["data", "folder", "resume", "checkpoint_minutes", "tensorboard", "compile"]
    + ["plan.steps", "plan.minutes", "plan.log_every", "plan.validate_every", "plan.ema_every"]
    + ["run.device", "run.precision", "run.threads"]
    + [key for key in cfg.keys("train-denoiser") if key.startswith("carried.")]
)


def train(call: Call) -> int:
    """The whole command; returns the exit code."""
    resolved = settle(call)
    config: cfg.TrainConfig = resolved.config
    state_path, denoiser_path = (config.folder / f"{name}.safetensors" for name in ("state", "denoiser"))
    going_on = config.resume and state_path.exists()
    if (state_path.exists() or denoiser_path.exists()) and not going_on and not call.force:
        raise UsageError(f"{config.folder}: holds a training run", hint="--resume goes on with it, --force starts anew")
    pictures = Pictures.find(config)
    if call.dry_run:
        call.report.note(f"# {len(pictures.training)} pictures to train on, {len(pictures.held)} for validation")
        replace(call, resolved=resolved).show()
        return 0
    if config.tensorboard:
        require_tensorboard()
    with processes(config.run) as (device, dtype, sentence):
        first = not dist.is_initialized() or dist.get_rank() == 0
        report = call.report if first else Report(quiet=True)
        report.note(f"gpnp: {sentence}")
        if config.resume and not going_on:
            report.note(f"gpnp: nothing to resume in {config.folder}, starting anew")
        state = load_state(state_path) if going_on else None
        return Run(with_seed(resolved, report), report, first, pictures, device, dtype, state).go()


def settle(call: Call) -> cfg.Resolved:
    """The settings, with the folders of pictures among them; on --resume, what was not given is as the run has it."""
    resolved = call.resolved
    config: cfg.TrainConfig = resolved.config
    stored = config.folder / "config.yaml"
    if config.resume and call.force:
        raise UsageError(
            "--resume and --force exclude each other", hint="one goes on with a run, the other starts anew"
        )
    if config.resume and stored.exists():
        given = {key: plain(config)[key] for key, origin in resolved.origins.items() if origin != "default"}
        nulls = [key for key, origin in resolved.origins.items() if origin == "--set" and given[key] is None]
        sets = [f"{key}=null" for key in nulls]  # among the flags they would not count
        resolved = cfg.resolve(call.command, given, sets, [stored], {})
        resolved = replace(resolved, origins={**resolved.origins, **{key: call.resolved.origins[key] for key in given}})
    update: dict[str, Any] = {"resume": config.resume}
    if call.inputs:
        update["data"] = tuple(Path(argument).expanduser() for argument in call.inputs)
        resolved = replace(resolved, origins={**resolved.origins, "data": "command line"})
    return replace(resolved, config=resolved.config.model_copy(update=update))


def plain(config: cfg.TrainConfig) -> dict[str, Any]:
    """The settings by dotted key, in JSON's types."""
    flat: dict[str, Any] = {}
    for key, value in cfg.dump(config).items():
        flat |= {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
    flat.pop("command")
    return flat


def with_seed(resolved: cfg.Resolved, report: Report) -> cfg.Resolved:
    """`seed: random` replaced by a number, the same in all processes."""
    if resolved.config.run.seed != "random":
        return resolved
    drawn = [secrets.randbelow(2**32)]
    if dist.is_initialized():
        dist.broadcast_object_list(drawn)
    report.note(f"gpnp: seed {drawn[0]}")
    run = resolved.config.run.model_copy(update={"seed": drawn[0]})
    return replace(resolved, config=resolved.config.model_copy(update={"run": run}))


def require_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem("--tensorboard needs an extra", hint='pip install "gpnp[log]"') from error


@contextlib.contextmanager
def processes(run: cfg.TrainRun) -> Iterator[tuple[torch.device, torch.dtype, str]]:
    """Device, arithmetic and a sentence on them; joins the other processes if `torchrun` started this one."""
    device, dtype, sentence = build.set_up(run)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device, dtype, sentence
        return
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device, dtype, f"{sentence}, {dist.get_world_size()} processes"
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Pictures:
    """The files of a run, and what a denoiser's metadata may say of them: names, never places."""

    training: list[Path]
    held: list[Path]  # for validation
    facts: dict[str, Any]

    @classmethod
    def find(cls, config: cfg.TrainConfig) -> Self:
        """Search the folders; raises `UsageError` naming one that is missing or has no pictures."""
        if not config.data:
            raise UsageError("no folder of pictures was given", hint="gpnp train-denoiser FOLDER -o RUN")
        found: dict[Path, Input] = {}
        folders = []
        for place in config.data:
            inputs = expand_inputs([str(place)], recursive=True)
            if len(inputs) == 1 and not inputs[0].path.exists():
                raise UsageError(f"{place}: no such file or folder", hint="give folders of pictures, or pictures")
            folders.append({"name": place.resolve().name, "pictures": len(inputs)})
            for item in inputs:
                found.setdefault(item.path.resolve(), item)
        named = sorted((item.relative.as_posix(), item.path) for item in found.values())
        rank = {name: place for place, name in enumerate(held_out((name for name, _ in named), config.validation))}
        training = [path for name, path in named if name not in rank]
        held = [path for _, path in sorted((rank[name], path) for name, path in named if name in rank)]
        lines = "".join(f"{name}\t{path.stat().st_size}\n" for name, path in named)
        digest = hashlib.sha256(os.fsencode(lines)).hexdigest()
        return cls(training, held, {"folders": folders, "files_sha256": digest})


def reader(channels: int, side: int | None = None) -> Callable[[Path], np.ndarray]:
    """A function from a path to uint8 `(H, W, channels)`; colour becomes Rec. 601 luma, grey three equal channels.

    With `side` it gives whole pictures of side x side, shrunk to that if they are larger; other forms are an `InputError`.
    """

    def read(path: Path) -> np.ndarray:
        pixels = read_picture(path).pixels
        if side is not None:
            pixels = whole(pixels, side)
        if channels == 1 and len(pixels) == 3:
            pixels = np.tensordot(np.float32([0.299, 0.587, 0.114]), pixels, 1)[None]
        levels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        return levels if levels.shape[2] == channels else levels.repeat(channels, axis=2)

    return read


def whole(pixels: np.ndarray, side: int) -> np.ndarray:
    """`pixels` `(C, H, W)` as `(C, side, side)`; raises `InputError` for what is smaller or not square."""
    height, width = pixels.shape[1:]
    if height != width or height < side:
        raise InputError(f"{width}x{height} is not a square of {side} pixels or more")
    if height == side:
        return pixels
    x = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    return F.interpolate(x, (side, side), mode="bicubic", antialias=True)[0].numpy()


class Run:
    """One run in its folder, fresh or taken up from `state`."""

    def __init__(
        self,
        resolved: cfg.Resolved,
        report: Report,
        first: bool,
        pictures: Pictures,
        device: torch.device,
        dtype: torch.dtype,
        state: tuple[dict[str, torch.Tensor], dict] | None,
    ) -> None:
        self.resolved, self.report, self.first, self.pictures = resolved, report, first, pictures
        self.device, self.dtype, self.state = device, dtype, state
        config: cfg.TrainConfig = resolved.config
        self.config, self.folder = config, config.folder
        self.denoiser_path = config.folder / "denoiser.safetensors"
        self.ema_folder = config.folder / "ema"
        self.plan = Plan(**config.plan.model_dump(), sigma=SigmaLaw(**config.sigma.model_dump()))
        world = dist.get_world_size() if dist.is_initialized() else 1
        self.images_per_step = self.plan.batch * world
        self.fixed = {key: value for key, value in plain(config).items() if key not in FREE}
        self.fixed |= {"processes": world, "files_sha256": pictures.facts["files_sha256"]}
        self.carried = config.carried.model_dump(exclude_none=True)
        self.psnr: dict[str, float] = {}  # of the last validation
        self.start: dict | None = None  # what the weights it began with had seen
        if state is not None:
            self._refuse_changes(state[1])
            self.psnr, self.start = state[1].get("psnr", {}), state[1].get("start")

    def _refuse_changes(self, rest: dict) -> None:
        """What a step computes must not change in the middle of a run; the first difference is named."""
        before = rest.get("settings")
        if before is None:  # a state without settings says this much
            before = {f"network.{key}": value for key, value in rest["architecture"].items() if key != "name"}
            before["run.seed"] = rest["seed"]
        before = {"plan.ema_profiles": [], **before}  # a run older than the key has none
        for key, value in before.items():
            now = self.fixed.get(key)
            if now == value:
                continue
            if key == "files_sha256":
                raise UsageError(
                    f"{self.folder}: this run was started on other pictures", hint="--resume needs the same files"
                )
            raise UsageError(
                f"{self.folder}: this run has {key} = {value}, not {now}",
                hint="leave the key out, or use another --output",
            )

    def _read(self) -> Trainer:
        """Everything that takes time and memory: the pictures and the network."""
        config, augment = self.config, self.config.augment
        training, held = self.pictures.training, self.pictures.held
        self.report.note(f"gpnp: reading {len(training)} pictures, and {len(held)} for validation")
        whole_pictures = config.network.architecture == "attention-unet"
        read = reader(config.network.channels, config.crop if whole_pictures else None)
        largest, halve = max(256, config.crop), augment.scale_max >= 2
        validation, rejected = centre_crops(held, read, config.crop, largest, halve=halve)
        while held and validation is None and len(training) > 1:  # the few held pictures may all be bad ones
            held, training = training[:1], training[1:]
            validation, more = centre_crops(held, read, config.crop, largest, halve=halve)
            rejected += more
        self.data = {**self.pictures.facts, "validation_pictures": 0 if validation is None else len(validation)}
        augmentation = Augmentation(**augment.model_dump())
        source = CropSource(training, read, config.crop, augmentation, config.run.seed, self.device, config.cache_bytes)
        self._tell(rejected + source.rejected)
        network = config.network.model_dump(exclude={"architecture"}, exclude_none=True)
        architecture = {"name": config.network.architecture, **network}
        if whole_pictures:
            architecture["image_size"] = config.crop
        trainer = Trainer(architecture, self.plan, source, validation, config.run.seed, self.dtype, config.compile)
        if self.state is not None:
            trainer.load_state_dict(*self.state)
            self.state = None  # it is as large as the trainer
        elif config.start is not None:
            try:
                denoiser = load_default() if config.start == "default" else load_denoiser(config.start)
                trainer.start_from(denoiser)
            except InputError as error:  # not one of the pictures
                raise EnvironmentProblem(error.message, error.hint) from error
            self.start = {key: denoiser.metadata.get(key) for key in ("images", "data", "start")}
        return trainer

    def _tell(self, rejected: list[tuple[Path, str]]) -> None:
        """Say how many pictures are left out, and why the first few are."""
        if not rejected:
            return
        shown = [reason if str(path) in reason else f"{path}: {reason}" for path, reason in rejected[:5]]
        more = [f"and {len(rejected) - 5} more"] if len(rejected) > 5 else []
        count = f"{len(rejected)} picture{'s' if len(rejected) > 1 else ''}"
        self.report.warn("\n  ".join([f"{count} left out:", *shown, *more]))

    def go(self) -> int:
        """Train; the exit code is 0, or that of the signal which stopped it."""
        if self.state is not None:
            step, seconds = self.state[1]["step"], self.state[1]["seconds"]
            if self.plan.progress(step, seconds) >= 1 and self.denoiser_path.exists():
                self.report.note(f"gpnp: this run is finished ({step} steps); more --steps or --minutes go on")
                self._carry()
                self._result("skipped", step, seconds)
                return 0
        trainer = self._read()
        if trainer.step:
            self.report.note(f"gpnp: going on after step {trainer.step}")
        try:
            self._prepare_folder(trainer)
            code = self._train(trainer)
        finally:
            trainer.source.close()
        self._result("stopped" if code else "done", trainer.step, trainer.seconds)
        return code

    def _carry(self) -> None:
        """Let the denoiser of a finished run carry the settings that it is resumed with; its weights stay as they are."""
        if not self.first or header.read_metadata(self.denoiser_path).get("carried", {}) == self.carried:
            return
        denoiser = load_denoiser(self.denoiser_path)
        self._store_settings()
        save_denoiser(self.denoiser_path, denoiser.model, self._carrying(denoiser.metadata))
        self.report.note(f"gpnp: the denoiser now carries {cfg.in_words(self.carried) or 'no settings'}")

    def _carrying(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """`metadata` with the settings that are to be carried, if there are any."""
        rest = {key: value for key, value in metadata.items() if key != "carried"}
        return rest | ({"carried": self.carried} if self.carried else {})

    def _train(self, trainer: Trainer) -> int:
        told, saved = len(trainer.source.rejected), time.monotonic()
        with (
            Logs(self.folder if self.first else None, self.config.tensorboard, trainer.step) as logs,
            Display(self.report) as display,
            stop_on_signal(trainer) as caught,
        ):
            for progress in trainer.run():
                self.psnr = progress.psnr or self.psnr
                rejected = trainer.source.rejected  # grows while a folder larger than the cache is worked through
                self._tell(rejected[told:])
                told = len(rejected)
                display.show(progress, self.psnr)
                logs.write(progress)
                if self.report.as_json:
                    self.report.result(record(progress))
                if self.first and trainer.snapshot_due:
                    write_snapshot(self.ema_folder, trainer.averages, trainer.step, trainer.step * self.images_per_step)
                if time.monotonic() - saved >= 60 * self.config.checkpoint_minutes and trainer.progress < 1:
                    self.save(trainer)
                    saved = time.monotonic()
            self.save(trainer)
        if trainer.progress >= 1:
            return 0
        self.report.note(f"gpnp: stopped after step {trainer.step}; --resume goes on from there")
        return 128 + (caught[0] if caught else signal.SIGTERM)

    def _prepare_folder(self, trainer: Trainer) -> None:
        if not self.first:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(
                f"{self.folder}: cannot be made ({error.strerror})", hint="choose another --output"
            ) from error
        self._store_settings()
        for folder in (self.folder, self.ema_folder):
            for part in folder.glob(".*.part-*"):  # a kill in the middle of a checkpoint
                part.unlink(missing_ok=True)
        for step, path in snapshots(self.ema_folder).items():
            if step > trainer.step:  # of a run replaced by --force, or made after the checkpoint gone on from
                path.unlink(missing_ok=True)
        if trainer.step == 0:  # what a run replaced by --force left must not be taken for this one's
            for name in ("state.safetensors", "denoiser.safetensors"):
                (self.folder / name).unlink(missing_ok=True)

    def _store_settings(self) -> None:
        # absolute, so that a resumed run finds them from anywhere
        places = tuple(place.resolve() if place.exists() else place for place in self.config.data)
        stored = replace(self.resolved, config=self.config.model_copy(update={"data": places, "resume": False}))
        write_atomic(self.folder / "config.yaml", cfg.show_text(stored).encode("utf-8", "surrogateescape"))

    def save(self, trainer: Trainer) -> None:
        """Both files, the state first: it is the one that cannot be made from the other."""
        if not self.first:
            return
        tensors, rest = trainer.state_dict()
        known = {"settings": self.fixed, "psnr": self.psnr, "start": self.start}
        save_state(self.folder / "state.safetensors", tensors, {**rest, **known})
        metadata = {
            "architecture": trainer.architecture,
            "sigma_range": [self.plan.sigma.low, self.plan.sigma.high],
            "both": trainer.both,
            "channels": self.config.network.channels,
            "steps": trainer.step,
            "images": trainer.step * self.images_per_step,
            "seed": trainer.seed,
            "psnr": self.psnr,
            "residual": trainer.residuals(),
            "data": self.data,
            "start": self.start,
            "gpnp": __version__,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        save_denoiser(self.denoiser_path, trainer.ema, self._carrying(metadata))

    def _result(self, status: str, step: int, seconds: float) -> None:
        """The path of the denoiser on stdout, or the run's JSON summary."""
        if not self.first or (status == "stopped" and not self.report.as_json):
            return
        facts = {"steps": step, "seconds": round(seconds, 2), "seed": self.config.run.seed, "psnr": self.psnr}
        path = str(self.denoiser_path)
        self.report.result({"status": status, "outputs": {"denoiser": path}, **facts}, path)


@contextlib.contextmanager
def stop_on_signal(trainer: Trainer) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM end the training after the current step, so that its state can be saved; the second leaves at once.

    Yields the list that the signal's number is put in. An ignored signal stays ignored.
    """
    caught: list[int] = []

    def ask(number: int, frame: object) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        trainer.stop()

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def record(progress: Progress) -> dict[str, Any]:
    """A report as JSON; `psnr` only after a validation."""
    return {key: value for key, value in asdict(progress).items() if value or key != "psnr"}


class Logs:
    """log.jsonl and, if asked for, TensorBoard's files; `folder` None writes nothing.

    When a run goes on, lines that a killed process wrote after its last checkpoint are dropped.
    """

    def __init__(self, folder: Path | None, tensorboard: bool, step: int) -> None:
        self.folder, self.tensorboard, self.step = folder, tensorboard, step
        self._file = self._board = None

    def __enter__(self) -> Self:
        if self.folder is None:
            return self
        path = self.folder / "log.jsonl"
        kept = [line for line in self._lines(path) if json.loads(line)["step"] <= self.step] if self.step else []
        write_atomic(path, "".join(f"{line}\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step or None)
        return self

    @staticmethod
    def _lines(path: Path) -> list[str]:
        """The whole lines; a kill may have cut the last one."""
        with contextlib.suppress(FileNotFoundError):
            return [line for line in path.read_text("utf-8", "replace").splitlines() if line.endswith("}")]
        return []

    def write(self, progress: Progress) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(record(progress)) + "\n")
            self._file.flush()
        except OSError as error:
            raise EnvironmentProblem(
                f"{self._file.name}: cannot be written ({error.strerror})", hint="free space"
            ) from error
        if self._board:
            for name in ("loss", "learning_rate", "images_per_second"):
                self._board.add_scalar(name, getattr(progress, name), progress.step)
            for level, value in (progress.psnr or {}).items():
                self._board.add_scalar(f"psnr/{level}", value, progress.step)

    def __exit__(self, *error: object) -> None:
        for open_file in (self._file, self._board):
            if open_file:
                open_file.close()


def clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


class Display:
    """Progress on stderr: two live lines in a terminal, or a plain line at least every half minute."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._live = self._bar = None
        self._spoke = -1e9

    def __enter__(self) -> Self:
        if self.report.mode == "bar":
            from rich.console import Console
            from rich.live import Live
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            console = Console(stderr=True)
            self._bar = Progress(
                TextColumn("training"), BarColumn(None), TaskProgressColumn(), TextColumn("{task.fields[left]} left"),
                console=console, expand=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=1.0, left="-:--:--")
            self._live = Live(self._bar, console=console, transient=False, redirect_stdout=False, redirect_stderr=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, progress: Progress, psnr: dict[str, float]) -> None:
        """`psnr` is the last validation's."""
        numbers = (
            f"step {progress.step}  loss {progress.loss:.3f}  {progress.images_per_second:.0f} images/s  "
            f"learning rate {progress.learning_rate:.1e}"
        )
        if psnr:
            numbers += "  PSNR " + " ".join(f"{level}: {value:.2f}" for level, value in psnr.items()) + " dB"
        if self._live:
            from rich.console import Group
            from rich.text import Text

            done = progress.seconds / max(progress.seconds + progress.seconds_left, 1e-9)
            self._bar.update(self._task, completed=done, left=clock(progress.seconds_left))
            self._live.update(Group(self._bar, Text(numbers)), refresh=True)
        elif self.report.mode == "plain":
            # reports come every few seconds: speak early rather than once too late
            last = progress.seconds_left == 0
            if last or progress.psnr or time.monotonic() - self._spoke >= 0.8 * PLAIN_SECONDS:
                self._spoke = time.monotonic()
                self.report.note(f"{numbers}  left {clock(progress.seconds_left)}")
