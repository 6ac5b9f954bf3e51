import math

import pytest
from ghostsr_ext.benchmark import Comparison, NetworkMeasurement, Timing
from ghostsr_ext.report.scatter import scatter_svg


def drawn(**levels: float) -> str:
    networks = [
        NetworkMeasurement(name, 0, 1, 1, Timing((0.007,)), 1.0, 1, psnr)
        for name, psnr in levels.items()
    ]
    return scatter_svg(Comparison(tuple(networks), 2, (4, 4), 1, 1, "cpu", "float32", 1, {}))


def test_axes_end_at_round_numbers_beyond_the_points() -> None:
    svg = drawn(dense=33.33, ghost=33.18)

    for label in ("0", "4", "8", "33.0", "33.3", "33.6"):
        assert f">{label}</text>" in svg


@pytest.mark.parametrize("psnr", [math.inf, math.nan])
def test_a_network_of_infinite_psnr_is_left_out(psnr: float) -> None:
    assert drawn(dense=33.33, ghost=psnr) == drawn(dense=33.33)
    assert "<circle" not in drawn(ghost=psnr)
