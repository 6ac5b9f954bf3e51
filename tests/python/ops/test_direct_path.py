"""The convolutions in bfloat16, with the instructions of this processor or without."""

import os
import subprocess
import sys

import pytest
import torch
from fused_path_cases import POINTWISE_LAYERS, POINTWISE_OTHERS, WINOGRAD_LAYERS, WINOGRAD_OTHERS
from ghost_layer_cases import assert_close, in_float64, make_layer
from ghostsr_ext import _native, ops, reference
from ghostsr_ext.models import create_model

# Products and sums are exact to float32; the output is rounded to eight bits of mantissa.
ROUNDING = 2.0**-8

LAYERS = {
    **{f"3x3, {name}": options for name, options in WINOGRAD_LAYERS.items()},
    **{f"1x1, {name}": options for name, options in POINTWISE_LAYERS.items()},
}
OTHERS = {
    name: options
    for name, options in {**WINOGRAD_OTHERS, **POINTWISE_OTHERS}.items()
    if name not in ("pointwise", "3x3")
}


def _arguments(options, layout="channels_last"):
    return make_layer(**options).fixed(torch.bfloat16, input=layout, residual=layout)


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_a_layer_is_computed_to_one_rounding(options, force_path):
    arguments = _arguments(options)
    force_path("direct")

    output = ops.ghost_conv(**arguments)

    assert output.dtype == torch.bfloat16
    expected = reference.ghost_conv(**in_float64(arguments))
    assert_close({"output": output}, {"output": expected}, ROUNDING)


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_other_layers_are_left_to_torch(options, force_path):
    arguments = _arguments(options)
    force_path("aten")
    expected = ops.ghost_conv(**arguments)
    force_path("direct")

    assert torch.equal(ops.ghost_conv(**arguments), expected)


@pytest.mark.parametrize("path", ["winograd", "pointwise"])
def test_the_paths_of_float32_leave_bfloat16_to_torch(path, force_path):
    arguments = _arguments(WINOGRAD_LAYERS["everything"])
    force_path("aten")
    expected = ops.ghost_conv(**arguments)
    force_path(path)

    assert torch.equal(ops.ghost_conv(**arguments), expected)


def test_the_packed_weight_is_kept_and_counted(force_path):
    arguments = _arguments(WINOGRAD_LAYERS["plain"])
    cache = ops.layer_cache()
    force_path("direct")

    first = ops.ghost_conv(**arguments, cache=cache)

    geometry = [arguments[name] for name in ("stride", "padding", "dilation", "groups")]
    kept = ops.packed_weight_bytes(arguments["input"], arguments["weight"], *geometry, 8)
    # 3 rows of 3 * 16 inputs, completed to 64, for 8 outputs, completed to 16; of two bytes each.
    assert ops.cached_bytes(cache) == kept == 3 * 64 * 16 * 2
    assert torch.equal(ops.ghost_conv(**arguments, cache=cache), first)


@pytest.mark.parametrize("wanted", [(True, False, False), (True, True, True)])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_are_those_of_autograd(groups, wanted, force_path):
    generator = torch.Generator().manual_seed(0)
    grad_output, input = (
        torch.randn(3, channels, 9, 17, generator=generator).bfloat16() for channels in (12, 16)
    )
    input = input.to(memory_format=torch.channels_last)
    weight = torch.randn(12, 16 // groups, 3, 3, generator=generator).bfloat16()
    force_path("direct")
    actual = ops.convolution_backward(
        grad_output, input, weight, (1, 1), (1, 1), (1, 1), groups, wanted
    )

    inputs = [value.double().requires_grad_() for value in (input, weight, torch.zeros(12))]
    output = torch.nn.functional.conv2d(*inputs, padding=1, groups=groups)
    expected = torch.autograd.grad(output, inputs, grad_output.double())
    found = {k: v for k, (v, want) in enumerate(zip(actual, wanted, strict=True)) if want}
    assert_close(found, {k: expected[k] for k in found}, ROUNDING)


@pytest.mark.parametrize("path", ["auto", "direct"])
@pytest.mark.parametrize("name", ["edsr", "carn_m"])
def test_a_network_gives_the_same_for_both_layouts(name, path, force_path):
    sizes = {"edsr": {"blocks": 1, "features": 16}, "carn_m": {}}[name]
    network = create_model(name, **sizes).eval().bfloat16()
    image = (torch.rand(1, 3, 20, 33) * network.value_range).bfloat16()
    force_path(path)

    with torch.inference_mode():
        output = network(image)
        other = network(image.to(memory_format=torch.channels_last))

    assert torch.equal(output, other)


PROGRAM = """
import torch
from ghostsr_ext import build_info, ops
input = torch.zeros(1, 16, 64, 64, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
weight = torch.zeros(16, 16, 3, 3, dtype=torch.bfloat16)
print(ops.packed_weight_bytes(input, weight, (1, 1), (1, 1), (1, 1), 1, 0), end=" ")
print(build_info()["native_bfloat16"])
"""


@pytest.mark.parametrize("level", ["portable", "avx512", "amx"])
def test_only_processors_with_instructions_for_it_take_it_by_default(level):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "GHOSTSR_SIMD": level, "GHOSTSR_CONVOLUTION": "auto"},
        capture_output=True,
        text=True,
        check=True,
    )

    native = level == "amx" and _native.build_info()["native_bfloat16"]
    assert ran.stdout == (f"{3 * 64 * 16 * 2} True\n" if native else "0 False\n")
