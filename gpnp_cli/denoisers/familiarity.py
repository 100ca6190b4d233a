"""Is a picture like those a prior was trained on? What the denoiser leaves undone says so."""

import torch
from torch import Tensor

from .base import Denoiser

LEVELS = (0.1, 0.25, 0.5)  # noise levels that a file of whole-picture weights tells about
LEVEL = 0.25  # the one looked at: most of a picture can still be seen, but not its details
FAR = 1.5  # times the worst of the validation pictures


def relative_residual(denoiser: Denoiser, x: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """||Denoise(x + sigma n; sigma) - x|| / sigma sqrt(pixels) of each picture of `x` `(N, C, H, W)`, `(N,)`.

    Small where the prior knows pictures like x: then it takes the noise for noise. A prior that knows no such picture
    takes x itself for noise, too. `rng` is a CPU generator.
    """
    noise = torch.randn(x.shape, generator=rng).to(x)
    return (denoiser(x + sigma * noise, sigma) - x).square().mean((1, 2, 3)).sqrt() / sigma
