"""The work behind `gpnp compare`: the restoring commands themselves, once per sampler, on one simulated problem."""

import importlib.util
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, build
from .. import config as cfg
from ..config import dump
from ..errors import GpnpError, InputError, UsageError
from ..figures import Roi, Tile, contact_sheet, show_missing
from ..imageio import read_picture, write_atomic
from ..inputs import expand_inputs
from ..kernels import parse_kernel
from ..masks import parse_mask
from .batch import Job
from .deblurring import Deblurring, detail
from .inpainting import Inpainting, region
from .options import Call
from .report import Report, finite
from .restoration import tell_carried
from .results import named_format, png

HEAD = ("sampler", "PSNR mean", "PSNR sample", "LPIPS sample", "residual", "NFE", "seconds")


class Comparison:
    """One call of `gpnp compare`."""

    def __init__(self, call: Call) -> None:
        self.call, self.config, self.report = call, call.config, call.report
        found = expand_inputs(list(call.inputs)) if call.inputs else []
        if len(found) != 1:
            raise UsageError("compare needs one intact picture", hint="gpnp compare photo.png --mask rect")
        if (self.config.mask is None) == (self.config.kernel is None):
            raise UsageError("compare needs --mask or --kernel, one of them", hint="e.g. --mask rect, --kernel disk:4")
        if self.config.run.seed == "random":
            raise UsageError("every sampler needs the same seed, not a random one", hint="leave --seed out")
        self.folder: Path = self.config.output
        if named_format(self.folder) or self.folder.is_file():
            raise UsageError(f"--output {self.folder}: the results are several files", hint="name a folder")
        self.input = found[0]
        self.samplers = {name: self.at_equal_cost(name) for name in self.config.samplers}
        self.quiet = Report(quiet=True, progress="none")

    def go(self) -> int:
        if self.call.dry_run:
            self.call.show()
            return 0
        picture = read_picture(self.input.path)
        if picture.alpha is not None or picture.cmyk is not None:
            raise InputError(f"{self.input.path}: transparency and CMYK are not compared", hint="convert it to RGB")
        lpips = perceptual()
        rows, tiles, failed = [], [], []
        with self.report.files(len(self.config.samplers)):
            for number, name in enumerate(self.config.samplers, start=1):
                self.report.start(number, len(self.config.samplers), name)
                try:
                    row, pictures = self.run_one(name, picture, lpips)
                except GpnpError as error:
                    if error.code == 3:
                        raise
                    failed.append(name)
                    self.report.error(type(error)(f"{name}: {error.message}", error.hint))
                    continue
                rows.append(row)
                self.report.result({"status": "done", "input": str(self.input.path), **row})
                mean, sample = pictures
                tiles.append(
                    Tile(f"{name}: mean" if sample is not None else name, mean, f"PSNR {row['psnr_mean']:.2f} dB")
                )
                if sample is not None:
                    tiles.append(Tile(f"{name}: a sample", sample, f"PSNR {row['psnr_samples'][0]:.2f} dB"))
        if not rows:
            return 1
        self.write(rows, tiles)
        return 1 if failed else 0

    def run_one(self, name: str, picture, lpips) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray | None]]:
        """A table's row, and the mean's and the first sample's pixels `(C, H, W)`."""
        command = self.command(name)
        try:
            command.prior(picture)  # loading is not a sampler's cost
            begun = time.perf_counter()
            done = command.restore(picture, Job(self.input, self.folder, ""))
            seconds = time.perf_counter() - begun
        finally:
            command.close()
        pictures = {kind: decoded(encode()) for kind, _, encode in done.files}
        self.setting = self.setting_of(command, picture, pictures["damaged"])
        scores = done.facts["metrics"]
        names = [key for key in scores if key.startswith("sample-")]
        best = next(key for key in ("mean", "estimate") if key in scores)
        row = {
            "sampler": name,
            "psnr_mean": scores[best]["psnr"],
            "psnr_samples": [scores[key]["psnr"] for key in names],
            "lpips_sample": lpips(pictures[names[0]], self.setting[1]) if lpips and names else None,
            "residual": float(np.mean(done.facts["residual"])),
            "nfe": done.facts["nfe"],
            "iterations": command.config.sampler.iterations,
            "settings": command.config.sampler.model_dump(exclude={"samples", "method", "iterations"}),
            "seconds": round(seconds, 2),
        }
        return row, (pictures[""], pictures.get("sample-01"))

    def command(self, name: str) -> Inpainting | Deblurring:
        """The restoring command with this sampler, at the configured number of denoiser calls."""
        config = self.config
        shared = {
            "noise": config.noise,
            "simulate": True,
            "model": config.model,
            "output": cfg.Output(output=self.folder, save=("mean", "samples"), format="png", bits=8),
            "run": cfg.Run(**config.run.model_dump()),
        }
        if config.mask is not None:
            full = cfg.InpaintConfig(mask=config.mask, sampler=self.samplers[name], **shared)
            return Inpainting(self.as_call("inpaint", full), parse_mask(config.mask))
        full = cfg.DeblurConfig(kernel=config.kernel, border=config.border, sampler=self.samplers[name], **shared)
        return Deblurring(self.as_call("deblur", full), parse_kernel(config.kernel, full.run.max_pixels))

    def at_equal_cost(self, name: str) -> cfg.Sampler:
        """What the restoring command would take for the sampler `name`, but for the number of iterations."""
        command = "inpaint" if self.config.mask is not None else "deblur"
        method, _, preset = name.partition(":")
        given = {"samples": self.config.samples, "method": method, "preset": preset or None}
        given = {"model.denoiser": self.config.model.denoiser, "sampler": given}
        usual = cfg.resolve(command, given, env={}).config.sampler
        sets = [f"sampler.iterations={build.iterations_for(usual, self.config.nfe)}"]
        resolved = cfg.resolve(command, given, sets, env={})
        tell_carried(self.report, resolved)
        return resolved.config.sampler

    def as_call(self, name: str, config: Any) -> Call:
        return Call(name, (), cfg.Resolved(name, config, {}), self.quiet, False, False)

    def setting_of(self, command, picture, damaged: np.ndarray) -> tuple[np.ndarray, np.ndarray, Roi]:
        """The damaged picture as the sheet shows it, the truth, and the part to magnify."""
        job = Job(self.input, self.folder, "")
        if isinstance(command, Inpainting):
            missing = command.missing(picture, job)
            return show_missing(damaged, missing), picture.pixels, region(missing)
        truth = command.degrade(picture, "")[0].pixels
        return damaged, truth, detail(truth)

    def write(self, rows: list[dict[str, Any]], tiles: list[Tile]) -> None:
        """The sheet, the table and the manifest; the table also on stderr."""
        damaged, truth, roi = self.setting
        config = self.config
        damage = f"mask {config.mask}" if config.mask else f"kernel {config.kernel}"
        notes = (
            f"{damage}, noise {config.noise:g}; {config.samples} samples, about {config.nfe} denoiser calls each",
            f"denoiser {config.model.denoiser}, seed {config.run.seed}",
        )
        sheet = contact_sheet(
            [Tile("damaged", damaged), Tile("truth", truth), *tiles], self.input.path.name, notes, roi
        )
        lines = [" | ".join(cells) for cells in table(rows)]
        stem = f"{self.input.relative.stem}.compare"
        text = "\n".join([f"# {self.input.path.name}: {notes[0]}", "", *(f"| {line} |" for line in lines)]) + "\n"
        files = {"sheet.png": png(sheet), "md": text.encode("utf-8")}
        for end, data in files.items():
            write_atomic(self.folder / f"{stem}.{end}", data)
        record = {
            "gpnp_manifest": 1,
            "gpnp": __version__,
            "command": "compare",
            "input": self.input.path.name,
            "status": "done",
            "outputs": {"main": f"{stem}.sheet.png", "table": f"{stem}.md"},
            "rows": rows,
            "config": dump(config),
            "command_line": sys.argv[1:],
        }
        manifest = json.dumps(finite(record), indent=1, ensure_ascii=False) + "\n"
        write_atomic(self.folder / f"{stem}.gpnp.json", manifest.encode("utf-8"))
        for line in lines:
            if not line.startswith("-"):
                self.report.note(line)
        if not self.report.as_json:
            self.report.result({}, str(self.folder / f"{stem}.sheet.png"))


def table(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Head, rule and rows, padded to columns."""

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    cells = [
        (
            row["sampler"],
            number(row["psnr_mean"], ".2f"),
            number(float(np.mean(row["psnr_samples"])) if row["psnr_samples"] else None, ".2f"),
            number(row["lpips_sample"], ".3f"),
            number(row["residual"], ".4f"),
            str(row["nfe"]),
            number(row["seconds"], ".1f"),
        )
        for row in rows
    ]
    widths = [max(len(line[k]) for line in [HEAD, *cells]) for k in range(len(HEAD))]
    rule = tuple("-" * width for width in widths)

    def padded(line: tuple[str, ...]) -> tuple[str, ...]:
        return (
            line[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)),
        )

    return [padded(HEAD), rule, *map(padded, cells)]


def decoded(data: bytes) -> np.ndarray:
    """An 8-bit PNG as float `(C, H, W)`: what was written, not what was computed."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(data)), np.float32) / 255
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def perceptual():
    """LPIPS of two pictures `(C, H, W)` in [0, 1] (Zhang et al., CVPR 2018), None without the package `lpips`."""
    if importlib.util.find_spec("lpips") is None:
        return None
    import lpips
    import torch

    network = lpips.LPIPS(net="alex", verbose=False)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        x, y = (torch.from_numpy(np.broadcast_to(p, (3, *p.shape[1:])).copy())[None] for p in (a, b))
        with torch.no_grad():
            return float(network(x, y, normalize=True))

    return distance
