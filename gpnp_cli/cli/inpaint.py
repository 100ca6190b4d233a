"""`gpnp inpaint`: fill in missing pixels."""

from .app import app
from .options import PICTURE_FLAGS, SAMPLING_FLAGS, Call, Flag, command

FLAGS = (
    Flag(("--mask", "-m"), "mask", "Damage", "SPEC"),
    Flag(("--mask-invert",), "mask_invert", "Damage"),
    Flag(("--noise",), "noise", "Damage", "SIGMA"),
    Flag(("--simulate",), "simulate", "Damage"),
    Flag(("--reference",), "reference", "Damage", "FILE|FOLDER"),
    Flag(("--init",), "sampler.init", "Sampler", "noise|interpolate|rbf"),
    *PICTURE_FLAGS,
    *SAMPLING_FLAGS,
)


@command(app, "inpaint", FLAGS, "IMAGE...")
def inpaint(call: Call) -> int:
    """Fill in missing pixels: samples, their mean, and a map of where they disagree."""
    from ..masks import parse_mask
    from .batch import Batch

    call.check_simulation()
    mask = parse_mask(call.config.mask)
    batch = Batch(call, [mask.path, call.config.reference])
    if call.dry_run:
        return batch.dry_run()
    from .inpainting import Inpainting

    return Inpainting(call, mask).run(batch)
