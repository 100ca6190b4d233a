"""What the user names becomes a list of pictures, each with its place in the output tree."""

import io
import json
import os
from pathlib import Path

import pytest

from gpnp_cli.errors import UsageError
from gpnp_cli.inputs import Input, expand_inputs


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [
        *("photos/b.png", "photos/a.JPG", "photos/notes.txt", "photos/.hidden.png", "photos/.a.png.part-9"),
        *("photos/deep/c.tif", "photos/deep/er/d.webp", "photos/.cache/e.png", "photos/raw.npy"),
        *("x[1].png", "x1.png", "scans[2024]/s.png", "single.png"),
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    return tmp_path


def _pairs(inputs: list[Input]) -> list[tuple[str, str]]:
    return [(item.path.as_posix(), item.relative.as_posix()) for item in inputs]


def _expand(*args: str, recursive: bool = False, stdin: object = None) -> list[tuple[str, str]]:
    return _pairs(expand_inputs(list(args), recursive, stdin))


def test_files_are_kept_as_given(tree: Path) -> None:
    assert _expand("single.png", "gone.png", "photos/notes.txt") == [
        ("single.png", "single.png"),
        ("gone.png", "gone.png"),
        ("photos/notes.txt", "notes.txt"),
    ]


def test_folder(tree: Path) -> None:
    assert _expand("photos") == [("photos/a.JPG", "a.JPG"), ("photos/b.png", "b.png")]
    assert _expand("photos/", recursive=True) == [
        ("photos/a.JPG", "a.JPG"),
        ("photos/b.png", "b.png"),
        ("photos/deep/c.tif", "deep/c.tif"),
        ("photos/deep/er/d.webp", "deep/er/d.webp"),
    ]


def test_relative_does_not_depend_on_where_the_folder_lies(tree: Path) -> None:
    absolute = expand_inputs([str(tree / "photos")], True)
    assert [item.relative for item in absolute] == [item.relative for item in expand_inputs(["photos"], True)]
    assert [item.path for item in absolute] == [tree / "photos" / item.relative for item in absolute]


def test_a_missing_file_with_brackets_is_not_passed_over(tree: Path) -> None:
    (tree / "list.txt").write_text("gone[1].png\n", encoding="utf-8")
    some = next(path for path in sorted(tree.iterdir()) if path.suffix == ".png")
    found = expand_inputs([str(some), "x[red].png", f"@{tree / 'list.txt'}"])
    assert [item.path.name for item in found] == [some.name, "x[red].png", "gone[1].png"]


def test_globs_are_expanded_here(tree: Path) -> None:
    assert _expand("photos/*") == [("photos/a.JPG", "a.JPG"), ("photos/b.png", "b.png")]
    assert _expand("photos/?.png") == [("photos/b.png", "b.png")]
    assert _expand("photos/**") == _expand("photos", recursive=True)
    assert _expand("photos/**/*.tif") == [("photos/deep/c.tif", "deep/c.tif")]
    assert _expand("*/s.png") == [("scans[2024]/s.png", "scans[2024]/s.png")]
    assert _expand("photos/*.txt") == [("photos/notes.txt", "notes.txt")]  # asked for by name
    assert _expand(str(tree / "phot*" / "b.png")) == [(f"{tree.as_posix()}/photos/b.png", "photos/b.png")]


def test_brackets_that_exist_are_literal(tree: Path) -> None:
    assert _expand("x[1].png") == [("x[1].png", "x[1].png")]
    assert _expand("scans[2024]/*.png") == [("scans[2024]/s.png", "s.png")]
    (tree / "x[1].png").unlink()
    assert _expand("x[1].png") == [("x1.png", "x1.png")]


def test_duplicates_are_dropped(tree: Path) -> None:
    assert _expand("single.png", "./single.png", str(tree / "single.png"), "*.png", "photos", "photos/b.png") == [
        ("single.png", "single.png"),
        ("x1.png", "x1.png"),
        ("x[1].png", "x[1].png"),
        ("photos/a.JPG", "a.JPG"),
        ("photos/b.png", "b.png"),
    ]


def test_list_file(tree: Path) -> None:
    lines = ["# chosen by hand", "", "  single.png ", "photos", "x[1].png", "gone.png", "größe.png"]
    (tree / "list.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    names = ["single.png", "photos/a.JPG", "photos/b.png", "x[1].png", "gone.png", "größe.png"]
    assert [path for path, _ in _expand("@list.txt")] == names
    (tree / "sub").mkdir()
    os.replace(tree / "list.txt", tree / "sub" / "list.txt")
    assert [path for path, _ in _expand("@sub/list.txt")] == names  # paths are relative to the current folder


def test_name_that_is_not_utf8(tree: Path) -> None:
    raw = b"caf\xe9.png"
    (tree / "list.txt").write_bytes(raw + b"\n")
    (found,) = expand_inputs(["@list.txt"])
    assert os.fsencode(found.path) == raw
    (found,) = expand_inputs(["-"], stdin=io.BytesIO(raw))
    assert os.fsencode(found.path) == raw


def test_failures_file(tree: Path) -> None:
    entries = [
        {"input": "photos/deep/c.tif", "relative": "deep/c.tif", "error": {"code": 1}},
        {"input": "single.png"},
        {"input": "x[1].png", "relative": "../../etc/x.png"},
        {"input": "x1.png", "relative": "/etc/x.png"},
        {"input": "photos/b.png", "relative": "C:\\x.png"},
    ]
    (tree / "failures.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    assert _expand("@failures.jsonl") == [
        ("photos/deep/c.tif", "deep/c.tif"),
        ("single.png", "single.png"),
        ("x[1].png", "x[1].png"),
        ("x1.png", "x1.png"),
        ("photos/b.png", "b.png"),
    ]


@pytest.mark.parametrize("line", ["not json", "[1]", "{}", '{"input": 3}', '{"input": ""}', '{"input": "a\\u0000b"}'])
def test_broken_failures_file_names_the_line(tree: Path, line: str) -> None:
    (tree / "failures.jsonl").write_text('{"input": "single.png"}\n' + line + "\n")
    with pytest.raises(UsageError, match=r"failures\.jsonl:2"):
        expand_inputs(["@failures.jsonl"])


def test_list_that_cannot_be_read(tree: Path) -> None:
    for name in ("none.txt", "photos", ""):
        with pytest.raises(UsageError, match="cannot be read") as caught:
            expand_inputs([f"@{name}"])
        assert f"'{name}'" in caught.value.message


def test_at_sign_in_a_real_name(tree: Path) -> None:
    (tree / "@home.png").write_bytes(b"")
    assert _expand("@home.png") == [("@home.png", "@home.png")]


def test_standard_input(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _expand("-", stdin=io.StringIO("single.png\nphotos\n")) == _expand("single.png", "photos")
    assert _expand("-", stdin=io.StringIO("single.png\0x[1].png\0")) == _expand("single.png", "x[1].png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("größe.png\n".encode()), encoding="ascii"))
    assert _expand("-") == [("größe.png", "größe.png")]
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="standard input"):
        expand_inputs(["-"])


@pytest.mark.parametrize("args", [["empty"], ["*.gif"], ["photos/none*"], ["empty", "no[t]hing*.png"]])
def test_nothing_matched(tree: Path, args: list[str]) -> None:
    with pytest.raises(UsageError, match="no images matched") as caught:
        expand_inputs(args)
    assert all(f"'{arg}'" in caught.value.message for arg in args)
    assert _expand(*args, "single.png") == [("single.png", "single.png")]


def test_nothing_matched_but_below_is_something(tree: Path) -> None:
    (tree / "outer" / "inner").mkdir(parents=True)
    (tree / "outer" / "inner" / "a.png").write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        expand_inputs(["outer"])
    assert "--recursive" in caught.value.hint
    with pytest.raises(UsageError, match="no images were given"):
        expand_inputs([])


def test_folder_that_cannot_be_listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="'photos' cannot be listed: Permission denied"):
        expand_inputs(["photos"])
