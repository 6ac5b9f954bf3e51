"""A layer computes the same on every path that ``ops.convolution_path`` can force."""

import math

import pytest
import torch
from fused_path_cases import (
    POINTWISE,
    POINTWISE_LAYERS,
    POINTWISE_OTHERS,
    POINTWISE_WIDE,
    WINOGRAD_LAYERS,
    WINOGRAD_OTHERS,
    WINOGRAD_WIDE,
)
from ghost_layer_cases import (
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


def _cases(winograd, pointwise):
    """Return (path, options) of all layers, as parameters named for both."""
    return [
        pytest.param(path, options, id=f"{path}-{name}")
        for path, layers in (("winograd", winograd), ("pointwise", pointwise))
        for name, options in layers.items()
    ]


WIDE = pytest.mark.parametrize(
    ("fused", "options"), [("winograd", WINOGRAD_WIDE), ("pointwise", POINTWISE_WIDE)]
)
# Too few values to tell an error from chance.
TINY = ("no picture", "one channel of each")
DIFFERENTIATED = [
    {name: options for name, options in layers.items() if name not in TINY}
    for layers in (WINOGRAD_LAYERS, POINTWISE_LAYERS)
]


def _run(path, layer, force_path, dtype=torch.float32, layout="channels_last"):
    force_path(path)
    return ops.ghost_conv(**layer.fixed(dtype, input=layout, residual=layout))


@pytest.mark.parametrize("force", ["aten", "fused", "auto"])
@pytest.mark.parametrize(("fused", "options"), _cases(WINOGRAD_LAYERS, POINTWISE_LAYERS))
def test_every_path_computes_the_layer(fused, options, force, force_path):
    layer = make_layer(**options)
    expected = reference.ghost_conv(**layer.fixed())

    output = _run(fused if force == "fused" else force, layer, force_path)

    assert output.dtype == torch.float32
    assert_close({"output": output}, {"output": expected})


@pytest.mark.parametrize("force", ["aten", "fused", "auto"])
@pytest.mark.parametrize("grad_layout", ["channels_last", "contiguous", "channel_slice"])
@pytest.mark.parametrize(("fused", "options"), _cases(*DIFFERENTIATED))
def test_every_path_gives_the_gradients_of_autograd(fused, options, grad_layout, force, force_path):
    # Values of one sign before a ReLU can differ in the last bit, and so in their gradient.
    layer = make_layer(**{**options, "activation": "none"})
    arguments = layer.fixed(torch.float32, input="channels_last", residual="channels_last")
    expected = values_and_gradients(reference.ghost_conv, in_float64(arguments))
    force_path(fused if force == "fused" else force)

    actual = values_and_gradients(ops.ghost_conv, arguments, grad_layout)

    assert_close(actual, expected)


@pytest.mark.parametrize("force", ["aten", "fused"])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@WIDE
def test_a_layer_of_constant_gains_has_the_gradients_of_what_its_activation_let_through(
    fused, options, activation, force, force_path
):
    layer = make_layer(**{**options, **EVERYTHING, "activation": activation})
    arguments = layer.fixed(torch.float32, input="channels_last", residual="channels_last")
    leaves = [arguments[name] for name in ("input", "weight", "bias", "ghost_bias", "residual")]
    for leaf in leaves:
        leaf.requires_grad_()
    force_path(fused if force == "fused" else force)
    output = ops.ghost_conv(**arguments)
    grad_output = LAYOUTS["channels_last"](torch.randn(output.shape))
    actual = torch.autograd.grad(output, leaves, grad_output)

    linear = reference.ghost_conv(**{**arguments, "activation": "none"})
    below = {"none": 1.0, "relu": 0.0, "leaky_relu": arguments["negative_slope"]}[activation]
    let_through = torch.where(output > 0, grad_output, below * grad_output)
    expected = torch.autograd.grad(linear, leaves, let_through)
    assert_close(dict(enumerate(actual)), dict(enumerate(expected)))


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"affine": True, "ordered": True}])
@pytest.mark.parametrize(
    ("fused", "sizes"), [("winograd", WINOGRAD_WIDE), ("pointwise", POINTWISE_WIDE)]
)
def test_recording_gradients_does_not_change_the_output(fused, sizes, options, force_path):
    layer = make_layer(**sizes, **options, activation="relu")
    arguments = layer.fixed(torch.float32, input="channels_last", residual="channels_last")
    force_path(fused)
    expected = ops.ghost_conv(**arguments)
    arguments["weight"].requires_grad_()

    assert torch.equal(ops.ghost_conv(**arguments), expected)


@pytest.mark.parametrize(
    ("path", "channels", "options"),
    [
        *((path, channels, {}) for path in ("aten", "winograd", "auto") for channels in (32, 256)),
        *(("pointwise", channels, POINTWISE) for channels in (64, 512)),
    ],
)
def test_the_error_stays_small_in_wide_layers(path, channels, options, force_path):
    layer = make_layer(
        batch=1, in_channels=channels, intrinsic=64, ghosts=16, size=(26, 33), **options
    )
    arguments = layer.fixed(torch.float32, input="channels_last")
    expected = reference.ghost_conv(**in_float64(arguments))
    force_path(path)

    error = (ops.ghost_conv(**arguments) - expected).square().mean().sqrt()

    assert error / expected.square().mean().sqrt() <= 2e-6


@pytest.mark.parametrize("path", ["winograd", "pointwise"])
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
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    group_channels=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    input_layout=st.sampled_from(sorted(LAYOUTS)),
    residual_layout=st.sampled_from(sorted(LAYOUTS)),
    threads=st.integers(1, 3),
)
def test_any_layer_computes_the_same(
    path, options, size, padding, group_channels, input_layout, residual_layout, threads, force_path
):
    # A filter of 3x3 must fit the padded map.
    three = {"padding": padding, "size": tuple(max(side, 3) for side in size)}
    layer = make_layer(
        **options,
        **(three if path == "winograd" else {**POINTWISE, "size": size}),
        in_channels=group_channels[0] * options["groups"],
        intrinsic=group_channels[1] * options["groups"],
    )
    arguments = layer.fixed(torch.float32, input=input_layout, residual=residual_layout)
    expected = reference.ghost_conv(**in_float64(arguments))
    force_path(path)
    torch.set_num_threads(threads)

    output = ops.ghost_conv(**arguments)

    assert output.shape == expected.shape
    if output.numel():
        # A sum that cancels is as wrong as its terms are.
        terms = arguments["weight"][0].numel()
        scale = max(expected.abs().max().item(), math.sqrt(terms))
        assert (output - expected).abs().max().item() <= 1e-5 * scale


@pytest.mark.parametrize(("fused", "options"), _cases(WINOGRAD_OTHERS, POINTWISE_OTHERS))
def test_a_layer_that_a_fused_path_cannot_compute_takes_torch(fused, options, force_path):
    layer = make_layer(**options)

    output = _run(fused, layer, force_path)

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
@WIDE
def test_a_map_that_a_fused_path_cannot_read_takes_torch(fused, options, dtype, layout, force_path):
    layer = make_layer(**options)

    output = _run(fused, layer, force_path, dtype, layout)

    assert torch.equal(output, _run("aten", layer, force_path, dtype, layout))


HALVES = {"intrinsic": 16, "ghosts": 16, "size": (24, 24)}
CHOICES = {
    "3x3, large": ({**HALVES, "in_channels": 32}, "winograd"),
    "3x3, few channels": ({**HALVES, "in_channels": 3}, "aten"),
    "3x3, groups": ({**HALVES, "in_channels": 32, "groups": 2}, "winograd"),
    "3x3, small groups": ({**HALVES, "in_channels": 32, "groups": 8}, "aten"),
    "3x3, low": ({**HALVES, "in_channels": 32, "size": (3, 24)}, "aten"),
    "3x3, narrow": ({**HALVES, "in_channels": 32, "size": (24, 3)}, "aten"),
    "1x1, wide": ({**POINTWISE, **HALVES, "in_channels": 64}, "pointwise"),
    "1x1, few inputs": ({**POINTWISE, **HALVES, "in_channels": 3}, "pointwise"),
    "1x1, few outputs": ({**POINTWISE, **HALVES, "in_channels": 24, "intrinsic": 2}, "aten"),
    "1x1, large weights, few pixels": (
        {**POINTWISE, **HALVES, "in_channels": 512, "intrinsic": 512, "size": (3, 3)},
        "aten",
    ),
    "1x1, few pixels": ({**POINTWISE, **HALVES, "in_channels": 64, "size": (3, 3)}, "pointwise"),
}


@pytest.mark.parametrize(("options", "path"), CHOICES.values(), ids=CHOICES)
def test_the_default_takes_a_fused_path_where_it_is_faster(options, path, force_path):
    layer = make_layer(**options)
    chosen = _run(path, layer, force_path)
    force_path("auto")

    arguments = layer.fixed(torch.float32, input="channels_last") | {"cache": ops.layer_cache()}

    assert torch.equal(ops.ghost_conv(**arguments), chosen)


@pytest.mark.parametrize("weight_layout", ["contiguous", "channels_last", "sliced", "transposed"])
@WIDE
def test_fused_paths_read_weights_in_any_layout(fused, options, weight_layout, force_path):
    force_path(fused)
    arguments = make_layer(**options).fixed(
        torch.float32, input="channels_last", weight=weight_layout
    )
    expected = values_and_gradients(reference.ghost_conv, in_float64(arguments))

    assert_close(values_and_gradients(ops.ghost_conv, arguments, "channels_last"), expected)
    assert_close({"output": ops.ghost_conv(**arguments)}, {"output": expected["output"]})
