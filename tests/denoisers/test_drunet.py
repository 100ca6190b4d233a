"""DRUNet: the published names and shapes load, everything else is refused by name; nothing is downloaded here."""

import hashlib
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from gpnp_cli.build import build_prior
from gpnp_cli.config import Model
from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.denoisers.drunet import DRUNet, load_drunet
from gpnp_cli.errors import EnvironmentProblem, InputError


def published_shapes(in_nc: int, out_nc: int, nc=(64, 128, 256, 512), nb: int = 4) -> dict[str, tuple[int, ...]]:
    """Names and shapes of KAIR's drunet_color.pth (4, 3) and drunet_gray.pth (2, 1), written out by its rules."""
    shapes = {"m_head.weight": (nc[0], in_nc, 3, 3), "m_tail.weight": (out_nc, nc[0], 3, 3)}

    def block(name: str, width: int) -> None:
        for layer in (0, 2):  # 1 is the ReLU
            shapes[f"{name}.res.{layer}.weight"] = (width, width, 3, 3)

    for level in range(3):
        narrow, wide = nc[level], nc[level + 1]
        for i in range(nb):
            block(f"m_down{level + 1}.{i}", narrow)
            block(f"m_up{level + 1}.{i + 1}", narrow)
        shapes[f"m_down{level + 1}.{nb}.weight"] = (wide, narrow, 2, 2)
        shapes[f"m_up{level + 1}.0.weight"] = (wide, narrow, 2, 2)  # transposed convolution: (in, out, 2, 2)
    for i in range(nb):
        block(f"m_body.{i}", nc[3])
    return shapes


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {k: torch.randn(s, generator=rng) / (s[1] * s[2] * s[3]) ** 0.5 for k, s in shapes.items()}


SMALL = ((8, 12, 16, 20), 2)


@pytest.fixture
def small_file(tmp_path):
    path = tmp_path / "small.pth"
    torch.save(filled(published_shapes(4, 3, *SMALL)), path)
    return path


@pytest.mark.parametrize(("in_nc", "out_nc"), [(4, 3), (2, 1)])
def test_architecture_has_exactly_the_published_names_and_shapes(in_nc, out_nc):
    with torch.device("meta"):
        state = DRUNet(in_nc, out_nc).state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == published_shapes(in_nc, out_nc)
    # float32 file sizes on the hub: 130.6 MB, nearly all of it weights
    assert sum(v.numel() for v in state.values()) * 4 == pytest.approx(130.6e6, rel=2e-3)


@pytest.mark.parametrize(("name", "in_nc", "channels"), [("color", 4, 3), ("gray", 2, 1)])
def test_published_file_by_name_from_the_model_folder(tmp_path, name, in_nc, channels):
    path = tmp_path / f"drunet_{name}.pth"
    state = filled(published_shapes(in_nc, channels))
    torch.save(state, path)
    denoiser = load_drunet(channels, name, model_dir=tmp_path, offline=True)
    assert isinstance(denoiser, Denoiser) and denoiser.channels == channels
    assert denoiser.weights == path
    assert torch.equal(denoiser.model.m_up2[3].res[2].weight, state["m_up2.3.res.2.weight"])
    assert denoiser(torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(0)), 0.1).shape[1] == channels


def test_without_a_name_the_channels_choose(tmp_path):
    torch.save(filled(published_shapes(2, 1, *SMALL)), tmp_path / "drunet_gray.pth")
    torch.save(filled(published_shapes(4, 3, *SMALL)), tmp_path / "drunet_color.pth")
    assert load_drunet(1, model_dir=tmp_path).channels == 1
    assert load_drunet(model_dir=tmp_path).channels == 3
    assert load_drunet(1, "grey", model_dir=tmp_path).channels == 1


def reference_forward(state: dict[str, torch.Tensor], x: torch.Tensor, nb: int) -> torch.Tensor:
    """UNetRes written with functions only: the independent check of wiring and padding."""
    from torch.nn.functional import conv2d, conv_transpose2d, relu

    def blocks(x, name, first):
        for i in range(first, first + nb):
            h = relu(conv2d(x, state[f"{name}.{i}.res.0.weight"], padding=1))
            x = x + conv2d(h, state[f"{name}.{i}.res.2.weight"], padding=1)
        return x

    skips = [conv2d(x, state["m_head.weight"], padding=1)]
    for level in (1, 2, 3):
        h = blocks(skips[-1], f"m_down{level}", 0)
        skips.append(conv2d(h, state[f"m_down{level}.{nb}.weight"], stride=2))
    h = blocks(skips[-1], "m_body", 0)
    for level in (3, 2, 1):
        h = conv_transpose2d(h + skips.pop(), state[f"m_up{level}.0.weight"], stride=2)
        h = blocks(h, f"m_up{level}", 1)
    return conv2d(h + skips.pop(), state["m_tail.weight"], padding=1)


def test_forward_is_unetres_with_a_sigma_map_per_image(small_file):
    state = filled(published_shapes(4, 3, *SMALL))
    v = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.05, 0.15])
    maps = sigma[:, None, None, None].expand(2, 1, 16, 24)
    expected = reference_forward(state, torch.cat([v, maps], 1), 2)
    denoiser = load_drunet(3, str(small_file))
    torch.testing.assert_close(denoiser(v, sigma), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(denoiser(v[1:], 0.15), expected[1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 30)])
def test_any_size_is_reflected_up_and_cropped(small_file, size):
    denoiser = load_drunet(3, str(small_file))
    v = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2))
    assert denoiser(v, 0.1).shape == v.shape
    if size == (17, 30):
        padded = torch.nn.functional.pad(v, (0, 2, 0, 7), mode="reflect")
        torch.testing.assert_close(denoiser(v, 0.1), denoiser(padded, 0.1)[:, :, :17, :30])


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s}, lambda s: {"params": s}])
def test_wrappers_and_data_parallel_prefixes_come_off(tmp_path, wrap):
    state = filled(published_shapes(4, 3, *SMALL))
    torch.save(wrap({f"module.{k}": v for k, v in state.items()}), tmp_path / "wrapped.pth")
    denoiser = load_drunet(3, str(tmp_path / "wrapped.pth"))
    assert torch.equal(denoiser.model.m_head.weight, state["m_head.weight"])


def test_safetensors_loads_too(tmp_path, small_file):
    save_file(filled(published_shapes(4, 3, *SMALL)), tmp_path / "small.safetensors")
    v = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    one, other = load_drunet(3, str(tmp_path / "small.safetensors")), load_drunet(3, str(small_file))
    assert torch.equal(one(v, 0.1), other(v, 0.1))


def without(key):
    return lambda s: {k: v for k, v in s.items() if k != key}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("m_head.weight"), "m_head.weight is missing"),
        (without("m_up2.1.res.2.weight"), "m_up2.1.res.2.weight is missing"),
        (lambda s: {**s, "m_head.bias": torch.zeros(8)}, "m_head.bias is unexpected"),
        (lambda s: {**s, "m_up1.0.weight": torch.zeros(12, 9, 2, 2)}, r"m_up1.0.weight is \(12, 9, 2, 2\)"),
        (lambda s: {**s, "m_head.weight": torch.zeros(8, 3, 3, 3)}, "noise-level channel"),
        (lambda s: {**s, "m_tail.weight": s["m_tail.weight"] * torch.nan}, "m_tail.weight contains NaN"),
        (lambda s: [1, 2], "holds list"),
        (lambda s: {"epoch": 3}, "not a state dict"),
    ],
)
def test_wrong_files_name_the_mismatch(tmp_path, change, named):
    torch.save(change(filled(published_shapes(4, 3, *SMALL))), tmp_path / "wrong.pth")
    with pytest.raises(InputError, match=named):
        load_drunet(3, str(tmp_path / "wrong.pth"))


def test_channel_mismatch_concerns_that_picture_only(small_file):
    with pytest.raises(InputError, match="is for colour pictures, this one is grey"):
        build_prior(Model(denoiser=f"drunet:{small_file}"), 1, torch.device("cpu"), torch.float32)
    with pytest.raises(InputError, match="3-channel pictures, this one has 1"):
        load_drunet(None, str(small_file))(torch.zeros(1, 1, 8, 8), 0.1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_and_missing_files(tmp_path, suffix):
    (tmp_path / f"bad{suffix}").write_bytes(b"not weights")
    with pytest.raises(InputError, match="not a readable weights file"):
        load_drunet(3, str(tmp_path / f"bad{suffix}"))
    with pytest.raises(EnvironmentProblem, match="no such"):
        load_drunet(3, str(tmp_path / f"none{suffix}"))


class Evil:
    def __reduce__(self):
        return (print, ("code from a weights file ran",))


def test_pickled_code_is_never_run(tmp_path, capsys):
    torch.save({"m_head.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="not a readable"):
        load_drunet(3, str(tmp_path / "evil.pth"))
    assert "ran" not in capsys.readouterr().out


def test_no_hub_package_says_how_to_get_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EnvironmentProblem) as caught:
        load_drunet(3, "color", model_dir=tmp_path)
    assert "gpnp[hub]" in caught.value.hint and "--model-dir" in caught.value.hint


def test_offline_with_an_empty_cache_is_an_environment_problem(tmp_path):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(EnvironmentProblem, match="drunet_color.pth is not in the cache") as caught:
        load_drunet(3, "color", model_dir=tmp_path, offline=True)
    assert caught.value.code == 3


def test_download_is_checked_against_the_sha256_in_the_cache(tmp_path, monkeypatch):
    """A stand-in for the hub's client, with its cache layout: a link to a blob named by its sha256."""
    torch.save(filled(published_shapes(4, 3, *SMALL)), tmp_path / "blob")
    digest = hashlib.sha256((tmp_path / "blob").read_bytes()).hexdigest()
    (tmp_path / "blob").rename(tmp_path / digest)
    (tmp_path / "link.pth").symlink_to(tmp_path / digest)
    asked = []

    def hf_hub_download(repository, file, revision, cache_dir, local_files_only):
        asked.append((repository, file, local_files_only))
        return str(tmp_path / "link.pth")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=hf_hub_download))
    assert load_drunet(3, "color").channels == 3
    assert asked == [("deepinv/drunet", "drunet_color.pth", False)]
    with open(tmp_path / digest, "ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="damaged"):
        load_drunet(3, "color")
