"""The work behind `gpnp sample`, apart from its options so that `--help` need not import torch: files, and a denoiser's
prior. Markov chains on energies are in `sampling_chains`."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__, build
from ..config import dump
from ..errors import EnvironmentProblem, InputError, UsageError
from ..figures import Tile, contact_sheet
from ..imageio import write_atomic
from ..samplers.base import Step, anneal, collect
from ..samplers.rng import ChainRng
from .options import Call
from .report import finite
from .restoration import Restoration
from .results import named_format, png

Files = list[tuple[str, Callable[[], bytes]]]  # (name's end, encode)


class Drawing(Restoration):
    """One call of `gpnp sample`. Subclasses give `draw() -> (draws, files, facts)`."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.call = call
        self.folder: Path = self.config.output.output
        self.stem = f"{self.config.sampler.method}.sample"
        if named_format(self.folder) or self.folder.is_file():
            raise UsageError(f"--output {self.folder}: samples are several files", hint="name a folder")
        if self.config.output.save == ("trace",) and not self.config.has_energy:
            raise UsageError("--save trace is for chains on an energy", hint="add samples to --save")

    def sources(self) -> dict[str, str]:
        """Hashes of the files that the settings name: they decide the result, too."""
        config = self.config
        if config.has_energy:
            named = {"energy": config.chains.energy, "proposal": config.chains.proposal}
            paths = {what: Path(text.rpartition(":")[0]) for what, text in named.items()}
        else:
            paths = {"denoiser": Path(config.model.denoiser)}
        return {what: self.digest(path) for what, path in paths.items() if path.is_file()}

    def draw(self) -> tuple[np.ndarray, Files, dict[str, Any]]:
        """Samples `(K, C, H, W)` in [0, 1], files besides them, and facts for the manifest."""
        raise NotImplementedError

    def go(self) -> int:
        """Draw, write, tell; the manifest comes last."""
        begun = time.monotonic()
        manifest = self.folder / f"{self.stem}.gpnp.json"
        settings = dump(self.config)
        settings["run"]["seed"] = self.seed
        sources = self.sources()
        if (done := self._existing(manifest, settings, sources)) is not None:
            self.report.note(f"{manifest}: already done; --force repeats it")
            self._tell({**done, "status": "skipped"}, manifest)
            return 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # what cannot be written fails now, not after the chains
        except OSError as error:
            raise EnvironmentProblem(f"{self.folder}: {error.strerror}", hint="choose another --output") from error
        try:
            with self.report.files(1):
                self.report.start(1, 1, self.stem)
                draws, files, facts = self.draw()
        finally:
            self.close()
        files = self._pictures(draws, facts.pop("notes")) + files
        self._make_way(manifest)
        for name, encode in files:
            write_atomic(self.folder / f"{self.stem}.{name}", encode())
        outputs = {("main" if k == 0 else name): f"{self.stem}.{name}" for k, (name, _) in enumerate(files)}
        record = {
            "gpnp_manifest": 1,
            "gpnp": __version__,
            "command": "sample",
            "status": "done",
            "outputs": outputs,
            "seconds": round(time.monotonic() - begun, 2),
            **facts,
            "sources": sources,
            "seed": self.seed,
            "device": str(self.device),
            "torch": torch.__version__,
            "config": settings,
            "command_line": sys.argv[1:],
        }
        write_atomic(manifest, (json.dumps(finite(record), indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
        self._tell(record, manifest)
        return 0

    def _make_way(self, manifest: Path) -> None:
        """Remove the results that are replaced: a sample-08 of theirs would pass for one of these."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            for name in json.loads(manifest.read_text("utf-8"))["outputs"].values():
                if Path(name).name == name and name.startswith(f"{self.stem}."):
                    (self.folder / name).unlink(missing_ok=True)
        manifest.unlink(missing_ok=True)

    def _existing(self, manifest: Path, settings: dict[str, Any], sources: dict[str, str]) -> dict[str, Any] | None:
        """The manifest of equal, complete results; None if there are none. `UsageError` for others in their place."""
        if self.call.force or not manifest.exists():
            return None
        try:
            found = json.loads(manifest.read_text("utf-8"))
            same = found["config"] == json.loads(json.dumps(settings)) and found["sources"] == sources
            if same and all((self.folder / name).is_file() for name in found["outputs"].values()):
                return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        raise UsageError(
            f"{manifest} exists, made from other settings", hint="--force replaces it, or name an --output"
        )

    def _tell(self, record: dict[str, Any], manifest: Path) -> None:
        outputs = {kind: str(self.folder / name) for kind, name in record["outputs"].items()}
        kept = {k: v for k, v in record.items() if k not in ("gpnp_manifest", "config", "command_line", "torch")}
        self.report.result({**kept, "outputs": {**outputs, "manifest": str(manifest)}}, outputs["main"])

    def _pictures(self, draws: np.ndarray, notes: tuple[str, ...]) -> Files:
        files: Files = []
        save = self.config.output.save
        if "sheet" in save:
            tiles = [Tile(f"sample {k}", x) for k, x in enumerate(draws[:20], start=1)]
            title = f"gpnp sample --sampler {self.config.sampler.method}"
            files.append(("sheet.png", lambda: png(contact_sheet(tiles, title, notes))))
        if "samples" in save:
            files += [(f"sample-{k:02}.png", lambda x=x: png(pixels(x))) for k, x in enumerate(draws, start=1)]
        return files

    def strip(self, states: list[tuple[str, np.ndarray]], notes: tuple[str, ...]) -> Files:
        """The first chain on its way, if asked for."""
        if not states:
            return []
        tiles = [Tile(label, x) for label, x in states]
        title = f"{self.config.sampler.method}: the first chain on its way"
        return [("strip.png", lambda: png(contact_sheet(tiles, title, notes)))]

    def watched(self, total: int) -> set[int]:
        """The iterations (from 1) that the strip shows: as many as asked for, the last one included."""
        count = min(self.config.output.strip, total)
        return {round(total * (k + 1) / count) for k in range(count)}


def pixels(x: np.ndarray) -> np.ndarray:
    """`(C, H, W)` in [0, 1] as uint8 `(H, W)` or `(H, W, 3)`."""
    levels = np.rint(x.clip(0, 1) * 255).astype(np.uint8)
    return levels[0] if len(x) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))


class PriorDrawing(Drawing):
    """Draws from a denoiser's prior."""

    def load(self) -> tuple[build.Prior, tuple[int, int, int]]:
        """The denoiser and the samples' shape `(C, H, W)`; with no --channels, the kind that the denoiser is for."""
        _, height, width = self.config.shape
        wanted = self.config.channels
        for channels in (wanted,) if wanted else (3, 1):
            try:
                return self.prior_for(channels), (channels, height, width)
            except InputError as error:
                if channels == (wanted or 1):
                    raise UsageError(error.message, hint=f"--channels {4 - channels}, or another --denoiser") from error
        raise AssertionError

    def draw(self) -> tuple[np.ndarray, Files, dict[str, Any]]:
        config = self.config
        prior, shape = self.load()
        method, levels = config.sampler.method, build.drawing_levels(config.sampler)
        kernel = build.drawing_kernel(config.sampler, prior.denoiser)
        self.check_range(prior, levels[-1], levels[0])
        finish = method != "diffusion"  # whose last state is the denoised one
        total = len(levels) + finish
        watched, strip, draws, nfe = self.watched(total), [], [], 0
        with torch.inference_mode():
            for chains in build.chain_groups(range(config.sampler.samples), math.prod(shape[1:])):
                rng = ChainRng(self.seed, chains, self.device)
                start = 0.5 + levels[0] * rng.randn_like(torch.empty(len(chains), *shape))
                steps = self.report.track(anneal(kernel, start, levels, rng, finish), total)
                if chains[0] == 0:
                    steps = self._watch(steps, watched, strip)
                chain = collect(steps, burn_in=total - 1)
                nfe = chain.nfe
                draws.append(chain.draws[:, 0].clamp(0, 1).cpu().numpy())
        notes = (
            f"denoiser {prior.name}, {nfe} calls per sample, sigma {levels[0]:g} to {levels[-1]:g}, seed {self.seed}",
        )
        facts = {
            "nfe": nfe,
            "sigma": [levels[0], levels[-1]],
            "denoiser": prior.name,
            "weights_sha256": prior.sha256,
            "notes": notes,
        }
        return np.concatenate(draws), self.strip(strip, notes), facts

    @staticmethod
    def _watch(steps: Iterator[Step], watched: set[int], strip: list) -> Iterator[Step]:
        for step in steps:
            if step.iteration in watched:
                x = step.state.x[0].clamp(0, 1).cpu().numpy()
                strip.append((f"step {step.iteration}, sigma {step.sigma:.3g}", x))
            yield step
