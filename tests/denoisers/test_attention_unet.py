"""The network for whole pictures: attention by its formula, one size only, never tiled."""

import math

import pytest
import torch

from gpnp_cli import build
from gpnp_cli.config import Model
from gpnp_cli.denoisers.attention_unet import AttentionUNet, SelfAttention
from gpnp_cli.denoisers.tiled import TiledDenoiser
from gpnp_cli.denoisers.unet import NetworkDenoiser, Preconditioned
from gpnp_cli.errors import InputError
from gpnp_cli.samplers.rng import generator
from gpnp_cli.training.checkpoint import build_network, load_denoiser, save_denoiser

OPTIONS = {"channels": 1, "widths": [6, 8], "blocks": [1, 1], "embedding": 8, "attention": 1, "image_size": 16}
ARCHITECTURE = {"name": "attention-unet", **OPTIONS, "sigma_data": 0.4}


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights at which every layer matters (a fresh network is the zero function)."""
    rng = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=rng) / math.sqrt(fan))
    return module


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "whole.safetensors"
    model = randomise(build_network(ARCHITECTURE))
    save_denoiser(path, model, {"architecture": ARCHITECTURE, "sigma_range": [0.005, 10], "both": False})
    return path


@pytest.mark.parametrize(("width", "heads"), [(6, 1), (64, 2), (96, 3), (80, 2)])
def test_attention_is_the_formula(width, heads):
    block = randomise(SelfAttention(width, 3)).double()
    assert block.heads == heads
    x = torch.randn(2, width, 3, 3, generator=generator(1), dtype=torch.float64)
    seen = (x - x.mean((1, 2, 3), keepdim=True)) / (x.var((1, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    seen = seen * block.norm.weight[:, None, None] + block.norm.bias[:, None, None] + block.place
    q, k, v = torch.einsum("oc,nchw->nohw", block.qkv.weight[:, :, 0, 0], seen).flatten(2).split(width, 1)
    parts = []
    for rows in torch.arange(width).split(width // heads):
        scores = torch.einsum("nci,ncj->nij", q[:, rows], k[:, rows]) / math.sqrt(width // heads)
        parts.append(torch.einsum("nij,ncj->nci", scores.softmax(2), v[:, rows]))
    expected = x + torch.einsum("oc,nci->noi", block.out.weight[:, :, 0, 0], torch.cat(parts, 1)).reshape(x.shape)
    assert (block(x, torch.zeros(1)) - expected).abs().max() < 1e-12
    assert (expected - x).abs().max() > 0.1


def test_attention_is_in_the_lowest_levels_only():
    net = AttentionUNet(1, (6, 8, 10), (2, 1, 1), 8, attention=2, image_size=16)
    kinds = [[type(block).__name__ for block in level] for level in (*net.encoder, net.body, *net.decoder)]
    with_attention, without = ["ResBlock", "SelfAttention"], ["ResBlock", "ResBlock"]
    assert kinds == [without, with_attention, with_attention, without, with_attention]


def test_every_pixel_depends_on_every_other_and_on_its_place():
    net = randomise(AttentionUNet(**OPTIONS)).double()
    v = torch.rand(1, 1, 16, 16, generator=generator(2), dtype=torch.float64).requires_grad_()
    level, flag = torch.tensor([0.3], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    slope = torch.autograd.grad(net(v, level, flag)[0, 0, 0, 0], v)[0]
    assert (slope[0, 0, 8:, 8:] != 0).any(1).all()
    flat = net(torch.zeros_like(v), level, flag)[0, 0, 4:12, 4:12]  # without borders' influence it would be periodic
    assert (flat[:4, :4] - flat[4:, 4:]).abs().max() > 1e-3


def test_a_fresh_network_is_the_best_linear_shrinkage():
    model = Preconditioned(AttentionUNet(**OPTIONS), sigma_data=0.4)
    v = torch.rand(2, 1, 16, 16, generator=generator(3))
    assert torch.allclose(model(v, torch.tensor([0.4]), torch.zeros(1)), 0.5 + (v - 0.5) / 2, atol=1e-6)


def test_a_picture_of_another_size_is_one_sentence(saved):
    denoiser = load_denoiser(saved)
    assert denoiser.image_size == 16
    assert denoiser(torch.rand(2, 1, 16, 16, generator=generator(4)), 0.1).shape == (2, 1, 16, 16)
    for shape in ((1, 1, 16, 24), (1, 1, 32, 16), (1, 1, 32, 32)):
        with pytest.raises(InputError, match="whole pictures of 16x16 pixels") as caught:
            denoiser(torch.zeros(shape), 0.1)
        assert f"{shape[3]}x{shape[2]}" in caught.value.message and "resize to 16x16" in caught.value.hint


@pytest.mark.parametrize("tile", ["auto", 64])
def test_a_whole_picture_is_never_tiled(saved, tile):
    prior = build.build_prior(Model(denoiser=str(saved), tile=tile), 1, torch.device("cpu"), torch.float32)
    assert isinstance(prior.denoiser, NetworkDenoiser)
    tiled = build.build_prior(Model(tile=tile), 1, torch.device("cpu"), torch.float32)  # the default's still is
    assert isinstance(tiled.denoiser, TiledDenoiser)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"image_size": 18}, "not a multiple of the stride 4"),
        ({"image_size": -4}, "not a multiple"),
        ({"image_size": "big"}, "impossible architecture"),
        ({"attention": 3}, "attention in 3 of 2 levels"),
        ({"attention": -1}, "attention in -1 of 2 levels"),
        ({"name": "unet"}, "impossible architecture"),
    ],
)
def test_an_impossible_network_is_named(change, pattern):
    with pytest.raises(InputError, match=pattern):
        build_network({**ARCHITECTURE, **change})


def test_a_file_for_another_size_does_not_fit(tmp_path, saved):
    model = build_network(ARCHITECTURE)
    path = tmp_path / "other.safetensors"
    other = {**ARCHITECTURE, "image_size": 32}
    save_denoiser(path, model, {"architecture": other, "sigma_range": [0.005, 10], "both": False})
    with pytest.raises(InputError, match=r"net.body.1.place is \(1, 8, 4, 4\), not \(1, 8, 8, 8\)"):
        load_denoiser(path)
