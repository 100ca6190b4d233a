"""gpnp: restore images by sampling from the posterior."""

__version__ = "0.1.0"
