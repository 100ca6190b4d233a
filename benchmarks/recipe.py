"""Short trainings that differ in one choice each: what the recipe of the shipped denoiser rests on.

    python benchmarks/recipe.py FOLDER --steps 600 --out runs/recipe.md

Each variant trains anew for as many pixels as the others, with configs/train-default.yaml and one change; the score is the PSNR on
the run's own held-out pictures (of FOLDER, at sigma * 255 = 15, 25, 50). Short runs favour what learns fast: of two
variants that are close, nothing is shown about long runs. Runs that are finished are not repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from machine import header

CONFIG = Path(__file__).parents[1] / "configs" / "train-default.yaml"
# The default's shape at a third of its width, so that minutes are enough to tell variants apart.
SMALL = ("network.widths=[32, 64, 96, 128]", "plan.ema=0.995")
VARIANTS: dict[str, tuple[str, ...]] = {
    "recipe, a third as wide": (),
    "crop 64, batch 27": ("crop=64", "plan.batch=27"),
    "crop 128, batch 7": ("crop=128", "plan.batch=7"),
    "flat: blocks 5, 2, 1, 1": ("network.blocks=[5, 2, 1, 1]",),
    "deep: blocks 2, 2, 3, 3": ("network.blocks=[2, 2, 3, 3]",),
    "sigma log-uniform only": ("sigma.uniform=1",),
    "sigma focused only": ("sigma.uniform=0",),
    "no averaged weights": ("plan.ema=0",),
    "crops drawn anywhere": ("augment.texture=0",),
    "no colour augmentation": ("augment.colour=false",),
    "learning rate 3e-4": ("plan.learning_rate=3e-4",),
    "learning rate 3e-3": ("plan.learning_rate=3e-3",),
}


def train(folder: Path, name: str, steps: int, cache: Path) -> dict:
    """The last report with a validation of a finished run."""
    run = cache / "".join(c if c.isalnum() else "-" for c in name)
    sets = [*SMALL, f"plan.steps={steps}", "plan.minutes=null", *VARIANTS[name]]
    options = [part for item in sets for part in ("--set", item)]
    command = [sys.executable, "-m", "gpnp_cli", "train-denoiser", str(folder), "-c", str(CONFIG), "-o", str(run)]
    subprocess.run([*command, *options, "--resume", "-q"], check=True, stdout=subprocess.DEVNULL)
    reports = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [report for report in reports if report.get("psnr")][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600, help="of 12 crops of 96x96")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--cache", type=Path, default=Path("runs/recipe"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = [header(), "", "| variant | steps | PSNR at 15 | 25 | 50 |", "|---|---|---|---|---|"]
    for name in args.variants:
        report = train(args.folder, name, args.steps, args.cache)
        lines.append(f"| {name} | {report['step']} | {' | '.join(f'{v:.2f}' for v in report['psnr'].values())} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
