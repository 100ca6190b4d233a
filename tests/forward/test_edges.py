"""Pictures of few edges."""

import torch

from gpnp_cli.forward.blur import Blur, CircularBlur
from gpnp_cli.forward.edges import completed, strong_edges

SPOT = torch.ones(1, 1)


def box(height=48, width=50):
    x = torch.full((1, 1, height, width), 0.2)
    x[..., 12:36, 15:40] = 0.8
    return x


def test_faint_texture_goes_and_edges_stay():
    x = box()
    noisy = x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    flat = strong_edges(noisy, SPOT, 0.01)
    assert float((flat - x).abs().max()) < 0.06
    steps = (flat[..., 1:] - flat[..., :-1]).abs() > 0.01
    assert float(steps.float().mean()) < 0.06
    assert float((strong_edges(noisy, SPOT, 1e-6) - noisy).abs().max()) < 0.01  # for nothing, all of it stays


def test_a_known_blur_is_undone():
    x, h = box(), torch.full((1, 7), 1 / 7)
    y = CircularBlur(h, x.shape[1:]).forward(x)
    sharp = strong_edges(y, h, 2e-3)
    assert float((sharp - x).abs().mean()) < 0.35 * float((y - x).abs().mean())


def test_data_are_completed_beyond_their_frame():
    x, h = box(), torch.full((3, 5), 1 / 15)
    A = Blur(h, (1, 46, 46))
    y = A.forward(x) + 1
    whole = completed(y, h, x, A.frame)
    assert torch.equal(A.crop(whole), y)
    assert torch.allclose(A.crop(whole - 1), A.forward(x))
    circular = CircularBlur(h, x.shape[1:]).forward(x)
    assert torch.equal(whole[..., 0, :], circular[..., 0, :])
