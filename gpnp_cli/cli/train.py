"""`gpnp train-denoiser`: learn a prior from pictures."""

from .app import app
from .options import RUN_FLAGS, Call, Flag, command

FLAGS = (
    Flag(("--output", "-o"), "folder", "Input/Output", "FOLDER"),
    Flag(("--resume",), "resume", "Input/Output"),
    Flag(("--start",), "start", "Input/Output", "default|FILE"),
    Flag(("--tensorboard",), "tensorboard", "Output style"),
    Flag(("--steps",), "plan.steps", "Training", "N"),
    Flag(("--minutes",), "plan.minutes", "Training", "M"),
    Flag(("--batch",), "plan.batch", "Training", "N"),
    Flag(("--crop",), "crop", "Training", "PX"),
    Flag(("--channels",), "network.channels", "Training", "1|3"),
    *RUN_FLAGS,
)


@command(app, "train-denoiser", FLAGS, "DIR...")
def train_denoiser(call: Call) -> int:
    """Train a denoiser on folders of pictures; the result is one file for `--denoiser FILE`."""
    from .training import train

    return train(call)
