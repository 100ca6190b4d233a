"""The loop: exact resume, its schedule, its average, and what it says when training goes wrong."""

import itertools
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from gpnp_cli.errors import DivergenceError, EnvironmentProblem, InputError, UsageError
from gpnp_cli.training import loop
from gpnp_cli.training.averages import exponent
from gpnp_cli.training.checkpoint import load_state, save_state
from gpnp_cli.training.data import Augmentation, CropSource
from gpnp_cli.training.loop import Plan, Trainer

TINY = {"name": "unet", "channels": 3, "widths": (4, 6), "blocks": (1, 1), "embedding": 4, "sigma_data": 0.25}


@pytest.fixture(autouse=True)
def no_clock_in_reports(monkeypatch):
    """On a busy machine a report may come early; here the steps alone decide."""
    monkeypatch.setattr(loop, "REPORT_SECONDS", math.inf)


@pytest.fixture(autouse=True)
def one_thread():
    """On tensors this small a second thread costs more than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def read(path: Path) -> np.ndarray:
    """A smooth picture, different for each name."""
    y, x = np.mgrid[0:48, 0:40] / 48
    phase = int(path.stem)
    planes = [np.sin(3 * x + phase), np.cos(4 * y - phase), np.sin(5 * x * y + phase)]
    return np.uint8(127.5 + 127.5 * np.stack(planes, 2))


def trainer(plan=None, architecture=TINY, size=16, validation=None, seed=0, reader=read, **options) -> Trainer:
    paths = [Path(f"{i}.png") for i in range(4)]
    source = CropSource(paths, reader, size, Augmentation(), seed, torch.device("cpu"))
    plan = plan or Plan(steps=6, batch=4, warmup=2, log_every=1, validate_every=1000)
    return Trainer(architecture, plan, source, validation, seed, **options)


def same(a: Trainer, b: Trainer) -> bool:
    """All tensors of the state bit for bit."""
    first, second = a.state_dict()[0], b.state_dict()[0]
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    straight = trainer()
    assert [report.step for report in straight.run()] == [1, 2, 3, 4, 5, 6]
    first = trainer()
    next(itertools.islice(first.run(), 2, None))
    path = tmp_path / "state.safetensors"
    save_state(path, *first.state_dict())
    second = trainer()
    second.load_state_dict(*load_state(path))
    assert second.step == 3 and same(first, second)
    assert [report.step for report in second.run()] == [4, 5, 6]
    assert same(straight, second) and second.step == 6
    heads = {key.split(".")[0] for key in second.state_dict()[0]}
    assert heads == {"model", "ema", "adam"}
    assert not list(second.run())  # finished


PROFILES = Plan(steps=6, batch=4, warmup=2, log_every=4, validate_every=1000, ema_profiles=(0.05, 0.1), ema_every=2)


def test_a_resumed_run_goes_on_with_its_averages_to_the_same_bits(tmp_path):
    straight = trainer(PROFILES)
    due = [(report.step, straight.snapshot_due) for report in straight.run()]
    assert due == [(2, True), (4, True), (6, True)]
    first = trainer(PROFILES)
    next(itertools.islice(first.run(), 1, None))
    path = tmp_path / "state.safetensors"
    save_state(path, *first.state_dict())
    second = trainer(PROFILES)
    second.load_state_dict(*load_state(path))
    assert second.step == 4 and same(first, second)
    assert [report.step for report in second.run()] == [6]
    assert same(straight, second)
    assert "power.0.05/net.head.weight" in second.state_dict()[0]


def test_averages_do_not_disturb_a_run():
    with_them, without = trainer(PROFILES), trainer()
    list(with_them.run()), list(without.run())
    first, second = with_them.state_dict()[0], without.state_dict()[0]
    assert {key for key in first if not key.startswith("power.")} == second.keys()
    assert all(torch.equal(first[key], value) for key, value in second.items())
    assert not without.snapshot_due


def test_averages_are_those_of_the_weights_after_each_step():
    t = trainer(Plan(steps=30, batch=1, warmup=1, learning_rate=0.01, ema_profiles=(0.1,)))
    seen = []
    for _ in range(8):
        t.train_step()
        seen.append(t.model.state_dict()["net.head.weight"].double())
    edges = (torch.arange(9).double() / 8) ** (exponent(0.1) + 1)
    expected = sum(share * theta for share, theta in zip(edges.diff(), seen, strict=True))
    found = t.state_dict()[0]["power.0.1/net.head.weight"]
    assert torch.allclose(found.double(), expected, atol=1e-7) and (expected - seen[-1]).abs().max() > 1e-4


def test_a_state_without_the_averages_is_named():
    with pytest.raises(InputError, match=r"no average of width 0.05 in the training state"):
        trainer(PROFILES).load_state_dict(*trainer().state_dict())


def test_saving_and_reports_do_not_disturb_a_run():
    plain = trainer(Plan(steps=6, batch=4, warmup=2, log_every=1000, validate_every=1000))
    assert [report.step for report in plain.run()] == [6]
    chatty = trainer(
        Plan(steps=6, batch=4, warmup=2, log_every=1, validate_every=2), validation=torch.rand(2, 3, 16, 16)
    )
    list(chatty.run())
    assert same(plain, chatty)


def test_another_seed_is_another_run():
    first, second = trainer(), trainer(seed=1)
    first.train_step(), second.train_step()
    assert not same(first, second)


def test_no_global_randomness_is_used_or_disturbed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = trainer()
    first.train_step()
    assert torch.equal(torch.rand(3), expected)
    second = trainer()
    second.train_step()
    assert same(first, second)


def test_a_state_of_another_network_is_named():
    other = trainer(architecture={**TINY, "widths": (4, 8)})
    with pytest.raises(InputError, match="another architecture"):
        trainer().load_state_dict(*other.state_dict())
    tensors, rest = trainer().state_dict()
    del tensors["ema.net.head.bias"]
    with pytest.raises(InputError, match="net.head.bias is missing"):
        trainer().load_state_dict(tensors, rest)
    source = trainer()
    source.train_step()
    tensors, rest = source.state_dict()
    tensors["adam.exp_avg.net.head.bias"] = torch.zeros(5)
    with pytest.raises(InputError, match="moments of net.head.bias"):
        trainer().load_state_dict(tensors, rest)


def test_training_denoises_better():
    x = torch.from_numpy(np.stack([read(Path(f"{i}.png"))[:40, :40].transpose(2, 0, 1) for i in (7, 8)])) / 255
    plan = Plan(steps=150, batch=8, warmup=5, learning_rate=1e-2, ema=0.9, log_every=50, validate_every=1000)
    t = trainer(plan, validation=x)
    before = t.validate()  # the fresh network shrinks towards grey
    reports = list(t.run())
    assert reports[-1].loss < reports[0].loss
    assert reports[-1].psnr["25"] > before["25"] + 1.5 and reports[-1].psnr["50"] > before["50"] + 3.5
    assert all(r.images_per_second > 0 and math.isfinite(r.seconds_left) for r in reports)


def test_a_loss_that_becomes_nan_names_its_step(monkeypatch):
    original = loop.denoising_loss
    calls = itertools.count(1)

    def poisoned(*arguments):
        return original(*arguments) * (float("nan") if next(calls) == 4 else 1.0)

    monkeypatch.setattr(loop, "denoising_loss", poisoned)
    t = trainer(Plan(steps=20, batch=2, warmup=2, log_every=3))
    steps = []
    with pytest.raises(DivergenceError, match="at step 4") as caught:
        for report in t.run():
            steps.append(report.step)
    assert steps == [3] and "learning rate" in caught.value.hint


def test_a_gradient_that_overflows_counts_as_divergence_although_the_loss_is_finite(monkeypatch):
    """Otherwise the weights would be NaN in the checkpoint that the report before allows."""
    original = loop.denoising_loss

    def steep(model, x, *rest):
        zero = sum(p.sum() for p in model.parameters()) * 0
        return original(model, x, *rest) + torch.sqrt(zero)  # value 0, slope infinity times 0

    monkeypatch.setattr(loop, "denoising_loss", steep)
    t = trainer()
    with pytest.raises(DivergenceError, match="at step 1"):
        list(t.run())


def test_learning_rate_warms_up_and_ends_at_zero():
    t = trainer(Plan(steps=100, batch=1, warmup=10, learning_rate=0.5))
    rates = []
    for t.step in range(101):
        rates.append(t.learning_rate())
    assert rates[0] == pytest.approx(0.05) and rates[9] > 0.45
    assert rates[50] == pytest.approx(0.25) and rates[100] == 0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_minutes_end_a_run_and_steer_the_learning_rate(monkeypatch):
    clock = itertools.count(0, 7.0)  # seconds per look at the clock
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    t = trainer(Plan(steps=10**6, minutes=2, batch=1, warmup=1, learning_rate=1e-3, log_every=1))
    reports = list(t.run())
    assert t.progress == 1 and 120 <= t.seconds < 145
    assert reports[-1].seconds == t.seconds and reports[-1].seconds_left == 0 and reports[-1].psnr == {}
    for r in reports:
        assert r.learning_rate == pytest.approx(0.5e-3 + 0.5e-3 * math.cos(math.pi * min(1, r.seconds / 120)))
        assert r.seconds + r.seconds_left == pytest.approx(max(120, r.seconds))


def test_slow_steps_are_reported_before_log_every(monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 5.0)
    clock = itertools.count(0, 2.0)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    steps = [r.step for r in trainer(Plan(steps=12, batch=1, warmup=1, log_every=1000)).run()]
    assert len(steps) > 3 and steps[-1] == 12


def test_stop_ends_the_run_after_the_current_step():
    t = trainer(Plan(steps=100, batch=1, warmup=1, log_every=50, validate_every=1000))
    step, count = t.train_step, itertools.count(1)

    def interrupted():
        if next(count) == 7:
            t.stop()  # as a signal handler does, in the middle of a step
        return step()

    t.train_step = interrupted
    assert [r.step for r in t.run()] == [7] and t.step == 7


def test_ema_is_the_ramped_average_of_the_weights():
    t = trainer(Plan(steps=30, batch=1, warmup=1, ema=0.5, learning_rate=0.01))
    name = "net.head.weight"
    expected = t.model.state_dict()[name].clone()
    for step in range(12):
        t.train_step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * t.model.state_dict()[name]
        assert torch.allclose(t.ema.state_dict()[name], expected, atol=1e-7)
    assert (expected - t.model.state_dict()[name]).abs().max() > 1e-4


def test_validation_uses_the_average_and_always_the_same_noise():
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    t = trainer(Plan(steps=4, batch=2, warmup=1, log_every=1, validate_every=2), validation=x)
    before = t.validate()
    assert before == t.validate() and list(before) == ["15", "25", "50"]
    assert before["15"] > before["25"] > before["50"] > 5
    reports = list(t.run())
    assert [r.psnr is not None for r in reports] == [False, True, False, True]
    assert reports[-1].psnr == t.validate() != before
    torch.manual_seed(0)
    with torch.no_grad():
        for p in t.model.parameters():
            p.add_(torch.randn_like(p))
    assert t.validate() == reports[-1].psnr


def test_noise_and_sigma_are_fresh_at_every_step_and_in_every_process(monkeypatch):
    seen = []
    original = loop.denoising_loss

    def spy(model, x, sigma, noise, grey):
        seen.append((sigma, noise))
        return original(model, x, sigma, noise, grey)

    monkeypatch.setattr(loop, "denoising_loss", spy)
    first, second = trainer(), trainer()
    first.train_step(), first.train_step()
    second.rank = 1
    second.train_step()
    for a, b in itertools.combinations(seen, 2):
        assert not torch.equal(a[0], b[0])
        assert abs((a[1] * b[1]).mean()) < 5 / a[1].numel() ** 0.5  # uncorrelated


def test_grey_pictures_get_three_equal_channels_and_the_flag(monkeypatch):
    seen = []
    original = loop.denoising_loss

    def spy(model, x, sigma, noise, grey):
        seen.append((x, noise, grey))
        return original(model, x, sigma, noise, grey)

    monkeypatch.setattr(loop, "denoising_loss", spy)
    t = trainer(Plan(steps=9, batch=64, grey_share=0.5))
    t.train_step()
    x, noise, grey = seen[0]
    assert 16 <= grey.sum() <= 48 and set(grey.tolist()) == {0.0, 1.0}
    for picture in (x, noise):
        equal = ((picture - picture[:, :1]).abs().amax((1, 2, 3)) < 1e-6).float()
        assert torch.equal(equal, grey)
    assert t.denoiser().channels is None
    assert trainer(Plan(grey_share=0.0)).denoiser().channels == 3


def test_grey_only_network():
    t = trainer(architecture={**TINY, "channels": 1}, reader=lambda path: read(path)[:, :, :1])
    assert len(list(t.run())) == 6
    assert t.denoiser().channels == 1
    assert t.denoiser()(torch.rand(1, 1, 9, 9), 0.1).shape == (1, 1, 9, 9)


def test_a_crop_that_is_no_multiple_of_the_stride_is_refused():
    with pytest.raises(UsageError, match="crop size 18 is not a multiple of the network's stride 4"):
        trainer(size=18)


def test_out_of_memory_names_a_batch_that_fits(monkeypatch):
    original = loop.denoising_loss

    def hungry(model, x, *rest):
        if len(x) > 3:
            raise torch.OutOfMemoryError
        return original(model, x, *rest)

    monkeypatch.setattr(loop, "denoising_loss", hungry)
    with pytest.raises(EnvironmentProblem) as caught:
        list(trainer(Plan(steps=3, batch=13)).run())
    assert "batch of 3 fits" in caught.value.hint


TWO_PROCESSES = """
    import sys, torch, torch.distributed as dist
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_loop import trainer, Plan
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    t = trainer(Plan(steps=4, batch=2, warmup=1, log_every=2, validate_every=1000))
    reports = list(t.run())
    vector = torch.cat([x.flatten() for x in t.state_dict()[0].values()])
    torch.save((vector, [r.step for r in reports], t.source.batch(0, 2, t.rank)), Path({out!r}) / f"{{t.rank}}.pt")
    t = trainer(Plan(steps=10**6, batch=2, warmup=1, log_every=3, validate_every=10**6))
    if t.rank == 1:
        t.stop()  # one process is told to stop: all must, together
    assert [r.step for r in t.run()] == [3]
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "both.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES.format(tests=str(Path(__file__).parent), out=str(tmp_path))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    root = str(Path(loop.__file__).parents[2])
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    (first, steps, crops), (second, also, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, second) and steps == also == [2, 4]
    assert not torch.equal(crops, others)
    alone = trainer(Plan(steps=4, batch=2, warmup=1))
    list(alone.run())
    vector = torch.cat([x.flatten() for x in alone.state_dict()[0].values()])
    assert not torch.allclose(vector, first, atol=1e-6)  # the second process' crops counted
