"""How far one value that is not finite spreads on each path of a convolution."""

import pytest
import torch
from ghost_layer_cases import make_layer
from ghostsr_ext import ops

SIZE = 24


def _spoilt(path, value, y, x, force_path):
    force_path(path)
    layer = make_layer(batch=1, in_channels=16, intrinsic=8, ghosts=0, size=(SIZE, SIZE))
    arguments = layer.fixed(torch.float32, input="channels_last")
    arguments["input"][0, 3, y, x] = value
    return ~ops.ghost_conv(**arguments)[0].isfinite()


def _square(rows, columns):
    inside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inside[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    return inside.expand(8, SIZE, SIZE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_direct_path_spoils_the_filter_window(value, force_path):
    assert torch.equal(_spoilt("aten", value, 12, 14, force_path), _square((11, 13), (13, 15)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("at", "spoilt"), [(8, (7, 11)), (9, (8, 11)), (10, (8, 11)), (11, (8, 12))]
)
def test_the_winograd_path_spoils_the_tile_and_the_edge_of_the_next_one(
    value, at, spoilt, force_path
):
    assert torch.equal(_spoilt("winograd", value, at, 8, force_path), _square(spoilt, (7, 11)))
    assert torch.equal(_spoilt("winograd", value, 9, at, force_path), _square((8, 11), spoilt))
