"""The loop, what it collects, and the independence of the chains it drives."""

import dataclasses
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gpnp_cli.denoisers.exact import GaussianPixels
from gpnp_cli.denoisers.unet import NetworkDenoiser, Preconditioned, UNet
from gpnp_cli.errors import DivergenceError
from gpnp_cli.forward.base import ForwardModel, LinearOperator
from gpnp_cli.forward.mask import Mask
from gpnp_cli.samplers.base import Info, Moments, State, anneal, collect, iterate
from gpnp_cli.samplers.gpnp import Gpnp
from gpnp_cli.samplers.rng import ChainRng, generator
from gpnp_cli.samplers.schedules import geometric


class Counter:
    """x grows by one per step in every chain; two denoiser calls per step."""

    def __init__(self, spoil: dict[int, tuple[int, float]] | None = None) -> None:
        self.spoil, self.steps = spoil or {}, 0

    def init(self, x: Tensor) -> State:
        return State(x)

    def step(self, state: State, sigma: float, rng: ChainRng) -> tuple[State, Info]:
        self.steps += 1
        x = state.x + 1
        if self.steps in self.spoil:
            chain, value = self.spoil[self.steps]
            x[chain, 0, 1, 1] = value
        return State(x), Info(None, 2)

    def finish(self, state: State, sigma: float) -> tuple[State, Info]:
        return State(state.x + 0.5), Info(None, 1)


def numbered(chains: int = 3) -> Tensor:
    """Chain k starts at 100 k."""
    return 100.0 * torch.arange(chains)[:, None, None, None].expand(chains, 1, 2, 2)


def run(n: int, chains: int = 3, kernel: Counter | None = None):
    kernel = kernel or Counter()
    return iterate(kernel, kernel.init(numbered(chains)), [0.1] * n, ChainRng(0, chains))


def test_iterate_yields_every_step():
    steps = list(run(4))
    assert [s.iteration for s in steps] == [1, 2, 3, 4] and [s.nfe for s in steps] == [2, 4, 6, 8]
    assert [float(s.state.x[2, 0, 0, 0]) for s in steps] == [201, 202, 203, 204]


def test_iterate_works_step_by_step():
    kernel = Counter()
    steps = run(1000, kernel=kernel)
    next(steps)
    assert kernel.steps == 1


def test_anneal_finishes_only_when_asked():
    sigmas = geometric(0.5, 0.05, 3)
    plain = list(anneal(Counter(), numbered(), sigmas, ChainRng(0, 3), finish=False))
    assert [s.sigma for s in plain] == list(sigmas) and plain[-1].nfe == 6
    last = list(anneal(Counter(), numbered(), sigmas, ChainRng(0, 3), finish=True))[-1]
    assert (last.iteration, last.sigma, last.nfe) == (4, sigmas[-1], 7)
    assert torch.equal(last.state.x, plain[-1].state.x + 0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_state_stops_the_run_by_name(value):
    seen = []
    with pytest.raises(DivergenceError, match=r"chain 2 .* iteration 3 \(sigma 0\.1\)"):
        for step in run(10, kernel=Counter({3: (2, value)})):
            seen.append(step.iteration)
    assert seen == [1, 2]


def test_the_finishing_step_is_checked_too():
    kernel = Counter()
    kernel.finish = lambda state, sigma: (State(state.x / 0), Info(None, 1))
    with pytest.raises(DivergenceError, match="chain 0 .* iteration 3"):
        list(anneal(kernel, numbered(), (0.2, 0.1), ChainRng(0, 3), finish=True))


@pytest.mark.parametrize(
    ("n", "burn_in", "thin", "kept"),
    [(6, 0, 1, [1, 2, 3, 4, 5, 6]), (6, 2, 1, [3, 4, 5, 6]), (9, 2, 3, [3, 6, 9]), (8, 7, 1, [8]), (8, 2, 100, [3])],
)
def test_collect_burns_in_and_thins(n, burn_in, thin, kept):
    chain = collect(run(n), burn_in, thin)
    assert chain.draws.shape == (3, len(kept), 1, 2, 2)
    assert torch.equal(chain.draws[1, :, 0, 0, 0], 100 + torch.tensor(kept, dtype=torch.float32))
    assert chain.nfe == 2 * n
    flat = chain.draws.flatten(0, 1)
    torch.testing.assert_close(chain.mean(), flat.mean(0))
    torch.testing.assert_close(chain.std(), flat.std(0))


def test_collect_refuses_a_run_that_is_all_burn_in():
    with pytest.raises(ValueError, match="5 iterations of burn-in"):
        collect(run(5), burn_in=5)


def test_monitors_see_every_iteration():
    chain = collect(run(5), 3, monitor={"mean": lambda x: x.flatten(1).mean(1), "top": lambda x: x.flatten(1).amax(1)})
    assert set(chain.diagnostics) == {"mean", "top"}
    assert chain.diagnostics["mean"].shape == (5, 3)
    assert torch.equal(chain.diagnostics["top"][:, 1], 100 + torch.arange(1.0, 6.0))
    assert collect(run(2), 0).diagnostics == {}


def test_interval_is_the_quantiles_of_the_draws():
    chain = collect(run(101, chains=1), 0)
    low, high = chain.interval(0.9)
    assert low.shape == (1, 2, 2)
    torch.testing.assert_close(low, torch.full_like(low, 6.0))  # of 1 .. 101
    torch.testing.assert_close(high, torch.full_like(high, 96.0))


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_moments_agree_with_torch_far_from_zero(batch):
    """float32 and an offset of 1000 spreads: the sum-of-squares formula would lose every digit."""
    x = 100 + 0.1 * torch.randn(500, 2, 3, 4, generator=generator(0))
    moments = Moments()
    for part in x.split(batch):
        moments.update(part)
    assert moments.count == 500 and moments.mean.dtype == torch.float32
    exact = x.double()
    # one rounding of the running mean per observation, |x| eps / 2 each, adding up as a random walk
    rounding = 100 * torch.finfo(torch.float32).eps / 2 * 500**0.5
    assert (moments.mean - exact.mean(0)).abs().max() < rounding
    torch.testing.assert_close(moments.std().double(), exact.std(0), rtol=2e-3, atol=0)


def test_moments_do_not_alias_the_state_and_one_observation_has_no_spread():
    x = torch.ones(1, 1, 2, 2)
    moments = Moments()
    moments.update(x)
    x += 5
    assert torch.equal(moments.mean, torch.ones(1, 2, 2)) and torch.equal(moments.std(), torch.zeros(1, 2, 2))


# --- chains are independent ---------------------------------------------------------------------


def small_network() -> NetworkDenoiser:
    net = UNet(channels=1, widths=(8, 12), blocks=(1, 1))
    rng = generator(11)
    for p in net.parameters():  # every weight random: the initial zeros would hide the network
        fan = max(1, p[0].numel()) if p.ndim > 1 else 100
        p.data = torch.randn(p.shape, generator=rng) / fan**0.5
    return NetworkDenoiser(Preconditioned(net), (0.0, 10.0), both=False)


class Averages(LinearOperator):
    """Means of neighbouring pairs: no closed-form prox, so that conjugate gradients are in the loop."""

    x_shape, y_shape = (1, 9, 10), (1, 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        return (x[..., ::2] + x[..., 1::2]) / 2

    def adjoint(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(2, dim=-1) / 2


def problem(name: str) -> Gpnp:
    truth = torch.rand(1, 1, 9, 10, generator=generator(5))
    if name == "network, mask":
        return Gpnp(small_network(), ForwardModel(Mask(truth[0] < 0.4), truth, 0.02), r=1.3)
    if name == "network, mask, approximate":
        return Gpnp(small_network(), ForwardModel(Mask(truth[0] < 0.4), truth, 0.02), exact=False)
    if name == "prior only":
        return Gpnp(GaussianPixels(), None)
    return Gpnp(GaussianPixels(), ForwardModel(Averages(), Averages().forward(truth), 0.02))


def restore(kernel: Gpnp, rng: ChainRng) -> Tensor:
    chains = len(rng.generators)
    x = 0.5 + 0.5 * rng.randn_like(torch.empty(chains, 1, 9, 10))
    return list(anneal(kernel, x, geometric(0.5, 0.005, 12), rng, finish=True))[-1].state.x


PROBLEMS = ["network, mask", "network, mask, approximate", "prior only", "conjugate gradients"]


@pytest.mark.parametrize("name", PROBLEMS)
def test_chain_two_alone_is_chain_two_of_four(name):
    kernel = problem(name)
    four, alone = restore(kernel, ChainRng(7, 4)), restore(kernel, ChainRng(7, [2]))
    torch.testing.assert_close(four[2:3], alone, rtol=0, atol=1e-5)
    gaps = (four - four[2:3]).flatten(1).abs().amax(1)
    assert (gaps[[0, 1, 3]] > 1e-3).all()  # while chains do differ


def test_same_seed_same_image():
    kernel = problem("network, mask")
    first, second = (restore(kernel, ChainRng(3, 2)) for _ in range(2))
    assert torch.equal(first, second)
    assert (restore(kernel, ChainRng(4, 2)) - first).abs().max() > 1e-3


def test_a_stopped_chain_goes_on_as_if_nothing_had_happened():
    kernel, sigmas = problem("network, mask"), geometric(0.5, 0.005, 8)
    rng = ChainRng(0, 2)
    x = 0.5 + 0.5 * rng.randn_like(torch.empty(2, 1, 9, 10))
    whole = list(iterate(kernel, State(x), sigmas, rng))[-1].state.x
    rng = ChainRng(0, 2)
    rng.randn_like(x)
    half = list(iterate(kernel, State(x), sigmas[:4], rng))[-1].state.x
    fresh = ChainRng(123, 2)
    fresh.load_state_dict(rng.state_dict())
    assert torch.equal(list(iterate(kernel, State(half), sigmas[4:], fresh))[-1].state.x, whole)


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.01, float("nan")])
def test_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ValueError, match="beta must be in"):
        dataclasses.replace(problem("prior only"), beta=beta)


def test_known_pixels_follow_the_data_at_the_end():
    kernel = dataclasses.replace(problem("network, mask"), denoiser=GaussianPixels())
    x, model = restore(kernel, ChainRng(0, 4)), kernel.model
    known = model.A.known.expand(1, 9, 10)
    gap = (x - model.y)[:, known] / model.sigma_y
    assert gap.abs().max() < 5 and gap.abs().mean() > 0.5  # the data's noise is not fitted either
    noiseless = dataclasses.replace(kernel, model=dataclasses.replace(model, sigma_y=0.0))
    assert torch.equal(restore(noiseless, ChainRng(0, 4))[:, known], model.y.expand(4, 1, 9, 10)[:, known])


def test_states_may_be_richer_than_one_tensor():
    class Cached(NamedTuple):
        x: Tensor
        energy: Tensor

    class Cooling:
        def init(self, x):
            return Cached(x, x.flatten(1).sum(1))

        def step(self, state, sigma, rng):
            return Cached(state.x * sigma, state.energy * sigma), Info(None, 0)

    kernel = Cooling()
    last = list(iterate(kernel, kernel.init(torch.ones(2, 1, 2, 2)), (0.5, 0.5), ChainRng(0, 2)))[-1]
    assert torch.equal(last.state.energy, torch.tensor([1.0, 1.0])) and last.nfe == 0
