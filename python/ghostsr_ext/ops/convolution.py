"""The convolution, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from ghostsr_ext.ops.maps import empty_convolved, empty_map, layout_of
from ghostsr_ext.ops.registration import (
    below_autograd,
    call,
    is_transformed,
    operators,
    records_gradient,
    refuse_double_backward,
    register_autocast,
    register_fake,
    register_gradient,
)

_convolution = operators.convolution.default
_convolution_backward = operators.convolution_backward.default


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    *,
    cache: Tensor | None = None,
) -> Tensor:
    """Convolve, as ``torch.nn.functional.conv2d`` does.

    On a CPU, 3x3 and 1x1 layers in float32 and channels_last are computed by kernels of the
    package where those are faster; and so are those in bfloat16 where the processor has
    instructions for that.

    Args:
        input: [N, C_in, H, W], float32, float64, float16 or bfloat16.
        weight: Filters [C_out, C_in / groups, kH, kW], of the input's dtype and device.
        bias: Optional [C_out].
        stride: Two integers of at least 1.
        padding: Two integers of at least 0.
        dilation: Two integers of at least 1.
        groups: A divisor of C_in and C_out.
        cache: What :func:`~ghostsr_ext.ops.layer_cache` returned, to keep the weight there in the
            form that the kernels want from the second call on; None on other devices.

    Returns:
        [N, C_out, H', W'], channels_last if the input or the weight is.

    Raises:
        RuntimeError: An argument is outside the allowed values; the message names it.
    """
    result: Tensor = call(
        _convolution, input, weight, bias, stride, padding, dilation, groups, cache=cache
    )
    return result


def convolution_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of :func:`convolution` for input, weight and bias.

    Args:
        grad_output: [N, C_out, H', W'], in any layout.
        input: As in the forward.
        weight: As in the forward.
        stride: As in the forward.
        padding: As in the forward.
        dilation: As in the forward.
        groups: As in the forward.
        output_mask: Which of the three gradients are wanted.

    Returns:
        [N, C_in, H, W], [C_out, C_in / groups, kH, kW] and [C_out]; an unwanted one is an empty
        tensor.

    Raises:
        RuntimeError: An argument is outside the allowed values, or the result is differentiated.
    """
    first, second, third = _convolution_backward(
        grad_output, input, weight, stride, padding, dilation, groups, output_mask
    )
    return first, second, third


def _convolution_flops(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    *args: Any,
    out_shape: Sequence[int] | None,
    out: Sequence[int] | None = None,
    shuffle: int = 1,
    **kwargs: Any,
) -> int:
    """Count two operations for each multiply-add, and nothing for the rest, as torch does.

    The outputs of a ghost layer that are shifted copies are free. What is written into a map that
    there is has the shape of that. A pixel shuffle makes pixels of channels.
    """
    out_shape = out if out_shape is None else out_shape
    assert out_shape is not None
    positions = out_shape[0] * prod(out_shape[2:]) // shuffle**2
    return 2 * positions * prod(weight_shape)


def _convolution_backward_flops(
    grad_shape: Sequence[int],
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
    **kwargs: Any,
) -> int:
    once = 2 * grad_shape[0] * prod(grad_shape[2:]) * prod(weight_shape)
    return once * sum(output_mask[:2])


def _fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return empty_convolved(input, weight, weight.shape[0], stride, padding, dilation)


def _fake_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    memory_format = layout_of(input, weight)
    grad_input = empty_map(input, input.shape, memory_format)
    grad_weight = empty_map(weight, weight.shape, memory_format)
    grad_bias = weight.new_empty(weight.shape[0])
    wanted = zip((grad_input, grad_weight, grad_bias), output_mask, strict=True)
    first, second, third = (gradient if want else input.new_empty(0) for gradient, want in wanted)
    return first, second, third


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        cache: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = (stride, padding, dilation, groups)  # type: ignore[attr-defined]
        result: Tensor = _convolution(
            input, weight, bias, stride, padding, dilation, groups, cache=cache
        )
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        mask = list(ctx.needs_input_grad[:3])
        gradients = _convolution_backward(grad_output, input, weight, *ctx.geometry, mask)
        wanted = (
            gradient if want else None for gradient, want in zip(gradients, mask, strict=True)
        )
        return (*wanted, None, None, None, None, None)


_redispatch = below_autograd("convolution")


def _recorded(
    keyset: torch._C.DispatchKeySet,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    *,
    cache: Tensor | None = None,
) -> Any:
    geometry = (stride, padding, dilation, groups)
    if is_transformed():
        return functional.conv2d(
            input, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups
        )
    if records_gradient(input, weight, bias):
        return _Convolution.apply(input, weight, bias, *geometry, cache)  # type: ignore[no-untyped-call]
    return _redispatch(keyset, input, weight, bias, *geometry, cache=cache)


register_flop_formula([operators.convolution, operators.ghost_conv, operators.ghost_conv_learned])(
    _convolution_flops
)
register_flop_formula(operators.convolution_backward)(_convolution_backward_flops)
register_fake("convolution", _fake)
register_fake("convolution_backward", _fake_backward)
register_gradient("convolution", _recorded)
refuse_double_backward("convolution_backward")
register_autocast("convolution")
