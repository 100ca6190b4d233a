"""The exceptions a user may see; each is shown as one sentence (plus a hint), never as a traceback."""


class GpnpError(Exception):
    """An error with a sentence for the user.

    `code` is the process exit code if nothing else goes on: 1 an input failed, 2 usage or config,
    3 environment. In a batch a code-1 error fails its input only.
    """

    code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(GpnpError):
    """One input (a picture, a mask, a kernel file) is unusable; the rest of a batch goes on."""


class DivergenceError(GpnpError):
    """A chain produced a non-finite state; it is stopped, never written."""


class UsageError(GpnpError):
    """Wrong arguments or configuration: nothing was started."""

    code = 2


class EnvironmentProblem(GpnpError):
    """Something outside the command is missing: weights, device, extra package, writable folder."""

    code = 3
