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


@pytest.mark.parametrize("wanted", [(False, True, False), (False, False, True), (True, True, True)])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_a_layer_that_reads_some_channels_of_a_wider_map(groups, wanted, force_path):
    generator = torch.Generator().manual_seed(0)
    wide, grad_output = (
        torch.randn(3, channels, 9, 7, generator=generator).to(memory_format=torch.channels_last)
        for channels in (20, 12)
    )
    input, weight = wide[:, 3:19], torch.randn(12, 16 // groups, 1, 1, generator=generator)
    force_path("pointwise")
    actual = ops.convolution_backward(
        grad_output, input, weight, (1, 1), (0, 0), (1, 1), groups, wanted
    )

    inputs = [value.double().requires_grad_() for value in (input, weight, torch.zeros(12))]
    output = torch.nn.functional.conv2d(*inputs, groups=groups)
    expected = torch.autograd.grad(output, inputs, grad_output.double())
    for found, needed, want in zip(actual, expected, wanted, strict=True):
        if want:
            torch.testing.assert_close(found, needed.float(), rtol=1e-5, atol=1e-4)
        else:
            assert not found.numel()
