"""`--mask`: what each form hides, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from gpnp_cli.errors import InputError, UsageError
from gpnp_cli.masks import check_mask, parse_mask


def hidden(text: str, height=24, width=32) -> np.ndarray:
    missing = parse_mask(text).draw(height, width)
    assert missing.shape == (height, width)
    assert missing.dtype == bool
    return missing


def box(missing: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the hidden rectangle; fails if it is none."""
    rows, columns = np.flatnonzero(missing.any(1)), np.flatnonzero(missing.any(0))
    assert missing.sum() == len(rows) * len(columns)
    return int(rows[0]), int(columns[0]), len(rows), len(columns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rect", (9, 12, 6, 8)),  # a quarter of each side, in the middle
        ("rect:4,10", (10, 11, 4, 10)),
        ("rect:4,10@0,0", (0, 0, 4, 10)),
        ("rect:4,10@20,22", (20, 22, 4, 10)),  # flush with the far corner
    ],
)
def test_a_rectangle_is_where_it_was_asked_for(text, expected):
    assert box(hidden(text)) == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1), (3, 3)])
def test_the_default_rectangle_fits_any_picture(size):
    assert hidden("rect", *size).any()


@pytest.mark.parametrize("text", ["rect:25,4", "rect:4,33", "rect:4,10@21,0", "rect:4,10@0,23", "rect:999999999,1"])
def test_a_rectangle_outside_the_picture_is_refused(text):
    with pytest.raises(InputError, match=r"32 wide and 24 high") as caught:
        hidden(text)
    assert text in caught.value.message or text.split("@")[0] in caught.value.message


def test_random_keeps_the_share_asked_for_and_repeats():
    for keep in (0.1, 0.5, 0.9):
        assert hidden(f"random:{keep}", 200, 200).mean() == pytest.approx(1 - keep, abs=0.01)
    assert np.array_equal(hidden("random:0.1"), hidden("random:0.1,seed=0"))
    assert not np.array_equal(hidden("random:0.1"), hidden("random:0.1,seed=1"))


def test_random_is_the_mask_that_published_experiments_quote():
    kept = np.random.RandomState(3).rand(24, 32) < 0.1
    assert np.array_equal(hidden("random:0.1,seed=3"), ~kept)


def test_scratches_repeat_and_hide_a_little():
    assert np.array_equal(hidden("scratches"), hidden("scratches:8"))
    assert not np.array_equal(hidden("scratches:8"), hidden("scratches:8,seed=1"))
    few, many = hidden("scratches:2", 128, 128), hidden("scratches:40", 128, 128)
    assert 0 < few.mean() < many.mean() < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "rect:0,4",
        "rect:4",
        "rect:4,4@1",
        "rect:-1,4",
        "rect:4,4,4",
        "rect:١,4",
        f"rect:{'9' * 5000},1",
        "random",
        "random:",
    ]
    + ["random:0", "random:1", "random:-0.5", "random:nan", "random:inf", "random:ten", "random:0.1,seed=-1"]
    + ["random:0.1,seed=99999999999", "random:0.1,seed=4294967296", f"random:0.1,seed={'9' * 5000}"]
    + ["scratches:0", "scratches:-1", "scratches:²", "scratches:10001", "scratches:x", "scratches:1.5"],
)
def test_a_malformed_form_is_a_usage_error(text):
    with pytest.raises(UsageError) as caught:
        parse_mask(text)
    assert caught.value.message.startswith(f"--mask {text}: not a ")
    assert "write for example" in caught.value.hint


@pytest.mark.parametrize("text", ["circle", "no-such-file.png", "", "rectangle:3,4", "a\0b"])
def test_what_is_neither_file_nor_form_is_a_usage_error(text):
    with pytest.raises(UsageError, match="neither a file nor a mask form") as caught:
        parse_mask(text)
    assert "rect[:H,W[@Y,X]]" in caught.value.hint


def test_alpha_files_and_folders(tmp_path, monkeypatch):
    assert parse_mask("alpha").kind == "alpha"
    path = tmp_path / "mask.png"
    Image.new("L", (4, 4)).save(path)
    assert (parse_mask(str(path)).kind, parse_mask(str(path)).path) == ("file", path)
    assert parse_mask(str(tmp_path)).path == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert parse_mask("~/mask.png").path == path  # in a config file no shell expands it


def test_a_mask_must_hide_something_and_leave_something():
    some = np.zeros((4, 4), bool)
    with pytest.raises(InputError, match=r"^m\.png: the mask hides nothing$"):
        check_mask(some, "m.png")
    with pytest.raises(InputError, match=r"^m\.png: the mask hides the whole picture$"):
        check_mask(~some, "m.png")
    some[1, 2] = True
    check_mask(some, "m.png")
