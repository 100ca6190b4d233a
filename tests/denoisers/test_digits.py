"""The shipped prior of whole digits: it loads, is small, and knows a digit from another picture."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from gpnp_cli.denoisers.familiarity import FAR, LEVEL, relative_residual
from gpnp_cli.denoisers.unet import load_digits
from gpnp_cli.errors import UsageError
from gpnp_cli.samplers.rng import generator


def ring(width: int = 4) -> torch.Tensor:
    """A zero, drawn and softened like the training pictures: `(1, 1, 32, 32)`."""
    picture = Image.new("L", (128, 128))
    ImageDraw.Draw(picture).ellipse((32, 0, 96, 127), outline=255, width=4 * width)
    small = picture.resize((8, 8), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(small, np.float32) / 255)[None, None]


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_what_ships(digits):
    assert digits.weights.stat().st_size < 3e6
    assert (digits.channels, digits.image_size, digits.sigma_range) == (1, 32, (0.005, 10.0))
    assert digits.metadata["data"]["folders"] == [{"name": "train", "pictures": 1437}]
    with pytest.raises(UsageError, match="takes no argument"):
        load_digits(argument="3")


@pytest.mark.parametrize(("sigma", "gain"), [(0.1, 10.0), (0.5, 12.0)])
def test_it_denoises_a_digit(digits, sigma, gain):
    x = ring().expand(8, -1, -1, -1)
    noisy = x + sigma * torch.randn(x.shape, generator=generator(0))
    won = 10 * torch.log10((noisy - x).square().mean() / (digits(noisy, sigma) - x).square().mean())
    assert won > gain  # dB


def test_it_knows_a_digit_from_another_picture(digits):
    highest = digits.metadata["residual"][f"{LEVEL:g}"]["highest"]
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    own, *others = (
        float(relative_residual(digits, x, LEVEL, generator(0))) / highest for x in (ring(), 1 - ring(), ramp)
    )
    assert own < FAR < min(others)
