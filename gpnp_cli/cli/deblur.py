"""`gpnp deblur`: undo a known blur."""

from ..errors import UsageError
from .app import app
from .options import PICTURE_FLAGS, SAMPLING_FLAGS, Call, Flag, command

FLAGS = (
    Flag(("--kernel", "-k"), "kernel", "Damage", "SPEC|FILE"),
    Flag(("--border",), "border", "Damage", "real|circular"),
    Flag(("--linear",), "linear", "Damage"),
    Flag(("--noise",), "noise", "Damage", "SIGMA|auto"),
    Flag(("--simulate",), "simulate", "Damage"),
    Flag(("--reference",), "reference", "Damage", "FILE|FOLDER"),
    Flag(("--init",), "sampler.init", "Sampler", "noise|observed"),
    *PICTURE_FLAGS,
    *SAMPLING_FLAGS,
)


@command(app, "deblur", FLAGS, "IMAGE...")
def deblur(call: Call) -> int:
    """Undo a known blur: samples, their mean, and a map of where they disagree."""
    from ..kernels import FORMS, parse_kernel
    from .batch import blurred

    config = call.config
    call.check_simulation()
    if config.kernel is None:
        raise UsageError("deblur needs --kernel: what blurred the picture", hint=f"use {FORMS}")
    kernel = parse_kernel(config.kernel, config.run.max_pixels)
    batch = blurred(call, kernel)
    if call.dry_run:
        return batch.dry_run()
    from .deblurring import Deblurring

    return Deblurring(call, kernel).run(batch)
