"""One generator per chain: chains do not know of each other, a seed means one thing."""

import pytest
import torch

from gpnp_cli.denoisers.exact import GaussianPixels
from gpnp_cli.forward.base import ForwardModel
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import iterate
from gpnp_cli.samplers.gpnp import Gpnp
from gpnp_cli.samplers.pnp import Silence
from gpnp_cli.samplers.rng import ChainRng, generator
from gpnp_cli.samplers.schedules import geometric

SHAPE = (3, 5, 7)


@pytest.mark.parametrize("method", ["randn_like", "rand_like"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chain_two_alone_draws_what_chain_two_of_four_draws(method, dtype):
    four, alone = ChainRng(7, 4), ChainRng(7, [2])
    for _ in range(3):
        together = getattr(four, method)(torch.empty(4, *SHAPE, dtype=dtype))
        assert together.dtype == dtype
        assert torch.equal(together[2:3], getattr(alone, method)(torch.empty(1, *SHAPE, dtype=dtype)))


def test_random_integers_cover_their_type_and_belong_to_their_chain():
    four, alone = ChainRng(7, 4), ChainRng(7, [2])
    bits = four.bits_like(torch.empty(4, 1, 100, 101), torch.uint8)
    assert bits.dtype == torch.uint8 and bits.shape == (4, 1, 100, 101)
    assert torch.equal(bits[2:3], alone.bits_like(torch.empty(1, 1, 100, 101), torch.uint8))
    counts = torch.bincount(bits.flatten().int(), minlength=256).double()
    expected = bits.numel() / 256
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi2 - 255) < 5 * (2 * 255) ** 0.5


def test_moments_of_the_noise():
    n = 4 * 3 * 100 * 100
    normal = ChainRng(0, 4).randn_like(torch.empty(4, 3, 100, 100, dtype=torch.float64))
    assert abs(normal.mean()) < 4.5 / n**0.5 and abs(normal.var() - 1) < 4.5 * (2 / n) ** 0.5
    uniform = ChainRng(0, 4).rand_like(torch.empty(4, 3, 100, 100, dtype=torch.float64))
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4.5 * (1 / 12 / n) ** 0.5


def test_neighbouring_seeds_chains_and_streams_are_uncorrelated():
    n = 20_000
    rows = [ChainRng(seed, 2).randn_like(torch.empty(2, n)) for seed in (0, 1, 2, 2**32, 2**32 + 1)]
    # zeros at the end of a stream, and seeds of two words, must not collide with shorter ones
    rows += [torch.randn(1, n, generator=generator(0, *stream)) for stream in ((), (0, 0), (0, 1), (1, 0))]
    correlation = torch.corrcoef(torch.cat(rows))
    off = correlation[~torch.eye(len(correlation), dtype=torch.bool)]
    assert off.abs().max() < 4.5 / n**0.5  # 91 pairs


def test_same_seed_same_noise_and_nothing_else_moves():
    before = torch.random.get_rng_state()
    a, b = (ChainRng(3, 2).randn_like(torch.empty(2, *SHAPE)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, ChainRng(4, 2).randn_like(torch.empty(2, *SHAPE)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_state_round_trip_goes_on_where_it_stopped():
    rng = ChainRng(5, 3)
    rng.randn_like(torch.empty(3, *SHAPE))
    states = rng.state_dict()
    goes_on = rng.randn_like(torch.empty(3, *SHAPE))
    other = ChainRng(99, 3)
    other.load_state_dict(states)
    assert torch.equal(other.randn_like(torch.empty(3, *SHAPE)), goes_on)
    with pytest.raises(ValueError):
        ChainRng(5, 2).load_state_dict(states)


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="3 states for 2 chains"):
        ChainRng(0, 2).randn_like(torch.empty(3, *SHAPE))


def test_antithetic_chains_come_in_pairs_with_opposite_noise():
    x = torch.empty(4, *SHAPE)
    alone, pairs = ChainRng(5, 2).randn_like(x[:2]), ChainRng(5, 4, antithetic=True).randn_like(x)
    assert torch.equal(pairs[::2], alone) and torch.equal(pairs[1::2], -alone)
    third = ChainRng(5, [3], antithetic=True).randn_like(x[:1])  # whoever runs beside it
    assert torch.equal(third[0], pairs[3])


def test_the_mean_of_an_antithetic_pair_is_exact_where_the_denoiser_is_linear():
    """With a Gaussian prior a state is affine in all the noise: opposite noises cancel."""
    y, known = torch.rand(1, *SHAPE, generator=generator(1)), torch.rand(SHAPE[1:], generator=generator(2)) < 0.5
    kernel = Gpnp(GaussianPixels(0.4, 0.2), ForwardModel(Mask(known[None], SHAPE[0]), y, 0.1))
    sigmas, last = geometric(0.5, 0.02, 30), []
    for rng in (ChainRng(5, 2, antithetic=True), Silence()):
        start = 0.5 + sigmas[0] * rng.randn_like(torch.empty(len(rng.generators), *SHAPE))
        *_, step = iterate(kernel, kernel.init(start), sigmas, rng)
        last.append(step.state.x)
    pair, quiet = last
    assert (pair[0] - pair[1]).abs().max() > 0.1
    assert (pair.mean(0) - quiet[0]).abs().max() < 1e-5
