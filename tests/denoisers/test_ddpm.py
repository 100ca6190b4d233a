"""A diffusion model as denoiser: against the closed form, and a real diffusers model saved and loaded."""

import json
import sys

import pytest
import torch

from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.denoisers.ddpm import DdpmDenoiser, load_ddpm
from gpnp_cli.errors import EnvironmentProblem, InputError, UsageError

ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)  # Ho et al. 2020
MEAN, STD = 0.3, 0.2  # of the Gaussian prior on pixels, [0, 1] units


def exact_network(prediction: str):
    """What a perfect network would say for pixels of N(MEAN, STD^2), knowing only x_t and the step t."""
    log_levels = 0.5 * ((1 - ABAR) / ABAR).log()

    def network(x_t, t):
        floor = t.long().clamp(max=998)
        level = torch.lerp(log_levels[floor], log_levels[floor + 1], t.double() - floor).exp()[:, None, None, None]
        abar = 1 / (1 + level**2)
        mean, variance = 2 * MEAN - 1, (2 * STD) ** 2
        # posterior mean of the clean image x in [-1, 1] given x_t = sqrt(abar) x + sqrt(1 - abar) noise
        x = mean + abar.sqrt() * variance / (abar * variance + 1 - abar) * (x_t - abar.sqrt() * mean)
        noise = (x_t - abar.sqrt() * x) / (1 - abar).sqrt()
        velocity = abar.sqrt() * noise - (1 - abar).sqrt() * x
        return {"epsilon": noise, "sample": x, "v_prediction": velocity}[prediction]

    return network


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_exact_network_of_a_gaussian_prior_gives_the_gaussian_denoiser(prediction):
    denoiser = DdpmDenoiser(exact_network(prediction), ABAR, 1, prediction)
    assert isinstance(denoiser, Denoiser)
    rng = torch.Generator().manual_seed(0)
    v = torch.rand(5, 1, 4, 4, generator=rng, dtype=torch.float64) * 2 - 0.5
    sigma = torch.tensor([0.006, 0.0317, 0.2, 1.0, 7.0], dtype=torch.float64)  # between steps
    s = sigma[:, None, None, None]
    expected = MEAN + STD**2 / (STD**2 + s**2) * (v - MEAN)
    torch.testing.assert_close(denoiser(v, sigma), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(denoiser(v[2:3], 0.2), expected[2:3], atol=1e-9, rtol=0)


def test_times_are_the_steps_at_the_steps_own_levels_and_stop_at_the_ends():
    denoiser = DdpmDenoiser(exact_network("epsilon"), ABAR, 1)
    steps = torch.tensor([0, 1, 500, 998, 999])
    sigma = ((1 - ABAR) / ABAR).sqrt()[steps] / 2
    torch.testing.assert_close(denoiser.times(sigma), steps.double(), atol=1e-8, rtol=0)
    assert denoiser.times(torch.tensor([1e-6, 1e3])).tolist() == [0, 999]
    assert denoiser.sigma_range == pytest.approx((float(sigma[0]), float(sigma[-1])))


def test_learned_variance_channels_are_ignored():
    network = exact_network("epsilon")
    wide = DdpmDenoiser(lambda x, t: torch.cat([network(x, t), torch.full_like(x, 9.0)], 1), ABAR, 1)
    v = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(wide(v, 0.1), DdpmDenoiser(network, ABAR, 1)(v, 0.1))


def test_bad_schedule_prediction_and_channels_are_named():
    with pytest.raises(InputError, match="does not grow"):
        DdpmDenoiser(exact_network("epsilon"), ABAR.flip(0), 1)
    with pytest.raises(InputError, match="'flow'"):
        DdpmDenoiser(exact_network("epsilon"), ABAR, 1, "flow")
    with pytest.raises(InputError, match="3-channel pictures, this one has 1"):
        DdpmDenoiser(exact_network("epsilon"), ABAR, 3)(torch.zeros(1, 1, 4, 4), 0.1)


def test_without_an_argument_or_the_package(monkeypatch):
    with pytest.raises(UsageError, match="needs a model"):
        load_ddpm(3)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(EnvironmentProblem) as caught:
        load_ddpm(3, "somewhere")
    assert "gpnp[ddpm]" in caught.value.hint


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers", reason="the optional extra gpnp[ddpm] is not installed")


@pytest.fixture(scope="module")
def pipeline(diffusers, tmp_path_factory):
    """A small U-Net with random weights and its scheduler, saved as a real pipeline folder."""
    torch.manual_seed(0)  # diffusers draws initial weights from the global generator
    unet = diffusers.UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )
    folder = tmp_path_factory.mktemp("ddpm") / "pipeline"
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(1000)).save_pretrained(folder)
    return folder, unet


def test_saved_pipeline_is_loaded_and_fed_as_trained(pipeline):
    folder, unet = pipeline
    denoiser = load_ddpm(3, str(folder), offline=True)
    assert denoiser.channels == 3
    assert denoiser.sigma_range == pytest.approx((0.5 * (1e-4 / (1 - 1e-4)) ** 0.5, 78.7), rel=1e-2)
    v = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    step = 300
    abar = ABAR[step].float()
    sigma = ((1 - abar) / abar).sqrt() / 2
    with torch.no_grad():
        noise = unet(abar.sqrt() * (2 * v - 1), torch.tensor([float(step)] * 2)).sample
    x = (abar.sqrt() * (2 * v - 1) - (1 - abar).sqrt() * noise) / abar.sqrt()  # Ho et al., eq. 15
    torch.testing.assert_close(denoiser(v, float(sigma)), (x + 1) / 2, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (13, 16), (15, 17)])
def test_any_size(pipeline, size):
    denoiser = load_ddpm(3, str(pipeline[0]), offline=True)
    v = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    x0 = denoiser(v, 0.1)
    assert x0.shape == v.shape and bool(torch.isfinite(x0).all())


def test_wrong_channels_folders_and_ids(pipeline, tmp_path):
    with pytest.raises(InputError, match="works on 3-channel pictures, these have 1"):
        load_ddpm(1, str(pipeline[0]), offline=True)
    with pytest.raises(InputError, match="no model_index.json"):
        load_ddpm(3, str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    with pytest.raises(InputError, match="not a readable diffusers pipeline|has no U-Net"):
        load_ddpm(3, str(tmp_path), offline=True)
    with pytest.raises(EnvironmentProblem, match="neither a folder here nor"):
        load_ddpm(3, "nobody/nothing", model_dir=tmp_path / "cache", offline=True)


def test_conditional_model_is_refused(diffusers, tmp_path):
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        num_class_embeds=10,
    )
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(1000)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="conditional"):
        load_ddpm(3, str(tmp_path), offline=True)
