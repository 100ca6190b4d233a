"""What is kept of the searches for a kernel."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gpnp_cli.cli.report import Report
from gpnp_cli.cli.searching import Found, Kept, Trail
from gpnp_cli.kernel_figures import Snapshot
from gpnp_cli.samplers.em import EmState, EmStep


def found(misfit: float) -> Found:
    return Found(torch.full((3, 3), misfit), misfit, 0.0, 0, 3, None)


def trail(share: float) -> Trail:
    picture = torch.zeros(1, 1, 4, 4)
    step = EmStep(1, 0.0, EmState(picture, torch.ones(3, 3), 0.1), 0, 1.0, picture)
    return Trail(step, [], [Snapshot(share, np.zeros((1, 4, 4), np.float32), np.zeros((3, 3), np.float32))])


@pytest.fixture
def kept(tmp_path):
    return Kept(Path(tmp_path / "search.safetensors"), "identity", Report(quiet=True))


@pytest.mark.parametrize(("edges", "refined"), [(0.02, 0.01), (0.01, 0.02)])
def test_the_better_kernel_of_a_search_comes_first(kept, edges, refined):
    kept.begin(found(edges), trail(0.5))
    kept.finish(found(refined))
    assert [each.misfit for each in kept.found] == [0.01]
    assert [each.misfit for each in kept.passed] == [0.02]
    assert kept.best().kernel.unique().tolist() == [pytest.approx(0.01)]
    assert kept.begun is None


def test_the_snapshots_are_those_of_the_best_search(kept):
    for number, misfit in enumerate((0.03, 0.01, 0.02)):
        kept.begin(found(1.0), trail(number / 10))
        kept.finish(found(misfit))
    assert kept.best().misfit == 0.01
    assert [frame.share for frame in kept.frames] == [0.1]
