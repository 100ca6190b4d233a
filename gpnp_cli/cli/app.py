"""The `gpnp` application with all its commands."""

from .root import new_app

app = new_app()

from . import inpaint  # noqa: E402, F401, I001  (each registers its command on `app`, in the order of the list)
from . import deblur, denoise, train, doctor  # noqa: E402, F401
from .config_command import config_app  # noqa: E402
from .denoisers import denoisers_app  # noqa: E402

app.add_typer(denoisers_app, name="denoisers")
app.add_typer(config_app, name="config")
