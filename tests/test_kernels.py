"""`--kernel`: the shapes that can be drawn, the files that can be read, and what is refused."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from gpnp_cli.errors import InputError, UsageError
from gpnp_cli.kernels import check_fits, parse_kernel

LIMIT = 10_000


def values(text) -> np.ndarray:
    kernel = parse_kernel(str(text), LIMIT).values
    assert kernel.dtype == np.float64 and kernel.ndim == 2
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert kernel.min() >= 0
    return kernel


def offsets(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns counted from the centre."""
    rows, columns = np.indices(kernel.shape)
    return rows - kernel.shape[0] // 2, columns - kernel.shape[1] // 2


def test_gaussian_has_its_standard_deviation():
    kernel = values("gaussian:1.6")
    rows, columns = offsets(kernel)
    assert (kernel * rows**2).sum() == pytest.approx(1.6**2, rel=0.005)
    assert (kernel * columns**2).sum() == pytest.approx(1.6**2, rel=0.005)
    assert np.array_equal(kernel, kernel.T) and np.array_equal(kernel, kernel[::-1])
    assert kernel[7, 7] / kernel[7, 8] == pytest.approx(np.exp(1 / (2 * 1.6**2)))


def test_motion_is_a_line_of_its_length_and_direction():
    assert np.allclose(values("motion:15,0"), np.full((1, 15), 1 / 15))
    assert np.allclose(values("motion:15,90"), np.full((15, 1), 1 / 15))
    assert np.allclose(values("motion:4,0"), [[0.125, 0.25, 0.25, 0.25, 0.125]])  # half of the outer pixels
    assert values("motion:0.5,77").shape == (1, 1)
    for degrees in (30, 120, -45, 200.5):
        kernel = values(f"motion:21,{degrees}")
        rows, columns = offsets(kernel)
        moments = [(kernel * a * b).sum() for a, b in ((columns, columns), (rows, rows), (columns, -rows))]
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        expected = 21**2 / 12 * np.array([cos**2, sin**2, cos * sin])  # of a line; pixels add up to 1/12
        assert np.abs(np.array(moments) - expected).max() < 0.2
        assert np.allclose(kernel, kernel[::-1, ::-1])


def test_disk_has_its_area_and_soft_edge():
    kernel = values("disk:4")
    assert kernel.shape == (9, 9)
    assert kernel[4, 4] == kernel.max() == pytest.approx(1 / (np.pi * 16), rel=0.005)
    assert 0 < kernel[4, 0] < kernel[4, 4]
    assert kernel[0, 0] == 0
    assert values("disk:0.3").shape == (1, 1)


@pytest.mark.parametrize(
    "text",
    ["gaussian", "gaussian:", "gaussian:0", "gaussian:-1", "gaussian:nan", "gaussian:1,2", "gaussian:1e9", "motion:15",
     "motion:15,inf", "motion:0,3", "motion:1,2,3", "disk:x", "disk:inf", "disk:4;3"],
)  # fmt: skip
def test_what_is_not_a_form_gets_an_example(text):
    with pytest.raises(UsageError, match=f"--kernel {text}: not a ") as caught:
        parse_kernel(text, LIMIT)
    assert "write for example" in caught.value.hint


@pytest.mark.parametrize("text", ["", "gauss:2", "gone.png", "gone.npz:k1", "k"])
def test_what_is_neither_form_nor_file(text, alone):
    with pytest.raises(UsageError, match="neither a file nor a kernel form"):
        parse_kernel(text, LIMIT)


LINE = np.array([[0, 1, 2], [0, 3, 1]], np.uint8)


def test_files_of_every_kind_hold_the_same_kernel(alone):
    Image.fromarray(LINE * 60).save("k.png")
    Image.fromarray(np.repeat(LINE[:, :, None] * 60, 3, 2)).save("grey-in-colour.png")
    Image.fromarray(LINE.astype(np.uint16) * 9000).save("deep.png")
    tifffile.imwrite("k.tif", LINE * 60)
    tifffile.imwrite("float.tiff", LINE.astype(np.float32) * 40)  # beyond 1, as no picture may be
    np.save("k.npy", LINE.astype(float))
    np.save("ints.npy", LINE.astype(np.int64))
    np.savez("one.npz", only=LINE / 7)
    np.savez("two.npz", k1=LINE.T, k2=LINE)
    names = ["k.png", "grey-in-colour.png", "deep.png", "k.tif", "float.tiff", "k.npy", "ints.npy", "one.npz"]
    for name in [*names, "one.npz:only", "two.npz:k2"]:
        assert np.allclose(values(name), LINE / 7, atol=1e-6), name
    assert values("two.npz:k1").shape == (3, 2)


def test_notes_say_what_was_done(alone):
    np.save("half.npy", np.full((3, 3), 0.5 / 9))
    np.save("even.npy", np.full((4, 3), 1 / 12))
    np.save("good.npy", np.full((3, 3), 1 / 9))
    assert parse_kernel("half.npy", LIMIT).notes == ("kernel half.npy sums to 0.5: divided by that",)
    assert "its centre is row 2, column 1" in parse_kernel("even.npy", LIMIT).notes[0]
    assert parse_kernel("good.npy", LIMIT).notes == ()
    assert parse_kernel("gaussian:2", LIMIT).notes == ()


def write_bad() -> dict[str, str]:
    """Files that hold no kernel, each with words of the sentence that refuses it."""
    arrays = {
        "nan.npy": (np.array([[1, np.nan]]), "not numbers"),
        "inf.npy": (np.array([[1, np.inf]]), "not numbers"),
        "negative.npy": (np.array([[1, -0.25]]), "negative values (down to -0.25)"),
        "zero.npy": (np.zeros((3, 3)), "zero everywhere"),
        "huge.npy": (np.full((2, 2), 1e308), "too large"),
        "cube.npy": (np.ones((2, 2, 2)), "shape (2, 2, 2)"),
        "scalar.npy": (np.array(1.0), "shape ()"),
        "empty.npy": (np.zeros((0, 3)), "no numbers"),
        "text.npy": (np.array([["a"]]), "no numbers"),
        "colour.npy": (np.arange(12.0).reshape(2, 2, 3), "colour channels differ"),
        "colournan.npy": (np.full((2, 2, 3), np.nan), "not numbers"),
    }
    for name, (array, _) in arrays.items():
        np.save(name, array)
    np.save("object.npy", np.array([[None]]), allow_pickle=True)
    tifffile.imwrite("negative.tif", np.array([[1, -1]], np.float32))
    np.savez("two.npz", a=LINE, b=LINE)
    np.savez("none.npz")
    Image.new("L", (3, 3)).save("black.png")
    Image.new("RGB", (3, 3), (9, 0, 0)).save("red.png")
    Image.new("L", (200, 200), 9).save("large.png")
    for name in ("cut.npy", "cut.npz", "cut.tif", "cut.png"):
        with open(name, "wb") as file:
            file.write(
                {"npy": b"\x93NUMPY\x01\x00", "npz": b"PK\x03\x04", "tif": b"II*\0", "png": b"\x89PNG"}[name[4:]]
            )
    return {name: words for name, (_, words) in arrays.items()} | {
        "object.npy": "damaged, or no NumPy file",
        "negative.tif": "negative",
        "two.npz": "several arrays",
        "two.npz:c": "no array c",
        "none.npz": "several arrays",
        "black.png": "zero everywhere",
        "red.png": "colour channels differ",
        "large.png": "megapixels",
        "cut.npy": "damaged",
        "cut.npz": "damaged",
        "cut.tif": "damaged",
        "cut.png": "damaged",
        ".": "folder",
    }


def test_files_that_hold_no_kernel_are_named(alone):
    for name, words in write_bad().items():
        with pytest.raises(UsageError) as caught:
            parse_kernel(name, LIMIT)
        assert words in caught.value.message, name
        assert name.partition(":")[0] in caught.value.message
        assert "\n" not in caught.value.message
    with pytest.raises(UsageError) as caught:
        parse_kernel("two.npz", LIMIT)
    assert caught.value.hint == "name one as two.npz:a; it holds a, b"


def test_a_kernel_must_fit_the_picture():
    kernel = parse_kernel("motion:9,0", LIMIT)
    check_fits(kernel, 1, 9, "p.png")
    with pytest.raises(InputError, match=r"p.png: the kernel \(9x1\) is larger than the picture \(8x40\)"):
        check_fits(kernel, 40, 8, "p.png")
