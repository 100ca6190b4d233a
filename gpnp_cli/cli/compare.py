"""`gpnp compare`: several samplers on one simulated problem."""

from .app import app
from .options import RUN_FLAGS, Call, Flag, command

FLAGS = (
    Flag(("--output", "-o"), "output", "Input/Output", "FOLDER"),
    Flag(("--mask", "-m"), "mask", "Damage", "SPEC"),
    Flag(("--kernel", "-k"), "kernel", "Damage", "SPEC"),
    Flag(("--border",), "border", "Damage", "real|circular"),
    Flag(("--noise",), "noise", "Damage", "SIGMA"),
    Flag(("--samplers",), "samplers", "Sampler", "NAME,NAME,..."),
    Flag(("--nfe",), "nfe", "Sampler", "N"),
    Flag(("--samples", "-n"), "samples", "Sampler", "K"),
    Flag(("--denoiser",), "model.denoiser", "Model", "NAME|FILE"),
    Flag(("--tile",), "model.tile", "Model", "auto|off|PX"),
    Flag(("--model-dir",), "model.model_dir", "Model", "FOLDER"),
    Flag(("--offline",), "model.offline", "Model"),
    *RUN_FLAGS,
)


@command(app, "compare", FLAGS, "IMAGE")
def compare(call: Call) -> int:
    """Damage an intact picture, restore it by several samplers at equal cost, and compare: a table and a sheet."""
    from .comparing import Comparison

    return Comparison(call).go()
