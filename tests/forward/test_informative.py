"""What tells something about a blur, and what does not."""

import torch

from gpnp_cli.forward.blur import CircularBlur
from gpnp_cli.forward.informative import fine_detail, has_structure, neighbour_correlation, richest_window, unsaturated


def noise(*shape):
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))


def test_noise_and_one_colour_have_no_structure():
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    assert not has_structure(torch.full((1, 1, 64, 64), 0.3))
    assert not has_structure(0.5 + 0.2 * noise(64, 64))
    assert not has_structure((0.5 + 2 * noise(64, 64)).clamp(0, 1))  # clipped: nearly black and white
    assert not has_structure(0.5 + 1e-3 * ramp)
    assert has_structure(ramp + 0.2 * noise(64, 64))
    assert abs(neighbour_correlation(noise(200, 200))) < 4 / 200
    assert neighbour_correlation(torch.zeros(1, 1, 5, 5)) == 0


def test_the_middle_of_a_saturated_area_may_stay():
    y = torch.full((1, 3, 20, 30), 0.5)
    y[:, 1, 4:15, 6:20] = 1
    known = unsaturated(y, reach=3)
    assert known.sum() == 20 * 30 - 11 * 14 + 5 * 8
    assert known[9, 12] and not known[9, 7] and known[0, 0]
    assert unsaturated(torch.full((1, 1, 5, 5), 0.99), 3).all()


def test_neighbours_of_clipped_pixels_are_left_out_with_a_margin():
    y = torch.full((1, 3, 20, 30), 0.5)
    y[:, 1, 4:15, 6:20] = 1
    known = unsaturated(y, reach=3, margin=1)
    assert known.sum() == 20 * 30 - 13 * 16 + 5 * 8
    assert known[9, 12] and not known[3, 5] and known[2, 5]


def test_the_window_is_where_the_edges_are():
    y = torch.full((1, 1, 60, 80), 0.5)
    y[..., 20:40, 50:70] += 0.2 * noise(20, 20)
    y[..., 5, 5] = 9  # one hard dot counts little
    known = torch.ones(60, 80, dtype=torch.bool)
    rows, columns = richest_window(y, known, 24)
    assert rows.stop - rows.start == columns.stop - columns.start == 24
    assert rows.start <= 20 and rows.stop >= 40 and columns.start <= 50 and columns.stop >= 70
    assert richest_window(y, known, 70) == (slice(0, 60), slice(10, 80)) or richest_window(y, known, 70)[0] == slice(
        0, 60
    )
    known[15:45, 45:75] = False
    assert richest_window(y, known, 24)[1].start < 45


def test_only_what_is_not_blurred_has_fine_detail():
    edges = torch.full((1, 1, 96, 80), 0.5)
    for k in range(12):
        edges[..., 5 * k + 3 : 6 * k + 9, 4 * k + 2 : 7 * k + 9] = 0.1 + 0.07 * (5 * k % 12)
    edges = edges + 0.01 * noise(96, 80)
    t = torch.arange(-6, 7.0)
    line = torch.exp(-(t**2) / (2 * 2.0**2))
    h = torch.outer(line, line)
    blurred = CircularBlur(h / h.sum(), (1, 96, 80)).forward(edges) + 0.01 * noise(96, 80)
    assert fine_detail(edges) > 0.07
    assert fine_detail(blurred) < 0.03
    assert fine_detail(torch.full((1, 1, 9, 9), 0.4)) == 0
