"""The sample pictures are what their script renders, in the promised modes and sizes."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parent.parent / "sample_images"
PROMISED = {
    "harbour.png": ("RGB", (256, 256)),
    "still_life.png": ("RGB", (384, 256)),
    "mountain.png": ("L", (256, 256)),
    "leaf_alpha.png": ("RGBA", (192, 192)),
    "scratch_mask.png": ("L", (256, 256)),
    "shake.png": ("L", (19, 19)),
}


def pixels(name, folder=FOLDER):
    with Image.open(folder / name) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def render():
    spec = importlib.util.spec_from_file_location("render_sample_images", FOLDER / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_folder_holds_the_promised_pictures_and_no_others(render):
    assert {path.name for path in FOLDER.glob("*.png")} == set(PROMISED) == set(render.SCENES)
    listed = re.findall(r"^  (\w+\.png) ", render.__doc__, re.MULTILINE)
    assert set(listed) == set(PROMISED)  # the script's own list is complete


@pytest.mark.parametrize("name", PROMISED)
def test_mode_size_and_weight(name):
    with Image.open(FOLDER / name) as image:
        assert (image.mode, image.size) == PROMISED[name]
    assert (FOLDER / name).stat().st_size < 250_000


def test_the_script_renders_the_committed_pictures(render, tmp_path, capsys):
    render.main(tmp_path / "new")
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / name) for name in render.SCENES]
    for name in PROMISED:
        new, committed = pixels(name, tmp_path / "new"), pixels(name)
        assert new.shape == committed.shape and new.dtype == committed.dtype
        # not bit for bit: versions of Pillow differ in how they draw letters and polygons
        assert np.abs(new.astype(float) - committed).mean() < 2, name
        shifted = np.roll(committed.astype(float), 3, axis=1)
        assert (
            name in ("scratch_mask.png", "shake.png") or np.abs(shifted - committed).mean() > 3
        )  # so 2 is a strict limit


@pytest.mark.parametrize("name", ["harbour.png", "still_life.png", "mountain.png"])
def test_pictures_use_the_whole_range_without_clipping_much(name):
    values = pixels(name)
    assert np.percentile(values, 1) < 45 and np.percentile(values, 99) > 200
    assert ((values == 0) | (values == 255)).mean() < 0.05


def test_the_leaf_has_transparent_holes():
    leaf = pixels("leaf_alpha.png")
    assert set(np.unique(leaf[..., 3])) == {0, 255}
    hidden = leaf[..., 3] == 0
    assert 0.02 < hidden.mean() < 0.1
    assert (leaf[hidden] == 0).all()  # nothing of what is to be restored can leak out


def test_the_mask_fits_the_harbour():
    mask = pixels("scratch_mask.png")
    assert set(np.unique(mask)) == {0, 255} and mask.shape == pixels("harbour.png").shape[:2]
    assert 0.02 < (mask == 255).mean() < 0.1


def test_the_shake_is_a_blur_kernel_in_the_middle_of_its_window():
    kernel = pixels("shake.png").astype(float)
    assert (kernel[[0, -1]] == 0).all() and (kernel[:, [0, -1]] == 0).all()
    rows, columns = np.mgrid[-9:10, -9:10]
    assert abs((kernel * rows).sum() / kernel.sum()) < 1 and abs((kernel * columns).sum() / kernel.sum()) < 1
    assert 0.03 < (kernel > 128).mean() < 0.2  # thin
