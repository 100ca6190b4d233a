"""The configuration: models, precedence, messages, YAML traps, texts and schemas."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from gpnp_cli import config
from gpnp_cli.config import COMMANDS, PRESETS, ConfigError, check_file, dump, init_text, resolve, schema, show_text
from gpnp_cli.errors import UsageError


@pytest.fixture(autouse=True)
def user_config(tmp_path, monkeypatch):
    """No test reads this machine's own file or variables; the path is where a test may put one."""
    path = tmp_path / "home" / "config.yaml"
    monkeypatch.setattr(config, "user_file", lambda: path)
    for name in [name for name in os.environ if name.startswith("GPNP_")]:
        monkeypatch.delenv(name)
    return path


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems(command="inpaint", flags=None, sets=(), files=(), env=None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(command, flags or {}, sets, files, env or {})
    return caught.value.problems


def problem(*args, **kwargs) -> str:
    found = problems(*args, **kwargs)
    assert len(found) == 1, found
    return found[0]


def value(resolved, key):
    found = resolved.config
    for name in key.split("."):
        found = getattr(found, name)
    return found


# Models


def test_importing_is_light():
    code = (
        "import sys, gpnp_cli.config; "
        "print([m for m in ('torch', 'numpy', 'yaml', 'typer', 'rich', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sampler_holds_its_presets_numbers(preset):
    sampler = config.Sampler(preset=preset)
    assert {key: getattr(sampler, key) for key in PRESETS[preset]} == PRESETS[preset]


def test_presets_name_every_key_that_follows_them():
    follow = {key.removeprefix("sampler.") for key, info in config.keys("inpaint").items() if config._by_preset(info)}
    assert follow == set(PRESETS["balanced"]) == set(PRESETS["calibrated"]) == set(PRESETS["published"])


def test_published_preset_is_the_papers():
    paper = {"iterations": 100, "sigma_max": 0.5, "sigma_min": 0.005, "beta": 0.25, "r": 1.3}
    rest = {"generator": "approximate", "init": "rbf", "final": "state"}
    assert PRESETS["published"] == paper | rest


def test_deblur_has_a_start_of_its_own():
    """A blurred picture has no holes to fill: no preset may bring a start that needs them."""
    for preset in PRESETS:
        resolved = resolve("deblur", {}, [f"sampler.preset={preset}"], env={})
        assert resolved.config.sampler.init == "observed"
        assert resolved.origins["sampler.init"] == "default"
        assert resolved.config.sampler.iterations == PRESETS[preset]["iterations"]


@pytest.mark.parametrize("command", ["inpaint", "deblur", "super-resolve"])
def test_a_single_estimate_has_numbers_of_its_own(command):
    sets = ["sampler.method=pnp", "sampler.preset=published", "sampler.samples=5", "sampler.sigma_max=0.3"]
    resolved = resolve(command, {"sampler.final": "denoise"}, sets, env={})
    sampler, origins = resolved.config.sampler, resolved.origins
    assert (sampler.iterations, sampler.sigma_min) == (config.POINT["iterations"], config.POINT["sigma_min"])
    assert (sampler.sigma_max, origins["sampler.sigma_max"]) == (0.3, "--set")
    assert (sampler.samples, sampler.final) == (1, "state")  # whatever was asked for
    for key in ("iterations", "sigma_min", "samples", "final"):
        assert origins[f"sampler.{key}"] == "method pnp"
    assert origins["sampler.beta"] == "preset published"
    assert resolve(command, dump(resolved.config), env={}).config == resolved.config


@pytest.mark.parametrize("method", config.METHODS)
def test_a_method_brings_its_numbers_and_what_it_cannot_do_otherwise(method):
    resolved = resolve("deblur", {"sampler.method": method, "sampler.final": "denoise"}, env={})
    found = {key: getattr(resolved.config.sampler, key) for key in config.METHODS[method]}
    assert found == config.METHODS[method]
    fixed = config.FIXED.get(method, {})
    assert resolved.config.sampler.final == fixed.get("final", "denoise")
    for key in {**config.METHODS[method], **fixed}:
        assert resolved.origins[f"sampler.{key}"] == f"method {method}"
    assert (
        resolve("deblur", {"sampler.method": method}, ["sampler.sigma_max=0.7"], env={}).config.sampler.sigma_max == 0.7
    )


def test_a_single_estimate_is_shorter_with_circular_borders():
    flags = {"sampler.method": "pnp", "border": "circular"}
    resolved = resolve("deblur", flags, env={})
    assert resolved.config.sampler.iterations == config.CIRCULAR
    assert resolved.origins["sampler.iterations"] == "method pnp"
    assert resolve("deblur", flags, ["sampler.iterations=40"], env={}).config.sampler.iterations == 40
    assert resolve("deblur", {**flags, "border": "real"}, env={}).config.sampler.iterations == 30
    assert resolve("deblur", {"border": "circular"}, env={}).config.sampler.iterations == 100


def test_a_key_given_overrides_the_preset():
    resolved = resolve("inpaint", {}, ["sampler.preset=published", "sampler.r=1.1"], env={})
    assert resolved.config.sampler.r == 1.1
    assert resolved.config.sampler.generator == "approximate"
    assert resolved.origins["sampler.r"] == "--set"
    assert resolved.origins["sampler.generator"] == "preset published"
    assert resolved.origins["sampler.preset"] == "--set"
    assert resolved.origins["sampler.samples"] == "default"


def test_null_means_the_presets_value():
    resolved = resolve("inpaint", {}, ["sampler.iterations=null"], env={})
    assert resolved.config.sampler.iterations == PRESETS["balanced"]["iterations"]
    assert resolved.origins["sampler.iterations"] == "preset balanced"


# What a prior's file carries


RESTORING = ["inpaint", "deblur", "blind-deblur", "super-resolve"]


@pytest.mark.parametrize("command", RESTORING)
def test_a_prior_brings_settings_of_its_own(command, carrying):
    path = carrying(sigma_max=1, r="auto", iterations=70)
    resolved = resolve(command, {"model.denoiser": str(path)}, env={})
    sampler = resolved.config.sampler
    assert (sampler.sigma_max, sampler.r, sampler.iterations) == (1, "auto", 70)
    assert sampler.sigma_min == PRESETS["balanced"]["sigma_min"]
    for key in ("sigma_max", "r", "iterations"):
        assert resolved.origins[f"sampler.{key}"] == f"prior {path}"
    assert resolved.origins["sampler.beta"] == "preset balanced"
    assert resolved.origins["sampler.preset"] == "default"
    assert resolved.by_prior == {"iterations": 70, "sigma_max": 1, "r": "auto"}


@pytest.mark.parametrize("command", RESTORING)
def test_the_default_prior_brings_nothing(command):
    resolved = resolve(command, env={})
    assert resolved.config == COMMANDS[command]() and resolved.by_prior == {}
    assert resolved.origins["sampler.sigma_max"] == "preset balanced"


def test_whatever_was_given_goes_before_the_priors_own(carrying, write):
    path = carrying(sigma_max=1, r="auto", beta=0.1, sigma_min=0.01)
    file = write("sampler:\n  sigma_max: 0.7\n  r: 1.1\n  beta: 0.2\n")
    env = {"GPNP_SAMPLER_R": "1.2", "GPNP_SAMPLER_BETA": "0.3", "GPNP_MODEL_DENOISER": str(path)}
    for flags, sets, origin in [({"sampler.beta": "0.4"}, [], "flag"), ({}, ["sampler.beta=0.4"], "--set")]:
        resolved = resolve("inpaint", flags, sets, [file], env)
        sampler, origins = resolved.config.sampler, resolved.origins
        assert (sampler.sigma_max, origins["sampler.sigma_max"]) == (0.7, f"{file}:2")
        assert (sampler.r, origins["sampler.r"]) == (1.2, "GPNP_SAMPLER_R")
        assert (sampler.beta, origins["sampler.beta"]) == (0.4, origin)
        assert (sampler.sigma_min, origins["sampler.sigma_min"]) == (0.01, f"prior {path}")


@pytest.mark.parametrize("source", ["flag", "--set", "env", "file"])
def test_a_preset_that_was_chosen_goes_before_the_priors_own(source, carrying, write):
    flags = {"model.denoiser": str(carrying(sigma_max=1, r="auto"))}
    given = {
        "flag": ({**flags, "sampler.preset": "balanced"}, [], [], {}),
        "--set": (flags, ["sampler.preset=balanced"], [], {}),
        "env": (flags, [], [], {"GPNP_SAMPLER_PRESET": "balanced"}),
        "file": (flags, [], [write("sampler: {preset: balanced}\n")], {}),
    }[source]
    resolved = resolve("inpaint", *given)
    assert resolved.config.sampler == config.Sampler() and resolved.by_prior == {}


def test_null_leaves_a_key_to_the_prior(carrying, write):
    path = carrying(sigma_max=1)
    file = write(f"model: {{denoiser: {path}}}\nsampler:\n  preset: null\n  sigma_max: null\n")
    resolved = resolve("inpaint", {}, (), [file], {})
    assert (resolved.config.sampler.sigma_max, resolved.origins["sampler.sigma_max"]) == (1, f"prior {path}")


@pytest.mark.parametrize("method", config.METHODS)
def test_another_method_takes_nothing_from_the_prior(method, carrying):
    flags = {"sampler.method": method}
    resolved = resolve("inpaint", {**flags, "model.denoiser": str(carrying(sigma_max=1, beta=0.1))}, env={})
    assert resolved.config.sampler == resolve("inpaint", flags, env={}).config.sampler


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in RESTORING])
def test_other_commands_take_nothing_from_the_prior(command, carrying):
    if "model.denoiser" in config.keys(command):
        resolved = resolve(command, {"model.denoiser": str(carrying(sigma_max=1, beta=0.1))}, env={})
        assert resolved.by_prior == {}
        assert resolved.config == COMMANDS[command](model=resolved.config.model)


def test_the_resolved_settings_stay_when_the_file_carries_others(carrying, write):
    flags = {"model.denoiser": str(carrying(sigma_max=1, r="auto"))}
    first = resolve("inpaint", flags, env={}).config
    carrying(sigma_max=2)
    assert resolve("inpaint", flags, env={}).config.sampler.sigma_max == 2
    assert resolve("inpaint", dump(first), env={}).config == first
    again = write(json.dumps(dump(first)), "again.json")
    assert resolve("inpaint", {}, (), [again], {}).config == first


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sigma_max": 50}, "carried.sigma_max: out of range (given 50; allowed: a number above 0, at most 10"),
        ({"sigma_max": True}, "carried.sigma_max: true and false have no meaning here"),
        ({"sigma_max": {"a": 1}}, "carried.sigma_max: "),
        ({"sigma_max": float("nan")}, "carried.sigma_max: must be a finite number"),
        ({"sigma_mx": 1}, "carried.sigma_mx: unknown key; did you mean carried.sigma_max?"),
        ({"r.x": 1}, "carried.r.x: unknown key"),
        ({"r": "atuo"}, "carried.r: "),
        ({"sigma_max": 0.1, "sigma_min": 0.2}, "carried.sigma_min: the noise level must fall"),
    ],
)
def test_an_impossible_setting_of_a_prior_is_one_sentence(settings, words, carrying):
    path = carrying(**settings)
    flags = {"model.denoiser": str(path)}
    assert problem("inpaint", flags).startswith(f"{path}: {words}")
    assert resolve("inpaint", {**flags, "sampler.preset": "balanced"}, env={}).config.sampler == config.Sampler()


def test_what_is_carried_must_have_names(carrying):
    path = carrying()
    path.write_bytes(path.read_bytes().replace(b"{}", b"[]"))
    assert problem("inpaint", {"model.denoiser": str(path)}) == (
        f"{path}: carried: must hold settings of the sampler by name (given [])"
    )


def test_a_setting_that_does_not_go_with_the_priors_own_is_told(carrying):
    flags = {"model.denoiser": str(carrying(sigma_max=0.5))}
    found = problem("inpaint", {**flags, "sampler.sigma_min": 0.7})
    assert found == (
        "command line: sampler.sigma_min: the noise level must fall, but sigma_min = 0.7 is above sigma_max = 0.5"
    )
    assert problem("inpaint", {"model.denoiser": str(path := carrying(sigma_max=0.001))}).startswith(
        f"prior {path}: sampler.sigma_max: the noise level must fall"
    )


def test_configs_are_frozen():
    resolved = resolve("inpaint", env={})
    with pytest.raises(ValueError, match="frozen"):
        resolved.config.noise = 0.5
    with pytest.raises(ValueError, match="frozen"):
        resolved.config.sampler.beta = 0.5
    hash(resolved.config)  # and hold nothing that can change


def test_every_key_is_described_in_one_line():
    for command in COMMANDS:
        for key, info in config.keys(command).items():
            assert info.description, key
            assert len(info.description) <= 100, key
            assert "\n" not in info.description, key
            assert info.description[0].isupper() or info.description[0].isdigit(), key
            assert not info.description.endswith("."), key


@pytest.mark.parametrize(
    ("section", "module", "name", "without"),
    [
        ("plan", "loop", "Plan", {"sigma"}),
        ("sigma", "loss", "SigmaLaw", set()),
        ("augment", "data", "Augmentation", set()),
    ],
)
def test_training_sections_match_the_core(section, module, name, without):
    import importlib

    core = getattr(importlib.import_module(f"gpnp_cli.training.{module}"), name)
    theirs = {field.name: field.default for field in dataclasses.fields(core) if field.name not in without}
    assert getattr(config.TrainConfig(), section).model_dump() == theirs


def test_the_networks_keys_build_it():
    from gpnp_cli.training.checkpoint import build_network

    options = config.Network(widths=(8, 8), blocks=(1, 1)).model_dump(exclude_none=True)
    build_network({"name": options.pop("architecture"), **options})
    options = config.Network(architecture="attention-unet", widths=(8, 8), blocks=(1, 1)).model_dump()
    build_network({"name": options.pop("architecture"), **options, "image_size": 16})


@pytest.mark.parametrize(("text", "expected"), [("4G", 4 << 30), ("512M", 512 << 20), ("1.5K", 1536), ("1T", 1 << 40)])
def test_cache_size(text, expected):
    assert config.TrainConfig(cache=text).cache_bytes == expected


# Bounds: the last good value, and the first bad one on the other side

GOOD_AND_BAD = [
    ("inpaint", "sampler.samples", ["1", "10000"], ["0", "-3", "1.5", "many", "10001"]),
    ("inpaint", "sampler.preset", ["published"], ["paper"]),
    ("inpaint", "sampler.iterations", ["1", "100000", "1e5"], ["0", "100001", "2.5"]),
    ("inpaint", "sampler.sigma_max", ["10", "0.005"], ["0", "-1", "10.1", ".inf", ".nan", "high"]),
    ("inpaint", "sampler.sigma_min", ["1e-3", "0.25"], ["0", "-1e-3", ".nan", "-.inf"]),
    ("inpaint", "sampler.beta", ["1", "1e-3", "0.25"], ["0", "1.01", ".nan", "-0.25", "[0.1]", "{a: 1}"]),
    ("inpaint", "sampler.r", ["5", "0.1"], ["0", "5.1", ".inf"]),
    ("inpaint", "sampler.generator", ["exact", "approximate"], ["exat", "1"]),
    ("inpaint", "sampler.init", ["noise", "interpolate", "rbf"], ["zero"]),
    ("inpaint", "sampler.final", ["state", "denoise"], ["mean"]),
    ("inpaint", "sampler.antithetic", ["false"], ["maybe"]),
    ("inpaint", "model.denoiser", ["bm3d", "drunet:color", "x/y.safetensors"], ['""']),
    ("inpaint", "model.tile", ["auto", "off", "64", "512"], ["63", "none", "64.5", "true", "-64"]),
    ("inpaint", "model.offline", ["true", "false"], ["maybe", "2"]),
    ("inpaint", "output.format", ["keep", "png", "tif", "jpg", "webp"], ["gif", "PNG"]),
    ("inpaint", "output.bits", ["keep", "8", "16", "32"], ["12", "true", "64"]),
    ("inpaint", "output.quality", ["1", "100"], ["0", "101"]),
    ("inpaint", "output.existing", ["skip", "overwrite", "error"], ["ask"]),
    ("inpaint", "output.save", ["mean", "mean,std", "[samples, sheet]", "mean, mean"], ["maen", "[]", "3"]),
    ("inpaint", "output.raw", ["none", "tif", "npy"], ["raw"]),
    ("inpaint", "run.seed", ["0", "random", str(2**63)], ["-1", "1.5", "rand", "true", "null"]),
    ("inpaint", "run.device", ["auto", "cpu", "cuda", "cuda:0", "mps"], ["gpu", "cuda:", "cuda:x", "tpu", "0"]),
    ("inpaint", "run.precision", ["auto", "fp32", "bf16"], ["fp16"]),
    ("inpaint", "run.threads", ["1", "null"], ["0", "two"]),
    ("inpaint", "run.shard", ["1/1", "1/4", "4/4", "null"], ["0/4", "5/4", "1/0", "0/0", "1", "1/4/2", "-1/4", "a/b"]),
    ("inpaint", "run.fail_fast", ["true"], ["perhaps"]),
    ("inpaint", "run.max_pixels", ["1", "200_000_000"], ["0"]),
    ("inpaint", "noise", ["0", "1", "0.02"], ["-0.01", "1.01", ".nan", "true"]),
    ("inpaint", "mask", ["rect:64,64@96,96", "random:0.1", "m.png", "true"], ['""']),
    ("deblur", "noise", ["auto", "0", "1", "2.55/255"], ["-0.01", "1.01", ".nan", "2/1", "true", "some"]),
    ("deblur", "sampler.method", ["gpnp", "pnp", "dps", "split-gibbs"], ["dpir"]),
    ("sample", "size", ["1x1", "256x128"], ["0x5", "256", "8x8x8", "-3x4", "x"]),
    ("sample", "channels", ["1", "3", "null"], ["2", "true"]),
    ("sample", "sampler.method", ["diffusion", "mala"], ["pnp", "ising"]),
    ("sample", "sampler.iterations", ["1", "null"], ["0", "1.5"]),
    ("sample", "chains.temperature", ["0.1", "1e3"], ["0", "-1", ".nan"]),
    ("sample", "chains.step", ["0.1", "null"], ["0", "-1"]),
    ("sample", "output.save", ["samples", "sheet,trace"], ["mean", "[]"]),
    ("compare", "samplers", ["gpnp,gpnp:balanced", "gpnp:calibrated,dps"], ["[]", "diffusion", "gpnp:balanced:x"]),
    ("compare", "nfe", ["10", "500"], ["9", "many"]),
    ("super-resolve", "scale", ["2", "3", "4"], ["1", "5", "2.5", "two"]),
    ("super-resolve", "border", ["real", "circular"], ["mirror"]),
    ("super-resolve", "kernel", ["bicubic", "gaussian:1"], ['""', "null"]),
    ("super-resolve", "sampler.init", ["noise", "observed"], ["rbf"]),
    ("super-resolve", "noise", ["auto", "0", "1/255"], ["-0.01", "some"]),
    ("deblur", "kernel", ["disk:4", "k.npz:k1", "null"], ['""']),
    ("deblur", "border", ["real", "circular"], ["mirror"]),
    ("deblur", "linear", [True, False], ["maybe", None]),
    ("blind-deblur", "linear", [True, False], ["maybe", None]),
    ("blind-deblur", "kernel_size", ["auto", "3", "31"], ["1", "503", "30.5", "large"]),
    ("blind-deblur", "kernel_model", ["free", "motion", "gaussian", "disk"], ["box"]),
    ("blind-deblur", "search.regularise", ["none", "l2", "sparse,connected"], ["smooth", "[]"]),
    ("blind-deblur", "search.restarts", ["1", "6"], ["0", "7"]),
    ("blind-deblur", "search.average", ["auto", "1", "6"], ["0", "all"]),
    ("blind-deblur", "search.iterations", ["auto", "1", "48"], ["0", "many"]),
    ("blind-deblur", "output.save", ["kernel", "mean,strip"], ["std,psf", "[]"]),
    ("blind-deblur", "output.animation", ["none", "gif", "webp"], ["mp4", "true"]),
    ("deblur", "sampler.init", ["noise", "observed"], ["rbf", "interpolate"]),
    (
        "denoise",
        "sigma",
        ["auto", "10", "1e-3", "25/255", "1/0.5"],
        ["0", "-0.1", "10.1", ".nan", "1/0", "1/2/3", "true"],
    ),
    ("denoise", "add_noise", ["0.1", "50/255", "null"], ["0", "0/255", "-1/255", "255", "auto"]),
    ("denoise", "output.save", ["mean", "sheet", "mean,sheet"], ["std", "samples", "[]"]),
    ("denoise", "output.bits", ["16"], ["12"]),
    ("train-denoiser", "network.channels", ["1", "3"], ["2", "4"]),
    ("train-denoiser", "network.architecture", ["unet"], ["dit"]),
    ("train-denoiser", "network.attention", ["null"], ["-1", "9", "some", "true"]),
    ("train-denoiser", "network.embedding", ["1"], ["0"]),
    ("train-denoiser", "network.sigma_data", ["0.5"], ["0"]),
    ("train-denoiser", "network.widths", ["[8, 8, 8, 8]"], ["[8, 0, 8, 8]", "[]", "8", "[8, true, 8, 8]"]),
    ("train-denoiser", "network.blocks", ["[1, 1, 1, 1]"], ["[1, 1, 1, 0]"]),
    ("train-denoiser", "plan.steps", ["1", "1e3"], ["0", "-1"]),
    ("train-denoiser", "plan.minutes", ["0.1", "null"], ["0", "-1", ".inf"]),
    ("train-denoiser", "plan.batch", ["1"], ["0"]),
    ("train-denoiser", "plan.learning_rate", ["1e-4"], ["0", ".nan", "1.1"]),
    ("train-denoiser", "plan.warmup", ["1"], ["0"]),
    ("train-denoiser", "plan.clip", ["0.5"], ["0"]),
    ("train-denoiser", "plan.ema", ["0", "0.99"], ["1", "-0.1"]),
    ("train-denoiser", "plan.ema_profiles", ["[]", "[0.05, 0.1]"], ["[0]", "[0.05, 0.3]", "wide"]),
    ("train-denoiser", "plan.ema_every", ["1"], ["0"]),
    ("train-denoiser", "plan.weight_decay", ["0"], ["-1"]),
    ("train-denoiser", "plan.grey_share", ["0", "1"], ["1.1", "-0.1"]),
    ("train-denoiser", "plan.log_every", ["1"], ["0"]),
    ("train-denoiser", "plan.validate_every", ["1"], ["0"]),
    ("train-denoiser", "sigma.low", ["0.01"], ["0"]),
    ("train-denoiser", "sigma.uniform", ["0", "1"], ["1.1"]),
    ("train-denoiser", "sigma.spread", ["0"], ["-1"]),
    ("train-denoiser", "augment.scale_max", ["1"], ["0.9"]),
    ("train-denoiser", "augment.texture", ["0", "1"], ["1.1"]),
    ("train-denoiser", "augment.flip", ["false"], ["left"]),
    ("train-denoiser", "carried.iterations", ["1", "200", "null"], ["0", "1.5", "auto", "true"]),
    ("train-denoiser", "carried.sigma_max", ["10", "0.5", "null"], ["0", "10.1", ".nan", "auto"]),
    ("train-denoiser", "carried.sigma_min", ["1e-3", "null"], ["0", "-1"]),
    ("train-denoiser", "carried.beta", ["1", "0.1", "null"], ["0", "1.01"]),
    ("train-denoiser", "carried.r", ["auto", "1.3", "null"], ["0", "5.1", "some"]),
    ("train-denoiser", "crop", ["16", "128"], ["100", "0", "8"]),
    ("train-denoiser", "validation", ["0", "0.5"], ["1", "-0.1"]),
    ("train-denoiser", "cache", ["500M"], ["4", "4GB", "-1G", "big"]),
    ("train-denoiser", "checkpoint_minutes", ["0.5"], ["0"]),
    ("train-denoiser", "run.threads", ["2"], ["0"]),
]


@pytest.mark.parametrize(("command", "key", "good"), [(c, k, v) for c, k, values, _ in GOOD_AND_BAD for v in values])
def test_allowed_values(command, key, good):
    assert resolve(command, {}, [f"{key}={good}"], env={}).origins[key] in ("--set", "preset balanced")


@pytest.mark.parametrize(
    ("command", "key", "bad"),
    [(c, k, v) for c, k, _, values in GOOD_AND_BAD for v in values],
)
def test_forbidden_values_are_named_with_what_is_allowed(command, key, bad):
    found = problem(command, {}, [f"{key}={bad}"])
    assert found.startswith(f"--set: {key}: ")
    assert "(given " in found
    assert "; allowed: " in found


@pytest.mark.parametrize("text", ["25/255", " 25 / 255 ", "0.0980392156862745"])
def test_a_noise_level_may_be_a_fraction(text, write):
    wanted = pytest.approx(25 / 255, rel=1e-12)
    assert resolve("denoise", {"sigma": text}, env={}).config.sigma == wanted
    assert resolve("denoise", {}, [f"add_noise={text}"], env={}).config.add_noise == wanted
    assert resolve("denoise", {}, (), [write(f"sigma: {text}\n")], {}).config.sigma == wanted


def test_editors_accept_numbers_and_fractions():
    rules = schema("denoise")["properties"]
    kinds = {rule.get("type") for rule in rules["add_noise"]["anyOf"]}
    assert kinds == {"number", "string", "null"}
    assert {"const": "auto", "type": "string"} in rules["sigma"]["anyOf"]
    pattern = next(rule["pattern"] for rule in rules["sigma"]["anyOf"] if "pattern" in rule)
    assert re.search(pattern, "25/255")
    assert not re.search(pattern, "auto")


def test_denoise_has_no_sampler():
    assert not [key for key in config.keys("denoise") if key.startswith("sampler")]
    assert problem("denoise", sets=["sampler.beta=0.1"]) == ("--set: sampler.beta: unknown key; it belongs to inpaint")


def test_messages_are_sentences_for_users():
    assert problem(sets=["sampler.beta=7"]) == (
        "--set: sampler.beta: out of range (given 7; allowed: a number above 0, at most 1)"
    )
    assert problem(sets=["sampler.generator=exat"]) == (
        "--set: sampler.generator: unknown value (given 'exat'; allowed: exact, approximate); did you mean exact?"
    )
    assert problem(sets=["run.shard=5/4"]).startswith(
        "--set: run.shard: part 5 of 4 does not exist: parts are numbered from 1 to 4"
    )
    assert "auto, off or a whole number from 64 to 65536" in problem(sets=["model.tile=3"])
    assert "finite" in problem(sets=["noise=.nan"])
    assert len(problem(sets=["sampler.beta=" + "x" * 500])) < 200


def test_each_bad_item_of_a_list_is_named_once():
    found = problems(sets=["output.save=maen,std,foo"])
    assert len(found) == 2
    assert "'maen'" in found[0]
    assert "did you mean mean?" in found[0]
    assert "'foo'" in found[1]


# Keys that must fit each other


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        (["sampler.sigma_max=0.001"], "sampler.sigma_max"),  # against the preset's sigma_min
        (["sampler.sigma_min=0.6"], "sampler.sigma_min"),
        (["sampler.sigma_min=2", "sampler.sigma_max=1"], "sampler.sigma_min"),
    ],
)
def test_the_noise_must_fall(sets, named):
    found = problem(sets=sets)
    assert found.startswith(f"--set: {named}: ")
    assert "sigma_min" in found
    assert "sigma_max" in found


def test_a_constant_noise_level_is_allowed():
    sampler = resolve("inpaint", {}, ["sampler.sigma_min=0.1", "sampler.sigma_max=0.1"], env={}).config.sampler
    assert sampler.sigma_min == sampler.sigma_max == 0.1


WHOLE = ["network.architecture=attention-unet", "augment.scale_max=1", "augment.texture=0"]


def test_an_architectures_own_options():
    made = resolve("train-denoiser", {}, WHOLE, env={}).config.network
    assert (made.architecture, made.attention) == ("attention-unet", 2)
    assert resolve("train-denoiser", {}, [*WHOLE, "network.attention=0"], env={}).config.network.attention == 0
    assert resolve("train-denoiser", env={}).config.network.attention is None


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["network.widths=[8, 8]"], ("--set: network.widths", "blocks has 4", "widths 2")),
        (["sigma.low=3"], ("--set: sigma.low", "low = 3", "high = 2.2")),
        (["sigma.focus=5"], ("--set: sigma.focus", "focus = 5")),
        (
            ["crop=48", "network.widths=[8,8,8,8,8]", "network.blocks=[1,1,1,1,1]"],
            ("--set: crop", "multiple of 32", "network.widths"),
        ),
        (["network.attention=1"], ("--set: network.attention: ", "option of architecture attention-unet, not of unet")),
        ([*WHOLE, "network.attention=5"], ("--set: network.attention: ", "in 5 levels", "widths has 4")),
        ([*WHOLE, "augment.texture=0.1"], ("--set: augment.texture: ", "augment.texture = 0")),
        (WHOLE[:1], ("augment.scale_max = 1 and augment.texture = 0",)),
    ],
)
def test_training_keys_must_fit(sets, words):
    found = problem("train-denoiser", sets=sets)
    assert all(word in found for word in words), found


def test_a_clash_names_the_line(write):
    path = write("sampler:\n  samples: 2\n  sigma_max: 0.001\n")
    assert problem(files=[path]).startswith(f"{path}:3: sampler.sigma_max: ")


# Precedence

KEY = "run.threads"
SOURCES = ["user", "file1", "file2", "env", "set"]


@pytest.mark.parametrize("mask", range(2 ** len(SOURCES)))
@pytest.mark.parametrize("top", ["set", "flag"])
def test_precedence(mask, top, write, user_config):
    present = [top if name == "set" else name for i, name in enumerate(SOURCES) if mask >> i & 1]
    if "user" in present:
        user_config.parent.mkdir()
        user_config.write_text("run:\n  threads: 1\n")
    paths = [write(f"run:\n  threads: {2 + i}\n", name) for i, name in enumerate(["file1", "file2"]) if name in present]
    env = {"GPNP_RUN_THREADS": "4"} if "env" in present else {}
    sets = [f"{KEY}=5"] if "set" in present else []
    flags = {KEY: 6} if "flag" in present else {KEY: None}
    resolved = resolve("inpaint", flags, sets, paths, env)
    expected = {"user": 1, "file1": 2, "file2": 3, "env": 4, "set": 5, "flag": 6}
    origins = {
        "user": f"{user_config}:2",
        "env": "GPNP_RUN_THREADS",
        "set": "--set",
        "flag": "flag",
    } | {name: f"{paths[-1] if paths else ''}:2" for name in ("file1", "file2")}
    winner = present[-1] if present else None
    assert resolved.config.run.threads == expected.get(winner)
    assert resolved.origins[KEY] == origins.get(winner, "default")


def test_a_flag_and_set_for_one_key_are_refused():
    found = problem(flags={"sampler.beta": 0.5}, sets=["sampler.beta=0.5"])
    assert "sampler.beta" in found
    assert "--set" in found
    resolve("inpaint", {"sampler.beta": 0.5}, ["sampler.r=1"], env={})
    resolve("inpaint", {"sampler.beta": None}, ["sampler.beta=0.5"], env={})


def test_a_later_set_wins():
    assert resolve("inpaint", {}, ["noise=0.1", "noise=0.2"], env={}).config.noise == 0.2


def test_other_keys_of_a_section_survive_an_override(write):
    path = write("sampler: {beta: 0.5, r: 2}\n")
    sampler = resolve("inpaint", {}, ["sampler.beta=0.1"], [path], {}).config.sampler
    assert (sampler.beta, sampler.r) == (0.1, 2)


def test_flags_of_several_kinds():
    flags = {
        "run.seed": "7",
        "model.tile": "128",
        "output.save": ["std"],
        "output.output": "2024",
        "mask": "null",
        "model.model_dir": Path("weights"),
        "mask_invert": False,
        "run.shard": None,
    }
    resolved = resolve("inpaint", flags, env={})
    found = {key: value(resolved, key) for key in flags}
    assert found == {
        "run.seed": 7,
        "model.tile": 128,
        "output.save": ("std",),
        "output.output": Path("2024"),
        "mask": "null",
        "model.model_dir": Path("weights"),
        "mask_invert": False,
        "run.shard": None,
    }
    assert resolved.origins["mask_invert"] == "flag"
    assert resolved.origins["run.shard"] == "default"
    assert problem(flags={"run.seed": "x"}).startswith("command line: run.seed: ")
    assert "unknown key" in problem(flags={"run.sed": 1})


def test_empty_lists_from_the_command_line_are_not_given(write):
    path = write("data: [photos]\n")
    assert resolve("train-denoiser", {"data": []}, (), [path], {}).config.data == (Path("photos"),)


# Environment


def test_environment_variables():
    env = {
        "GPNP_MODEL_DENOISER": "bm3d",
        "GPNP_SAMPLER_SIGMA_MAX": "1e0",
        "GPNP_MASK_INVERT": "true",
        "GPNP_OUTPUT_SAVE": "mean,std",
        "GPNP_PLAN_STEPS": "not ours, so not looked at",
        "GPNP_RUN_SEED": "",
        "OTHER": "x",
        "_GPNP_COMPLETE": "bash_complete",
    }
    resolved = resolve("inpaint", env=env)
    assert resolved.config.model.denoiser == "bm3d"
    assert resolved.config.sampler.sigma_max == 1.0
    assert resolved.config.mask_invert is True
    assert resolved.config.output.save == ("mean", "std")
    assert resolved.origins["model.denoiser"] == "GPNP_MODEL_DENOISER"
    assert resolved.origins["run.seed"] == "default"


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("GPNP_NOISE", "0.25")
    assert resolve("inpaint").config.noise == 0.25


def test_a_misspelt_variable_is_an_error():
    assert problem(env={"GPNP_SAMPLER_BETTA": "1"}) == (
        "GPNP_SAMPLER_BETTA: no setting has this variable; did you mean GPNP_SAMPLER_BETA?"
    )
    assert problem(env={"GPNP_NOISE": "loud"}).startswith("GPNP_NOISE: noise: not allowed (given 'loud'")


def test_variables_are_unambiguous():
    for command in COMMANDS:
        names = [config.variable(key) for key in config.keys(command)]
        assert len(set(names)) == len(names)


# The user's own file


def test_user_file_holds_machine_matters_only(user_config):
    user_config.parent.mkdir()
    user_config.write_text("run:\n  device: cpu\n  threads: 2\nmodel:\n  model_dir: /weights\n")
    resolved = resolve("inpaint", env={})
    assert (resolved.config.run.device, resolved.config.run.threads) == ("cpu", 2)
    assert resolved.config.model.model_dir == Path("/weights")
    assert resolve("train-denoiser", env={}).config.run.device == "cpu"  # which has no model_dir
    user_config.write_text("run:\n  seed: 3\nsampler:\n  beta: 0.5\nfoo: 1\n")
    found = problems()
    assert len(found) == 3
    assert any(text.startswith(f"{user_config}:2: run.seed: cannot be set in this file") for text in found)
    assert "run.device, run.threads, model.model_dir" in "".join(found)


def test_where_the_user_file_is(monkeypatch):
    monkeypatch.undo()
    path = config.user_file()
    assert path.name == "config.yaml"
    assert "gpnp" in path.parts
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
        assert config.user_file() == Path("/elsewhere/gpnp/config.yaml")


# Unknown keys


@pytest.mark.parametrize(
    ("command", "key", "meant"),
    [
        ("inpaint", "sampler.bta", "sampler.beta"),
        ("inpaint", "sampler.sigmamax", "sampler.sigma_max"),
        ("inpaint", "sampler.stpes", "sampler.iterations"),
        ("inpaint", "sampler.steps", "sampler.iterations"),
        ("inpaint", "sampler.sample", "sampler.samples"),
        ("inpaint", "samplr.beta", "sampler.beta"),
        ("inpaint", "model.denoisr", "model.denoiser"),
        ("inpaint", "output.formt", "output.format"),
        ("inpaint", "run.seeds", "run.seed"),
        ("inpaint", "run.dtype", "run.precision"),
        ("inpaint", "maks", "mask"),
        ("inpaint", "mask-invert", "mask_invert"),
        ("inpaint", "beta", "sampler.beta"),
        ("inpaint", "sampler.seed", "run.seed"),
        ("inpaint", "sampler.beta.x", "sampler.beta"),
        ("inpaint", "sigma_y", "noise"),
        ("train-denoiser", "plan.learning-rate", "plan.learning_rate"),
        ("train-denoiser", "lr", "plan.learning_rate"),
        ("train-denoiser", "network.width", "network.widths"),
        ("train-denoiser", "sigma.hihg", "sigma.high"),
        ("train-denoiser", "augment.color", "augment.colour"),
        ("train-denoiser", "corp", "crop"),
        ("train-denoiser", "batch", "plan.batch"),
    ],
)
def test_typos_get_the_right_name(command, key, meant):
    assert problem(command, sets=[f"{key}=1"]) == f"--set: {key}: unknown key; did you mean {meant}?"
    assert problem(command, flags={key: 1}) == f"command line: {key}: unknown key; did you mean {meant}?"


def test_typos_in_files_are_found_at_every_level(write):
    path = write("sampler:\n  bta: 1\nsamplr:\n  beta: 1\nmaks: rect\nzzzzz: 1\n")
    assert problems(files=[path]) == [
        f"{path}:2: sampler.bta: unknown key; did you mean sampler.beta?",
        f"{path}:3: samplr: unknown key; did you mean sampler?",
        f"{path}:5: maks: unknown key; did you mean mask?",
        f"{path}:6: zzzzz: unknown key",
    ]


def test_a_key_of_another_command_says_so():
    assert problem(sets=["plan.weight_decay=1"]).endswith("unknown key; it belongs to train-denoiser")


def test_all_problems_of_all_sources_are_listed(write, user_config):
    user_config.parent.mkdir()
    user_config.write_text("noise: 1\n")
    first, second = write("sampler:\n  beta: 7\n", "a.yaml"), write("run:\n  sede: 3\n", "b.yaml")
    found = problems(flags={"run.seed": "x"}, sets=["noise", "bits=3"], files=[first, second], env={"GPNP_NOSIE": "1"})
    wanted = [f"{user_config}:1: noise", f"{first}:2: sampler.beta", f"{second}:2: run.sede", "GPNP_NOSIE"]
    wanted += ["command line: run.seed", "--set: noise", "--set: bits"]
    assert len(found) == len(wanted)
    assert all(any(text.startswith(start) for text in found) for start in wanted), found


def test_the_error_shows_every_problem():
    with pytest.raises(UsageError) as caught:
        resolve("inpaint", {}, ["a", "sampler.beta=7"], env={})
    assert caught.value.code == 2
    assert "2 problems" in caught.value.message
    assert all(text in caught.value.message for text in caught.value.problems)


def test_an_unknown_command_is_a_usage_error():
    with pytest.raises(UsageError, match="inpiant") as caught:
        resolve("inpiant", env={})
    assert "inpaint" in caught.value.hint


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("sampler.beta", "write --set KEY=VALUE"),
        ("", "write --set KEY=VALUE"),
        ("sampler=3", "is a section; set one of its keys: sampler.samples"),
        ("=3", "unknown key"),
        ("command=inpaint", "unknown key"),
    ],
)
def test_malformed_set(item, words):
    assert words in problem(sets=[item])


@pytest.mark.parametrize(
    ("item", "key", "expected"),
    [
        ("mask=a=b", "mask", "a=b"),
        ("mask=rect:8,8@1,2", "mask", "rect:8,8@1,2"),
        ("mask=[x].png", "mask", "[x].png"),
        ("mask=*.png", "mask", "*.png"),
        ("mask=@list", "mask", "@list"),
        ("mask=a: b", "mask", "a: b"),
        ("mask=a #1.png", "mask", "a #1.png"),
        ("mask='a b'", "mask", "a b"),
        ("mask=007", "mask", "007"),
        ("mask=1e3", "mask", "1e3"),
        ("output.output=2024-01-01", "output.output", Path("2024-01-01")),
        ("output.output=~/x", "output.output", Path.home() / "x"),
        (" noise = 0.5", "noise", 0.5),
        ("model.model_dir=null", "model.model_dir", None),
        ("simulate=yes", "simulate", True),
    ],
)
def test_set_takes_text_as_it_stands(item, key, expected):
    assert value(resolve("inpaint", {}, [item], env={}), key) == expected


# YAML


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("sampler: {beta: 1e-3}", "sampler.beta", 0.001),
        ("sampler: {beta: 1E-3}", "sampler.beta", 0.001),
        ("sampler: {beta: .5}", "sampler.beta", 0.5),
        ("sampler: {beta: +0.5}", "sampler.beta", 0.5),
        ("sampler: {iterations: 1e2}", "sampler.iterations", 100),
        ("sampler: {iterations: 010}", "sampler.iterations", 10),  # not octal
        ("sampler: {iterations: 0x10}", "sampler.iterations", 16),
        ("run: {max_pixels: 200_000}", "run.max_pixels", 200_000),
        ("model: {tile: off}", "model.tile", "off"),
        ("model: {denoiser: on}", "model.denoiser", "on"),
        ("model: {denoiser: no}", "model.denoiser", "no"),
        ("model: {denoiser: y}", "model.denoiser", "y"),
        ("model: {denoiser: 2024-01-01}", "model.denoiser", "2024-01-01"),
        ("model: {denoiser: 1:30}", "model.denoiser", "1:30"),
        ("model: {denoiser: 007}", "model.denoiser", "007"),
        ("model: {denoiser: 1e3}", "model.denoiser", "1e3"),
        ("model: {denoiser: '='}", "model.denoiser", "="),
        ("model: {denoiser: !!str 12}", "model.denoiser", "12"),
        ("output: {output: 2024}", "output.output", Path("2024")),
        ("output: {raw: none}", "output.raw", "none"),
        ("simulate: yes", "simulate", True),
        ("simulate: off", "simulate", False),
        ("run: {shard: 1/4}", "run.shard", "1/4"),
        ("run: {threads: ~}", "run.threads", None),
        ("run: {threads:}", "run.threads", None),
        ('output: {save: "mean,std"}', "output.save", ("mean", "std")),
        ('{"noise": 0.5}', "noise", 0.5),
        ("noise: 0.5 # loud", "noise", 0.5),
        ("\ufeffnoise: 0.5", "noise", 0.5),
        ("noise: 0.5\r\nmask: rect\r\n", "mask", "rect"),
    ],
)
def test_yaml_values(text, key, expected, write):
    found = value(resolve("inpaint", {}, (), [write(text)], {}), key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n", "{}", "sampler:\n  # beta: 1\n"])
def test_files_without_keys_are_fine(text, write):
    assert resolve("inpaint", {}, (), [write(text)], {}).config == config.InpaintConfig()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("noise: 0\nnoise: 1\n", 2, "noise: given twice, first in line 1"),
        ("sampler:\n  beta: 1\n  beta: 1\n", 3, "sampler.beta: given twice, first in line 2"),
        ("sampler:\n  beta: 1\nsampler:\n  r: 1\n", 3, "sampler: given twice"),
        ("sampler:\n\tbeta: 1\n", 2, "a tab cannot indent YAML"),
        ("noise: [1\n", 2, "not valid YAML"),
        ("noise: 1: 2\n", 1, "not valid YAML"),
        ("mask: 'rect\n", 2, "not valid YAML"),
        ("- noise\n", 1, "must hold `key: value` lines"),
        ("just words\n", 1, "must hold `key: value` lines"),
        ("3\n", 1, "must hold `key: value` lines"),
        ("noise: 1\n---\nnoise: 2\n", 2, "only one document"),
        ("noise: &a 1\nmask: *a\n", 2, "aliases (*name) are not supported"),
        ("output: {save: &a [*a]}\n", 1, "aliases"),
        ("mask: !custom x\n", 1, "mask: the tag !custom is not supported"),
        ("mask: !!python/object/apply:os.system [ls]\n", 1, "the tag !!python/object/apply:os.system is not"),
        ("mask: rect\nnoise: .nan\n", 2, "noise: must be a finite number (given .nan"),
        ("noise: .inf\n", 1, "finite"),
        ("noise:\n", 1, "given nothing"),
        ("mask: true\n", 1, "true and false have no meaning here (given true"),
        ("noise: true\n", 1, "true and false have no meaning here (given true"),
        ("sampler: 3\n", 1, "sampler: is a section"),
        ("sampler: [beta]\n", 1, "sampler: is a section"),
        ("noise: {a: 1}\n", 1, "noise: not allowed"),
        ("<<: {noise: 1}\n", 1, "<<: unknown key"),
        ("? [a, b]\n: 1\n", 1, "a key must be a plain word"),
        ("3: 1\n", 1, "3: unknown key"),
        ("sampler.beta: 1\n", 1, "sampler.beta: unknown key; did you mean sampler.beta?"),
        ("a: \x07\n", 1, "a character that YAML does not allow"),
        ("run:\n  seed: " + "9" * 5000 + "\n", 2, "run.seed: not allowed"),
    ],
)
def test_yaml_traps(text, line, words, write):
    path = write(text)
    found = problem(files=[path])
    assert found.startswith(f"{path}:{line}: "), found
    assert words in found
    assert check_file(path, "inpaint") == [found]


def test_deep_nesting_is_a_sentence(write):
    path = write("noise: " + "[" * 5_000)
    assert "nested too deeply" in problem(files=[path])


def test_unreadable_files(write, tmp_path):
    missing, folder = tmp_path / "none.yaml", tmp_path
    assert problem(files=[missing]) == f"{missing}: no such file"
    assert problem(files=[folder]) == f"{folder}: is a folder, not a file"
    binary = write(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert problem(files=[binary]) == f"{binary}: not a text file in UTF-8"
    if os.name == "posix" and os.geteuid() != 0:
        binary.chmod(0)
        assert "cannot be read" in problem(files=[binary])


def test_the_command_key(write):
    path = write("# mine\ncommand: train-denoiser\nplan: {steps: 5}\n")
    assert resolve("train-denoiser", {}, (), [path], {}).config.plan.steps == 5
    assert problem(files=[path]) == f"{path}:2: command: this file is for train-denoiser, not for inpaint"
    wrong = write("command: inpiant\n")
    assert problem(files=[wrong]).endswith(
        f"command: unknown value (given 'inpiant'; allowed: {', '.join(COMMANDS)}); did you mean inpaint?"
    )


# check_file


def test_check_file_finds_the_command(write):
    assert check_file(write("mask: rect\n")) == []
    assert check_file(write("plan: {steps: 3}\n")) == []
    assert check_file(write("plan: {steps: 3}\n"), "inpaint") != []
    assert check_file(write("command: train-denoiser\n"), "inpaint") != []
    found = check_file(write("command: inpaint\nplan: {steps: 3}\n"))
    assert len(found) == 1
    assert "plan" in found[0]
    found = check_file(write("plan: {stpes: 3}\nsigma: {low: 1}\ncrop: 96\n"))  # clearly a training file
    assert any("did you mean plan.steps?" in text for text in found)
    assert check_file(write("command: foo\n"))[0].startswith(f"{write('command: foo')}:1: command: unknown value")


def test_check_file_looks_at_nothing_else(write, user_config, monkeypatch):
    monkeypatch.setenv("GPNP_NOISE", "loud")
    user_config.parent.mkdir()
    user_config.write_text("nonsense: 1\n")
    assert check_file(write("mask: rect\n")) == []


# Texts and schemas


@pytest.mark.parametrize("command", COMMANDS)
def test_init_text_holds_every_key_and_changes_nothing(command, write):
    text = init_text(command)
    assert text.startswith(f"# yaml-language-server: $schema={command}.schema.json\n")
    resolved = resolve(command, {}, (), [write(text)], {})
    assert resolved.config == COMMANDS[command]()
    for key, info in config.keys(command).items():
        leaf = key.rpartition(".")[2]
        commented = config._by_preset(info) or key == "sampler.preset" or key in config.USER_KEYS
        assert f"{'# ' if commented else ''}{leaf}: " in text
        assert (resolved.origins[key].startswith(str(write(text)))) is not commented
        words = info.description.split()
        assert " ".join(words[:3]) in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_init_text_is_complete_when_uncommented(command, write):
    lines = init_text(command).splitlines()
    keys = {key.rpartition(".")[2] for key in config.keys(command)}
    bare = [line.replace("# ", "", 1) if line.strip("# ").split(":")[0] in keys else line for line in lines]
    resolved = resolve(command, {}, (), [write("\n".join(bare))], {})
    assert resolved.config == COMMANDS[command]()
    assert "default" not in resolved.origins.values()


def test_init_text_leaves_the_machine_to_the_user_file(write, user_config):
    user_config.parent.mkdir()
    user_config.write_text("run: {device: cpu}\n")
    assert resolve("inpaint", {}, (), [write(init_text("inpaint"))], {}).config.run.device == "cpu"


AWKWARD = ["off", "null", "1e3", "007", "a: b", "#x", "~", "é ü", "x[red].png", "a'b\"c", "\x85", "1:30"]


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_round_trips(text, write):
    made = config.InpaintConfig(mask=text)
    again = write(json.dumps(dump(made)), "dump.json")
    shown = write(show_text(resolve("inpaint", dump(made), env={})).encode("utf-8"), "show.yaml")
    for path in (again, shown):
        assert resolve("inpaint", {}, (), [path], {}).config == made


def test_show_text(write):
    path = write("sampler:\n  samples: 2\n")
    text = show_text(resolve("inpaint", {"noise": 0.1}, ["model.tile=off"], [path], {"GPNP_RUN_SEED": "5"}))
    lines = text.splitlines()
    assert lines[0] == "command: inpaint"
    found = dict(line.split("  # ") for line in lines if "  # " in line)
    origins = {key.strip(): origin for key, origin in found.items()}
    assert origins["samples: 2"] == f"{path}:2"
    assert origins["noise: 0.1"] == "flag"
    assert origins['tile: "off"'] == "--set"
    assert origins["seed: 5"] == "GPNP_RUN_SEED"
    assert origins[f"beta: {PRESETS['balanced']['beta']}"] == "preset balanced"
    assert origins["mask: rect"] == "default"
    assert len({line.rindex("# ") for line in lines if "  # " in line}) == 1  # aligned
    assert yaml.safe_load(text)["model"]["tile"] == "off"  # for other readers, too


@pytest.mark.parametrize(
    ("command", "sets"),
    [
        ("inpaint", []),
        (
            "inpaint",
            ["sampler.preset=published", "model.tile=off", "run.seed=random", "run.shard=2/3", "sampler.beta=1e-7"],
        ),
        ("inpaint", ["output.save=std", "model.model_dir=/w", "reference=t.png", "noise=0.1", "output.bits=16"]),
        ("deblur", ["kernel='motion:15,30'", "noise=2.55/255", "sampler.preset=published"]),
        ("blind-deblur", ["kernel_size=31", "search.regularise=l2", "output.save=kernel", "search.restarts=2"]),
        ("super-resolve", ["scale=3", "noise=1/255", "sampler.method=pnp", "sampler.samples=7"]),
        ("inpaint", ["sampler.method=split-gibbs", "sampler.preset=calibrated"]),
        ("sample", ["size=32x48", "sampler.method=mala", "chains.energy='mrf:p=1.2'", "chains.step=0.1"]),
        ("compare", ["mask=rect", "noise=1/255", "samplers='gpnp, gpnp:published'"]),
        ("diagnose", ["reference=a.png"]),
        ("denoise", []),
        ("denoise", ["sigma=25/255", "add_noise=0.1", "output.save=sheet"]),
        ("train-denoiser", []),
        ("train-denoiser", ["data=[a, b]", "plan.minutes=3", "network.widths=[8,8]", "network.blocks=[1,1]"]),
        ("train-denoiser", ["network.architecture=attention-unet", "augment.scale_max=1", "augment.texture=0"]),
    ],
)
def test_dump_reproduces_the_config(command, sets, write):
    made = resolve(command, {}, sets, env={}).config
    plain = json.loads(json.dumps(dump(made), allow_nan=False))
    assert plain == dump(made)
    assert plain["command"] == command
    assert resolve(command, plain, env={}).config == made
    assert resolve(command, {}, (), [write(json.dumps(plain))], {}).config == made
    assert resolve(command, {}, (), [write(yaml.safe_dump(plain))], {}).config == made
    shown = write(show_text(resolve(command, {}, sets, env={})))
    assert resolve(command, {}, (), [shown], {}).config == made
    other = next(name for name in COMMANDS if name != command)
    assert f"these values are for {command}" in "".join(problems(other, flags=plain))


@pytest.mark.parametrize("command", COMMANDS)
def test_committed_schema_is_current(command):
    path = files("gpnp_cli") / "schema" / f"{command}.schema.json"
    assert json.loads(path.read_text("utf-8")) == schema(command), "run: python -m gpnp_cli.config"


@pytest.mark.parametrize("command", COMMANDS)
def test_schema_describes_every_key(command, tmp_path):
    whole = schema(command)
    json.dumps(whole, allow_nan=False)
    assert whole["additionalProperties"] is False
    assert whole["properties"]["command"]["const"] == command
    for key, info in config.keys(command).items():
        *head, leaf = key.split(".")
        part = whole
        for name in head:
            part = whole["$defs"][part["properties"][name]["$ref"].rpartition("/")[2]]
            assert part["additionalProperties"] is False
        rule = part["properties"][leaf]
        assert rule["description"] == info.description
        assert ("default" in rule) is not config._by_preset(info)
    config.write_schemas(tmp_path)
    assert json.loads((tmp_path / f"{command}.schema.json").read_text("utf-8")) == whole


def test_schema_bounds_reach_the_editor():
    sampler = schema("inpaint")["$defs"]["Sampler"]["properties"]
    assert (sampler["beta"]["exclusiveMinimum"], sampler["beta"]["maximum"]) == (0, 1)
    assert sampler["init"]["enum"] == ["noise", "interpolate", "rbf"]
    tile = schema("inpaint")["$defs"]["Model"]["properties"]["tile"]["anyOf"]
    assert {"type": "integer", "minimum": 64, "maximum": 65536} in tile


def test_help_text():
    text = config.help_text("inpaint", "sampler.samples")
    assert text == "Independent posterior samples per picture [default: 3]"
    assert config.help_text("inpaint", "sampler.beta").endswith("[default: the prior's, else the preset's]")
    assert config.help_text("inpaint", "sampler.generator").endswith("[default: the preset's]")
    assert config.help_text("inpaint", "output.save").endswith("[default: mean,samples,std,sheet]")
    assert "default" not in config.help_text("inpaint", "simulate")
    assert config.help_text("train-denoiser", "plan.steps").endswith("[default: 100000]")


def test_a_result_s_manifest_is_a_config(write):
    """Its `config` counts, whatever else it holds; errors still name the line."""
    config = dump(resolve("inpaint", {"sampler.beta": 0.5, "mask": "random:0.2"}, env={}).config)
    manifest = {"gpnp_manifest": 1, "outputs": {"main": "x.png"}, "residual": [1e-05, None], "config": config}
    path = write(json.dumps(manifest, indent=1), "x.gpnp.json")
    found = resolve("inpaint", files=[path], env={})
    assert dump(found.config) == config
    assert re.fullmatch(rf"{re.escape(str(path))}:[0-9]+", found.origins["sampler.beta"])
    assert check_file(path) == []
    assert problems("train-denoiser", files=[path]) == [
        f"{path}:{line_of(path, 'command')}: command: this file is for inpaint, not for train-denoiser"
    ]
    manifest["config"]["sampler"]["bta"] = 1
    path = write(json.dumps(manifest, indent=1), "x.gpnp.json")
    (problem,) = problems(files=[path])
    assert problem == f"{path}:{line_of(path, 'bta')}: sampler.bta: unknown key; did you mean sampler.beta?"
    path = write(json.dumps({"config": config}), "other.json")  # no manifest of ours
    assert "unknown key" in problems(files=[path])[0]


def line_of(path: Path, key: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if f'"{key}":' in line)
