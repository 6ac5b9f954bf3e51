"""A layer may shuffle its pixels on their way out, with the values of torch's pixel shuffle."""

import pytest
import torch
from ghost_layer_cases import (
    DENSE_LAYOUTS,
    EVERYTHING,
    assert_close,
    in_float64,
    make_layer,
    values_and_gradients,
)
from ghostsr_ext import ops, reference
from ghostsr_ext.nn import FusedConv2d
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

WIDE = {"in_channels": 16, "size": (12, 13)}
LAYERS = {
    "dense": {"intrinsic": 64, "ghosts": 0},
    "few channels": {"intrinsic": 12, "ghosts": 0},
    "ghosts": {"intrinsic": 18, "ghosts": 18, "ordered": True, "affine": True},
    "groups": {"intrinsic": 32, "ghosts": 0, "groups": 2},
    "groups that a pixel's channels cross": {"intrinsic": 36, "ghosts": 0, "groups": 2},
    "1x1": {"intrinsic": 32, "ghosts": 0, "kernel": (1, 1), "padding": (0, 0)},
    "slopes": {
        **{"intrinsic": 64, "ghosts": 0},
        **{"activation": "prelu", "prelu_parameters": None},
    },
    "relu": {"intrinsic": 64, "ghosts": 0, "activation": "relu"},
    "residual": {**EVERYTHING, "intrinsic": 16, "ghosts": 16},
    "stride": {"intrinsic": 12, "ghosts": 0, "stride": (2, 1)},
    "empty batch": {"intrinsic": 12, "ghosts": 0, "batch": 0},
}


def _arguments(name, dtype=torch.float64, layout="channels_last", shuffle=2):
    arguments = make_layer(**WIDE | LAYERS[name]).fixed(dtype, input=layout, residual=layout)
    return arguments | {"shuffle": shuffle}


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
# Torch's own gradient of a shuffle of no maps at all has the wrong shape.
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "empty batch"])
def test_it_equals_its_twin_with_all_gradients(name, layout):
    arguments = _arguments(name, layout=layout)

    actual = values_and_gradients(ops.ghost_conv, arguments, layout)

    assert_close(actual, values_and_gradients(reference.ghost_conv, in_float64(arguments)))


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("path", ["auto", "aten", "winograd", "pointwise"])
@pytest.mark.parametrize("name", LAYERS)
def test_it_equals_its_twin_on_every_path(name, path, layout, force_path):
    arguments = _arguments(name, torch.float32, layout)
    force_path(path)

    actual = ops.ghost_conv(**arguments)

    assert_close({"output": actual}, {"output": reference.ghost_conv(**in_float64(arguments))})


@given(
    factor=st.integers(2, 4),
    channels=st.integers(1, 20),
    height=st.integers(4, 11),
    width=st.integers(4, 23),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=25)
def test_any_factor_shuffles_any_number_of_channels(factor, channels, height, width, seed):
    layer = make_layer(
        in_channels=8,
        size=(height, width),
        intrinsic=channels * factor**2,
        ghosts=0,
        seed=seed,
        activation="prelu",
        prelu_parameters=None,
    )
    arguments = layer.fixed(torch.float32, input="channels_last") | {"shuffle": factor}

    with ops.convolution_path("winograd"):
        actual = ops.ghost_conv(**arguments)

    assert_close({"output": actual}, {"output": reference.ghost_conv(**in_float64(arguments))})


@pytest.mark.parametrize("name", ["dense", "ghosts", "residual"])
def test_a_cache_serves_calls_with_and_without_it(name):
    arguments = _arguments(name, torch.float32)
    expected = {factor: ops.ghost_conv(**arguments | {"shuffle": factor}) for factor in (1, 2)}

    arguments["cache"] = ops.layer_cache()

    for factor in (1, 2, 2, 1, 2):
        assert torch.equal(ops.ghost_conv(**arguments | {"shuffle": factor}), expected[factor]), (
            factor
        )


@pytest.mark.parametrize("name", ["dense", "ghosts", "1x1"])
def test_any_number_of_threads_gives_the_same_bits(name):
    arguments = _arguments(name, torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = ops.ghost_conv(**arguments)
        torch.set_num_threads(4)
        assert torch.equal(ops.ghost_conv(**arguments), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("name", ["dense", "residual", "1x1", "stride"])
def test_torch_finds_nothing_wrong_with_the_operator(name, layout):
    arguments = _arguments(name, torch.float32, layout)
    positional = [arguments.pop(key) for key in ("input", "weight", "bias", "source", "shift")]

    torch.library.opcheck(torch.ops.ghostsr.ghost_conv.default, tuple(positional), arguments)


@pytest.mark.parametrize("recorded", [False, True])
def test_it_compiles_as_one_graph(recorded):
    layer = FusedConv2d(16, 64, 3, padding=1, activation="relu").requires_grad_(recorded)
    input = torch.randn(1, 16, 12, 13).to(memory_format=torch.channels_last)
    compiled = torch.compile(lambda features: layer(features, shuffle=2), fullgraph=True)

    torch.testing.assert_close(compiled(input), layer(input, shuffle=2))


def test_it_is_exported_by_torch():
    class Enlarging(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = FusedConv2d(16, 64, 3, padding=1).requires_grad_(False)

        def forward(self, features):
            return self.layer(features, shuffle=2)

    network, input = Enlarging(), torch.randn(1, 16, 12, 13)
    program = torch.export.export(network, (input,))

    torch.testing.assert_close(program.module()(input), network(input))


def test_a_function_transform_shuffles_too():
    layer = FusedConv2d(4, 12, 3, padding=1)
    input = torch.randn(3, 4, 6, 5)

    each = torch.func.vmap(lambda features: layer(features[None], shuffle=2)[0])(input)

    torch.testing.assert_close(each, layer(input, shuffle=2))


@pytest.mark.parametrize("residual_dtype", [torch.bfloat16, torch.float64])
def test_autocast_shuffles_what_it_casts(residual_dtype):
    layer = FusedConv2d(4, 12, 3, padding=1, activation="relu").requires_grad_(False)
    input = torch.randn(2, 4, 6, 5)
    residual = torch.randn(2, 12, 6, 5).to(residual_dtype)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = functional.pixel_shuffle(layer(input, residual), 2)
        actual = layer(input, residual, shuffle=2)

    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)


def test_a_map_without_a_batch_is_shuffled():
    layer = FusedConv2d(4, 12, 3, padding=1)
    input = torch.randn(4, 6, 5)

    assert torch.equal(layer(input, shuffle=2), layer(input[None], shuffle=2)[0])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_result_goes_into_a_map_that_is_given(layout):
    layer = FusedConv2d(16, 32, 3, padding=1)
    input = torch.randn(1, 16, 12, 13).to(memory_format=torch.channels_last)
    wide = torch.full((1, 11, 24, 26), 7.0).to(memory_format=layout)

    with torch.no_grad():
        returned = layer(input, out=wide[:, 2:10], shuffle=2)

        assert torch.equal(returned, layer(input, shuffle=2))
    assert bool((wide[:, :2] == 7).all() and (wide[:, 10:] == 7).all())


def test_multiply_adds_are_those_without_it():
    layer = FusedConv2d(16, 64, 3, padding=1).requires_grad_(False)
    input = torch.randn(1, 16, 12, 13)

    counted = []
    for shuffle in (1, 2):
        with FlopCounterMode(display=False) as counter:
            layer(input, shuffle=shuffle)
        counted.append(counter.get_total_flops())

    assert counted == [2 * 12 * 13 * 16 * 64 * 9] * 2


@pytest.mark.parametrize("shuffle", [-1, 0, 3, 5, 2**40])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_factor_that_does_not_fit_is_refused(shuffle, gradients):
    layer = FusedConv2d(4, 16, 3, padding=1).requires_grad_(gradients)

    with pytest.raises(
        RuntimeError, match=f"shuffle: found {shuffle}; a number whose square divides the 16 output"
    ):
        layer(torch.randn(1, 4, 6, 6), shuffle=shuffle)
