"""sRGB's tone curve, against values of its standard."""

import pytest
import torch

from gpnp_cli.tone import from_light, to_light


@pytest.mark.parametrize(
    ("pixel", "light"), [(0, 0), (10 / 255, 0.0030353), (0.5, 0.2140411), (188 / 255, 0.5028865), (1, 1)]
)
def test_the_curve_is_srgbs(pixel, light):
    assert float(to_light(torch.tensor(pixel, dtype=torch.float64))) == pytest.approx(light, abs=1e-7)


def test_both_ways_and_beyond():
    pixels = torch.linspace(-0.2, 1.5, 500, dtype=torch.float64)
    torch.testing.assert_close(from_light(to_light(pixels)), pixels, atol=1e-6, rtol=0)
    assert bool((from_light(torch.linspace(-1, 4, 500)).diff() > 0).all())
