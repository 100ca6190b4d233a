"""Many inputs: names, failures, shards, interruption and rerun, disks and folders that refuse."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpnp_cli import imageio
from gpnp_cli.cli import batch
from gpnp_cli.cli.batch import config_hash, in_shard, plan
from gpnp_cli.config import dump, resolve
from gpnp_cli.errors import UsageError
from gpnp_cli.inputs import Input

MEAN = ("--save", "mean", "-n", "1")


@pytest.fixture
def three(alone, draw) -> list[str]:
    """a.png, b.png, c.png: different pictures of 24x32."""
    names = ["a.png", "b.png", "c.png"]
    for phase, name in enumerate(names):
        draw(name, phase=phase)
    return names


def results(folder="gpnp_out") -> dict[str, bytes]:
    """The pictures below a folder by relative path."""
    files = sorted(Path(folder).rglob("*.inpaint.*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.suffix != ".json"}


def errors(err: str) -> list[str]:
    return [line.removeprefix("gpnp: error: ") for line in err.splitlines() if line.startswith("gpnp: error: ")]


def paths(*names: str) -> str:
    return "".join(f"gpnp_out/{name}.inpaint.png\n" for name in names)


# ------------------------------------------------------------------------------------------------ names


def inputs(*relative: str) -> list[Input]:
    return [Input(Path("in", name), Path(name)) for name in relative]


def stems(*relative: str) -> list[str]:
    return [str(job.folder / job.stem) for job in plan(inputs(*relative), "inpaint", Path("o"))]


def test_a_stem_shared_by_two_inputs_keeps_its_extension():
    assert stems("a.png", "b.png") == ["o/a.inpaint", "o/b.inpaint"]
    assert stems("a.png", "a.jpg", "b.png") == ["o/a.png.inpaint", "o/a.jpg.inpaint", "o/b.inpaint"]
    assert stems("x/a.png", "y/a.png") == ["o/x/a.inpaint", "o/y/a.inpaint"]
    assert stems("a.tar.png", "a.png") == ["o/a.tar.inpaint", "o/a.inpaint"]


def test_names_that_cannot_be_told_apart_are_refused():
    with pytest.raises(UsageError, match=r"a\.png\.inpaint\.gpnp\.json"):
        stems("a.png", "a.jpg", "a.png.png")


def test_a_clash_is_announced_and_both_are_written(gpnp, draw):
    draw("a.png")
    draw("a.jpg")
    code, out, err = gpnp.inpaint("a.png", "a.jpg", *MEAN)
    assert code == 0
    assert out == "gpnp_out/a.png.inpaint.png\ngpnp_out/a.jpg.inpaint.jpg\n"
    assert "a.png becomes a.png.inpaint" in err


def test_one_file_name_for_several_inputs_is_refused(gpnp, three):
    code, out, err = gpnp.inpaint(*three, "-o", "out.png")
    assert (code, out) == (2, "")
    assert "out.png names one file for 3 inputs" in err
    os.mkdir("folder.png")  # a folder may be called as it likes
    assert gpnp.inpaint(*three, "-o", "folder.png", *MEAN).code == 0


def test_a_tree_is_kept_below_the_output(gpnp, draw):
    os.makedirs("in/deep")
    draw("in/a.png")
    draw("in/deep/a.png")
    code, out, _ = gpnp.inpaint("in", "-r", *MEAN)
    assert (code, out) == (0, paths("a", "deep/a"))


# ------------------------------------------------------------------------------------------------ failures


@pytest.fixture
def bad(alone, draw) -> dict[str, str]:
    """One file of each bad sort, and the word that its error must hold."""
    draw("good.png")
    data = Path("good.png").read_bytes()
    Path("truncated.png").write_bytes(data[: len(data) // 2])
    draw("cut.jpg")
    Path("cut.jpg").write_bytes(Path("cut.jpg").read_bytes()[:-300])
    Path("empty.png").touch()
    Path("text.png").write_text("hello\n")
    Path("big.png").write_bytes(data)
    os.mkdir("folder.png.d")
    os.mkfifo("pipe.png")
    return {
        "missing.png": "does not exist",
        "truncated.png": "damaged or incomplete",
        "cut.jpg": "damaged or incomplete",
        "empty.png": "empty",
        "text.png": "not a picture",
        "pipe.png": "not a regular file",
    }


def test_bad_inputs_fail_alone(gpnp, bad):
    code, out, err = gpnp.inpaint(
        "missing.png", "truncated.png", "good.png", "cut.jpg", "empty.png", "text.png", "pipe.png", *MEAN
    )
    assert (code, out) == (1, paths("good"))
    assert [error.split(" ")[0].rstrip(":") for error in errors(err)] == list(bad)
    for error, word in zip(errors(err), bad.values(), strict=True):
        assert word in error
    records = [json.loads(line) for line in Path("gpnp_out/failures.jsonl").read_text().splitlines()]
    assert [record["input"] for record in records] == list(bad)
    for record in records:
        assert record["status"] == "failed"
        assert record["error"]["code"] == 1
        assert bad[record["input"]] in record["error"]["message"]
    assert "6 of 7 inputs failed; retry them with @gpnp_out/failures.jsonl" in err
    assert sorted(os.listdir("gpnp_out")) == ["failures.jsonl", "good.inpaint.gpnp.json", "good.inpaint.png"]


@pytest.mark.parametrize("name", ["missing.png", "truncated.png", "empty.png", "text.png"])
def test_a_single_bad_input_leaves_nothing_behind(gpnp, bad, name):
    code, out, err = gpnp.inpaint(name)
    assert (code, out) == (1, "")
    assert bad[name] in errors(err)[0]
    assert name in errors(err)[0]
    assert not os.path.exists("gpnp_out")


def test_pictures_over_the_limit(gpnp, three, draw):
    draw("large.png", 60, 60)
    code, out, err = gpnp.inpaint("a.png", "large.png", "--max-pixels", "1000", *MEAN)
    assert (code, out) == (1, paths("a"))
    assert "large.png is 60x60" in errors(err)[0]
    assert "--max-pixels" in err


def test_failures_are_retried_and_struck_off(gpnp, draw):
    os.makedirs("in/deep")
    draw("in/a.png")
    for name in ("in/b.png", "in/deep/c.png"):
        Path(name).touch()
    assert gpnp.inpaint("in", "-r", *MEAN).code == 1
    failures = Path("gpnp_out/failures.jsonl")
    assert len(failures.read_text().splitlines()) == 2
    draw("in/deep/c.png")
    code, out, _ = gpnp.inpaint("@gpnp_out/failures.jsonl", *MEAN)
    assert (code, out) == (1, paths("deep/c"))  # below the folder it belongs to
    assert [json.loads(line)["input"] for line in failures.read_text().splitlines()] == ["in/b.png"]
    draw("in/a2.png")
    assert gpnp.inpaint("in/a2.png", *MEAN).code == 0  # another run leaves the list alone
    assert failures.exists()
    draw("in/b.png")
    assert gpnp.inpaint("@gpnp_out/failures.jsonl", *MEAN).code == 0
    assert not failures.exists()


def test_an_interrupted_batch_lists_what_failed_until_then(gpnp, three, monkeypatch):
    read = batch.read_picture

    def interrupted(path, *limits):
        if path.name == "c.png":
            raise KeyboardInterrupt
        return read(path, *limits)

    monkeypatch.setattr(batch, "read_picture", interrupted)
    code, out, _ = gpnp.inpaint("missing.png", "a.png", "c.png", *MEAN)
    assert (code, out) == (130, paths("a"))
    records = [json.loads(line) for line in Path("gpnp_out/failures.jsonl").read_text().splitlines()]
    assert [record["input"] for record in records] == ["missing.png"]


def test_fail_fast_stops(gpnp, three):
    code, out, err = gpnp.inpaint("a.png", "missing.png", "b.png", "--fail-fast", *MEAN)
    assert (code, out) == (1, paths("a"))
    assert len(errors(err)) == 1
    code, out, _ = gpnp.inpaint("a.png", "missing.png", "b.png", *MEAN)
    assert (code, out) == (1, paths("a", "b"))


def test_a_bad_denoiser_stops_the_batch_at_once(gpnp, three):
    code, out, err = gpnp.inpaint(*three, "--denoiser", "absent.safetensors")
    assert (code, out) == (3, "")
    assert len(errors(err)) == 1


def test_lists_on_standard_input_and_in_files(gpnp, three):
    Path("list.txt").write_text("# chosen\nb.png\n\nc.png\n")
    assert gpnp.inpaint("@list.txt", *MEAN).out == paths("b", "c")
    assert gpnp.inpaint("-", *MEAN, stdin="a.png\nb.png\n").out == paths("a", "b")


# ------------------------------------------------------------------------------------------------ parts of a batch


def test_results_depend_neither_on_order_nor_on_company(gpnp, three):
    assert gpnp.inpaint(*three, "-o", "one").code == 0
    assert gpnp.inpaint(*reversed(three), "-o", "two").code == 0
    assert gpnp.inpaint("b.png", "-o", "three").code == 0
    assert results("one") == results("two")
    assert results("three") == {name: data for name, data in results("one").items() if name.startswith("b.")}
    Path("copy.png").write_bytes(Path("a.png").read_bytes())
    assert gpnp.inpaint("copy.png", "-o", "four").code == 0  # the content counts, not the name
    assert results("four")["copy.inpaint.png"] == results("one")["a.inpaint.png"]


def test_shards_part_the_inputs_and_agree_with_one_run(gpnp, draw):
    os.mkdir("in")
    names = [f"p{i}" for i in range(7)]
    for i, name in enumerate(names):
        draw(f"in/{name}.png", phase=i)
    assert gpnp.inpaint("in", "-o", "whole", *MEAN).code == 0
    lines = []
    for part in ("1/3", "2/3", "3/3"):
        code, out, _ = gpnp.inpaint("in", "--shard", part, *MEAN)
        assert code == 0
        lines += out.splitlines()
    assert sorted(lines) == [f"gpnp_out/{name}.inpaint.png" for name in names]
    assert results() == results("whole")
    # what is run again finds all done
    before = {path: path.stat().st_mtime_ns for path in Path("gpnp_out").iterdir()}
    code, out, err = gpnp.inpaint("in", *MEAN)
    assert (code, len(out.splitlines()), err.count("already done")) == (0, 7, 7)
    assert {path: path.stat().st_mtime_ns for path in Path("gpnp_out").iterdir()} == before


def test_a_shard_depends_on_the_name_alone():
    items = inputs(*(f"{i}.png" for i in range(300)))
    parts = [[item for item in items if in_shard(item, f"{part}/4")] for part in range(1, 5)]
    assert sorted(str(item.path) for part in parts for item in part) == sorted(str(item.path) for item in items)
    assert all(40 < len(part) < 110 for part in parts)
    few = inputs(*(f"{i}.png" for i in range(10)))  # numbered files must not all meet in one part
    assert 3 <= sum(in_shard(item, "1/2") for item in few) <= 7
    assert in_shard(items[0], None)
    moved = Input(Path("/elsewhere/0.png"), Path("0.png"))
    assert [in_shard(moved, f"{part}/4") for part in range(1, 5)] == [items[0] in part for part in parts]


def test_failures_of_shards_do_not_mix(gpnp, alone):
    os.mkdir("in")
    for i in range(8):
        Path(f"in/{i}.png").touch()
    for part in ("1/2", "2/2"):
        assert gpnp.inpaint("in", "--shard", part).code == 1
    lists = sorted(Path("gpnp_out").iterdir())
    assert [path.name for path in lists] == ["failures.1-of-2.jsonl", "failures.2-of-2.jsonl"]
    assert sum(len(path.read_text().splitlines()) for path in lists) == 8


def test_two_shards_at_once_do_everything_exactly_once(spawn, gpnp, draw):
    os.mkdir("in")
    for i in range(6):
        draw(f"in/{i}.png", phase=i)
    flags = ["inpaint", "in", "--denoiser", "gaussian", "--iterations", "3", "--threads", "1", "--device", "cpu", *MEAN]
    running = [spawn(*flags, "--shard", part) for part in ("1/2", "2/2")]
    finished = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    lines = [out.decode().splitlines() for out, _ in finished]
    assert all(lines)
    assert sorted(lines[0] + lines[1]) == [f"gpnp_out/{i}.inpaint.png" for i in range(6)]
    assert gpnp.inpaint("in", "-o", "whole", *MEAN).code == 0
    assert results() == results("whole")


# ------------------------------------------------------------------------------------------------ what is done


def test_what_decides_a_result_is_in_its_hash():
    def key(**flags):
        return config_hash(dump(resolve("inpaint", flags, env={}).config), {"input": "x"})

    base = key()
    for flag, value in [
        ("sampler.samples", 2),
        ("sampler.beta", 0.5),
        ("mask", "rect:1,1"),
        ("noise", 0.1),
        ("output.bits", 16),
    ]:
        assert key(**{flag: value}) != base, flag
    for flag, value in [("output.output", "x"), ("run.threads", 3), ("run.shard", "1/2"), ("run.recursive", True)]:
        assert key(**{flag: value}) == base, flag
    assert config_hash(dump(resolve("inpaint", {}, env={}).config), {"input": "y"}) != base


def test_another_picture_of_the_same_name_is_not_skipped(gpnp, draw):
    draw("a.png")
    assert gpnp.inpaint("a.png", *MEAN).code == 0
    draw("a.png", phase=1)
    code, _, err = gpnp.inpaint("a.png", *MEAN)
    assert code == 1
    assert "another input" in err


def test_a_missing_result_is_not_called_done(gpnp, three):
    assert gpnp.inpaint("a.png").code == 0
    os.unlink("gpnp_out/a.inpaint.sample-02.png")
    assert gpnp.inpaint("a.png").code == 1
    assert gpnp.inpaint("a.png", "--existing", "overwrite").code == 0
    assert os.path.exists("gpnp_out/a.inpaint.sample-02.png")


KILL = """
import os, signal, sys
from gpnp_cli import imageio
from gpnp_cli.__main__ import main

replace, left = os.replace, int(sys.argv.pop(1))


def killed(part, path):  # as if the machine lost its power with a file half named
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(part, path)


imageio.os.replace = killed
main()
"""


def test_a_killed_batch_is_run_again_and_completed(gpnp, spawn, three):
    flags = ["--denoiser", "gaussian", "--iterations", "3", "--threads", "1", "--device", "cpu"]
    # 7 files a picture: dies in the second one, after its mean and first sample
    process = spawn("9", "inpaint", *three, *flags, python=("-c", KILL))
    out, err = process.communicate(timeout=120)
    assert process.returncode == -9, err
    assert out.decode() == paths("a")
    assert not os.path.exists("gpnp_out/b.inpaint.gpnp.json")
    parts = [path for path in Path("gpnp_out").iterdir() if ".part-" in path.name]
    assert len(parts) == 1
    assert parts[0].name.startswith(".b.inpaint.")  # hidden, so no glob of results meets it
    done = {path: path.stat().st_mtime_ns for path in Path("gpnp_out").glob("a.*")}
    code, out, err = gpnp.inpaint(*three)
    assert (code, out) == (0, paths("a", "b", "c"))
    assert err.count("already done") == 1
    assert {path: path.stat().st_mtime_ns for path in Path("gpnp_out").glob("a.*")} == done
    assert not [path for path in Path("gpnp_out").iterdir() if ".part-" in path.name]
    assert gpnp.inpaint(*three, "-o", "whole").code == 0
    assert results() == results("whole")


def test_an_overwriting_run_that_is_killed_does_not_look_finished(gpnp, three, monkeypatch):
    assert gpnp.inpaint("a.png").code == 0

    def killed(part, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(imageio.os, "replace", killed)
        assert gpnp.inpaint("a.png", "--seed", "1", "--force").code == 130
    assert not os.path.exists("gpnp_out/a.inpaint.gpnp.json")
    code, _, err = gpnp.inpaint("a.png")
    assert code == 0
    assert "already done" not in err


def test_part_files_of_running_processes_are_left_alone(gpnp, three):
    os.mkdir("gpnp_out")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    files = {
        f".a.inpaint.png.part-{dead.pid}": False,  # left by a killed run
        f".a.inpaint.png.part-{os.getppid()}": True,
        f".b.inpaint.png.part-{dead.pid}": True,  # belongs to an input that this run does not write
        ".a.inpaint.png.partial": True,
    }
    for name in files:
        Path("gpnp_out", name).touch()
    assert gpnp.inpaint("a.png", *MEAN).code == 0
    assert {name: Path("gpnp_out", name).exists() for name in files} == files


# ------------------------------------------------------------------------------------------------ where nothing can be written


def test_an_output_below_a_file_is_an_environment_problem(gpnp, three):
    Path("file").touch()
    code, out, err = gpnp.inpaint("a.png", "-o", "file/below")
    assert (code, out) == (3, "")
    assert "file/below" in errors(err)[0]
    code, out, err = gpnp.inpaint("a.png", "-o", "file")
    assert (code, out) == (3, "")
    assert "file: results cannot be written there" in errors(err)[0]
    assert Path("file").read_bytes() == b""


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_environment_problem(gpnp, three):
    os.mkdir("locked", 0o555)
    code, out, err = gpnp.inpaint("a.png", "-o", "locked")
    assert (code, out) == (3, "")
    assert "locked" in errors(err)[0]


def test_a_full_disk_keeps_what_is_finished_and_nothing_half(gpnp, three, monkeypatch):
    written = []
    fsync = os.fsync

    def full(file):
        written.append(file)
        if len(written) > 3:  # mean and manifest of the first, the mean of the second
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(imageio.os, "fsync", full)
        code, out, err = gpnp.inpaint(*three, *MEAN)
    assert (code, out) == (3, paths("a"))
    (error,) = errors(err)
    assert "b.inpaint.gpnp.json" in error
    assert os.strerror(errno.ENOSPC) in error
    assert "free some space" in err
    assert sorted(os.listdir("gpnp_out")) == ["a.inpaint.gpnp.json", "a.inpaint.png", "b.inpaint.png"]
    code, out, err = gpnp.inpaint(*three, *MEAN)
    assert (code, out) == (0, paths("a", "b", "c"))
    assert err.count("already done") == 1


def test_a_really_full_disk(gpnp, draw, alone):
    os.mkdir("tiny")
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("only root may mount")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "tiny"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        draw("small.png", 4, 4)
        noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (200, 200, 3), np.uint8)
        Image.fromarray(noise).save("large.png")
        code, out, err = gpnp.inpaint("small.png", "large.png", "-o", "tiny/out", *MEAN)
        assert (code, out) == (3, "tiny/out/small.inpaint.png\n")
        assert "tiny/out/large.inpaint.png" in errors(err)[0]
        assert sorted(os.listdir("tiny/out")) == ["small.inpaint.gpnp.json", "small.inpaint.png"]
    finally:
        subprocess.run(["umount", "tiny"], check=True)


# ------------------------------------------------------------------------------------------------ what a batch says


def test_json_has_a_record_per_input_and_a_summary(gpnp, three):
    assert gpnp.inpaint("a.png", "-n", "2").code == 0
    code, out, err = gpnp.inpaint("a.png", "missing.png", "b.png", "-n", "2", "--json", "--simulate", "-o", "o")
    assert code == 1
    *records, summary = map(json.loads, out.splitlines())
    assert [(record["input"], record["status"]) for record in records] == [
        ("a.png", "done"),
        ("missing.png", "failed"),
        ("b.png", "done"),
    ]
    done, failed = records[0], records[1]
    assert {"input", "status", "outputs", "seconds", "psnr", "metrics", "seed", "nfe", "residual", "mask_share"} <= set(
        done
    )
    kinds = {"main", "sample-01", "sample-02", "std", "sheet", "mask", "damaged", "manifest"}
    assert set(done["outputs"]) == kinds
    assert all(os.path.isfile(path) for path in done["outputs"].values())
    assert failed["error"]["code"] == 1
    assert "missing.png" in failed["error"]["message"]
    assert summary["summary"] == {"done": 2, "skipped": 0, "failed": 1}
    assert "missing.png" in err
    again = gpnp.inpaint("a.png", "-n", "2", "--json", "--simulate", "-o", "o").out
    skipped, summary = map(json.loads, again.splitlines())
    assert summary["summary"] == {"done": 0, "skipped": 1, "failed": 0}
    assert skipped == done | {"status": "skipped"}


def test_quiet_leaves_only_errors(gpnp, three):
    code, out, err = gpnp.inpaint("a.png", "missing.png", "--simulate", "-q", *MEAN)
    assert (code, out) == (1, paths("a"))
    assert err == "gpnp: error: missing.png does not exist\n"


def test_plain_progress_has_a_line_per_picture(gpnp, three):
    code, out, err = gpnp.inpaint("a.png", "missing.png", "b.png", "--progress", "plain", *MEAN)
    assert (code, out) == (1, paths("a", "b"))
    lines = [line for line in err.splitlines() if line.startswith("[")]
    assert [line[: line.index("  ")] for line in lines] == ["[1/3] a.png", "[2/3] missing.png", "[3/3] b.png"]
    assert lines[0].split("  ")[1].startswith("done in ")
    assert lines[1].endswith("failed")


def test_no_bars_without_a_terminal(gpnp, three):
    _, _, err = gpnp.inpaint(*three, *MEAN)
    assert "\x1b" not in err
    assert "━" not in err
    assert "%" not in err.replace("6.2 %", "")


def test_time_is_measured_per_input(gpnp, three, monkeypatch):
    plain = imageio.read_picture

    def slow(path, *rest):
        time.sleep(0.2)
        return plain(path, *rest)

    monkeypatch.setattr("gpnp_cli.cli.batch.read_picture", slow)
    records = [json.loads(line) for line in gpnp.inpaint(*three, "--json", *MEAN).out.splitlines()]
    assert all(0.2 <= record["seconds"] < records[-1]["seconds"] for record in records[:-1])
