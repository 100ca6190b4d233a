"""Scikit-learn's handwritten digits as PNG files: what the tutorial trains its prior on.

    pip install "gpnp[tutorial]"
    python benchmarks/make_digits.py digits

1797 digits of 8x8 pixels (Kaynak & Alpaydin, UCI Machine Learning Repository, CC BY 4.0), each pixel the share of ink
in a 4x4 block of a bitmap, enlarged to the bitmap's 32x32 by bicubic interpolation. Every fifth goes to digits/held,
which no training may see, the others to digits/train; a name tells number and label: 0005-3.png.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    from sklearn.datasets import load_digits

    found = load_digits()
    for part in ("train", "held"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, (ink, label) in enumerate(zip(found.images, found.target, strict=True)):
        picture = Image.fromarray(np.float32(ink / 16)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        levels = np.rint(np.asarray(picture).clip(0, 1) * 255).astype(np.uint8)
        Image.fromarray(levels).save(folder / ("train" if number % 5 else "held") / f"{number:04}-{label}.png")
    print(f"{len(found.images)} digits in {folder}")


if __name__ == "__main__":
    main()
