"""Names users may type, each mapped to "module:attribute". Importing this imports nothing heavy."""

import importlib
from typing import Any

from .errors import UsageError

# A denoiser entry is a factory `f(channels, argument, device, dtype) -> Denoiser`, `argument` being what
# follows the colon in `name:argument`; a file path is loaded by `training.checkpoint`.
DENOISERS = {
    "default": "gpnp_cli.denoisers.unet:load_default",
    "digits": "gpnp_cli.denoisers.unet:load_digits",
    "bm3d": "gpnp_cli.denoisers.bm3d:Bm3dDenoiser",
    "drunet": "gpnp_cli.denoisers.drunet:load_drunet",
    "ddpm": "gpnp_cli.denoisers.ddpm:load_ddpm",
    "gaussian": "gpnp_cli.denoisers.exact:load_gaussian",
}

FORWARD = {
    "mask": "gpnp_cli.forward.mask:Mask",
    "blur": "gpnp_cli.forward.blur:Blur",
    "circular-blur": "gpnp_cli.forward.blur:CircularBlur",
    "super-resolve": "gpnp_cli.forward.superres:SuperResolve",
    "circular-super-resolve": "gpnp_cli.forward.superres:CircularSuperResolve",
}


def resolve(table: dict[str, str], name: str, kind: str) -> Any:
    """The object registered as `name`; raises `UsageError` naming the nearest right name."""
    import difflib

    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        known = ", ".join(table)
        raise UsageError(f"unknown {kind} '{name}'", hint=f"did you mean '{near[0]}'?" if near else f"known: {known}")
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)
