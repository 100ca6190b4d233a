"""The loop over inputs that every restoring command shares.

Which file goes where, sharding, skip-if-done, atomic writes with the manifest last, one bad input
among good ones, and what the exit code then is. A command gives `restore`, which turns one picture
into a `Restored`.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import dump
from ..errors import EnvironmentProblem, GpnpError, InputError, UsageError
from ..imageio import WRITABLE, Picture, read_picture, write_atomic
from ..inputs import Input, expand_inputs
from ..kernels import BlurKernel
from .guard import report_bug
from .options import Call
from .report import finite
from .results import named_format

# Where results go, how a batch is cut, where weights lie and on how many threads it runs does not change what results
# are; the seed does, and is compared by itself.
NOT_IN_HASH = (("output", "output"), ("output", "existing"), ("run", "shard"), ("run", "fail_fast"), ("run", "recursive"),
               ("run", "resume"), ("run", "threads"), ("run", "max_pixels"), ("run", "seed"), ("model", "model_dir"), ("model", "offline"))  # fmt: skip
FAILURES = re.compile(r"failures(\.[0-9]+-of-[0-9]+)?\.jsonl")
PART = re.compile(r"\.part-([0-9]+)")
NO_MEMORY = re.compile("out of memory|alloc", re.IGNORECASE)  # what PyTorch's RuntimeError says on the CPU


@dataclass(frozen=True)
class Job:
    """One input and the names of its results: `folder / (stem + suffix)`; `main` only if the user named the file."""

    input: Input
    folder: Path
    stem: str
    main: Path | None = None

    def path(self, kind: str, extension: str) -> Path:
        """The result of this kind; the kind '' is the main one."""
        if kind == "" and self.main is not None:
            return self.main
        return self.folder / f"{self.stem}{'.' + kind if kind else ''}.{extension}"

    @property
    def manifest(self) -> Path:
        return self.folder / f"{self.stem}.gpnp.json"


@dataclass
class Restored:
    """What a command made of one picture: files as (kind, extension, encode), the main one first, and facts.

    `spent` are files that nobody needs any more once all this is written.
    """

    files: list[tuple[str, str, Callable[[], bytes]]]
    facts: dict[str, Any] = field(default_factory=dict)
    spent: tuple[Path, ...] = ()


def plan(inputs: list[Input], command: str, output: Path) -> list[Job]:
    """Result names for all inputs; raises `UsageError` when a file name is given for several inputs.

    A stem shared by two inputs of one folder (a.jpg, a.png) keeps its extension.
    """
    if named_format(output):
        if len(inputs) > 1:
            raise UsageError(f"--output {output} names one file for {len(inputs)} inputs", hint="name a folder")
        return [Job(inputs[0], output.parent, output.stem, output)]
    stems = Counter((item.relative.parent, item.relative.stem) for item in inputs)
    jobs = []
    for item in inputs:
        parent, name = item.relative.parent, item.relative
        stem = name.stem if stems[parent, name.stem] == 1 else name.name
        jobs.append(Job(item, output / parent, f"{stem}.{command}"))
    names = Counter(job.manifest for job in jobs)
    for job in jobs:
        if names[job.manifest] > 1:
            raise UsageError(
                f"two inputs would both be written as {job.manifest.name}", hint="restore them in two runs"
            )
    return jobs


def in_shard(item: Input, shard: str | None) -> bool:
    """Whether the input belongs to part i of N: by a hash of its name, so that it does not move when others do."""
    if shard is None:
        return True
    part, count = map(int, shard.split("/"))
    # not a checksum: of numbered files (0.png, 1.png, ...) all CRCs may be even
    digest = hashlib.sha256(os.fsencode(item.relative.as_posix())).digest()
    return int.from_bytes(digest[:8]) % count == part - 1


def config_hash(config: dict[str, Any], extra: dict[str, str]) -> str:
    """Identifies what decides the result: settings, and the contents of the files they name."""
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for section, key in NOT_IN_HASH:
        config[section].pop(key, None)
    return hashlib.sha256(json.dumps([config, extra], sort_keys=True).encode()).hexdigest()[:16]


def blurred(call: Call, kernel: BlurKernel | None) -> "Batch":
    """The batch of a call whose data a kernel made (None: its file is no companion); what is odd about it is said."""
    batch = Batch(call, [kernel and kernel.path, call.config.reference])
    for note in kernel.notes if kernel else ():
        call.report.note(f"gpnp: {note}")
    return batch


class Batch:
    """Works through the inputs of one call."""

    def __init__(self, call: Call, companions: Sequence[Path | None] = ()) -> None:
        """`companions` are further files that no result may replace (a mask, a reference); None and folders do not count."""
        self.call, self.report = call, call.report
        self.config = call.config
        if not call.inputs:
            raise UsageError(f"{call.command} needs at least one picture", hint=f"gpnp {call.command} photo.png")
        inputs = expand_inputs(list(call.inputs), self.config.run.recursive, sys.stdin)
        jobs = plan(inputs, call.command, self.config.output.output)
        self.sources = [*(item.path for item in inputs), *(path for path in companions if path and path.is_file())]
        self._check_output(jobs[0].main)
        self.jobs = [job for job in jobs if in_shard(job.input, self.config.run.shard)]
        if not self.jobs:
            self.report.note(f"gpnp: none of the {len(jobs)} inputs falls into shard {self.config.run.shard}")
        for job in self.jobs:
            name = job.input.relative
            if job.main is None and name.suffix and job.stem == f"{name.name}.{call.command}":
                self.report.note(
                    f"gpnp: {name.stem} is not the only input of that name: {job.input.path} becomes {job.stem}"
                )
        samples = " or fewer --samples" if hasattr(self.config, "sampler") else ""
        self.smaller = f"use a smaller --tile{samples}"  # what helps when memory runs out
        self.tried: set[str] = set()
        self.failures: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()

    def _check_output(self, main: Path | None) -> None:
        """`UsageError` for output settings that contradict each other, or that would replace an input."""
        output = self.config.output
        if output.format != "keep" and output.bits != "keep" and output.bits not in WRITABLE[output.format]:
            raise UsageError(
                f"--bits {output.bits}: {output.format.upper()} cannot hold that", hint="choose --format tif"
            )
        if output.save == ("trace",):
            raise UsageError("--save trace leaves no picture", hint="add samples to it: --save samples,trace")
        if output.save == ("std",) and self.config.sampler.samples == 1:
            hint = "add mean to --save" if self.config.sampler.method == "pnp" else "add --samples 2"
            raise UsageError("--save std needs at least two samples", hint=hint)
        if main is None:
            return
        if output.format not in ("keep", named_format(main)):
            raise UsageError(
                f"--output {main} is no {output.format.upper()} file, as --format asks", hint="keep one of the two"
            )
        if "mean" not in output.save:
            raise UsageError(f"--output {main} names the mean's file, which --save leaves out", hint="name a folder")
        try:
            self._refuse_input(main)
        except InputError as error:
            raise UsageError(error.message, error.hint) from error

    def dry_run(self) -> int:
        """The resolved configuration on stdout; inputs and result names on stderr; nothing is written."""
        self.call.show()
        for job in self.jobs:
            self.report.note(f"# {job.input.path} -> {job.path('', '*')}")
        return 0

    def run(
        self,
        restore: Callable[[Picture, Job], Restored],
        identity: Callable[[Picture, Job], dict[str, str]],
        describe: dict[str, Any],
    ) -> int:
        """Restore every input; the exit code says whether some failed.

        `identity` gives hashes of the other files that decide a result (mask, weights); `describe` goes
        into every manifest.
        """
        made = self._make_folders()
        try:
            return self._run(restore, identity, describe)
        finally:
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()  # stays if anything was written

    def _run(self, restore, identity, describe: dict[str, Any]) -> int:
        started = time.monotonic()
        code = 0
        try:
            with self.report.files(len(self.jobs)):
                for number, job in enumerate(self.jobs, start=1):
                    self.report.start(number, len(self.jobs), job.input.path.name)
                    code = max(code, self._attempt(job, restore, identity, describe))
                    self.tried.add(str(job.input.path))
                    if code and self.config.run.fail_fast:
                        break
        finally:  # an interrupted batch lists its failures, too
            failures = self._list_failures()
        self._finish(time.monotonic() - started, failures)
        return code

    def _attempt(self, job: Job, restore, identity, describe: dict[str, Any]) -> int:
        """Restore one input; what goes wrong with it alone is reported, and its exit code returned."""
        try:
            self._one(job, restore, identity, describe)
            return 0
        except GpnpError as error:
            if error.code != 1:
                raise
            self._failed(job, error)
            return 1
        except Exception as error:  # noqa: BLE001  a bug met by one picture must not cost the others
            if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
                self._failed(job, InputError("out of memory", hint=self.smaller))
                return 1
            report_bug(error)
            self._failed(job, InputError(str(error)), silent=True)
            return 70

    def _one(self, job: Job, restore, identity, describe: dict[str, Any]) -> None:
        begun = time.monotonic()
        picture = read_picture(job.input.path, self.config.run.max_pixels)
        for note in picture.notes:
            self.report.warn(note)
        settings = dump(self.config)
        key = config_hash(settings, {"input": picture.sha256, **identity(picture, job)})
        done = self._existing(job, key, describe["seed"])
        if done is not None:
            self.counts["skipped"] += 1
            self.report.note(f"{job.input.path}: already done; --force repeats it")
            self.report.finished("skipped")
            self._tell(job, {**done, "status": "skipped"})
            return
        restored = restore(picture, job)
        paths = [job.path(kind, extension) for kind, extension, _ in restored.files]
        for path in paths:
            self._refuse_input(path)
        kinds = ["main", *(kind for kind, _, _ in restored.files[1:])]
        outputs = dict(zip(kinds, (path.name for path in paths), strict=True))
        old = self._begin_writing(job)
        for path, (_, _, encode) in zip(paths, restored.files, strict=True):
            write_atomic(path, encode())
        for name in old - set(outputs.values()):  # a sample-03 would pass for one of these results
            with suppress(OSError):
                (job.folder / name).unlink()
        seconds = round(time.monotonic() - begun, 2)
        manifest = {
            "gpnp_manifest": 1,
            "gpnp": __version__,
            "command": self.call.command,
            "input": job.input.path.name,
            "input_sha256": picture.sha256,
            "status": "done",
            "outputs": outputs,
            "seconds": seconds,
            **restored.facts,
            **describe,
            "config_hash": key,
            "config": {**settings, "run": {**settings["run"], "shard": None, "seed": describe["seed"]}},
            "command_line": sys.argv[1:],
        }
        manifest["config"]["run"].pop("resume", None)  # how this run came about, not what it is
        text = json.dumps(finite(manifest), indent=1, ensure_ascii=False) + "\n"
        write_atomic(job.manifest, text.encode("utf-8", "backslashreplace"))  # names that are no text: \\udcff is JSON
        for path in restored.spent:
            with suppress(OSError):
                path.unlink()
        self.counts["done"] += 1
        self.report.finished(f"done in {seconds:.1f} s")
        self._tell(job, manifest)

    def _tell(self, job: Job, manifest: dict[str, Any]) -> None:
        """The finished result on stdout."""
        outputs = {kind: str(job.folder / name) for kind, name in manifest["outputs"].items()}
        facts = {
            key: value
            for key, value in manifest.items()
            if key not in ("gpnp_manifest", "config_hash", "config", "command_line")
        }
        record = {**facts, "input": str(job.input.path), "outputs": {**outputs, "manifest": str(job.manifest)}}
        self.report.result(record, outputs["main"])

    def _begin_writing(self, job: Job) -> set[str]:
        """Make way for new results, and return the names of the old ones.

        The old manifest goes first: a run killed from here on must not look finished. So do the part files of
        killed runs.
        """
        old: set[str] = set()
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            names = json.loads(job.manifest.read_text("utf-8"))["outputs"].values()
            old = {name for name in names if Path(name).name == name and name.startswith(f"{job.stem}.")}
        with suppress(OSError):  # if it cannot be removed, nothing can be written: that says why
            job.manifest.unlink(missing_ok=True)
            for name in os.listdir(job.folder):
                part = PART.fullmatch(os.path.splitext(name)[1])
                if part and name.startswith(f".{job.stem}.") and not _alive(int(part[1])):
                    (job.folder / name).unlink(missing_ok=True)
        return {name for name in old if not self._is_source(job.folder / name)}

    def _existing(self, job: Job, key: str, seed: int) -> dict[str, Any] | None:
        """The manifest of a finished, equal result that may be skipped; None: go on and write.

        Results without a manifest are the remains of a killed run and are replaced. With `--seed random` any seed will do.
        """
        policy = "overwrite" if self.call.force else self.config.output.existing
        if policy == "overwrite":
            return None
        try:
            manifest = json.loads(job.manifest.read_text("utf-8"))
            main = manifest["outputs"]["main"]
            same = manifest["config_hash"] == key and all(
                (job.folder / name).is_file() for name in manifest["outputs"].values()
            )
            same = same and (self.config.run.seed == "random" or manifest["seed"] == seed)
            same = same and (job.main is None or job.main.name == main)
        except FileNotFoundError:
            if job.main is not None and job.main.exists():
                raise InputError(f"{job.main} exists", hint="--force replaces it") from None
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            same = False
        if policy == "skip" and same:
            return manifest
        why = "is done already" if same else "exists, made from other settings or another input"
        raise InputError(
            f"{job.input.path}: {job.manifest} {why}", hint="use --force to replace it, or another --output"
        )

    def _refuse_input(self, path: Path) -> None:
        """A result never replaces an input, whatever links and names say."""
        if source := self._is_source(path):
            raise InputError(f"{path}: would overwrite the input {source}", hint="choose another --output")

    def _is_source(self, path: Path) -> Path | None:
        """The input that is the file `path`, if any."""
        with suppress(OSError):
            status = path.stat()
            for source in self.sources:
                with suppress(OSError):
                    if os.path.samestat(source.stat(), status):
                        return source
        return None

    def _make_folders(self) -> list[Path]:
        """Find out before hours of work, not after, that results cannot be written. Returns the new folders, inner first."""
        made: list[Path] = []
        for folder in sorted({job.folder for job in self.jobs}):
            try:
                made += [parent for parent in (*reversed(folder.parents), folder) if not parent.exists()]
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder, prefix=".gpnp-probe-"):
                    pass
            except OSError as error:
                raise EnvironmentProblem(
                    f"{folder}: results cannot be written there ({error.strerror})", hint="choose another --output"
                ) from error
        return made[::-1]

    def _failed(self, job: Job, error: GpnpError, silent: bool = False) -> None:
        self.counts["failed"] += 1
        name = str(job.input.path)
        if name not in error.message:  # a divergence, or a mask that does not fit
            error = InputError(f"{name}: {error.message}", error.hint)
        if not silent:
            self.report.error(error)
        record = {"input": name, "relative": str(job.input.relative), "status": "failed"}
        record["error"] = {"code": error.code, "message": error.message}
        self.failures.append(record)
        self.report.finished("failed")
        self.report.result(record)

    def _list_failures(self) -> Path:
        """Bring the failure lists (for `@failures.jsonl`) up to date; returns this run's."""
        shard = self.config.run.shard
        name = f"failures.{shard.replace('/', '-of-')}.jsonl" if shard else "failures.jsonl"
        folder = self.config.output.output
        if self.jobs and self.jobs[0].main is not None:
            folder = folder.parent
        path = folder / name
        self._update_failures(folder, path)
        return path

    def _finish(self, seconds: float, path: Path) -> None:
        """What to do with the failures listed in `path`, and the JSON summary."""
        if self.failures and len(self.jobs) > 1:
            self.report.note(f"gpnp: {len(self.failures)} of {len(self.jobs)} inputs failed; retry them with @{path}")
        if self.report.as_json:
            counts = {key: self.counts[key] for key in ("done", "skipped", "failed")}
            self.report.result({"summary": counts, "seconds": round(seconds, 2)})

    def _update_failures(self, folder: Path, mine: Path) -> None:
        """Strike the inputs of this run off the lists of earlier ones, and add those that failed now to `mine`.

        A single input gets no list of its own.
        """
        lists = [path for path in (folder.iterdir() if folder.is_dir() else ()) if FAILURES.fullmatch(path.name)]
        if mine not in lists and self.failures and len(self.jobs) > 1:
            lists.append(mine)
        for path in lists:
            old = _read_records(path)
            records = [record for record in old if record.get("input") not in self.tried]
            records += self.failures if path == mine else []
            if records and records != old:
                write_atomic(path, "".join(json.dumps(record) + "\n" for record in records).encode())
            elif not records:
                path.unlink(missing_ok=True)


def _read_records(path: Path) -> list[dict[str, Any]]:
    """The objects of a failure list; what is none is passed over."""
    records = []
    with suppress(OSError):
        for line in path.read_text("utf-8", errors="replace").splitlines():
            with suppress(ValueError, RecursionError):
                record = json.loads(line)
                records += [record] if isinstance(record, dict) else []
    return records


def _alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    if os.name == "nt":  # os.kill would end it
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
