"""DiffPIR (Zhu et al., "Denoising Diffusion Models for Plug-and-Play Image Restoration", CVPR Workshops 2023)."""

import math
from dataclasses import dataclass

from torch import Tensor

from ..denoisers.base import Denoiser
from ..forward.base import ForwardModel
from .base import Info
from .diffusion import Diffused
from .rng import ChainRng


@dataclass(frozen=True)
class DiffPir:
    """One step of algorithm 1: noise of level sigma put on the last estimate, the denoiser, the data's proximal map.

    x_sigma = x^ + sigma (sqrt(1 - zeta) d + sqrt(zeta) W), where d = (previous x_sigma - x^) / previous sigma is the
    noise that the estimate implies; x0 = Denoise(x_sigma); x^ = argmin ||y - A x||^2 + rho ||x - x0||^2 with
    rho = weight sigma_y^2 / sigma^2, that is gamma = sigma / sqrt(weight). `x` of the state is x^. The paper has `weight`
    (lambda) near 7 and `zeta` near 0.3; 1 and 1 come nearer to known posteriors (benchmarks/posterior.py) and did better
    on photographs.
    """

    denoiser: Denoiser
    model: ForwardModel
    weight: float = 1.0
    zeta: float = 1.0

    def __post_init__(self) -> None:
        if not (self.weight > 0 and 0 <= self.zeta <= 1):
            raise ValueError(f"weight must be positive and zeta in [0, 1], not {self.weight}, {self.zeta}")

    def init(self, x: Tensor) -> Diffused:
        return Diffused(x, x, None)

    def step(self, state: Diffused, sigma: float, rng: ChainRng) -> tuple[Diffused, Info]:
        x = state.noisy
        if state.sigma is not None:
            implied = (x - state.x) / state.sigma
            noise = math.sqrt(1 - self.zeta) * implied + math.sqrt(self.zeta) * rng.randn_like(x)
            x = state.x + sigma * noise
        x0 = self.denoiser(x, sigma)
        return Diffused(self.model.prox(x0, sigma / math.sqrt(self.weight)), x, sigma), Info(x0, 1)
