"""Do the samples of one picture agree as wholes? Summary statistics of the chains, and what people are told of them.

Annealed chains are independent by construction: K of them are K independent samples, however long they ran. R-hat
(`annealed_rhat`) then tells whether the samples' differences are more than each chain's own fluctuation; it is large
wherever the data leave something open, which is no fault. Hence a warning takes a spread that can be seen, too.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..forward.base import ForwardModel
from ..samplers.diagnostics import annealed_rhat

LAST = 4  # one iteration in so many, the last ones, is watched: earlier states are mostly noise
FEWEST = 4  # iterations, below which nothing is said
SUSPECT = 1.2  # R-hat of chains that differ by 2/3 of their own fluctuation
# Standard deviations between samples that one can see: of the mean pixel, absolute; of the others, relative.
VISIBLE = {"brightness": 0.02, "gradient": 0.1, "residual": 0.1}
NAMES = {"brightness": "mean brightness", "gradient": "sharpness", "residual": "fit to the data"}


def watched(iterations: int) -> int:
    """How many of the last iterations are watched."""
    return iterations // LAST if iterations // LAST >= FEWEST else 0


def statistics(model: ForwardModel, crop: Callable[[Tensor], Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Mean pixel, mean squared difference of neighbours, root-mean-square residual: each `(N, C, H, W)` to `(N,)`."""

    def brightness(x: Tensor) -> Tensor:
        return crop(x).flatten(1).mean(1)

    def gradient(x: Tensor) -> Tensor:
        inside = crop(x)
        return sum(inside.diff(dim=side).square().flatten(1).sum(1) for side in (-1, -2)) / inside[0].numel()

    found = {"brightness": brightness, "gradient": gradient}
    return found | {"residual": model.residual} if model.sigma_y > 0 else found


def agreement(series: Mapping[str, Tensor], chains: int) -> dict[str, Any]:
    """Facts about `chains` independent chains, from `series` `(iteration, chain)` of each statistic (none: too short)."""
    facts: dict[str, Any] = {"effective_samples": chains}
    if chains > 1:
        for name, values in series.items():
            means = values.double().mean(0)
            facts["iterations"] = len(values)
            facts[name] = {
                "mean": means.mean().item(),
                "spread": means.std().item(),  # between the chains
                "rhat": annealed_rhat(values),
            }
    return facts


def spreads(facts: Mapping[str, Any]) -> dict[str, float]:
    """Each statistic's spread between the samples, in the units of `VISIBLE`."""
    found = {}
    for name in VISIBLE:
        if name in facts:
            mean, spread = abs(facts[name]["mean"]), facts[name]["spread"]
            found[name] = spread if name == "brightness" or spread == 0 else spread / max(mean, 1e-12)
    return found


def sentence(facts: Mapping[str, Any]) -> str:
    """One line for the log; empty if there is nothing to compare. R-hat is left to the manifest: see above."""
    found = spreads(facts)
    if not found:
        return ""
    parts = [f"{NAMES[name]} by {100 * spread:.2g} %" for name, spread in found.items()]
    return f"{facts['effective_samples']} independent samples differ in {', '.join(parts)}"


def complaint(facts: Mapping[str, Any]) -> str:
    """A warning with what can be done; empty if the samples agree."""
    bad = [name for name, spread in spreads(facts).items() if spread > VISIBLE[name] and facts[name]["rhat"] > SUSPECT]
    if not bad:
        return ""
    what = " and ".join(NAMES[name] for name in bad)
    if "residual" in bad:
        return (
            f"the samples differ in {what}: some chains have not found an explanation of the data as good as the others'; "
            "use more --iterations"
        )
    return (
        f"the samples differ as wholes, in {what}: the data leave it open, or the chains have not forgotten their starts; "
        "more --samples show the range, more --iterations tell which it is"
    )
