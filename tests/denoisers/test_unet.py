"""The network: shapes, preconditioning, what a pixel depends on, and that images do not see each other."""

import math

import pytest
import torch

from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.denoisers.unet import NetworkDenoiser, Preconditioned, UNet, parameter_count
from gpnp_cli.errors import InputError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Weights at which every layer matters (a fresh network is the zero function)."""
    generator = rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan))


def network(channels=3, widths=(6, 8, 10), blocks=(1, 1, 1), seed=0) -> Preconditioned:
    model = Preconditioned(UNet(channels, widths, blocks, embedding=8))
    randomise(model, seed)
    return model


def denoiser(channels=3, both=True, **options) -> NetworkDenoiser:
    return NetworkDenoiser(network(channels, **options), (0.0015, 2.2), both)


@pytest.mark.parametrize(
    "shape", [(1, 3, 1, 1), (2, 3, 7, 13), (1, 3, 16, 24), (1, 3, 2, 50), (1, 1, 9, 5), (3, 1, 1, 40)]
)
def test_any_size_keeps_its_shape_and_dtype(shape):
    v = torch.rand(shape, generator=rng())
    out = denoiser()(v, 0.1)
    assert out.shape == v.shape and out.dtype == v.dtype and out.isfinite().all()
    assert not torch.allclose(out, v, atol=1e-3)  # the network did something


def test_padding_does_not_leak_into_aligned_pictures():
    d = denoiser()
    v = torch.rand(1, 3, 16, 24, generator=rng())
    expected = d.model(v, torch.tensor([0.1]), torch.zeros(1))
    assert torch.equal(d(v, 0.1), expected)


def test_one_sigma_for_all_equals_one_sigma_each():
    d = denoiser()
    v = torch.rand(3, 3, 16, 16, generator=rng())
    folded, each = d(v, 0.2), d(v, torch.full((3,), 0.2))
    assert (folded - each).abs().max() < 2e-5
    assert not torch.equal(folded, v)


def test_sigma_per_image_is_that_image_alone():
    d = denoiser()
    v = torch.rand(3, 3, 16, 16, generator=rng())
    sigma = torch.tensor([0.01, 0.2, 1.5])
    together = d(v, sigma)
    for i in range(3):
        assert (together[i : i + 1] - d(v[i : i + 1], float(sigma[i]))).abs().max() < 2e-5
    assert (d(v[2:], 0.01) - together[2:]).abs().max() > 1e-2  # sigma matters


def test_an_image_does_not_depend_on_its_neighbours():
    d = denoiser()
    v = torch.rand(4, 3, 16, 16, generator=rng())
    alone, among = d(v[2:3], 0.3), d(v, 0.3)[2:3]
    assert (alone - among).abs().max() < 2e-6
    v[[0, 1, 3]] = 100 * torch.rand(3, 3, 16, 16, generator=rng(1))
    assert (alone - d(v, 0.3)[2:3]).abs().max() < 2e-6


def test_without_noise_the_input_comes_back_whatever_the_weights():
    d = denoiser()
    v = torch.rand(1, 3, 16, 16, generator=rng())
    assert torch.equal(d(v, 0.0), v)
    distances = [(d(v, sigma) - v).abs().max().item() for sigma in (1e-2, 1e-4, 1e-6)]
    assert distances[0] > 30 * distances[1] > 100 * distances[2] > 0


def test_with_infinite_noise_the_input_counts_for_nothing_but_what_the_network_sees():
    d = denoiser(both=False)
    w = torch.randn(1, 3, 16, 16, generator=rng())
    out = d(0.3 + 1e6 * w, 1e6)
    model = d.model
    raw = model.net(w, torch.tensor([math.log(1e6) / 4]), torch.zeros(1))
    assert torch.allclose(out, 0.5 + 0.25 * raw, atol=1e-4)
    with torch.no_grad():
        model.net.tail.weight.zero_()
        model.net.tail.bias.zero_()
    assert torch.allclose(d(0.3 + 1e6 * w, 1e6), torch.full_like(w, 0.5), atol=1e-5)


def test_a_fresh_network_is_the_best_linear_shrinkage():
    model = Preconditioned(UNet(3, (4, 4), (1, 1), embedding=4), sigma_data=0.25)
    v = torch.rand(2, 3, 8, 8, generator=rng())
    out = model(v, torch.tensor([0.25]), torch.zeros(1))
    assert torch.allclose(out, 0.5 + (v - 0.5) / 2, atol=1e-6)


def test_sigmas_outside_the_range_are_computed():
    d = denoiser()
    v = torch.rand(1, 3, 8, 8, generator=rng())
    for sigma in (1e-5, 50.0):
        assert d(v, sigma).isfinite().all()


def test_a_network_for_both_shows_itself_a_grey_picture_in_three_equal_channels():
    d = denoiser(both=True)
    assert d.channels is None
    grey = torch.rand(2, 1, 16, 16, generator=rng())
    colour = grey.expand(-1, 3, -1, -1)
    flagged = d.model(colour, torch.tensor([0.2]), torch.ones(1)).mean(1, keepdim=True)
    assert (d(grey, 0.2) - flagged).abs().max() < 1e-6
    assert (d(colour, 0.2).mean(1, keepdim=True) - flagged).abs().max() > 1e-3  # the flag is seen


@pytest.mark.parametrize("channels, both, given", [(3, False, 1), (3, True, 4), (1, False, 3)])
def test_a_channel_count_it_was_not_trained_for_is_named(channels, both, given):
    d = denoiser(channels, both)
    assert isinstance(d, Denoiser) and d.channels == (None if both else channels)
    with pytest.raises(InputError, match=f"trained on {channels}-channel pictures, this one has {given}"):
        d(torch.zeros(1, given, 8, 8), 0.1)


def test_a_wrong_number_of_sigmas_is_refused():
    with pytest.raises(RuntimeError):
        denoiser()(torch.zeros(3, 3, 8, 8), torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize("widths, blocks", [((4,), (2,)), ((4, 4), (1, 1)), ((3, 4, 4), (1, 0, 2))])
def test_receptive_field_is_the_gradients_support(widths, blocks):
    net = UNet(1, widths, blocks, embedding=4).double()
    randomise(net, 1)
    radius, stride = net.receptive_field, net.stride
    side = (2 * radius // stride + 4) * stride
    x = torch.rand(1, 1, side, side, generator=rng(), dtype=torch.float64)
    start = side // 2 // stride * stride
    reach = 0
    # the pixels of one coarsest cell: some of them lie worst with respect to the strides
    for offset in range(stride):
        p = start + offset
        # random weights, but no dead ReLU: sum absolute gradients over a few inputs
        support = torch.zeros(side, side, dtype=torch.bool)
        for sign in (1, -1):
            v = (sign * x).requires_grad_()
            out = net(v, torch.tensor([0.3], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
            support |= torch.autograd.grad(out[0, 0, p, p], v)[0][0, 0] != 0
        rows, columns = support.any(1).nonzero(), support.any(0).nonzero()
        reach = max(reach, *(abs(int(i) - p) for i in (rows.min(), rows.max(), columns.min(), columns.max())))
    assert reach == radius


def test_widths_and_blocks_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 widths for 3 block counts"):
        UNet(3, (4, 4), (1, 1, 1))


def test_parameter_count():
    assert parameter_count(torch.nn.Conv2d(3, 5, 3)) == 3 * 5 * 9 + 5
