"""The work behind `gpnp diagnose`: reads a run's manifest and the files it names, computes nothing anew."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..coverage import calibration_ratio, coverage
from ..errors import GpnpError, InputError, UsageError
from ..imageio import read_mask, read_picture, write_atomic
from ..masks import parse_mask
from ..metrics import psnr
from . import agreement
from .options import Call
from .report import finite
from .results import png
from .tracing import spoken, trace_plot, worth

MANIFEST = ".gpnp.json"


class Diagnosis:
    """One call of `gpnp diagnose`."""

    def __init__(self, call: Call) -> None:
        self.call, self.config, self.report = call, call.config, call.report
        if not call.inputs:
            raise UsageError("diagnose needs a run's manifest", hint="gpnp diagnose gpnp_out/photo.inpaint.gpnp.json")
        if self.config.reference and len(call.inputs) > 1:
            raise UsageError("--reference belongs to one run", hint="diagnose the runs one by one")

    def go(self) -> int:
        """Examine all; a manifest that is none does not stop the others."""
        code = 0
        for name in self.call.inputs:
            try:
                self.one(Path(name))
            except GpnpError as error:
                if error.code != 1:
                    raise
                self.report.error(error)
                self.report.result({"input": name, "status": "failed", "error": {"code": 1, "message": error.message}})
                code = 1
        return code

    def one(self, path: Path) -> None:
        manifest = read_manifest(path)
        stem, folder = path.name.removesuffix(MANIFEST), self.config.output or path.parent
        run = Run(path, manifest)
        facts: dict[str, Any] = {"command": manifest["command"], "samples": len(run.draws)}
        lines = []
        annealed = manifest["command"] != "sample"
        if (series := run.series()) is not None:
            values, burn_in = series
        if series is not None and not annealed:  # a falling sigma leaves nothing stationary
            for name, column in values.items():
                facts[name] = worth(torch.from_numpy(column[burn_in:]))
                lines.append(f"{name}: {facts[name]['mean']:.6g} +- {facts[name]['std']:.3g}{spoken(facts[name])}")
        told = {
            key: {**found, "rhat": math.inf} if isinstance(found, dict) and found["rhat"] is None else found
            for key, found in manifest.get("diagnostics", {}).items()
        }  # JSON has no infinity
        if told:
            facts["diagnostics"] = told
            lines += [text for text in (agreement.sentence(told), agreement.complaint(told)) if text]
            hats = [f"{what} {found['rhat']:.2f}" for what, found in told.items() if isinstance(found, dict)]
            if hats:
                lines.append(f"R-hat of annealed chains, large where the data leave something open: {', '.join(hats)}")
        if annealed and len(run.draws) > 1:
            facts["sample_std"] = float(np.sqrt(run.draws.var(0, ddof=1).mean()))
            lines.append(f"{len(run.draws)} samples, standard deviation {255 * facts['sample_std']:.2f}/255 per pixel")
        if manifest.get("residual") and manifest.get("sigma_y"):
            facts["residual_ratio"] = float(np.mean(manifest["residual"])) / manifest["sigma_y"]
            lines.append(f"residual {facts['residual_ratio']:.2f} times the noise (ideal: 1)")
        if self.config.reference is not None:
            self.against(run, facts, lines)
        elif annealed and len(run.draws) > 1:
            self.report.note(f"{path}: --reference TRUTH would also measure the intervals' coverage")
        for line in lines:
            self.report.note(f"{path}: {line}")
        outputs = {"main": folder / f"{stem}.diagnose.json"}
        if series is not None:
            outputs["trace"] = folder / f"{stem}.diagnose.png"
            write_atomic(outputs["trace"], png(trace_plot(values, burn_in, stem, tuple(lines), not annealed)))
        text = json.dumps(finite({"gpnp_diagnosis": 1, "manifest": path.name, **facts}), indent=1) + "\n"
        write_atomic(outputs["main"], text.encode("utf-8"))
        record = {"input": str(path), "status": "done", **facts, "outputs": {k: str(v) for k, v in outputs.items()}}
        self.report.result(record, str(outputs["main"]))

    def against(self, run: "Run", facts: dict[str, Any], lines: list[str]) -> None:
        """Coverage, calibration and PSNR against the truth."""
        if not len(run.draws):
            raise InputError(f"{run.path}: this run kept no samples to compare", hint="run it with --save mean,samples")
        truth = run.truth(self.config.reference)
        facts["psnr"] = {"mean": psnr(run.draws.mean(0), truth), "samples": [psnr(x, truth) for x in run.draws]}
        lines.append(
            f"PSNR of the mean {facts['psnr']['mean']:.2f} dB, of a sample {np.mean(facts['psnr']['samples']):.2f} dB"
        )
        if len(run.draws) < 2:
            return
        unknown = run.unknown(truth.shape)
        draws, hidden = run.draws[..., unknown], truth[..., unknown]
        facts["pixels"] = int(unknown.sum())
        facts["calibration_ratio"] = calibration_ratio(draws, hidden)
        facts["coverage"] = [item._asdict() for item in coverage(draws, hidden)]
        lines.append(f"variance over squared error of the mean {facts['calibration_ratio']:.2f} (1 is ideal)")
        for item in facts["coverage"][:5]:
            lines.append(f"intervals of {100 * item['nominal']:.0f} % hold {100 * item['found']:.1f} % of the truth")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest; `InputError` for anything else."""
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["gpnp_manifest"] == 1 and isinstance(found["outputs"], dict) and found["command"]:
            return found
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", hint="name a run's NAME.gpnp.json") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: is no manifest of a run", hint="name the NAME.gpnp.json that a command wrote")


class Run:
    """A saved run's files."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        names = [name for kind, name in manifest["outputs"].items() if "sample-" in kind]
        planes = [read_picture(self.beside(name)).pixels for name in names]
        self.draws = np.stack(planes) if planes else np.empty((0, 1, 1, 1), np.float32)

    def beside(self, name: str) -> Path:
        """A file that the manifest names, which never lies elsewhere."""
        if Path(name).name != name:
            raise InputError(f"{self.path}: names a file outside its folder ({name})", hint="the manifest was changed")
        return self.path.parent / name

    def series(self) -> tuple[dict[str, np.ndarray], int] | None:
        """The traces `(iteration, chain)` by name, and the burn-in; None if the run wrote none."""
        name = next((name for name in self.manifest["outputs"].values() if name.endswith(".trace.npz")), None)
        if name is None:
            return None
        try:
            with np.load(self.beside(name), allow_pickle=False) as file:
                values = {key: file[key] for key in file.files if key != "burn_in"}
                return values, int(file["burn_in"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{self.beside(name)}: is no trace", hint="run the command again, with --force") from error

    def truth(self, reference: Path) -> np.ndarray:
        """The true picture; of a simulated blur with real borders its inside, which the results show."""
        truth, shape = read_picture(reference).pixels, self.draws.shape[1:]
        margins = [have - want for have, want in zip(truth.shape[1:], shape[1:], strict=True)]
        cropped = self.manifest["command"] == "deblur" and self.manifest["config"].get("simulate")
        if cropped and min(margins) >= 0 and len(truth) == shape[0]:
            top, left = (margin // 2 for margin in margins)
            truth = truth[:, top : top + shape[1], left : left + shape[2]]
        if truth.shape != shape:
            raise InputError(
                f"{reference}: the reference is {truth.shape[2]}x{truth.shape[1]} with {len(truth)} channels, the "
                f"samples {shape[2]}x{shape[1]} with {shape[0]}",
                hint="give the true picture of the same size and kind",
            )
        return truth

    def unknown(self, shape: tuple[int, int, int]) -> np.ndarray:
        """The pixels `(H, W)` that count: all, but of an inpainting with exact data only the missing ones."""
        config = self.manifest["config"]
        everything = np.ones(shape[1:], bool)
        if self.manifest["command"] != "inpaint" or config.get("noise"):
            return everything
        mask = parse_mask(config["mask"])
        if "mask" in self.manifest["outputs"]:
            return read_mask(self.beside(self.manifest["outputs"]["mask"]), shape[1:])
        if mask.kind in ("alpha", "file"):  # the samples differ where nothing was known
            return self.draws.std(0).max(0) > 0
        drawn = mask.draw(*shape[1:])
        return ~drawn if config.get("mask_invert") else drawn
