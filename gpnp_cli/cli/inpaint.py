"""`gpnp inpaint`: fill in missing pixels."""

from ..errors import UsageError
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

    if call.config.simulate and call.config.reference:
        raise UsageError("--simulate and --reference exclude each other", hint="with --simulate the input is the truth")
    mask = parse_mask(call.config.mask)
    companions = [path for path in (mask.path, call.config.reference) if path is not None and path.is_file()]
    batch = Batch(call, companions)
    if call.dry_run:
        return batch.dry_run()
    from .inpainting import Inpainting

    return Inpainting(call, mask).run(batch)
