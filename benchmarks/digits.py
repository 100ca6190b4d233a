"""The shipped `digits` prior: does it repeat its training pictures, are its samples digits, and docs/digits.png.

    python benchmarks/make_digits.py digits
    python benchmarks/digits.py digits --out runs/digits.md --figure docs/digits.png

Samples are those of `gpnp sample`, restorations those of `gpnp inpaint`, by the commands of docs/tutorial.md.

Memorisation: the distance from a sample to the nearest training digit, beside that from a held-out digit; samples that
repeat training digits would lie much nearer. In pixels it is the rms difference; in features the Euclidean distance of
the 64 last activations of a small classifier, which this script trains on digits/train (two convolutions of 16 and 32
channels, 10 classes, 12 passes) and tests on digits/held. The classifier also says how sure it is of a sample's class.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from faces import read
from machine import header
from memorisation import Measure, nearest, rms_of_pixels, table
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from gpnp_cli import build
from gpnp_cli.config import Model
from gpnp_cli.denoisers.familiarity import FAR, LEVEL, relative_residual
from gpnp_cli.figures import show_missing
from gpnp_cli.samplers.rng import generator

COUNT = 32
SAMPLE_PICTURES = Path(__file__).parents[1] / "sample_images"
DAMAGES = {  # erased part, and the held-out digits it is erased from
    "rect:16,32@16,0": ("0100-4", "0040-8", "0240-7", "0295-9"),  # the lower half
    "rect:32,16@0,16": ("0045-3", "0065-6", "0050-2", "0140-0"),  # the right half
}


class Classifier(nn.Module):
    """See the module's text; gives (features, logits)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return features, self.head(features)


def labels(folder: Path) -> Tensor:
    return torch.tensor([int(path.stem[-1]) for path in sorted(folder.iterdir())])


def trained(x: Tensor, label: Tensor) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier()
    optimizer, rng = torch.optim.Adam(model.parameters(), 2e-3), generator(0)
    for _ in range(12):
        for part in torch.randperm(len(x), generator=rng).split(32):
            loss = nn.functional.cross_entropy(model(x[part])[1], label[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def residuals(denoiser: str, held: Tensor) -> list[str]:
    """Rows on the denoising residual over the highest of the validation: of held-out digits, their negatives, and crops."""
    prior = build.build_prior(Model(denoiser=denoiser), 1, torch.device("cpu"), torch.float32).denoiser
    highest = prior.metadata["residual"][f"{LEVEL:g}"]["highest"]
    crops = []
    for path in (SAMPLE_PICTURES / f"{name}.png" for name in ("harbour", "mountain", "still_life")):
        grey = torch.from_numpy(np.asarray(Image.open(path).convert("L"), np.float32) / 255)
        parts = grey.unfold(0, 32, 32).unfold(1, 32, 32).reshape(-1, 1, 32, 32)
        crops.append(parts[:: max(1, len(parts) // 40)])
    rows = []
    for title, x in (("held-out digits", held), ("in negative", 1 - held[:100]), ("sample pictures", torch.cat(crops))):
        found = relative_residual(prior, x, LEVEL, generator(1)) / highest
        rows.append(f"| {title} | {len(x)} | {found.median():.2f} | {found.max():.2f} | {int((found > FAR).sum())} |")
    return rows


def gpnp(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "gpnp_cli", *map(str, arguments), "-q"], check=True, stdout=sys.stderr)


def grid(rows: list[list[np.ndarray]], scale: int = 3, gap: int = 6) -> np.ndarray:
    """Pictures `(3, 32, 32)` in rows, enlarged, on white paper: uint8 `(H, W, 3)`."""
    side = 32 * scale
    page = np.full((len(rows) * (side + gap) + gap, max(map(len, rows)) * (side + gap) + gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            large = np.rint(picture.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
            y, x = gap + r * (side + gap), gap + c * (side + gap)
            page[y : y + side, x : x + side] = large.repeat(scale, 0).repeat(scale, 1)
    return page


def titled(page: np.ndarray, title: str) -> np.ndarray:
    image = Image.new("RGB", (page.shape[1], page.shape[0] + 30), "white")
    ImageDraw.Draw(image).text((6, 6), title, fill=(28, 28, 32), font=ImageFont.load_default(size=17))
    image.paste(Image.fromarray(page), (0, 30))
    return np.asarray(image)


def colour(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1) / 255


def restorations(folder: Path, denoiser: str, work: Path) -> np.ndarray:
    """Truth, damage and three samples of some held-out digits, two digits a row."""
    rows = []
    for mask, names in DAMAGES.items():
        files = [folder / "held" / f"{name}.png" for name in names]
        options = ("--mask", mask, "--simulate", "--denoiser", denoiser)
        gpnp("inpaint", *files, *options, "-o", work)
        for file in files:
            damaged = colour(work / f"{file.stem}.inpaint.damaged.png")
            missing = colour(work / f"{file.stem}.inpaint.mask.png")[0] > 0.5
            samples = [colour(work / f"{file.stem}.inpaint.sample-{k:02}.png") for k in (1, 2, 3)]
            rows.append([colour(file), show_missing(damaged, missing), *samples])
    blank = [np.ones((3, 32, 32), np.float32)]
    return grid([a + blank + b for a, b in zip(rows[::2], rows[1::2], strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what make_digits.py wrote")
    parser.add_argument("--denoiser", default="digits")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    train, held = (read(args.folder / part, 32, None) for part in ("train", "held"))
    classify = trained(train, labels(args.folder / "train"))
    right = (classify(held)[1].argmax(1) == labels(args.folder / "held")).double().mean()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        drawing = ("--size", "32x32", "--channels", "1", "--sigma-max", "10", "-n", COUNT, "--save", "samples")
        gpnp("sample", "--denoiser", args.denoiser, *drawing, "-o", work / "free")
        free = read(work / "free", 32, None)
        restored = restorations(args.folder, args.denoiser, work) if args.figure else None
    sure = classify(free)[1].softmax(1)
    counts = sure.argmax(1).bincount(minlength=10).tolist()
    told = [
        f"Classifier: {100 * right:.1f} % right on {len(held)} held-out digits.",
        f"{COUNT} samples: median certainty of their class {sure.amax(1).median():.3f},",
        f"{int((sure.amax(1) > 0.9).sum())} above 0.9; of the classes 0 to 9 {', '.join(map(str, counts))} samples.",
    ]
    lines = [
        header(),
        "",
        " ".join(told),
        "",
        *table(free, held, train, [rms_of_pixels(train), Measure("features", lambda x: classify(x)[0])]),
    ]
    lines += ["", f"| residual at sigma {LEVEL:g} over the highest in validation | of | median | most | far |"]
    lines += ["|---|---|---|---|---|", *residuals(args.denoiser, held)]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    if args.figure:
        wide = [x.expand(3, -1, -1).numpy() for x in free]
        near = [train[i].expand(3, -1, -1).numpy() for i in nearest(free, train, rms_of_pixels(train))[1]]
        parts = [titled(restored, "held-out digit, what is left of it, three samples (twice a row)")]
        parts.append(titled(grid([wide[i : i + 11] for i in (0, 11)]), "unconditional samples"))
        parts.append(titled(grid([wide[:11], near[:11]]), "samples, and the nearest training digit of each"))
        width = max(part.shape[1] for part in parts)
        page = [np.pad(part, ((0, 12), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in parts]
        Image.fromarray(np.concatenate(page)).save(args.figure, optimize=True)


if __name__ == "__main__":
    main()
