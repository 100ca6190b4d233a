"""`gpnp super-resolve`: enlarge a picture."""

from .app import app
from .options import PICTURE_FLAGS, SAMPLING_FLAGS, Call, Flag, command

FLAGS = (
    Flag(("--scale", "-s"), "scale", "Damage", "2|3|4"),
    Flag(("--kernel", "-k"), "kernel", "Damage", "SPEC|FILE"),
    Flag(("--border",), "border", "Damage", "real|circular"),
    Flag(("--noise",), "noise", "Damage", "SIGMA|auto"),
    Flag(("--simulate",), "simulate", "Damage"),
    Flag(("--reference",), "reference", "Damage", "FILE|FOLDER"),
    Flag(("--init",), "sampler.init", "Sampler", "noise|observed"),
    *PICTURE_FLAGS,
    *SAMPLING_FLAGS,
)


@command(app, "super-resolve", FLAGS, "IMAGE...")
def super_resolve(call: Call) -> int:
    """Enlarge 2, 3 or 4 times: samples, their mean, and a map of where they disagree."""
    from ..kernels import parse_kernel
    from .batch import blurred

    config = call.config
    call.check_simulation()
    kernel = None if config.kernel == "bicubic" else parse_kernel(config.kernel, config.run.max_pixels)
    batch = blurred(call, kernel)
    if call.dry_run:
        return batch.dry_run()
    from .super_resolving import SuperResolving

    return SuperResolving(call, kernel).run(batch)
