"""`gpnp blind-deblur`: undo a blur that is not known."""

from ..errors import UsageError
from .app import app
from .options import PICTURE_FLAGS, SAMPLING_FLAGS, Call, Flag, command

FLAGS = (
    Flag(("--kernel-size",), "kernel_size", "Kernel", "N|auto"),
    Flag(("--kernel-model",), "kernel_model", "Kernel", "free|motion|gaussian|disk"),
    Flag(("--search-iterations",), "search.iterations", "Kernel", "N|auto"),
    Flag(("--chains",), "search.chains", "Kernel", "K"),
    Flag(("--restarts",), "search.restarts", "Kernel", "N"),
    Flag(("--average",), "search.average", "Kernel", "N|auto"),
    Flag(("--crop",), "search.crop", "Kernel", "PX"),
    Flag(("--regularise",), "search.regularise", "Kernel", "l2,sparse,connected"),
    Flag(("--linear",), "linear", "Damage"),
    Flag(("--noise",), "noise", "Damage", "SIGMA|auto"),
    Flag(("--simulate",), "simulate", "Damage"),
    Flag(("--kernel", "-k"), "kernel", "Damage", "SPEC|FILE"),
    Flag(("--reference",), "reference", "Damage", "FILE|FOLDER"),
    Flag(("--init",), "sampler.init", "Sampler", "noise|observed"),
    Flag(("--animation",), "output.animation", "Input/Output", "none|gif|webp"),
    Flag(("--resume",), "run.resume", "Run"),
    *PICTURE_FLAGS,
    *SAMPLING_FLAGS,
)


@command(app, "blind-deblur", FLAGS, "IMAGE...")
def blind_deblur(call: Call) -> int:
    """Undo an unknown blur: the kernel, samples, their mean, and a map of where they disagree."""
    from ..kernels import FORMS, parse_kernel
    from .batch import blurred

    config = call.config
    call.check_simulation()
    if config.simulate and config.kernel is None:
        raise UsageError("--simulate needs --kernel: what is to blur the picture", hint=f"use {FORMS}")
    if config.run.resume and config.run.seed == "random":
        raise UsageError(
            "--resume cannot go on with a new random seed", hint="give the one that the run drew: --seed N"
        )
    if config.kernel is not None and not config.simulate:
        raise UsageError(
            "--kernel is for --simulate only: the blur is looked for", hint="if it is known, use gpnp deblur --kernel"
        )
    kernel = parse_kernel(config.kernel, config.run.max_pixels) if config.simulate else None
    batch = blurred(call, kernel)
    if call.dry_run:
        return batch.dry_run()
    from .blind_deblurring import BlindDeblurring

    return BlindDeblurring(call, kernel).run(batch)
