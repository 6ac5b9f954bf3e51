"""What the 1x1 path does that the other paths do not."""

import math

import pytest
import torch
from fused_path_cases import POINTWISE, POINTWISE_WIDE
from ghost_layer_cases import (
    EVERYTHING,
    LAYOUTS,
    in_float64,
    make_layer,
)
from ghostsr_ext import ops, reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    options=st.fixed_dictionaries(
        {
            "batch": st.integers(0, 3),
            "groups": st.integers(1, 4),
            "ghosts": st.integers(0, 20),
            "size": st.tuples(st.integers(1, 19), st.integers(1, 19)),
            "max_shift": st.integers(0, 3),
            "bias": st.booleans(),
            "affine": st.booleans(),
            "ordered": st.booleans(),
            "residual": st.booleans(),
            "activation": st.sampled_from(["none", "relu"]),
            "residual_scale": st.sampled_from([1.0, -0.5]),
            "seed": st.integers(0, 1000),
        }
    ),
    group_channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    input_layout=st.sampled_from(sorted(LAYOUTS)),
    residual_layout=st.sampled_from(sorted(LAYOUTS)),
    threads=st.integers(1, 3),
)
def test_any_pointwise_layer_computes_the_same(
    options, group_channels, input_layout, residual_layout, threads, force_path
):
    layer = make_layer(
        **POINTWISE,
        **options,
        in_channels=group_channels[0] * options["groups"],
        intrinsic=group_channels[1] * options["groups"],
    )
    arguments = layer.fixed(torch.float32, input=input_layout, residual=residual_layout)
    expected = reference.ghost_conv(**in_float64(arguments))
    force_path("pointwise")
    torch.set_num_threads(threads)

    output = ops.ghost_conv(**arguments)

    assert output.shape == expected.shape
    if output.numel():
        # A sum that cancels is as wrong as its terms are.
        scale = max(expected.abs().max().item(), math.sqrt(group_channels[0]))
        assert (output - expected).abs().max().item() <= 1e-5 * scale


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
