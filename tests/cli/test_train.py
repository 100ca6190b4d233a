"""`gpnp train-denoiser` end to end on pictures made here: its folder, exact resume, signals, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

import gpnp_cli
from gpnp_cli.cli.app import app
from gpnp_cli.config import check_file
from gpnp_cli.training.checkpoint import load_denoiser
from gpnp_cli.training.loop import Trainer

SETTINGS = ["network.widths=[8,8]", "network.blocks=[1,1]", "network.embedding=8", "plan.warmup=2", "plan.ema=0.9"]
SMALL = [part for setting in SETTINGS for part in ("--set", setting)]
SMALL += ["--crop", "32", "--batch", "4", "--threads", "1", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture(autouse=True)
def restored_process():
    """The command sets threads and signal handlers for its process; here that is pytest's."""
    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder with colour and grey pictures at two depths, one too small and one corrupt."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    (folder / "deep").mkdir(parents=True)
    y, x = np.mgrid[0:48, 0:64] / 48
    for i in range(6):
        planes = [np.sin(3 * x + i), np.cos(4 * y - i), np.sin(5 * x * y + i)]
        pixels = np.uint8(127.5 + 127.5 * np.stack(planes, 2))
        Image.fromarray(pixels).save(folder / ("deep" if i % 2 else ".") / f"p{i}.png")
    Image.fromarray(pixels[:, :, 0]).save(folder / "grey.png")
    Image.fromarray(pixels[:10, :9]).save(folder / "tiny[1].png")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return folder


def run(*arguments) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command, in this process."""
    environment = {"_TYPER_FORCE_DISABLE_TERMINAL": "1", "TERMINAL_WIDTH": "200"}
    done = CliRunner().invoke(app, ["train-denoiser", *map(str, arguments)], env=environment)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run: state and denoiser."""
    files = ("state", "denoiser")
    return {f"{name}:{k}": v for name in files for k, v in load_file(folder / f"{name}.safetensors").items()}


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def metadata(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["gpnp"])


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory) -> Path:
    """A run of 60 steps, never interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    code, out, err = run(pictures, "-o", folder, "--steps", 60, *SMALL, "--set", "plan.log_every=10")
    assert (code, out) == (0, f"{folder}/denoiser.safetensors\n"), err
    return folder


def test_the_run_folder_holds_settings_log_state_and_denoiser(straight, pictures):
    assert sorted(os.listdir(straight)) == ["config.yaml", "denoiser.safetensors", "log.jsonl", "state.safetensors"]
    log = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    assert {10, 20, 30, 40, 50, 60} <= {line["step"] for line in log}
    assert list(log[-1]["psnr"]) == ["15", "25", "50"] and "psnr" not in log[0]
    assert "steps: 60" in (straight / "config.yaml").read_text()
    denoiser = load_denoiser(straight / "denoiser.safetensors")
    assert denoiser(torch.rand(1, 1, 9, 13), 0.1).shape == (1, 1, 9, 13)


def test_the_denoiser_says_what_it_is_and_nothing_of_this_machine(straight, pictures):
    facts = metadata(straight / "denoiser.safetensors")
    assert facts["architecture"]["widths"] == [8, 8] and facts["sigma_range"] == [0.0015, 2.2]
    assert (facts["both"], facts["channels"], facts["steps"], facts["images"], facts["seed"]) == (True, 3, 60, 240, 0)
    assert facts["psnr"]["15"] > 10 and facts["gpnp"] == gpnp_cli.__version__ and facts["date"].endswith("+00:00")
    assert facts["data"]["folders"] == [{"name": "photos", "pictures": 9}]
    assert facts["data"]["validation_pictures"] == 1 and len(facts["data"]["files_sha256"]) == 64
    for name in ("denoiser.safetensors", "state.safetensors"):
        assert os.fsencode(pictures.parent) not in (straight / name).read_bytes()


def test_rejected_pictures_are_reported_and_quiet_is_silent(pictures, tmp_path):
    _, _, err = run(pictures, "-o", tmp_path / "a", "--steps", 2, *SMALL)
    assert "2 pictures left out" in err and "tiny[1].png: 9x10 is smaller than the crop (32)" in err
    assert "broken.jpg" in err and "step 2" not in err  # progress is for terminals, unless asked for
    code, out, err = run(pictures, "-o", tmp_path / "b", "--steps", 2, *SMALL, "-q")
    assert (code, out, err) == (0, f"{tmp_path}/b/denoiser.safetensors\n", "")


def test_plain_progress_and_bar(pictures, tmp_path):
    _, _, err = run(pictures, "-o", tmp_path / "a", "--steps", 4, *SMALL, "--progress", "plain")
    line = next(line for line in err.splitlines() if line.startswith("step 4"))
    for part in ("loss", "images/s", "learning rate", "PSNR 15:", "left 0:00:00"):
        assert part in line
    _, out, err = run(pictures, "-o", tmp_path / "b", "--steps", 4, *SMALL, "--progress", "bar")
    assert "100%" in err and "PSNR 15:" in err and out == f"{tmp_path}/b/denoiser.safetensors\n"


def test_json_records(pictures, tmp_path):
    _, out, _ = run(pictures, "-o", tmp_path / "run", "--steps", 4, *SMALL, "--json", "--set", "plan.log_every=2")
    *reports, last = [json.loads(line) for line in out.splitlines()]
    assert {2, 4} <= {report["step"] for report in reports} and all(report["loss"] > 0 for report in reports)
    assert last["status"] == "done" and last["steps"] == 4 and last["psnr"] == reports[-1]["psnr"]
    assert last["outputs"] == {"denoiser": f"{tmp_path}/run/denoiser.safetensors"}


def test_dry_run_writes_nothing(pictures, tmp_path):
    code, out, err = run(pictures, "-o", tmp_path / "run", *SMALL, "--dry-run")
    assert code == 0 and f"data: [{pictures}]" in out and "batch: 4" in out
    assert "8 pictures to train on, 1 for validation" in err and not (tmp_path / "run").exists()


def test_grey_network(pictures, tmp_path):
    code, _, err = run(pictures, "-o", tmp_path / "run", "--steps", 3, *SMALL, "--channels", 1)
    assert code == 0, err
    denoiser = load_denoiser(tmp_path / "run" / "denoiser.safetensors")
    assert denoiser.channels == 1 and denoiser.metadata["channels"] == 1


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state_and_a_resumed_run_ends_with_the_same_bits(
    number, code, straight, pictures, tmp_path, monkeypatch
):
    original = Trainer.train_step

    def interrupted(self):
        if self.step == 23:
            signal.raise_signal(number)  # in the middle of a step, far from a checkpoint
        return original(self)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    folder = tmp_path / "run"
    got, out, err = run(pictures, "-o", folder, "--steps", 60, *SMALL, "--set", "plan.log_every=10")
    assert (got, out) == (code, "") and "stopped after step 24; --resume" in err
    assert metadata(folder / "state.safetensors")["step"] == 24
    monkeypatch.undo()
    got, out, err = run("-o", folder, "--resume")
    assert (got, out) == (0, f"{folder}/denoiser.safetensors\n") and "going on after step 24" in err
    assert same(folder, straight)
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {10, 20, 24, 30, 60} <= set(steps) and steps == sorted(set(steps))


PROFILES = ["--set", "plan.ema_profiles=[0.05, 0.1]", "--set", "plan.ema_every=8"]


@pytest.fixture(scope="module")
def averaged(pictures, tmp_path_factory) -> Path:
    """As `straight`, with power-function averages beside it."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    code, _, err = run(pictures, "-o", folder, "--steps", 60, *SMALL, *PROFILES)
    assert code == 0, err
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "ema").iterdir())}


def test_snapshots_of_averages_are_kept_and_change_nothing_else(averaged, straight):
    assert list(files(averaged)) == [f"step-{step:06d}.safetensors" for step in (8, 16, 24, 32, 40, 48, 56, 60)]
    facts = metadata(averaged / "ema" / "step-000024.safetensors")
    assert (facts["step"], facts["images"], facts["widths"]) == (24, 96, [0.05, 0.1])
    with_them, without = weights(averaged), weights(straight)
    assert {key for key in with_them if not key.startswith("state:power.")} == without.keys()
    assert all(torch.equal(with_them[key], value) for key, value in without.items())


def test_a_run_with_averages_resumes_to_the_same_snapshots(averaged, pictures, tmp_path, monkeypatch):
    """Also those that a killed run wrote after its last checkpoint: they are made again, not believed."""
    original = Trainer.train_step

    def interrupted(self):
        if self.step == 20:
            signal.raise_signal(signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    folder = tmp_path / "run"
    assert run(pictures, "-o", folder, "--steps", 60, *SMALL, *PROFILES)[0] == 143
    monkeypatch.undo()
    assert list(files(folder)) == ["step-000008.safetensors", "step-000016.safetensors"]
    for stale in ("step-000059.safetensors", ".step-000024.safetensors.part-1"):
        (folder / "ema" / stale).write_bytes(b"of a kill")
    code, _, err = run("-o", folder, "--resume")
    assert code == 0 and "going on after step 21" in err
    assert same(folder, averaged) and files(folder) == files(averaged)
    code, _, err = run("-o", folder, "--resume", "--set", "plan.ema_profiles=[0.05]")
    assert code == 2 and "plan.ema_profiles = [0.05, 0.1], not [0.05]" in err
    code, _, _ = run(pictures, "-o", folder, "--steps", 9, *SMALL, *PROFILES, "--force")
    assert code == 0 and list(files(folder)) == ["step-000008.safetensors", "step-000009.safetensors"]


def test_averages_cannot_begin_in_the_middle_of_a_run(straight, pictures, tmp_path):
    from gpnp_cli.training.checkpoint import load_state, save_state

    code, _, err = run("-o", straight, "--resume", "--steps", 62, *PROFILES)
    assert code == 2 and "plan.ema_profiles = [], not [0.05, 0.1]" in err
    tensors, rest = load_state(straight / "state.safetensors")  # as a gpnp without the key wrote it
    settings = {key: value for key, value in rest["settings"].items() if key != "plan.ema_profiles"}
    (tmp_path / "run").mkdir()
    save_state(tmp_path / "run" / "state.safetensors", tensors, {**rest, "settings": settings})
    old = [pictures, "-o", tmp_path / "run", "--resume", "--steps", 61, *SMALL]
    code, _, err = run(*old, *PROFILES)
    assert code == 2 and "plan.ema_profiles = [], not [0.05, 0.1]" in err
    assert run(*old)[0] == 0


def spawn(*arguments) -> subprocess.Popen:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "gpnp_cli", "train-denoiser", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(gpnp_cli.__file__).parents[1])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(condition, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.005)


OFTEN = ["--set", "plan.log_every=1", "--set", "checkpoint_minutes=0.001"]  # 0.06 s


def test_a_killed_run_ends_with_the_same_bits(straight, pictures, tmp_path):
    folder = tmp_path / "run"
    log, state = folder / "log.jsonl", folder / "state.safetensors"
    process = spawn(pictures, "-o", folder, "--steps", 60, *SMALL, *OFTEN)
    wait_for(lambda: state.exists() and len(log.read_bytes().splitlines()) > 10, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed_at = metadata(state)["step"]
    assert 0 < killed_at < 60
    (folder / ".state.safetensors.part-1").touch()  # as a kill in the middle of a checkpoint leaves it
    code, _, err = run("-o", folder, "--resume")
    assert code == 0 and f"going on after step {killed_at}\n" in err
    assert same(folder, straight)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 61))
    assert sorted(os.listdir(folder)) == sorted(os.listdir(straight))


@pytest.mark.slow
def test_sigterm_from_outside_saves_and_exits_143(pictures, tmp_path):
    state = tmp_path / "run" / "state.safetensors"
    process = spawn(pictures, "-o", state.parent, "--steps", 100_000, *SMALL, *OFTEN)
    wait_for(state.exists, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, ""), err
    assert f"stopped after step {metadata(state)['step']}; --resume" in err


def test_a_finished_run_says_so_and_more_steps_go_on(straight, pictures, tmp_path):
    folder = tmp_path / "run"
    assert run(pictures, "-o", folder, "--steps", 3, *SMALL)[0] == 0
    code, out, err = run("-o", folder, "--resume")
    assert (code, out) == (0, f"{folder}/denoiser.safetensors\n") and "is finished (3 steps)" in err
    assert "reading" not in err
    code, _, err = run(pictures, "-o", folder, "--resume", "--steps", 5)
    assert code == 0 and "going on after step 3" in err
    assert metadata(folder / "denoiser.safetensors")["steps"] == 5


def test_a_run_can_start_from_trained_weights(straight, pictures, tmp_path):
    trained = straight / "denoiser.safetensors"
    still = ["--steps", 1, "--set", "plan.learning_rate=1e-30"]  # a step that changes nothing shows what it began with
    code, _, err = run(pictures, "-o", tmp_path / "on", *SMALL, "--start", trained, *still)
    assert code == 0, err
    before, after = load_file(trained), load_file(tmp_path / "on" / "denoiser.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)
    known = metadata(tmp_path / "on" / "denoiser.safetensors")
    assert known["steps"] == 1 and known["start"]["images"] == metadata(trained)["images"]
    assert run("-o", tmp_path / "on", "--resume", "--steps", 2)[0] == 0
    assert metadata(tmp_path / "on" / "denoiser.safetensors")["start"] == known["start"]


OWN = ["--set", "carried.sigma_max=1", "--set", "carried.r=auto"]


def carried(path: Path) -> dict | None:
    return metadata(path).get("carried")


def test_a_denoiser_carries_what_the_settings_say(straight, pictures, tmp_path):
    assert "carried" not in metadata(straight / "denoiser.safetensors")
    folder = tmp_path / "run"
    code, _, err = run(pictures, "-o", folder, "--steps", 3, *SMALL, *OWN)
    assert code == 0, err
    path = folder / "denoiser.safetensors"
    assert carried(path) == {"sigma_max": 1, "r": "auto"}
    assert run("-o", folder, "--resume", "--steps", 4)[0] == 0  # as the run has it
    assert (carried(path), metadata(path)["steps"]) == ({"sigma_max": 1, "r": "auto"}, 4)
    assert run("-o", folder, "--resume", "--steps", 5, "--set", "carried.sigma_max=0.5")[0] == 0
    assert carried(path) == {"sigma_max": 0.5, "r": "auto"}
    from_here = [pictures, "--start", path, "--steps", 1, *SMALL]
    assert run(*from_here, "-o", tmp_path / "plain")[0] == 0
    assert carried(tmp_path / "plain" / "denoiser.safetensors") is None  # the new run's settings decide
    assert run(*from_here, "-o", tmp_path / "other", "--set", "carried.beta=0.1")[0] == 0
    assert carried(tmp_path / "other" / "denoiser.safetensors") == {"beta": 0.1}


def test_the_denoiser_of_a_finished_run_can_be_given_other_settings(pictures, tmp_path):
    """Which schedule suits a prior is measured once it is trained."""
    folder = tmp_path / "run"
    path = folder / "denoiser.safetensors"
    assert run(pictures, "-o", folder, "--steps", 3, *SMALL)[0] == 0
    before, known = weights(folder), metadata(path)
    code, out, err = run("-o", folder, "--resume", *OWN)
    assert (code, out) == (0, f"{path}\n")
    assert "is finished (3 steps)" in err and "the denoiser now carries sigma_max 1, r auto" in err
    assert metadata(path) == {**known, "carried": {"sigma_max": 1, "r": "auto"}}
    after = weights(folder)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert "now carries" not in run("-o", folder, "--resume")[2]
    assert carried(path) == {"sigma_max": 1, "r": "auto"}
    nothing = ["--set", "carried.sigma_max=null", "--set", "carried.r=null"]
    assert "now carries no settings" in run("-o", folder, "--resume", *nothing)[2]
    assert metadata(path) == known


def test_an_average_carries_what_its_run_carries(averaged, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(averaged, folder)
    assert run("-o", folder, "--resume", *OWN)[0] == 0
    done = CliRunner().invoke(app, ["denoisers", "average", str(folder), "--width", "0.075"])
    assert done.exit_code == 0, done.stderr
    assert carried(folder / "denoiser-0.075.safetensors") == {"sigma_max": 1, "r": "auto"}


def test_weights_of_another_network_are_refused(straight, pictures, tmp_path):
    trained, other = straight / "denoiser.safetensors", ["--set", "network.widths=[8,16]"]
    code, _, err = run(pictures, "-o", tmp_path / "run", *SMALL, *other, "--start", trained, "--steps", 1)
    assert code == 3 and "weights to start from do not fit" in err and not (tmp_path / "run").exists()
    code, _, err = run(pictures, "-o", tmp_path / "run", *SMALL, "--start", tmp_path / "none", "--steps", 1)
    assert code == 3 and "none: no such file" in err


def test_a_run_is_not_overwritten_unless_forced(straight, pictures, tmp_path):
    before = weights(straight)
    code, _, err = run(pictures, "-o", straight, *SMALL)
    assert code == 2 and "holds a training run" in err and "--resume" in err
    assert weights(straight).keys() == before.keys()
    folder = tmp_path / "run"
    run(pictures, "-o", folder, "--steps", 6, *SMALL)
    code, _, _ = run(pictures, "-o", folder, "--steps", 2, *SMALL, "--force")
    assert code == 0 and metadata(folder / "state.safetensors")["step"] == 2
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()][-1] == 2
    assert run(pictures, "-o", folder, "--resume", "--force")[0] == 2


def test_resume_without_a_run_starts_one(pictures, tmp_path):
    code, _, err = run(pictures, "-o", tmp_path / "run", "--steps", 2, *SMALL, "--resume")
    assert code == 0 and "nothing to resume" in err


@pytest.mark.parametrize(
    "change, key",
    [
        (["--batch", 8], "plan.batch = 4, not 8"),
        (["--seed", 1], "run.seed = 0, not 1"),
        (["--set", "network.widths=[8,16]", "--set", "network.blocks=[1,1]"], "widths = [8, 8], not [8, 16]"),
        (["--set", "augment.flip=false"], "augment.flip = True, not False"),
        (["--set", "plan.ema=0.5"], "plan.ema = 0.9, not 0.5"),
    ],
)
def test_a_resumed_run_keeps_its_settings(straight, change, key):
    code, out, err = run("-o", straight, "--resume", *change)
    assert (code, out) == (2, "") and key in err


def test_a_resumed_run_keeps_its_pictures(straight, tmp_path, pictures):
    other = tmp_path / "other"
    other.mkdir()
    Image.open(pictures / "p0.png").save(other / "q.png")
    code, _, err = run(other, "-o", straight, "--resume")
    assert code == 2 and "other pictures" in err


def test_a_state_without_settings_is_taken_up(pictures, tmp_path, straight):
    """As long as its network and seed are the ones asked for."""
    from gpnp_cli.training.checkpoint import load_state, save_state

    folder = tmp_path / "run"
    folder.mkdir()
    tensors, rest = load_state(straight / "state.safetensors")
    kept = {key: rest[key] for key in ("step", "seconds", "seed", "architecture")}
    save_state(folder / "state.safetensors", tensors, kept)
    code, _, err = run(pictures, "-o", folder, "--resume", "--steps", 62, *SMALL)
    assert code == 0 and "going on after step 60" in err
    code, _, err = run(pictures, "-o", folder, "--resume", "--steps", 62, *SMALL, "--seed", 3)
    assert code == 2 and "run.seed = 0, not 3" in err


def test_a_damaged_state_is_one_sentence(pictures, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "state.safetensors").write_bytes(b"\x80\x04junk")
    code, out, err = run(pictures, "-o", folder, "--resume", *SMALL)
    assert (code, out) == (1, "") and "state.safetensors: not a readable safetensors file" in err


def test_unusable_places_are_named(pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, err = run(pictures, tmp_path / "empty", "-o", tmp_path / "run", *SMALL)
    assert (code, out) == (2, "") and f"{tmp_path}/empty" in err
    code, _, err = run(pictures, tmp_path / "nowhere", "-o", tmp_path / "run", *SMALL)
    assert code == 2 and "nowhere: no such file or folder" in err
    code, _, err = run("-o", tmp_path / "run", *SMALL)
    assert code == 2 and "no folder of pictures" in err
    code, _, err = run(pictures / "tiny[1].png", "-o", tmp_path / "run", *SMALL)
    assert code == 2 and "no usable picture among 1" in err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made(pictures, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = run(pictures, "-o", tmp_path / "file" / "run", "--steps", 2, *SMALL)
    assert code == 3 and "file/run" in err


def test_a_random_seed_is_told_and_kept(pictures, tmp_path):
    folder = tmp_path / "run"
    _, _, err = run(pictures, "-o", folder, "--steps", 2, *SMALL, "--seed", "random")
    seed = metadata(folder / "denoiser.safetensors")["seed"]
    assert f"gpnp: seed {seed}\n" in err and f"seed: {seed} " in (folder / "config.yaml").read_text()
    assert run("-o", folder, "--resume", "--steps", 3)[0] == 0


def test_a_diverging_run_keeps_its_last_checkpoint(pictures, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    original = Trainer.train_step

    def diverging(self):
        return original(self) * (float("nan") if self.step == 7 else 1)

    monkeypatch.setattr(Trainer, "train_step", diverging)
    often = ["--set", "plan.log_every=2", "--set", "checkpoint_minutes=1e-9"]
    code, out, err = run(pictures, "-o", folder, "--steps", 20, *SMALL, *often)
    assert (code, out) == (1, "") and "NaN at step 7" in err
    assert metadata(folder / "state.safetensors")["step"] == 6
    load_denoiser(folder / "denoiser.safetensors")


def test_tensorboard_without_the_package_is_an_environment_problem(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = run(pictures, "-o", tmp_path / "run", *SMALL, "--tensorboard")
    assert code == 3 and "gpnp[log]" in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("half", ["train-default", "train-default-2"])
def test_the_recipe_of_the_shipped_denoiser_is_a_valid_configuration(half, pictures, tmp_path):
    recipe = Path(__file__).parents[2] / "configs" / f"{half}.yaml"
    assert check_file(recipe) == []
    code, out, err = run(pictures, "-o", tmp_path / "run", "-c", recipe, "--dry-run")
    assert code == 0 and "widths: [64, 128, 192, 256]" in out, err


@pytest.mark.slow
def test_two_processes_by_torchrun(pictures, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "gpnp_cli"]
    command += ["train-denoiser", str(pictures), "-o", str(folder), "--steps", "5", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(Path(gpnp_cli.__file__).parents[1])}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stdout) == (0, f"{folder}/denoiser.safetensors\n"), done.stderr
    assert done.stderr.count("gpnp: reading") == 1
    facts = metadata(folder / "denoiser.safetensors")
    assert (facts["steps"], facts["images"]) == (5, 40)
    code, _, err = run("-o", folder, "--resume", "--steps", 8)
    assert code == 2 and "processes = 2, not 1" in err
