"""The benchmarks of priors of whole pictures: nearest training pictures, the table of holes, its sheets."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpnp_cli.samplers.rng import generator

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("machine", "memorisation", "faces")


@pytest.fixture
def load(monkeypatch):
    """A benchmark by its name; they import each other from their folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def pictures() -> torch.Tensor:
    """Random pictures `(7, 1, 6, 6)`."""
    return torch.rand(7, 1, 6, 6, generator=generator(0))


def test_the_nearest_picture_is_found_in_every_part(load, pictures, monkeypatch):
    memorisation = load("memorisation")
    monkeypatch.setattr(memorisation, "CHUNK", 3)
    measure = memorisation.rms_of_pixels(pictures)
    distance, number = memorisation.nearest(pictures[[6, 0, 4]] + 0.01, pictures, measure)
    assert number.tolist() == [6, 0, 4]
    assert distance.numpy() == pytest.approx(0.01, rel=1e-3)


def test_a_mirrored_picture_is_only_near_in_a_mirror(load, pictures):
    memorisation = load("memorisation")
    measure = memorisation.rms_of_pixels(pictures)
    mirrored = pictures[[2]].flip(-1)
    assert memorisation.nearest(mirrored, pictures, measure)[0].item() > 0.1
    distance, number = memorisation.nearest(mirrored, pictures, measure, mirror=True)
    assert (distance.item(), number.item()) == (pytest.approx(0, abs=1e-7), 2)


def test_the_table_counts_mirror_images_with_the_others(load, pictures):
    memorisation = load("memorisation")
    measures = [memorisation.rms_of_pixels(pictures), memorisation.Measure("means", lambda x: x.mean((2, 3)))]
    samples, held = pictures[[1, 2]].flip(-1), pictures[[3, 4, 5]] + 0.02
    head, _, *rows = memorisation.table(samples, held, pictures, measures, mirrored=True)
    assert head.startswith("| nearest of 7 training pictures | 2 samples: ") and "3 held-out pictures" in head
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    titles = ["rms of pixels", "means"]
    assert [row[0] for row in cells] == [t + end for t in titles for end in ("", ", of them and their mirror images")]
    assert min(map(float, cells[0][1].split(","))) > 0.1 and cells[0][2] == "0.020, 0.020"
    assert cells[1][1:] == ["0.000, 0.000", "0.020, 0.020"]
    plain = memorisation.table(samples, held, pictures, measures)
    assert plain == [head, "|---|---|---|", rows[0], rows[2]]


def test_rows_take_the_settings_that_their_names_say(load):
    parse = load("faces").Filling.parse
    own, balanced, calibrated = (parse(f"{name}=5", "digits").sampler for name in ("own", "balanced", "calibrated"))
    assert (own.sigma_max, own.r, own.samples) == (1, "auto", 5)
    assert (balanced.sigma_max, balanced.r) == (0.25, 1.3)
    assert (calibrated.sigma_max, calibrated.iterations) == (0.5, 200)
    assert parse("own=5", "digits").name == "digits with sigma_max 1, r auto"
    single = parse("default-pnp", "digits")
    assert (single.denoiser, single.sampler.method, single.sampler.samples) == ("default", "pnp", 1)
    assert parse("default=2", "digits").sampler.sigma_max == 0.25
    with pytest.raises(KeyError):
        parse("mine=2", "digits")


def test_an_interrupted_run_keeps_its_rows_and_sheets(load, alone, monkeypatch):
    faces = load("faces")
    monkeypatch.setattr(faces, "SHOWN", 2)
    Path("held").mkdir()
    for k in range(5):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(f"held/{k}.png")

    def fill(truth, known, denoiser, sampler):
        if sampler.method == "pnp":
            raise KeyboardInterrupt
        noise = torch.randn(len(truth), sampler.samples, *truth.shape[1:], generator=generator(1))
        return torch.where(known, truth[:, None], truth[:, None] + 0.1 * noise)

    monkeypatch.setattr(faces, "fill", fill)
    arguments = ["held", "--denoiser", "digits", "--rows", "own=4", "pnp", "--out", "out.md", "--sheets", "sheets"]
    monkeypatch.setattr(sys, "argv", ["faces.py", *arguments])
    with pytest.raises(KeyboardInterrupt):
        faces.main()
    rows = [line for line in Path("out.md").read_text().splitlines() if line.startswith("| digits")]
    assert len(rows) == 1 and rows[0].startswith("| digits with sigma_max 1, r auto | 4 | ")
    assert sorted(os.listdir("sheets")) == ["filled-own-01.png", "filled-own-02.png", "filled-own-03.png"]
