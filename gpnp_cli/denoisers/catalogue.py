"""What is known about each named prior before it is loaded. Imports nothing heavy: listing must be quick."""

import importlib.util
from typing import NamedTuple


class Prior(NamedTuple):
    """One row of `gpnp denoisers`.

    `sigma_range` in [0, 1] units, None when only the weights know; `weights_mb` None when only the
    weights know, 0 when there are none; `package` is the import that must exist, `extra` brings it.
    """

    summary: str
    sigma_range: tuple[float, float] | None
    weights_mb: float | None
    licence: str
    package: str | None = None
    extra: str | None = None

    @property
    def missing(self) -> str | None:
        """The pip command that makes this prior usable, None when nothing is missing."""
        if self.package is None or importlib.util.find_spec(self.package):
            return None
        return f'pip install "gpnp[{self.extra}]"' if self.extra else f"pip install {self.package}"


PRIORS = {
    "default": Prior("the shipped network, colour and grey", None, None, "MIT"),
    "digits": Prior("handwritten digits, grey pictures of 32x32 pixels", None, None, "MIT; data CC BY 4.0"),
    "bm3d": Prior(
        # lower end: its inner float32 arithmetic is off by up to 1.6e-5 (measured); upper end: GPnP starts it
        # at 0.5, and nothing above 1 was ever published
        "collaborative filtering (Dabov et al. 2007), colour and grey",
        (1e-4, 1.0),
        0,
        "non-commercial use only (Tampere University)",
        package="bm3d",
    ),
    "drunet": Prior(
        "DRUNet (Zhang et al. 2022): drunet:color, drunet:gray from the hub, or drunet:FILE",
        (0.0, 50 / 255),  # trained with noise levels 0 to 50 (section 3.2 of the paper)
        130.6,
        "code MIT; weights trained on research data sets (DIV2K, Flickr2K, WED)",
    ),
    "ddpm": Prior(
        "a diffusers DDPM/DDIM model, ddpm:FOLDER or ddpm:HUB-ID",
        None,
        None,
        "that of the model",
        package="diffusers",
        extra="ddpm",
    ),
    "gaussian": Prior("exact denoiser of a Gaussian prior on pixels, for tests", (0.0, float("inf")), 0, "MIT"),
}
