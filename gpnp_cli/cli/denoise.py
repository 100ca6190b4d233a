"""`gpnp denoise`: remove noise with one call of the prior."""

from ..errors import UsageError
from .app import app
from .options import PICTURE_FLAGS, Call, Flag, command

FLAGS = (
    Flag(("--sigma",), "sigma", "Damage", "S|auto"),
    Flag(("--add-noise",), "add_noise", "Damage", "S"),
    Flag(("--reference",), "reference", "Damage", "FILE|FOLDER"),
    *PICTURE_FLAGS,
    Flag(("--save",), "output.save", "Input/Output", "mean,sheet"),
)


@command(app, "denoise", FLAGS, "IMAGE...")
def denoise(call: Call) -> int:
    """Remove noise: one call of the denoiser per picture. A level may be written 25/255."""
    from .batch import Batch

    reference = call.config.reference
    if call.config.add_noise and reference:
        raise UsageError(
            "--add-noise and --reference exclude each other", hint="with --add-noise the input is the truth"
        )
    batch = Batch(call, [reference])
    if call.dry_run:
        return batch.dry_run()
    from .denoising import Denoising

    return Denoising(call).run(batch)
