"""What the 1x1 path does that the other paths do not."""

import pytest
import torch
from fused_path_cases import POINTWISE_WIDE
from ghost_layer_cases import (
    EVERYTHING,
    make_layer,
)
from ghostsr_ext import ops


def test_the_bits_depend_neither_on_the_run_nor_on_the_threads(force_path):
    force_path("pointwise")
    arguments = make_layer(**{**POINTWISE_WIDE, **EVERYTHING, "size": (45, 38)}).fixed(
        torch.float32, input="channels_last", residual="channels_last"
    )
    first = ops.ghost_conv(**arguments)

    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        assert torch.equal(ops.ghost_conv(**arguments), first)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stays_in_its_pixel(value, force_path):
    layer = make_layer(**{**POINTWISE_WIDE, "ghosts": 0})
    arguments = layer.fixed(torch.float32, input="channels_last")
    arguments["input"][0, 3, 5, 6] = value
    force_path("pointwise")

    finite = ops.ghost_conv(**arguments).isfinite()

    assert not finite[0, :, 5, 6].any()
    finite[0, :, 5, 6] = True
    assert finite.all()
