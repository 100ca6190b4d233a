"""What a command says and how: stdout for programs, stderr for people, in any encoding."""

import io
import json
import os
import re
import sys
from types import SimpleNamespace

import pytest

from gpnp_cli.cli import report as report_module
from gpnp_cli.cli.report import ReaderLeft, Report, finite, write_stdout
from gpnp_cli.errors import EnvironmentProblem, InputError, UsageError

FAST = ("--denoiser", "gaussian", "--iterations", "3", "--threads", "1", "--device", "cpu", "--save", "mean", "-n", "1")


class Stream(io.TextIOWrapper):
    """A standard stream of a given encoding that remembers its bytes."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")

    @property
    def written(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()


@pytest.fixture
def stdout(monkeypatch):
    def use(encoding="utf-8") -> Stream:
        stream = Stream(encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return use


@pytest.fixture
def stderr(monkeypatch):
    def use(encoding="utf-8") -> Stream:
        stream = Stream(encoding)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return use


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("utf-8", "a/x[red] é.png", "a/x[red] é.png".encode()),
        ("utf-8", os.fsdecode(b"caf\xe9.png"), b"caf\xe9.png"),  # a name in another encoding comes out as it is
        ("cp936", "图.png", "图.png".encode("cp936")),
        ("ascii", "é.png", rb"\xe9.png"),
        ("ascii", os.fsdecode(b"caf\xe9.png"), b"caf\xe9.png"),
        ("cp936", "é\U0001f600.png", "é".encode("cp936") + rb"\U0001f600.png"),
        ("utf-8", f"{'long/' * 60}.png", b"long/" * 60 + b".png"),  # never wrapped
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_path_goes_to_stdout_as_it_is(stdout, encoding, text, expected):
    stream = stdout(encoding)
    Report().result({}, text)
    assert stream.written == expected + b"\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp936", "utf-16-le"])
def test_json_is_valid_in_every_encoding(stdout, encoding):
    stream = stdout(encoding)
    record = {"input": os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80.png"), "psnr": float("inf"), "rows": [float("nan"), 1.5]}
    Report(as_json=True).result(record, "unused")
    line = stream.written.decode(encoding)
    assert line.endswith("\n")
    assert json.loads(line) == record | {"psnr": None, "rows": [None, 1.5]}


def test_finite_changes_nothing_else():
    record = {"a": [1, {"b": True, "c": "inf"}], "d": None, "e": -0.5}
    assert finite(record) == record


def test_no_stdout_at_all_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    write_stdout("x")


@pytest.mark.parametrize(
    ("problem", "raised"), [(BrokenPipeError(), ReaderLeft), (OSError(28, "No space left"), EnvironmentProblem)]
)
def test_a_stdout_that_refuses(monkeypatch, stdout, problem, raised):
    discarded = []
    monkeypatch.setattr(report_module, "discard_stdout", lambda: discarded.append(True))
    stream = stdout()

    class Refusing(io.BytesIO):
        def flush(self):
            raise problem

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding="utf-8", flush=stream.flush, buffer=Refusing()))
    with pytest.raises(raised):
        write_stdout("x")
    assert discarded  # else Python complains once more at its exit


def test_notes_errors_and_quiet(stderr):
    stream = stderr("ascii")
    for quiet in (False, True):
        report = Report(quiet=quiet)
        report.note("note é")
        report.warn("warned")
        report.error(InputError("a[b].png is bad", hint="mend it"))
    said = b"note \\xe9\ngpnp: warning: warned\n"
    error = b"gpnp: error: a[b].png is bad\n  hint: mend it\n"
    assert stream.written == said + error + error


def test_no_stderr_at_all_is_no_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    report = Report()
    assert report.mode == "none"
    report.note("x")
    report.error(InputError("x"))
    assert capsys.readouterr().out == ""


def test_an_unknown_progress_mode_is_refused():
    with pytest.raises(UsageError, match="--progress fancy"):
        Report(progress="fancy")


def steps(total: int):
    for i in range(1, total + 1):
        yield SimpleNamespace(iteration=i, sigma=0.5 / i, nfe=i)


def test_plain_progress_speaks_now_and_then(stderr, monkeypatch):
    clock = iter(range(0, 10_000, 12))  # every look at the clock is 12 s later
    monkeypatch.setattr(report_module.time, "monotonic", lambda: float(next(clock)))
    stream = stderr()
    report = Report(progress="plain")
    with report.files(3):
        report.start(2, 3, "x[red].png")
        assert [step.iteration for step in report.track(steps(20), 20, "batch 1/2  ")] == list(range(1, 21))
        report.finished("done in 1.0 s")
    lines = stream.written.decode().splitlines()
    assert all(line.startswith("[2/3] x[red].png  ") for line in lines)
    assert lines[-1] == "[2/3] x[red].png  done in 1.0 s"
    assert 3 <= len(lines) <= 12
    first = lines[0].split("  ")
    assert first[1].startswith("iteration ")
    assert first[1].endswith("/20")
    assert first[2] == "batch 1/2"
    assert first[3].startswith("sigma 0.")
    assert first[4].startswith("NFE ")
    assert first[5].startswith("left 00:0")


@pytest.mark.parametrize("quiet", [False, True])
def test_other_modes_pass_steps_through_silently(stderr, quiet):
    stream = stderr()
    report = Report(quiet=quiet, progress="bar" if quiet else "auto")
    with report.files(1):
        report.start(1, 1, "a.png")
        assert len(list(report.track(steps(5), 5))) == 5
        report.finished("done")
    assert stream.written == b""


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals there")
def test_bars_in_a_terminal_show_step_sigma_calls_and_keep_other_lines(monkeypatch):
    import fcntl
    import struct
    import termios

    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with open(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(sys, "stdout", terminal)
        report = Report()
        assert report.mode == "bar"
        with report.files(2):
            report.start(1, 2, "x[red].png")
            for step in report.track(steps(4), 4):
                if step.iteration == 2:
                    report.note("a note about x[red].png")
            report.finished("done")
            report.result({}, "out/x[red].inpaint.png")
            report.start(2, 2, "b.png")
        report.note("after")
        monkeypatch.setattr(sys, "stderr", sys.__stderr__)
        monkeypatch.setattr(sys, "stdout", sys.__stdout__)
        os.set_blocking(master, False)
        shown = b""
        while True:
            try:
                shown += os.read(master, 65536)
            except BlockingIOError:
                break
    os.close(master)
    lines = [part for line in shown.decode().splitlines() for part in re.split(r"\x1b\[(?:2K|1A)", line)]
    text = "\n".join(lines)
    assert "a note about x[red].png" in lines
    assert "out/x[red].inpaint.png" in lines  # on a line of its own, not behind a bar
    for word in ("pictures", "0/2", "1/2", "4/4", "sigma 0.1250  NFE 4"):
        assert word in text
    assert lines[-1] == "after"


# ------------------------------------------------------------------------------------------------ processes of their own

NAMES = ["x[red].png", "naïve 图.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
@pytest.mark.parametrize("encoding", ["ascii", "cp936"])
def test_odd_names_in_odd_encodings(spawn, draw, alone, encoding):
    names = [*NAMES, os.fsdecode(b"caf\xe9.png")]
    for name in names:
        draw(os.path.join(alone, name))
    as_json = encoding == "cp936"
    flags = [*names, "missing é [b].png", *FAST, *(["--json"] if as_json else [])]
    out, err = spawn("inpaint", *flags, env={"PYTHONIOENCODING": encoding}).communicate(timeout=120)
    assert b"Traceback" not in err
    assert b"missing" in err
    assert b"[b].png does not exist" in err
    assert {path for path in os.listdir("gpnp_out") if path.endswith(".png")} == {
        name.replace(".png", ".inpaint.png") for name in names
    }
    if as_json:
        records = [json.loads(line) for line in out.decode(encoding).splitlines()]
        assert [record.get("input") for record in records] == [*names, "missing é [b].png", None]
    else:
        expected = [b"x[red].inpaint.png", rb"na\xefve \u56fe.inpaint.png", b"caf\xe9.inpaint.png"]
        assert out.splitlines() == [b"gpnp_out/" + name for name in expected]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_manifest_with_a_name_that_is_no_text_is_a_config(gpnp, draw, alone):
    stem = os.fsdecode(b"m\xe9")
    draw(alone / f"{stem}.png")
    assert gpnp.inpaint(f"{stem}.png", "--save", "mean", "-o", stem).code == 0
    manifest = alone / stem / f"{stem}.inpaint.gpnp.json"
    assert json.loads(manifest.read_bytes().decode("utf-8"))["config"]["output"]["output"] == stem
    code, _, err = gpnp("inpaint", f"{stem}.png", "-c", manifest)
    assert code == 0, err
    assert "already done" in err


@pytest.mark.parametrize("encoding", ["ascii", "cp936", "utf-8"])
def test_help_in_every_terminal(spawn, encoding):
    process = spawn("inpaint", "--help", env={"PYTHONIOENCODING": encoding})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    text = out.decode(encoding)
    for word in ("--mask", "--denoiser", "--samples", "Sampler", "Damage", "[default: 3]"):
        assert word in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_stdout_on_a_full_disk(spawn):
    with open("/dev/full", "wb") as full:
        process = spawn("config", "init", "inpaint", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert err.startswith(b"gpnp: error: standard output cannot be written: ")
    assert err.count(b"\n") == 2


def test_closed_standard_streams(spawn):
    process = spawn("config", "init", "inpaint", python=("-c", CLOSED.replace("{stream}", "1")))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")
    process = spawn("inpaint", "-", python=("-c", CLOSED.replace("{stream}", "0")))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert b"standard input, which is closed" in err


CLOSED = """
import os, sys
if not os.environ.get("INNER"):
    os.close({stream})
    os.environ["INNER"] = "yes"
    os.execv(sys.executable, [sys.executable, "-m", "gpnp_cli", *sys.argv[1:]])
"""


def test_whoever_reads_only_a_line_gets_no_complaint(spawn):
    """`gpnp ... | head -1`."""
    read, write = os.pipe()
    os.close(read)
    process = spawn("config", "show", "inpaint", stdout=write)  # short enough to wait in a buffer
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, b"")


# ------------------------------------------------------------------------------------------------ the program itself


def test_version_and_doctor_name_what_is_installed(gpnp):
    import torch

    import gpnp_cli

    assert gpnp("--version") == (0, f"gpnp {gpnp_cli.__version__}\n", "")
    code, out, err = gpnp("doctor")
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"gpnp {gpnp_cli.__version__}"
    for line in (f"torch {torch.__version__}", f"Python {sys.version.split()[0]}", "device ", "memory "):
        assert any(found.startswith(line) for found in lines), line
    problems = [line for line in lines if line.startswith("problem: ")]
    assert (code, lines[-1]) == ((3, problems[-1]) if problems else (0, "all well"))


def test_doctor_names_what_is_missing(gpnp, monkeypatch):
    from importlib.metadata import PackageNotFoundError, version

    def absent(name):
        if name == "tifffile":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("gpnp_cli.cli.doctor.version", absent)
    code, out, _ = gpnp("doctor")
    assert code == 3
    assert "tifffile MISSING\n" in out
    assert "problem: package tifffile is not installed\n" in out


def test_config_errors_are_sentences_too(gpnp):
    code, out, err = gpnp("config", "show", "inpaint", "--set", "sampler.bta=1")
    assert (code, out) == (2, "")
    assert err == "gpnp: error: --set: sampler.bta: unknown key; did you mean sampler.beta?\n"
    code, out, err = gpnp("config", "init", "inpaint", "-o", "absent/x.yaml")
    assert (code, out) == (3, "")
    assert err.startswith("gpnp: error: absent/x.yaml: cannot be written")


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="no bash")
def test_completion_for_bash(spawn):
    shown = spawn("-c", f"{sys.executable} -m gpnp_cli --show-completion; true", python=(), program="/bin/bash")
    script, err = shown.communicate(timeout=60)
    assert b"_GPNP_COMPLETE=complete_bash" in script, err
    environment = {"_GPNP_COMPLETE": "complete_bash", "COMP_WORDS": "gpnp inp", "COMP_CWORD": "1"}
    out, _ = spawn(env=environment).communicate(timeout=60)
    assert out.split() == [b"inpaint"]


def test_an_exception_nobody_foresaw_is_code_70(gpnp, monkeypatch, tmp_path):
    def broken(*_):
        raise LookupError("lost\nin two lines")

    monkeypatch.setattr("gpnp_cli.masks.parse_mask", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = gpnp("inpaint", "x.png")
    (log,) = tmp_path.glob("gpnp-bug-*.log")
    assert (code, out) == (70, "")
    assert err.splitlines() == [
        "gpnp: this is a bug in gpnp: LookupError: lost",
        f"  hint: please report it with {log} and the output of `gpnp doctor`",
    ]
    assert "in broken" in log.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))  # no room for the log: the sentence must come
    assert "LookupError: lost" in gpnp("inpaint", "x.png").err
