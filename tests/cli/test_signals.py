"""Signals and pipes, in real processes: Ctrl-C, SIGTERM, a second signal, a reader that leaves."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such signals there")

FLAGS = ("--denoiser", "gaussian", "--threads", "1", "--device", "cpu", "--save", "mean", "-n", "1")
PATIENCE = 120  # seconds; a busy machine takes long to import torch


def first_line(process: subprocess.Popen) -> str:
    """The first result; raises if the process ends before."""
    line = process.stdout.readline().decode()
    if not line:
        pytest.fail(process.stderr.read().decode())
    return line


@pytest.fixture
def in_the_middle(spawn, draw):
    """Start a batch whose first picture is done and whose second will take minutes; returns the process."""
    draw("small.png", 8, 8)
    draw("large.png", 1200, 1600)

    def start(**options) -> subprocess.Popen:
        process = spawn("inpaint", "small.png", "large.png", *FLAGS, "--iterations", "2000", **options)
        assert first_line(process) == "gpnp_out/small.inpaint.png\n"
        time.sleep(0.5)
        assert process.poll() is None
        return process

    return start


def stopped(process: subprocess.Popen, code: int, word: str) -> None:
    """It ended with one sentence; what was finished is there, and nothing else."""
    out, err = process.communicate(timeout=PATIENCE)
    said = [line for line in err.decode().splitlines() if not re.search("mask covers|device", line)]
    assert process.returncode == code, err
    assert out == b""
    assert said == [f"gpnp: {word}; finished results are kept"]
    assert sorted(os.listdir("gpnp_out")) == ["small.inpaint.gpnp.json", "small.inpaint.png"]


def test_ctrl_c_in_the_middle_of_a_chain(in_the_middle):
    process = in_the_middle()
    process.send_signal(signal.SIGINT)
    stopped(process, 130, "interrupted")


def test_sigterm_stops_a_background_job_that_ignores_ctrl_c(in_the_middle):
    """What a script starts with `&` has SIGINT ignored, and a batch system ends it with SIGTERM."""
    process = in_the_middle(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    stopped(process, 143, "terminated")


STUBBORN = """
import sys, time
from gpnp_cli.cli.guard import exit_code, install_signals

def command():
    try:
        print("running", flush=True)
        time.sleep(60)
    finally:
        print("cleaning up", flush=True)
        while True:
            try:
                time.sleep(60)
            except BaseException:  # no exception gets out of here
                pass

install_signals()
sys.exit(exit_code(command))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_leaves_at_once(spawn, number, code):
    process = spawn(python=("-c", STUBBORN))
    assert first_line(process) == "running\n"
    process.send_signal(number)
    assert first_line(process) == "cleaning up\n"
    begun = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE) == code
    assert time.monotonic() - begun < 20
    assert b"Traceback" not in process.stderr.read()


def test_head_stops_a_batch_without_complaint(spawn, draw):
    """`gpnp inpaint ... | head -1`: what is finished stays."""
    names = [f"{i}.png" for i in range(4)]
    for name in names:
        draw(name, 8, 8)
    draw("slow.png", 600, 800)
    process = spawn("inpaint", "0.png", "slow.png", *names[1:], *FLAGS, "--iterations", "20")
    assert first_line(process) == "gpnp_out/0.inpaint.png\n"
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(timeout=PATIENCE) == 141
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert "bug" not in err
    # the second result was complete when nobody took its name; nothing after it was begun
    assert {path.name.split(".")[0] for path in Path("gpnp_out").iterdir()} == {"0", "slow"}


@pytest.mark.skipif(sys.platform == "win32", reason="no shell")
def test_a_list_of_paths_through_a_pipe(spawn, draw):
    draw("a b.png", 8, 8)
    command = (
        f"printf '%s\\n' 'a b.png' | {sys.executable} -m gpnp_cli inpaint - {' '.join(FLAGS)} --iterations 2 -q | cat"
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=PATIENCE, check=True)
    assert (done.stdout, done.stderr) == (b"gpnp_out/a b.inpaint.png\n", b"")
