"""The `gpnp` application with all its commands."""

from .root import new_app

app = new_app()

from . import inpaint  # noqa: F401, I001  (each registers its command on `app`, in the order of the list)
from . import deblur, blind_deblur, super_resolve, denoise, train, sample, compare, diagnose, doctor  # noqa: F401
from .config_command import config_app
from .denoisers import denoisers_app

app.add_typer(denoisers_app, name="denoisers")
app.add_typer(config_app, name="config")
