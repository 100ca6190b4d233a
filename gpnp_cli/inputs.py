"""From what the user typed (files, folders, globs, lists) to the pictures of a run."""

import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import IO, Any

from .errors import UsageError

# What counts as a picture inside a folder. ".npy" is left out: a folder of results holds raw maps under that name.
EXTENSIONS = frozenset(
    [".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff"]
    + [".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".avif"]
)


@dataclass(frozen=True)
class Input:
    """A picture to restore: `path` opens it, `relative` is its place below the folder (or fixed part of the glob) given.

    For a file named directly `relative` is its name. It does not depend on where the folder lies, so results and
    shards stay the same on another machine.
    """

    path: Path
    relative: Path


def expand_inputs(args: Sequence[str], recursive: bool = False, stdin: IO[Any] | None = None) -> list[Input]:
    """The inputs meant by `args`, in the order given, each path once.

    A name that exists is taken literally, brackets and a leading "@" included. Otherwise: `@list.txt` is a list (one
    path a line, "#" starts a comment line), `@failures.jsonl` one of objects with "input" (and maybe "relative"),
    "-" a list on `stdin` (default: the process's), and a name with `*`, `?` or `[` a glob, with `**` for any depth.
    Such a name with brackets only, and no match, counts as a file that does not exist.
    Folders give their picture files, sorted; with `recursive` those below them too. Files that do not exist are
    kept: each fails by itself later. Hidden files are skipped unless named.
    Raises UsageError for a list that cannot be read and if nothing is left.
    """
    found: dict[str, Input] = {}
    for arg in args:
        if os.path.lexists(arg):
            inputs: Iterator[Input] = _expand_path(arg, recursive)
        elif arg == "-":
            inputs = _expand_lines(_read_stdin(stdin), recursive)
        elif arg.startswith("@"):
            inputs = _expand_list(arg[1:], recursive)
        else:
            inputs = _expand_path(arg, recursive)
        for item in inputs:
            found.setdefault(os.path.normcase(os.path.abspath(item.path)), item)
    if all(glob.has_magic(str(item.path)) and not os.path.lexists(item.path) for item in found.values()):
        what = ", ".join(f"'{arg}'" for arg in args[:3]) + (", ..." if len(args) > 3 else "")
        deeper = not recursive and any(_has_folders(arg) for arg in args)
        raise UsageError(
            f"no images matched {what}" if args else "no images were given",
            hint="add --recursive to look in the folders below" if deeper else "give files, folders or globs",
        )
    return list(found.values())


def _expand_path(text: str, recursive: bool) -> Iterator[Input]:
    path = Path(text)
    if path.is_dir():
        for file in _folder(path, recursive):
            yield Input(file, file.relative_to(path))
    elif not os.path.lexists(path) and glob.has_magic(text):
        matches = list(_glob(path))
        yield from matches
        if not matches and not set("*?") & set(text):  # rather a file called x[1].png that is gone
            yield Input(path, Path(path.name))
    else:
        yield Input(path, Path(path.name))


def _folder(folder: Path, recursive: bool) -> list[Path]:
    def fail(error: OSError) -> None:
        raise UsageError(f"folder '{error.filename}' cannot be listed: {error.strerror}") from error

    files = []
    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        files += [Path(root, name) for name in names if _is_picture_name(name)]
    return sorted(files)


def _glob(pattern: Path) -> Iterator[Input]:
    # Folders that exist are literal, so that "scans[2024]/*.png" looks where it says.
    fixed = Path(pattern.anchor)
    rest = list(pattern.parts[1:] if pattern.anchor else pattern.parts)
    while rest and (fixed / rest[0]).is_dir():
        fixed /= rest.pop(0)
    any_name = glob.has_magic(pattern.suffix) or not pattern.suffix
    for match in sorted(glob.glob(os.path.join(*rest), root_dir=fixed, recursive=True)) if rest else []:
        file = fixed / match
        # "*" means every picture, "*.dat" means what it says
        if not file.is_dir() and (_is_picture_name(file.name) or not any_name):
            yield Input(file, Path(match))


def _expand_lines(text: str, recursive: bool) -> Iterator[Input]:
    # `find -print0` separates by NUL
    for line in text.split("\0") if "\0" in text else text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            yield from _expand_path(line, recursive)


def _expand_list(name: str, recursive: bool) -> Iterator[Input]:
    try:
        text = Path(name).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except (OSError, ValueError) as error:
        raise UsageError(f"list '{name}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if Path(name).suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        yield from _expand_lines(text, recursive)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name}:{number}: not a JSON object") from error
        path = entry.get("input") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not path or "\0" in path:
            raise UsageError(f"{name}:{number}: no key 'input' with a path")
        relative = entry.get("relative")
        yield Input(Path(path), Path(relative) if _stays_below(relative) else Path(Path(path).name))


def _stays_below(relative: Any) -> bool:
    """Whether `relative`, read from a file, names a place inside the output folder."""
    if not isinstance(relative, str) or not relative or "\0" in relative:
        return False
    return all(not kind(relative).anchor and ".." not in kind(relative).parts for kind in (PurePath, PureWindowsPath))


def _read_stdin(stdin: IO[Any] | None) -> str:
    stream = sys.stdin if stdin is None else stdin
    try:
        raw = getattr(stream, "buffer", stream).read()  # bytes: names need not be valid in the terminal's encoding
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError("'-' reads a list of paths from standard input, which is closed") from error
    return os.fsdecode(raw) if isinstance(raw, bytes) else raw


def _is_picture_name(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _has_folders(text: str) -> bool:
    path = Path(text)
    return path.is_dir() and any(child.is_dir() for child in path.iterdir())
