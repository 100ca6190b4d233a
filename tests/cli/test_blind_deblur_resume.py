"""`gpnp blind-deblur --resume`: an interrupted search goes on to the very result of one that was not."""

import json
import os
from pathlib import Path

import pytest

from gpnp_cli.cli import blind_deblurring, searching
from gpnp_cli.cli.report import Report
from gpnp_cli.training.checkpoint import read_safetensors

FLAGS = ("--denoiser", "gaussian:0.5,0.2", "--iterations", "2", "--threads", "1", "--device", "cpu")
SEARCH = ("--kernel-size", "7", "--restarts", "2", "--search-iterations", "7", "--chains", "2")
OUTPUT = ("--save", "samples,mean,kernel,strip", "-n", "2", "--animation", "gif")
EDGES, REFINED = 5, 7  # steps of a search by edges, and of its GPnP-EM
ONE, ALL = EDGES + REFINED, 2 * (EDGES + REFINED)  # of one search, and of both; then 2 of the final pass
SEARCH_FILE = Path("gpnp_out/pic.blind-deblur.search.safetensors")


@pytest.fixture
def blind(gpnp, pic):
    return lambda *arguments: gpnp("blind-deblur", "pic.png", *FLAGS, *SEARCH, *OUTPUT, *arguments)


@pytest.fixture
def steps(monkeypatch):
    """Counts steps; `steps.stop_at(k)` presses Ctrl-C in place of passing the k-th on. Every step is kept."""
    monkeypatch.setattr(searching, "PAUSE", 0.0)
    track = Report.track

    class Steps:
        count, last = 0, None

        def stop_at(self, last: int | None) -> None:
            self.count, self.last = 0, last

    counted = Steps()

    def counting(self, steps, *rest):
        for step in track(self, steps, *rest):
            counted.count += 1
            if counted.count == counted.last:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(Report, "track", counting)
    return counted


def results(folder: str) -> dict[str, bytes | dict]:
    """What every file holds, manifests without what differs from run to run."""
    found = {}
    for path in Path(folder).iterdir():
        found[path.name] = path.read_bytes()
        if path.suffix == ".json":
            told = json.loads(found[path.name])
            for key in ("seconds", "command_line"):
                del told[key]
            del told["config"]["output"]["output"]
            found[path.name] = told
    return found


@pytest.mark.parametrize(
    ("at", "kept", "model"),
    [
        pytest.param(EDGES + 1, EDGES, "free", id="before EM"),
        pytest.param(EDGES + 5, EDGES + 4, "free", id="in EM"),
        pytest.param(EDGES + 5, EDGES + 4, "motion", id="in EM, a parametric kernel"),
        pytest.param(ONE + 3, ONE, "free", id="in the second search"),
        pytest.param(ONE + EDGES + 5, ONE + EDGES + 4, "free", id="in the second EM"),
        pytest.param(ALL + 1, ALL, "free", id="in the final pass"),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_result(blind, steps, model, at, kept):
    assert blind("--kernel-model", model, "-o", "whole").code == 0
    steps.stop_at(at)
    assert blind("--kernel-model", model).code == 130
    assert os.listdir("gpnp_out") == [SEARCH_FILE.name]
    steps.stop_at(None)
    code, _, err = blind("--kernel-model", model, "--resume")
    assert code == 0, err
    searches, rest = divmod(kept, ONE)
    step = f" and step {rest - EDGES} of GPnP-EM" if rest else ""
    assert f"{SEARCH_FILE}: going on after search {searches}{step}" in err.splitlines()
    assert steps.count == ALL - kept + 3
    assert results("gpnp_out") == results("whole")
    assert "already done" in blind("--kernel-model", model).err  # --resume makes no other result


@pytest.mark.parametrize("at", [3 * EDGES + 1, 4 * EDGES + EDGES + 5])
def test_so_does_one_that_was_choosing_among_windows(blind, steps, monkeypatch, draw, at):
    """Two windows with two weights each; two of the four starts are refined."""
    monkeypatch.setattr(blind_deblurring, "AUTO_SMALLEST", 5)
    draw("pic.png", height=56, width=60)
    auto = ("--kernel-size", "auto")
    assert blind(*auto, "-o", "whole").code == 0
    steps.stop_at(at)
    assert blind(*auto).code == 130
    steps.stop_at(None)
    code, _, err = blind(*auto, "--resume")
    assert code == 0, err
    assert f"going on after {'start 3' if at < 4 * EDGES else 'search 0 and step 4 of GPnP-EM'}" in err
    assert results("gpnp_out") == results("whole")


def test_a_run_may_be_interrupted_again_and_again(blind, steps):
    assert blind("-o", "whole").code == 0
    # before EM, in EM, in the second edges (where nothing new is kept), in the second EM, there again
    for at in (EDGES + 1, 3, 8, 9, 3):
        steps.stop_at(at)
        assert blind("--resume").code == 130
    steps.stop_at(None)
    assert blind("--resume").code == 0
    assert results("gpnp_out") == results("whole")


KILLED = """
import os, signal
from gpnp_cli.cli import searching
from gpnp_cli.cli.app import app
write, searching.PAUSE = searching.write_safetensors, 0.0

def kill(path, tensors, rest):
    write(path, tensors, rest)
    if "under_way" in rest and rest["under_way"]["step"]["nfe"] == 3:  # in GPnP-EM
        os.kill(os.getpid(), signal.SIGKILL)

searching.write_safetensors = kill
app()
"""


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_a_killed_process_leaves_what_the_next_goes_on_from(blind, spawn, steps):
    assert blind("-o", "whole").code == 0
    killed = spawn("blind-deblur", "pic.png", *FLAGS, *SEARCH, *OUTPUT, python=("-c", KILLED))
    assert killed.wait(timeout=120) == -9
    code, _, err = blind("--resume")
    assert (code, "and step 3 of GPnP-EM" in err) == (0, True), err
    assert results("gpnp_out") == results("whole")


def test_without_the_option_a_search_starts_anew(blind, steps):
    steps.stop_at(EDGES + 5)
    assert blind().code == 130
    steps.stop_at(None)
    code, _, err = blind()
    assert (code, "going on" in err) == (0, False)
    assert steps.count == ALL + 3
    assert not SEARCH_FILE.exists()


def test_a_search_for_something_else_is_not_gone_on_with(blind, draw, steps):
    steps.stop_at(EDGES + 5)
    assert blind().code == 130
    unfit = f"{SEARCH_FILE}: of another input, other settings or another gpnp, starting anew"
    for flags in (["--seed", "1"], ["--search-iterations", "6"], ["--denoiser", "gaussian:0.5,0.3"]):
        steps.stop_at(1)
        code, _, err = blind("--resume", *flags)
        assert (code, err.count(unfit)) == (130, 1)
    draw("pic.png", phase=1.0)
    steps.stop_at(None)
    code, _, err = blind("--resume")
    assert (code, err.count(unfit), steps.count) == (0, 1, ALL + 3)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "no metadata"])
def test_a_damaged_file_is_said_and_replaced(blind, steps, damage):
    assert blind("-o", "whole").code == 0
    steps.stop_at(EDGES + 5)
    assert blind().code == 130
    whole = SEARCH_FILE.read_bytes()
    parts = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"a text" * 99}
    SEARCH_FILE.write_bytes(parts.get(damage, whole.replace(b"identity", b"identitx")))
    steps.stop_at(None)
    code, _, err = blind("--resume")
    assert code == 0, err
    assert [line for line in err.splitlines() if "search.safetensors" in line] == [
        f"gpnp: warning: {SEARCH_FILE}: damaged, starting anew"
    ]
    assert results("gpnp_out") == results("whole")


def test_where_there_is_nothing_to_resume_that_is_said(blind):
    assert f"{SEARCH_FILE}: nothing to resume, starting anew" in blind("--resume").err


def test_a_search_that_cannot_be_kept_goes_on(blind, steps):
    SEARCH_FILE.mkdir(parents=True)
    code, _, err = blind()
    assert code == 0
    assert err.count(f"{SEARCH_FILE}: cannot be written") == 1
    assert "--resume cannot" in err


def test_a_random_seed_cannot_be_resumed(blind):
    code, _, err = blind("--resume", "--seed", "random")
    assert (code, "--resume cannot go on with a new random seed" in err) == (2, True)


def test_the_file_is_small(blind, steps):
    """Of the searches that another one beat, only the kernel is kept; of finished ones no state."""
    steps.stop_at(ALL + 1)
    assert blind().code == 130
    tensors, rest = read_safetensors(SEARCH_FILE, searching.KIND)
    pictures = [name for name in tensors if name.endswith("picture")]
    assert len(rest["found"]) == 2 and "under_way" not in rest
    assert len(pictures) == ONE and "x" not in tensors
