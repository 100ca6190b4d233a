"""`gpnp sample`: draw pictures from a prior."""

from .app import app
from .options import RUN_FLAGS, Call, Flag, command

FLAGS = (
    Flag(("--output", "-o"), "output.output", "Input/Output", "FOLDER"),
    Flag(("--save",), "output.save", "Input/Output", "samples,sheet,trace"),
    Flag(("--strip",), "output.strip", "Input/Output", "N"),
    Flag(("--size",), "size", "Samples", "HxW"),
    Flag(("--channels",), "channels", "Samples", "1|3"),
    Flag(("--samples", "-n"), "sampler.samples", "Samples", "K"),
    Flag(("--sampler", "--method"), "sampler.method", "Sampler", "diffusion|annealed-langevin|metropolis|..."),
    Flag(("--iterations",), "sampler.iterations", "Sampler", "N"),
    Flag(("--denoiser",), "model.denoiser", "From a denoiser", "NAME|FILE"),
    Flag(("--sigma-max",), "sampler.sigma_max", "From a denoiser", "S"),
    Flag(("--sigma-min",), "sampler.sigma_min", "From a denoiser", "S"),
    Flag(("--beta",), "sampler.beta", "From a denoiser", "B"),
    Flag(("--churn",), "sampler.churn", "From a denoiser", "C"),
    Flag(("--model-dir",), "model.model_dir", "From a denoiser", "FOLDER"),
    Flag(("--offline",), "model.offline", "From a denoiser"),
    Flag(("--energy",), "chains.energy", "From an energy", "NAME|FILE.py:FUNCTION"),
    Flag(("--temperature",), "chains.temperature", "From an energy", "T"),
    Flag(("--proposal",), "chains.proposal", "From an energy", "auto|walk|log-walk|independent:M,S|FILE.py:NAME"),
    Flag(("--step",), "chains.step", "From an energy", "S"),
    Flag(("--burn-in",), "chains.burn_in", "From an energy", "N"),
    *RUN_FLAGS,
)


@command(app, "sample", FLAGS, None)
def sample(call: Call) -> int:
    """Draw pictures from a denoiser's prior, or by Markov chains from a Gibbs energy."""
    if call.dry_run:
        call.show()
        return 0
    if call.config.has_energy:
        from .sampling_chains import ChainDrawing as Drawing
    else:
        from .sampling import PriorDrawing as Drawing

    return Drawing(call).go()
