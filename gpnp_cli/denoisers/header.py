"""What a denoiser file says of itself, from its header alone: no tensor is read, and torch is not imported."""

import json
from pathlib import Path
from typing import Any

from ..registry import DENOISERS

SHIPPED = ("default", "digits")  # priors whose weights come with the package
WEIGHTS = Path(__file__).parents[1] / "weights"
LONGEST = 100_000_000  # bytes of a header; safetensors allows no more


def shipped_file(name: str) -> Path:
    """The weights of a prior in `SHIPPED`."""
    return WEIGHTS / f"{name}.safetensors"


def users_file(denoiser: str) -> Path | None:
    """The file that `--denoiser` names, whether it exists or not; None for a registered name and what looks like one."""
    path = Path(denoiser).expanduser()
    return path if denoiser.partition(":")[0] not in DENOISERS and (path.exists() or path.suffix) else None


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON object under `gpnp` in a safetensors file: 8 bytes of length, little-endian, then a header in JSON.

    {} for a file that is missing, damaged or of another kind: whoever loads it says what is wrong.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= LONGEST else {}
        found = json.loads(header["__metadata__"]["gpnp"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def carried(denoiser: str) -> tuple[Path | None, Any]:
    """The file behind a `--denoiser`, None if there is none, and what it has under `carried`, as it stands; or {}."""
    try:
        path = shipped_file(denoiser) if denoiser in SHIPPED else users_file(denoiser)
    except (OSError, RuntimeError):  # a name too long for a file, a home that nobody has
        path = None
    return path, read_metadata(path).get("carried", {}) if path and path.is_file() else {}
