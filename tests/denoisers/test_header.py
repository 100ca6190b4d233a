"""The header of a denoiser file, read without torch: what it carries, and files that are damaged or none."""

import json

import pytest
from safetensors import safe_open

from gpnp_cli.denoisers.header import SHIPPED, carried, read_metadata, shipped_file, users_file


@pytest.mark.parametrize("name", SHIPPED)
def test_the_header_is_what_safetensors_reads(name):
    with safe_open(shipped_file(name), "np") as file:
        assert read_metadata(shipped_file(name)) == json.loads(file.metadata()["gpnp"])


def test_what_the_shipped_priors_carry():
    assert carried("default") == (shipped_file("default"), {})
    assert carried("digits") == (shipped_file("digits"), {"sigma_max": 1, "r": "auto"})


def test_a_file_of_the_users(carrying):
    path = carrying(beta=0.1)
    assert carried(str(path)) == (path, {"beta": 0.1})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02",
        b"\x02" + bytes(7) + b"{}",
        b"\x02" + bytes(7) + b"[]",
        b"\xff" * 8 + b"{}",
        b"\x50" + bytes(7) + b'{"__metadata__": {"gpnp"',
        b"\x23" + bytes(7) + b'{"__metadata__": {"gpnp": "[1, 2]"}}',
        b"PK\x03\x04 a pickle in a zip file",
    ],
)
def test_a_damaged_file_tells_nothing(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert read_metadata(path) == {}
    assert carried(str(path)) == (path, {})


def test_what_is_no_file_tells_nothing(tmp_path):
    assert carried("gaussian") == carried("drunet:x.pth") == carried("digits:3") == (None, {})
    assert carried(str(tmp_path)) == (tmp_path, {})
    assert carried(str(tmp_path / "absent.safetensors")) == (tmp_path / "absent.safetensors", {})
    assert carried("~nobody-of-this-name/x.safetensors")[1] == carried("x" * 5000)[1] == {}


def test_a_path_is_told_from_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    (tmp_path / "digits").touch()
    assert users_file("mine").name == "mine"
    assert users_file("absent.safetensors").name == "absent.safetensors"  # so that it can be missed by this name
    assert users_file("digits") is users_file("drunet:x.pth") is users_file("misspelt") is None
