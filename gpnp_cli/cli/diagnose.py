"""`gpnp diagnose`: what a finished run's samples are worth."""

from .app import app
from .options import Call, Flag, command

FLAGS = (
    Flag(("--output", "-o"), "output", "Input/Output", "FOLDER"),
    Flag(("--reference",), "reference", "Input/Output", "FILE"),
)


@command(app, "diagnose", FLAGS, "MANIFEST...")
def diagnose(call: Call) -> int:
    """Examine saved runs: R-hat, effective samples, traces, and coverage of the intervals if the truth is known."""
    if call.dry_run:
        call.show()
        return 0
    from .diagnosing import Diagnosis

    return Diagnosis(call).go()
