"""A 1x1 layer computes the same on the fused path as elsewhere."""

import math

import pytest
import torch
from ghost_layer_cases import (
    ACTIVATIONS,
    EVERYTHING,
    LAYOUTS,
    assert_close,
    in_float64,
    make_layer,
    values_and_gradients,
)
from ghostsr_ext import ops, reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATHS = ("aten", "pointwise", "auto")

POINTWISE = {"kernel": (1, 1), "padding": (0, 0)}
WIDE = {**POINTWISE, "in_channels": 24, "intrinsic": 16, "ghosts": 16, "size": (12, 13)}
LAYERS = {
    "plain": WIDE,
    "everything": {**WIDE, **EVERYTHING},
    "no ghosts": {**WIDE, **EVERYTHING, "ghosts": 0},
    "no bias": {**WIDE, **EVERYTHING, "bias": False},
    "odd sizes": {**WIDE, **EVERYTHING, "in_channels": 13, "intrinsic": 11, "ghosts": 6},
    "mostly ghosts": {**WIDE, **EVERYTHING, "intrinsic": 3, "ghosts": 30},
    "groups": {**WIDE, **EVERYTHING, "groups": 4},
    "groups of odd sizes": {
        **WIDE,
        **EVERYTHING,
        "in_channels": 15,
        "intrinsic": 33,
        "groups": 3,
    },
    "one pixel": {**WIDE, **EVERYTHING, "size": (1, 1)},
    "one row": {**WIDE, **EVERYTHING, "size": (1, 21)},
    "one column": {**WIDE, **EVERYTHING, "size": (21, 1)},
    "three rows": {**WIDE, **EVERYTHING, "size": (3, 18)},
    "three columns": {**WIDE, **EVERYTHING, "size": (18, 3)},
    "largest shifts": {**WIDE, **EVERYTHING, "max_shift": 7, "size": (11, 10)},
    "several pictures": {**WIDE, **EVERYTHING, "batch": 5},
    "no picture": {**WIDE, **EVERYTHING, "batch": 0},
    **{name: {**WIDE, **EVERYTHING, **options} for name, options in ACTIVATIONS.items()},
}
OTHER_LAYERS = {
    "3x3": {**WIDE, "kernel": (3, 3), "padding": (1, 1)},
    "kernel of one row": {**WIDE, "kernel": (1, 3), "padding": (0, 1)},
    "stride": {**WIDE, "stride": (2, 2)},
    "dilation": {**WIDE, "dilation": (2, 1)},
    "padding": {**WIDE, "padding": (1, 0)},
}


def _run(path, layer, force_path, dtype=torch.float32, layout="channels_last"):
    force_path(path)
    return ops.ghost_conv(**layer.fixed(dtype, input=layout, residual=layout))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_path_computes_a_pointwise_layer(name, path, force_path):
    layer = make_layer(**LAYERS[name])
    expected = reference.ghost_conv(**layer.fixed())

    output = _run(path, layer, force_path)

    assert_close({"output": output}, {"output": expected})


@pytest.mark.parametrize("channels", [64, 256, 512])
def test_the_error_is_that_of_a_sum_in_float32(channels, force_path):
    layer = make_layer(
        **POINTWISE, batch=1, in_channels=channels, intrinsic=64, ghosts=0, size=(26, 33)
    )
    arguments = layer.fixed(torch.float32, input="channels_last")
    expected = reference.ghost_conv(**in_float64(arguments))
    force_path("pointwise")

    error = (ops.ghost_conv(**arguments) - expected).square().mean().sqrt()

    assert error / expected.square().mean().sqrt() <= 2e-6


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


@pytest.mark.parametrize("name", OTHER_LAYERS)
def test_a_layer_that_pointwise_cannot_compute_takes_torch(name, force_path):
    layer = make_layer(**OTHER_LAYERS[name])

    output = _run("pointwise", layer, force_path)

    assert torch.equal(output, _run("aten", layer, force_path))
    assert_close({"output": output}, {"output": reference.ghost_conv(**layer.fixed())})


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        (torch.float64, "channels_last"),
        (torch.bfloat16, "channels_last"),
        (torch.float32, "contiguous"),
        (torch.float32, "sliced"),
    ],
    ids=str,
)
def test_a_map_that_pointwise_cannot_read_takes_torch(dtype, layout, force_path):
    layer = make_layer(**WIDE)

    output = _run("pointwise", layer, force_path, dtype, layout)

    assert torch.equal(output, _run("aten", layer, force_path, dtype, layout))


def _run_with_cache(layer):
    """Run a layer that keeps its packed weight."""
    arguments = layer.fixed(torch.float32, input="channels_last") | {"cache": ops.layer_cache()}
    return ops.ghost_conv(**arguments)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"in_channels": 64}, "pointwise"),
        ({"in_channels": 3}, "pointwise"),
        ({"intrinsic": 2}, "aten"),
        ({"in_channels": 512, "intrinsic": 512, "size": (3, 3)}, "aten"),
        ({"in_channels": 64, "size": (3, 3)}, "pointwise"),
    ],
    ids=["wide", "few inputs", "few outputs", "large weights, few pixels", "few pixels"],
)
def test_the_default_takes_pointwise_where_it_is_faster(options, path, force_path):
    layer = make_layer(**{**WIDE, "size": (24, 24), **options})

    chosen = _run(path, layer, force_path)
    force_path("auto")

    assert torch.equal(_run_with_cache(layer), chosen)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("grad_layout", ["channels_last", "contiguous", "channel_slice"])
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "no picture"])
def test_every_path_gives_the_gradients_of_a_pointwise_layer(name, grad_layout, path, force_path):
    # Values of one sign before a ReLU can differ in the last bit, and so in their gradient.
    layer = make_layer(**{**LAYERS[name], "activation": "none"})
    arguments = layer.fixed(torch.float32, input="channels_last", residual="channels_last")
    expected = values_and_gradients(reference.ghost_conv, in_float64(arguments))
    force_path(path)

    actual = values_and_gradients(ops.ghost_conv, arguments, grad_layout)

    assert_close(actual, expected)


def test_the_bits_depend_neither_on_the_run_nor_on_the_threads(force_path):
    force_path("pointwise")
    arguments = make_layer(**{**WIDE, **EVERYTHING, "size": (45, 38)}).fixed(
        torch.float32, input="channels_last", residual="channels_last"
    )
    first = ops.ghost_conv(**arguments)

    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        assert torch.equal(ops.ghost_conv(**arguments), first)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stays_in_its_pixel(value, force_path):
    layer = make_layer(**{**WIDE, "ghosts": 0})
    arguments = layer.fixed(torch.float32, input="channels_last")
    arguments["input"][0, 3, 5, 6] = value
    force_path("pointwise")

    finite = ops.ghost_conv(**arguments).isfinite()

    assert not finite[0, :, 5, 6].any()
    finite[0, :, 5, 6] = True
    assert finite.all()


@pytest.mark.parametrize("weight_layout", ["contiguous", "channels_last", "sliced", "transposed"])
def test_pointwise_reads_weights_in_any_layout(weight_layout, force_path):
    force_path("pointwise")
    arguments = make_layer(**WIDE).fixed(torch.float32, input="channels_last", weight=weight_layout)
    expected = values_and_gradients(reference.ghost_conv, in_float64(arguments))

    assert_close(values_and_gradients(ops.ghost_conv, arguments, "channels_last"), expected)
    assert_close({"output": ops.ghost_conv(**arguments)}, {"output": expected["output"]})
