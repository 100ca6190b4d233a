"""Weights files: what was written is read, and nothing else; a wrong file is one sentence, and never code."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from gpnp_cli.errors import EnvironmentProblem, GpnpError, InputError
from gpnp_cli.training.checkpoint import (
    build_network,
    load_denoiser,
    load_state,
    save_denoiser,
    save_state,
    write_safetensors,
)

TINY = {"name": "unet", "channels": 3, "widths": [4, 4], "blocks": [1, 1], "embedding": 4, "sigma_data": 0.25}
METADATA = {"architecture": TINY, "sigma_range": [0.0015, 2.2], "both": True, "steps": 7}


def model(seed=0):
    network = build_network(TINY)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) / 4)
    return network


@pytest.fixture
def path(tmp_path):
    return tmp_path / "denoiser.safetensors"


def test_a_denoiser_comes_back_up_to_half_precision(path):
    network = model()
    save_denoiser(path, network, METADATA)
    loaded = load_denoiser(str(path))
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value.half().float())
    v = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(v, torch.tensor([0.2]), torch.zeros(1))
    assert (expected - v).abs().max() > 0.1
    assert (loaded(v, 0.2) - expected).abs().max() < 1e-2
    assert loaded.sigma_range == (0.0015, 2.2) and loaded.channels is None and loaded.metadata["steps"] == 7
    assert os.listdir(path.parent) == [path.name]


def test_writing_replaces_a_file_whole_or_not_at_all(path, monkeypatch):
    save_denoiser(path, model(0), METADATA)
    before = path.read_bytes()

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        save_denoiser(path, model(1), METADATA)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
    monkeypatch.undo()
    save_denoiser(path, model(1), METADATA)
    assert path.read_bytes() != before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        save_denoiser(tmp_path / "file" / "run" / "x.safetensors", model(), METADATA)


def refused(path, pattern, error=InputError) -> GpnpError:
    with pytest.raises(error, match=pattern) as caught:
        load_denoiser(path)
    assert str(path) in caught.value.message and "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_hostile_pickle_is_refused_and_never_run(tmp_path, suffix):
    trace = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return (open, (str(trace), "w"))

    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(pickle.dumps(Hostile()))
    assert "never unpickles" in refused(path, "not a readable safetensors file").hint
    torch.save({"net": Hostile()}, path)
    refused(path, "not a readable safetensors file")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile())).close()
    assert trace.exists()  # the pickle was hostile indeed


@pytest.mark.parametrize("keep", [0, 4, 9, 200, -1])
def test_a_truncated_file_is_refused(path, keep):
    save_denoiser(path, model(), METADATA)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "not a readable safetensors file")


def test_random_bytes_are_refused(path):
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        path.write_bytes(bytes(torch.randint(0, 256, (300,), generator=rng, dtype=torch.uint8)))
        refused(path, "not a readable safetensors file")


def test_a_missing_file_is_an_environment_problem(path):
    refused(path, "no such file", EnvironmentProblem)
    path.mkdir()
    refused(path, "no such file", EnvironmentProblem)


def raw(path, metadata=METADATA, **tensors):
    """A denoiser file with some tensors replaced (None: left out), and any metadata."""
    weights = {key: value.clone() for key, value in model().state_dict().items()} | tensors
    header = {"format": "gpnp-denoiser", "version": 1, **metadata}
    save_file({k: v for k, v in weights.items() if v is not None}, path, {"gpnp": json.dumps(header)})


def test_weights_that_do_not_fit_are_named(path):
    raw(path, **{"net.head.bias": None})
    refused(path, "net.head.bias is missing")
    raw(path, extra=torch.zeros(2))
    refused(path, "extra is unexpected")
    raw(path, **{"net.head.bias": torch.zeros(5)})
    refused(path, r"net.head.bias is \(5,\), not \(4,\)")
    raw(path, {**METADATA, "architecture": {**TINY, "widths": [4, 6]}})
    refused(path, r"net.body.0.conv1.weight is \(4, 4, 3, 3\), not \(6, 6, 3, 3\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(path, value):
    raw(path, **{"net.tail.bias": torch.full((12,), value)})
    refused(path, "NaN or infinity in net.tail.bias")


@pytest.mark.parametrize(
    "change, pattern",
    [
        ({"architecture": {**TINY, "name": "gan"}}, "unknown or unnamed architecture"),
        ({"architecture": {**TINY, "heads": 8}}, "impossible architecture .*heads"),
        ({"architecture": {**TINY, "widths": [4]}}, "impossible architecture"),
        ({"architecture": {**TINY, "widths": [4, -4]}}, "impossible architecture"),
        ({"architecture": {**TINY, "widths": ["a", "b"]}}, "impossible architecture"),
        ({"architecture": {**TINY, "widths": [4, 10**7]}}, "do not fit"),  # 3.6 PB, were they allocated
        ({"architecture": 3}, "impossible architecture"),
        ({"sigma_range": [1.0]}, "damaged metadata"),
        ({"sigma_range": [2.0, 1.0]}, "damaged metadata"),
        ({"sigma_range": "wide"}, "damaged metadata"),
        ({"format": "gpnp-training-state"}, "not a gpnp-denoiser file"),
        ({"version": 2}, "version 2"),
    ],
)
def test_wrong_metadata_is_named(path, change, pattern):
    raw(path, {**METADATA, **change})
    refused(path, pattern)


@pytest.mark.parametrize("header", [None, {"other": "x"}, {"gpnp": "{"}, {"gpnp": "[1]"}, {"gpnp": "[" * 100_000}])
def test_a_foreign_safetensors_file_is_refused(path, header):
    save_file({"x": torch.zeros(2)}, path, header)
    refused(path, "safetensors file|not a gpnp-denoiser file")


def test_a_training_state_keeps_every_bit(path):
    rng = torch.Generator().manual_seed(0)
    tensors = {
        "step": torch.tensor(3.0),
        "weight": torch.randn(2, 3, 3, 3, generator=rng).to(memory_format=torch.channels_last),
    }
    save_state(path, tensors, {"step": 3, "seconds": 0.1 + 0.2, "seed": 1, "architecture": TINY})
    loaded, rest = load_state(path)
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
    assert (rest["step"], rest["seconds"], rest["architecture"]) == (3, 0.1 + 0.2, TINY)


def test_a_state_is_not_a_denoiser_and_the_reverse(path):
    save_denoiser(path, model(), METADATA)
    with pytest.raises(InputError, match="not a gpnp-training-state file"):
        load_state(path)
    write_safetensors(path, {"x": torch.zeros(1)}, {"format": "gpnp-training-state", "step": 1})
    with pytest.raises(InputError, match="no seconds"):
        load_state(path)
    refused(path, "not a gpnp-denoiser file")
