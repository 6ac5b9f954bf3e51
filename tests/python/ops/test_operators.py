"""Every operator equals its twin in plain torch, in any shape, dtype and memory layout."""

import itertools

import pytest
import torch
from ghost_layer_cases import (
    ACTIVATIONS,
    DENSE_LAYOUTS,
    EVERYTHING,
    LAYOUTS,
    TOLERANCE,
    assert_close,
    in_float64,
    make_layer,
    values_and_gradients,
)
from ghostsr_ext import ops, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

LAYERS = {
    "plain": {},
    "relu": {"activation": "relu"},
    "affine": {"affine": True},
    "affine relu": {"affine": True, "activation": "relu"},
    "ordered": {"ordered": True},
    "residual": {"residual": True},
    "residual relu": {"residual": True, "activation": "relu"},
    "negative scale": {"residual_scale": -1.5, "activation": "relu"},
    "everything": EVERYTHING,
    "without bias": {"bias": False},
    "without noise": {"noise": False},
    "one shift for the layer": {"layer_scope": True},
    "without ghosts": {**EVERYTHING, "ghosts": 0},
    "one intrinsic channel": {**EVERYTHING, "intrinsic": 1, "ghosts": 6},
    "one of each": {**EVERYTHING, "intrinsic": 1, "ghosts": 1},
    "more ghosts than intrinsic": {**EVERYTHING, "intrinsic": 3, "ghosts": 14},
    "channels in eights": {**EVERYTHING, "intrinsic": 8, "ghosts": 16},
    "channels in eights, in order": {"intrinsic": 16, "ghosts": 16, "residual": True},
    "more channels than a tile": {**EVERYTHING, "intrinsic": 70, "ghosts": 83, "size": (3, 20)},
    "channels in order, more than a tile": {"intrinsic": 144, "ghosts": 144, "size": (3, 20)},
    "hundreds of ghosts a channel": {**EVERYTHING, "intrinsic": 2, "ghosts": 600, "size": (3, 5)},
    "wider than a tile": {**EVERYTHING, "size": (3, 150), "intrinsic": 8, "ghosts": 9},
    "empty batch": {**EVERYTHING, "batch": 0},
    "one pixel": {**EVERYTHING, "size": (1, 1)},
    "one row": {**EVERYTHING, "size": (1, 12)},
    "one column": {**EVERYTHING, "size": (12, 1)},
    "no shift at all": {**EVERYTHING, "max_shift": 0},
    "shifts of two": {**EVERYTHING, "max_shift": 2},
    "largest shifts": {**EVERYTHING, "max_shift": 7, "size": (17, 16)},
    "shifts beyond the map": {**EVERYTHING, "max_shift": 7, "size": (3, 2), "ghosts": 20},
    "int32 tables": {**EVERYTHING, "table_dtype": torch.int32},
    "stride": {**EVERYTHING, "stride": (2, 3)},
    "no padding": {**EVERYTHING, "padding": (0, 0)},
    "uneven padding": {**EVERYTHING, "padding": (2, 0)},
    "dilation": {**EVERYTHING, "dilation": (2, 1)},
    "groups": {**EVERYTHING, "groups": 2, "intrinsic": 6},
    "depthwise": {**EVERYTHING, "groups": 4, "intrinsic": 4},
    "1x1 filters": {**EVERYTHING, "kernel": (1, 1), "padding": (0, 0)},
    "5x2 filters": {**EVERYTHING, "kernel": (5, 2), "padding": (2, 1)},
    "filter as large as the input": {**EVERYTHING, "kernel": (7, 9), "padding": (0, 0)},
    **{name: {**EVERYTHING, **options} for name, options in ACTIVATIONS.items()},
    **{f"{name} alone": options for name, options in ACTIVATIONS.items()},
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("name", LAYERS)
def test_ghost_conv_equals_its_twin_with_all_gradients(name, layout):
    arguments = make_layer(**LAYERS[name]).fixed(input=layout, residual=layout)

    actual = values_and_gradients(ops.ghost_conv, arguments, layout)

    assert_close(actual, values_and_gradients(reference.ghost_conv, in_float64(arguments)))


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("name", LAYERS)
def test_ghost_conv_learned_equals_its_twin_with_all_gradients(name, layout):
    arguments = make_layer(**LAYERS[name]).learned(input=layout, residual=layout)

    actual = values_and_gradients(ops.ghost_conv_learned, arguments, layout)

    assert_close(actual, values_and_gradients(reference.ghost_conv_learned, in_float64(arguments)))


@pytest.mark.parametrize("name", LAYERS)
def test_the_fused_layer_computes_the_same_with_and_without_gradients(name):
    arguments = make_layer(**LAYERS[name]).fixed()

    fused = ops.ghost_conv(**arguments)

    composed = values_and_gradients(ops.ghost_conv, arguments)["output"]
    assert_close({"output": fused}, {"output": composed})


@pytest.mark.parametrize(("intrinsic", "residual"), list(itertools.product(LAYOUTS, repeat=2)))
@pytest.mark.parametrize("intrinsic_channels", [1, 5, 8])
def test_shift_concat_takes_any_mixture_of_layouts(intrinsic, residual, intrinsic_channels):
    layer = make_layer(**EVERYTHING, intrinsic=intrinsic_channels, ghosts=8, max_shift=2)
    arguments = layer.epilogue(intrinsic=intrinsic, residual=residual)

    for grad_layout in {"contiguous", intrinsic, residual}:
        actual = values_and_gradients(ops.shift_concat, arguments, grad_layout)
        expected = values_and_gradients(reference.shift_concat, in_float64(arguments), grad_layout)
        assert_close(actual, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ghost_conv_takes_any_layout_of_the_input(layout):
    arguments = make_layer(**EVERYTHING, max_shift=2).fixed(input=layout, residual=layout)

    actual = values_and_gradients(ops.ghost_conv, arguments, layout)

    expected = values_and_gradients(reference.ghost_conv, in_float64(arguments), layout)
    assert_close(actual, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ghosts", [8, 11])
def test_shift_concat_keeps_small_integers_exact_in_every_dtype(dtype, layout, ghosts):
    layer = make_layer(
        **{**EVERYTHING, "residual_scale": 2.0}, intrinsic=8, ghosts=ghosts, integers=True
    )
    arguments = layer.epilogue(dtype, intrinsic=layout, residual=layout)

    actual = ops.shift_concat(**arguments)

    assert actual.dtype == dtype
    assert torch.equal(actual.double(), reference.shift_concat(**in_float64(arguments)))


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["fixed", "learned"])
def test_layers_of_small_integers_are_right_to_one_rounding_in_every_dtype(dtype, layout, kind):
    layer = make_layer(
        **EVERYTHING | {"activation": "none"},
        intrinsic=8,
        ghosts=8,
        size=(6, 5),
        integers=True,
        tau=1.0,
    )
    layer.selection |= {"logits": layer.selection["logits"].round(decimals=1), "noise": None}
    arguments = getattr(layer, kind)(dtype, input=layout, residual=layout)
    operator, twin = {
        "fixed": (ops.ghost_conv, reference.ghost_conv),
        "learned": (ops.ghost_conv_learned, reference.ghost_conv_learned),
    }[kind]

    actual = values_and_gradients(operator, arguments, layout)

    assert actual["output"].dtype == dtype
    expected = values_and_gradients(twin, in_float64(arguments))
    assert_close(actual, expected, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_epilogue_rounds_once_from_float32(dtype):
    arguments = make_layer(affine=True, residual=True, residual_scale=0.1).epilogue(dtype)

    actual = ops.shift_concat(**arguments)

    exact = reference.shift_concat(**in_float64(arguments))
    spacing = torch.finfo(dtype).eps * exact.abs().clamp_min(0.25)
    # Half a spacing for the rounding, and what float32 loses in a cancelling sum.
    assert bool(((actual.double() - exact).abs() <= 0.5 * spacing + 1e-6).all())


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_a_large_float32_layer_equals_its_twin(layout):
    # Large enough for every special convolution kernel; their transforms lose some digits.
    layer = make_layer(
        **EVERYTHING | {"activation": "none"},
        in_channels=64,
        size=(24, 26),
        intrinsic=32,
        ghosts=32,
        batch=1,
    )
    arguments = layer.fixed(torch.float32, input=layout, residual=layout)

    actual = values_and_gradients(ops.ghost_conv, arguments, layout)
    fused = ops.ghost_conv(**arguments)

    expected = values_and_gradients(reference.ghost_conv, in_float64(arguments))
    assert_close(actual, expected, tolerance=2e-5)
    assert_close({"output": fused}, {"output": expected["output"]}, tolerance=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_output_is_dense_and_channels_last_exactly_when_the_input_is(layout, dtype):
    arguments = make_layer(residual=True).fixed(dtype, input=layout, residual="contiguous")

    output = ops.ghost_conv(**arguments)

    channels_last = layout in ("channels_last", "channel_slice")
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert output.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mask", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("witness", ["none", "output", "intrinsic"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_shift_concat_backward_equals_its_twin(activation, witness, mask, layout):
    layer = make_layer(affine=True, ordered=True, residual_scale=0.5, max_shift=2, ghosts=9)
    arguments = layer.epilogue(intrinsic=layout)
    arguments["negative_slope"] = -0.3 if witness == "intrinsic" else 0.3
    if witness != "none":
        arguments["activation"] = activation
    if witness == "output":
        arguments["output"] = LAYOUTS[layout](reference.shift_concat(**arguments))
    channels = layer.tensors["intrinsic"].shape[1] + 9
    arguments["grad_output"] = LAYOUTS[layout](torch.randn(2, channels, 7, 9).double())
    arguments["output_mask"] = mask

    actual = ops.shift_concat_backward(**arguments)

    expected = reference.shift_concat_backward(**in_float64(arguments))
    for index in range(3):
        assert actual[index].numel() == 0 or mask[index]
        assert_close({"gradient": actual[index]}, {"gradient": expected[index]})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layer_scope", [False, True])
@pytest.mark.parametrize("max_shift", [0, 1, 3])
@pytest.mark.parametrize("witness", ["none", "output", "intrinsic"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_shift_selection_backward_equals_its_twin(
    activation, witness, max_shift, layer_scope, layout
):
    layer = make_layer(
        affine=True, ordered=True, residual_scale=0.5, max_shift=max_shift, layer_scope=layer_scope
    )
    arguments = layer.epilogue(intrinsic=layout) | layer.selection
    arguments["shift"] = reference.select_shift(*layer.selection.values(), ghosts=4)
    arguments["negative_slope"] = -0.3 if witness == "intrinsic" else 0.3
    if witness != "none":
        arguments["activation"] = activation
    if witness == "output":
        forward = {name: arguments[name] for name in arguments if name not in layer.selection}
        arguments["output"] = LAYOUTS[layout](reference.shift_concat(**forward))
    del arguments["shift"]
    arguments["grad_output"] = LAYOUTS[layout](torch.randn(2, 9, 7, 9).double())

    scores, grad_logits = ops.shift_selection_backward(**arguments)

    expected_scores, expected = reference.shift_selection_backward(**in_float64(arguments))
    assert_close(
        {"scores": scores, "logits": grad_logits}, {"scores": expected_scores, "logits": expected}
    )


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("max_shift", range(8))
def test_select_shift_takes_the_largest_candidate(max_shift, rows, dtype):
    logits = torch.randn(rows, (2 * max_shift + 1) ** 2, dtype=dtype)
    noise = torch.randn_like(logits)

    actual = ops.select_shift(logits, noise, 0.3, 6)

    assert actual.dtype == torch.int64
    assert torch.equal(actual, reference.select_shift(logits.double(), noise.double(), 0.3, 6))


def test_select_shift_takes_the_first_of_equal_candidates():
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]])

    assert ops.select_shift(logits, None, 1.0, 2).tolist() == [[-1, 0], [-1, 0]]


def test_select_shift_reads_strided_logits():
    logits = torch.randn(18, 4)[::2].t()

    actual = ops.select_shift(logits, None, 1.0, 4)

    assert torch.equal(actual, reference.select_shift(logits, None, 1.0, 4))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_convolution_is_conv2d(name, layout):
    arguments = make_layer(**LAYERS[name]).fixed(input=layout)
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    arguments = {name: arguments[name] for name in names}

    actual = values_and_gradients(torch.ops.ghostsr.convolution.default, arguments, layout)

    expected = values_and_gradients(functional.conv2d, in_float64(arguments), layout)
    assert_close(actual, expected)


def test_strided_and_expanded_parameters_are_read_right():
    layer = make_layer(**EVERYTHING, intrinsic=6, ghosts=6)
    arguments = layer.fixed()
    arguments["source"] = torch.arange(12)[::2] % 6
    arguments["shift"] = torch.tensor([[1, -1]]).expand(6, 2)
    arguments["gain"] = torch.randn(6, 3, dtype=torch.float64)[:, 1]
    arguments["ghost_bias"] = torch.randn(1, dtype=torch.float64).expand(6)
    arguments["order"] = torch.randperm(12).repeat_interleave(2)[::2]
    arguments["bias"] = torch.randn(12, dtype=torch.float64)[::2]
    arguments["weight"] = arguments["weight"].transpose(2, 3)

    actual = values_and_gradients(ops.ghost_conv, arguments)

    assert_close(actual, values_and_gradients(reference.ghost_conv, in_float64(arguments)))


def test_negated_views_are_read_right():
    arguments = make_layer().fixed()
    negated = torch.view_as_complex(torch.randn(2, 4, 7, 9, 2).double()).conj().imag
    assert negated.is_neg()

    actual = ops.ghost_conv(**{**arguments, "input": negated})

    expected = reference.ghost_conv(**{**arguments, "input": negated.clone()})
    assert_close({"output": actual}, {"output": expected})


def test_operators_run_in_inference_mode():
    arguments = make_layer(**EVERYTHING).fixed()
    with torch.inference_mode():
        actual = ops.ghost_conv(**arguments)

    assert_close({"output": actual}, {"output": reference.ghost_conv(**arguments)})


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
def test_nan_spreads_as_in_plain_torch(dtype, layout):
    # A NaN weight spoils its channel and the ghosts made from it, even after a ReLU, and no more.
    layer = make_layer(activation="relu", intrinsic=8, ghosts=8, integers=True)
    arguments = layer.fixed(dtype, input=layout)
    arguments["weight"][3, 0, 1, 1] = torch.nan

    output = ops.ghost_conv(**arguments)

    expected = reference.ghost_conv(**in_float64(arguments))
    assert bool(expected.isnan().any())
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, 0.0, -0.0, 6e-8, 65504.0])
@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
def test_extreme_values_pass_through_shift_concat(dtype, value):
    arguments = make_layer(intrinsic=8, ghosts=8, integers=True).epilogue(dtype)
    arguments["intrinsic"][:, ::2] = value

    output = ops.shift_concat(**arguments)

    assert torch.equal(output, reference.shift_concat(**arguments))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_logit_that_is_not_finite_wins_and_spoils_its_own_gradient(value):
    layer = make_layer(ghosts=2)
    layer.selection["logits"][1, 5] = value
    arguments = layer.learned()

    actual = values_and_gradients(ops.ghost_conv_learned, arguments)

    shift = ops.select_shift(*layer.selection.values(), 2)
    assert shift[1].tolist() == [0, 1]
    assert bool(actual["logits"][1].isnan().all())
    assert bool(actual["logits"][0].isfinite().all())
    fixed = ops.ghost_conv(**{**layer.fixed(), "shift": shift})
    assert torch.equal(actual["output"], fixed)


layers = st.fixed_dictionaries(
    {
        "batch": st.integers(0, 3),
        "size": st.tuples(st.integers(1, 12), st.integers(1, 40)),
        "intrinsic": st.integers(1, 4).map(lambda factor: 2 * factor),
        "ghosts": st.integers(0, 17),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "padding": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "groups": st.sampled_from([1, 2]),
        "bias": st.booleans(),
        "max_shift": st.integers(0, 3) | st.just(7),
        "affine": st.booleans(),
        "ordered": st.booleans(),
        "residual": st.booleans(),
        "activation": st.sampled_from(["none", "relu"]),
        "residual_scale": st.sampled_from([1.0, 0.1, -2.0]),
        "noise": st.booleans(),
        "layer_scope": st.booleans(),
        "table_dtype": st.sampled_from([torch.int64, torch.int32]),
        "seed": st.integers(0, 2**31),
    }
)
layouts = st.sampled_from(sorted(LAYOUTS))


@settings(max_examples=60, deadline=None)
@given(layers, layouts, layouts, layouts, st.booleans())
def test_any_layer_equals_its_twin(options, input_layout, residual_layout, grad_layout, learned):
    layer = make_layer(**options)
    kind, operator, twin = (
        ("learned", ops.ghost_conv_learned, reference.ghost_conv_learned)
        if learned
        else ("fixed", ops.ghost_conv, reference.ghost_conv)
    )
    arguments = getattr(layer, kind)(input=input_layout, residual=residual_layout)

    actual = values_and_gradients(operator, arguments, grad_layout)

    assert_close(actual, values_and_gradients(twin, in_float64(arguments), grad_layout))
