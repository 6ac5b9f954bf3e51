"""A GhostSR layer with fixed shifts, in one operator."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ghostsr_ext import reference
from ghostsr_ext.activations import Activation
from ghostsr_ext.ops.given_maps import (
    OfferedMap,
    check_given_map,
    fill_given_map,
    is_read_while_written,
)
from ghostsr_ext.ops.maps import convolved_size, empty_map, layout_of
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
    said,
)
from ghostsr_ext.ops.shift_concat import (
    check_prelu_weight,
    output_tells_signs,
    shift_concat_backward,
    undo_activation,
)

_convolution_backward = operators.convolution_backward.default
_ghost_conv = operators.ghost_conv.default
_ghost_conv_backward = operators.ghost_conv_backward.default
_ghost_conv_out = operators.ghost_conv.out


def ghost_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    shift: Tensor,
    *,
    gain: Tensor | None = None,
    ghost_bias: Tensor | None = None,
    order: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    prelu_weight: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    shuffle: int = 1,
    cache: Tensor | None = None,
    out: Tensor | OfferedMap | None = None,
) -> Tensor:
    """Convolve, then :func:`~ghostsr_ext.ops.shift_concat`: a GhostSR layer with fixed shifts.

    Without ghosts (G = 0) it is a convolution with its residual and activation.
    :func:`ghostsr_ext.reference.ghost_conv` is the same in plain torch.

    Args:
        input: [N, C_in, H, W], float32, float64, float16 or bfloat16.
        weight: Intrinsic filters, [I, C_in / groups, kH, kW], of the input's dtype and device.
        bias: Optional [I].
        source: int64 or int32 [G], the intrinsic channel (0..I-1) of each ghost.
        shift: int64 or int32 [G, 2], (dy, dx) of each ghost in pixels, each in -7..7.
        gain: Optional [G] factor of each ghost.
        ghost_bias: Optional [G] constant added to each ghost.
        order: Optional permutation [I + G] of the outputs.
        stride: Stride of the convolution, at least 1.
        padding: Padding of the convolution, at least 0.
        dilation: Dilation of the convolution, at least 1.
        groups: A divisor of C_in and I.
        activation: "none", "relu", "leaky_relu" or "prelu".
        negative_slope: Factor of negative values under "leaky_relu"; finite.
        prelu_weight: Factors of negative values under "prelu", [1] or [I + G]; else None.
        residual: Optional [N, I + G, H', W'], added before the activation.
        residual_scale: Factor of the layer's own output.
        shuffle: Upscale factor r of a pixel shuffle of the result, whose square divides I + G; 1
            for none. The package's own kernels write each value to its place in the enlarged map,
            where there is no residual.
        cache: A handle that :func:`~ghostsr_ext.ops.layer_cache` returned, behind which the packed
            weight and the resolved tables are kept for the next call. None keeps nothing, and is
            needed on other devices than a CPU.
        out: A map of the result's shape on a CPU, filled and returned in place of a new one, where
            neither gradients nor operators are recorded. It may be some channels of a wider map,
            others of which are the input. Autocast does not change its dtype, which is the input's.
            An ``OfferedMap`` is filled where that can be while gradients are recorded.

    Returns:
        [N, (I + G) / r², r H', r W'], channels_last if the input or the weight is.

    Raises:
        RuntimeError: An argument is outside the allowed values; the message names it.

    Source: GhostSR (arXiv 2101.08525), sections on ghost features and the shift operation.
    """
    arguments = said(
        gain,
        ghost_bias,
        order,
        stride,
        padding,
        dilation,
        groups,
        activation,
        negative_slope,
        prelu_weight,
        residual,
        residual_scale,
        cache,
    )
    if shuffle != 1:
        arguments["shuffle"] = shuffle
    # Each value of a residual that is replaced is read before; an input is read around it.
    read = (input,) if residual is None or residual is out else (input, residual)
    if isinstance(out, OfferedMap):
        tensors = (input, weight, bias, gain, ghost_bias, prelu_weight, residual)
        if (
            not out.filled
            and records_gradient(*tensors)
            and not _needs_intrinsic(
                gain=gain, activation=activation, negative_slope=negative_slope
            )
            and not (is_transformed() or torch.compiler.is_compiling())
            and not torch.is_autocast_enabled("cpu")
            and all(type(map) is Tensor and map.is_cpu for map in read)
            and not any(is_read_while_written(out.map, map) for map in read)
        ):
            out.filled = True
            return _record(input, weight, bias, source, shift, room=out.map, **arguments)
    elif out is not None:
        check_given_map(out)
        if any(is_read_while_written(out, map) for map in read):
            apart = call(_ghost_conv, input, weight, bias, source, shift, **arguments)
            return fill_given_map(out, apart)
        call(_ghost_conv_out, input, weight, bias, source, shift, out=out, **arguments)
        if not out.is_inference():
            torch.autograd.graph.increment_version(out)
        return out
    result: Tensor = call(_ghost_conv, input, weight, bias, source, shift, **arguments)
    return result


def _check_shuffle(shuffle: int, channels: int) -> None:
    if shuffle < 1 or channels % shuffle**2 != 0:
        raise RuntimeError(
            f"ghostsr: shuffle: found {shuffle}; a number whose square divides the {channels} "
            "output channels is needed"
        )


def _fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    shift: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    shuffle: int = 1,
    **_: Any,
) -> Tensor:
    channels = weight.shape[0] + source.shape[0]
    _check_shuffle(shuffle, channels)
    size = convolved_size(input, weight, channels, stride, padding, dilation)
    shuffled = [size[0], channels // shuffle**2, *(shuffle * side for side in size[2:])]
    return empty_map(input, shuffled, layout_of(input, weight))


def _fake_backward(
    grad_output: Tensor,
    input: Tensor | None,
    weight: Tensor | None,
    source: Tensor,
    shift: Tensor,
    *,
    output: Tensor | None = None,
    shuffle: int = 1,
    output_mask: Sequence[bool],
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, channels, height, width = grad_output.shape
    size = (batch, channels * shuffle**2, height // shuffle, width // shuffle)
    layout = layout_of(grad_output if output is None else output)
    if shuffle != 1:
        layout = torch.channels_last

    def gradient_of(parameter: Tensor | None) -> Tensor:
        assert input is not None
        assert weight is not None
        assert parameter is not None
        return empty_map(parameter, parameter.shape, layout_of(input, weight))

    nothing = [grad_output.new_empty(0) for _ in output_mask]
    grad_input, grad_weight, grad_bias, grad_ghost_bias, grad_residual = nothing
    if output_mask[0]:
        grad_input = gradient_of(input)
    if output_mask[1]:
        grad_weight = gradient_of(weight)
    if output_mask[2]:
        grad_bias = grad_output.new_empty(size[1] - source.shape[0])
    if output_mask[3]:
        grad_ghost_bias = grad_output.new_empty(source.shape[0])
    if output_mask[4]:
        grad_residual = empty_map(grad_output, size, layout)
    return grad_input, grad_weight, grad_bias, grad_ghost_bias, grad_residual


class _GhostConv(torch.autograd.Function):
    """``ghost_conv`` whose gradients need nothing of the convolution but its input and weight."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        source: Tensor,
        shift: Tensor,
        gain: Tensor | None,
        ghost_bias: Tensor | None,
        order: Tensor | None,
        geometry: tuple[Any, ...],
        activation: Activation,
        negative_slope: float,
        residual: Tensor | None,
        residual_scale: float,
        shuffle: int,
        cache: Tensor | None,
        room: Tensor | None,
    ) -> Tensor:
        stride, padding, dilation, groups = geometry
        found: Tensor | None = call(
            _ghost_conv if room is None else _ghost_conv_out,
            input,
            weight,
            bias,
            source,
            shift,
            gain=gain,
            ghost_bias=ghost_bias,
            order=order,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            activation=activation,
            negative_slope=negative_slope,
            residual=residual,
            residual_scale=residual_scale,
            shuffle=shuffle,
            cache=cache,
            learning=ctx.needs_input_grad[1],
            **({} if room is None else {"out": room}),
        )
        # An argument cannot be the result; another tensor in its memory can.
        output = found if room is None else room.data
        assert output is not None
        of_convolution = any(ctx.needs_input_grad[:3])
        ctx.save_for_backward(
            *((input, weight) if of_convolution else (None, None)),
            source,
            shift,
            gain,
            order,
            None if activation == "none" else output,
        )
        ctx.copied = order is None and not len(source) and not ctx.needs_input_grad[6]
        ctx.geometry = geometry
        ctx.activation = activation
        ctx.negative_slope = negative_slope
        ctx.residual_scale = residual_scale
        ctx.shuffle = shuffle
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad
        gradients = _gradients(ctx, grad_output, [*wanted[:3], wanted[6], wanted[11]])
        grad_input, grad_weight, grad_bias, grad_ghost_bias, grad_residual = gradients
        return (
            grad_input,
            grad_weight,
            grad_bias,
            None,
            None,
            None,
            grad_ghost_bias,
            None,
            None,
            None,
            None,
            grad_residual,
            None,
            None,
            None,
            None,
        )


def _gradients(ctx: Any, grad_output: Tensor, mask: list[bool]) -> list[Tensor | None]:
    """Return the gradients of input, weight, bias, ghost_bias and residual, None if not wanted."""
    input, weight, source, shift, gain, order, output = ctx.saved_tensors
    if not grad_output.is_cpu:
        return _gradients_by_parts(ctx, grad_output, mask)
    passed_on = mask[4] and ctx.activation == "none" and ctx.shuffle == 1
    computed = [*mask[:4], mask[4] and not passed_on]
    stride, padding, dilation, groups = ctx.geometry
    found: Sequence[Tensor | None] = call(
        _ghost_conv_backward,
        grad_output,
        input,
        weight,
        source,
        shift,
        gain=gain,
        order=order,
        output=output,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=ctx.activation,
        negative_slope=ctx.negative_slope,
        residual_scale=ctx.residual_scale,
        shuffle=ctx.shuffle,
        output_mask=computed,
    )
    gradients = [gradient if want else None for gradient, want in zip(found, computed, strict=True)]
    if passed_on:
        gradients[4] = grad_output
    return gradients


def _gradients_by_parts(ctx: Any, grad_output: Tensor, mask: list[bool]) -> list[Tensor | None]:
    """Do as ``_gradients`` where there is no operator for all of it."""
    input, weight, source, shift, gain, order, output = ctx.saved_tensors
    activation = ctx.activation
    if activation != "none" and mask[4]:
        grad_output = undo_activation(grad_output, output, activation, ctx.negative_slope)
        activation, output = "none", None
    of_convolution = mask[:3]
    of_ghosts = [any(of_convolution), False, mask[3]]
    copied = activation == "none" and ctx.residual_scale == 1 and ctx.copied
    grad_intrinsic, grad_ghost_bias = grad_output, None
    if any(of_ghosts) and not copied:
        grad_intrinsic, _, grad_ghost_bias = shift_concat_backward(
            grad_output,
            source,
            shift,
            gain=gain,
            order=order,
            output=output,
            activation=activation,
            negative_slope=ctx.negative_slope,
            residual_scale=ctx.residual_scale,
            output_mask=of_ghosts,
        )
    gradients: Sequence[Tensor | None] = (None, None, None)
    if any(of_convolution):
        gradients = call(
            _convolution_backward, grad_intrinsic, input, weight, *ctx.geometry, of_convolution
        )
    found = (*gradients, grad_ghost_bias, grad_output)
    return [gradient if want else None for gradient, want in zip(found, mask, strict=True)]


def _needs_intrinsic(
    *,
    gain: Tensor | None = None,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    **_: Any,
) -> bool:
    """Whether the gradients read what the convolution gave, which the output does not tell."""
    return (gain is not None and gain.requires_grad) or not output_tells_signs(
        activation, negative_slope
    )


def _record(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    shift: Tensor,
    *,
    gain: Tensor | None = None,
    ghost_bias: Tensor | None = None,
    order: Tensor | None = None,
    stride: int | Sequence[int] = (1, 1),
    padding: int | Sequence[int] = (0, 0),
    dilation: int | Sequence[int] = (1, 1),
    groups: int = 1,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    prelu_weight: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    shuffle: int = 1,
    cache: Tensor | None = None,
    room: Tensor | None = None,
) -> Tensor:
    """Run the layer in one pass, into ``room`` if it is given, and record how."""
    check_prelu_weight(prelu_weight, activation, weight.shape[0] + source.shape[0])
    output: Tensor = _GhostConv.apply(  # type: ignore[no-untyped-call]
        input,
        weight,
        bias,
        source,
        shift,
        gain,
        ghost_bias,
        order,
        (stride, padding, dilation, groups),
        activation,
        negative_slope,
        residual,
        residual_scale,
        shuffle,
        cache,
        room,
    )
    return output


_redispatch = below_autograd("ghost_conv")


def _recorded(
    keyset: torch._C.DispatchKeySet,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    shift: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    shuffle: int = 1,
    cache: Tensor | None = None,
    **epilogue: Any,
) -> Any:
    """Run the layer in one pass if its gradients can do without the convolution's own result."""
    geometry = (stride, padding, dilation, groups)
    named: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }
    if shuffle != 1:
        _check_shuffle(shuffle, weight.shape[0] + source.shape[0])
    if is_transformed():
        return reference.ghost_conv(
            input, weight, bias, source, shift, **named, shuffle=shuffle, **epilogue
        )
    if records_gradient(input, weight, bias, *epilogue.values()):
        if not _needs_intrinsic(**epilogue):
            # Elsewhere the shuffle is torch's own, and so is its gradient.
            own = shuffle > 1 and input.is_cpu and layout_of(input, weight) is torch.channels_last
            output = _record(
                input,
                weight,
                bias,
                source,
                shift,
                **named,
                shuffle=shuffle if own else 1,
                cache=cache,
                **epilogue,
            )
            return output if own else reference.pixel_shuffle(output, shuffle)
        intrinsic = operators.convolution(input, weight, bias, *geometry, cache=cache)
        output = operators.shift_concat(intrinsic, source, shift, **epilogue)
        return reference.pixel_shuffle(output, shuffle)
    return _redispatch(
        keyset,
        input,
        weight,
        bias,
        source,
        shift,
        **named,
        shuffle=shuffle,
        cache=cache,
        **epilogue,
    )


def _backward_flops(
    grad_shape: Sequence[int],
    input_shape: Sequence[int] | None,
    weight_shape: Sequence[int] | None,
    *_: Any,
    output_mask: Sequence[bool],
    shuffle: int = 1,
    **__: Any,
) -> int:
    if weight_shape is None:
        return 0
    positions = grad_shape[0] * prod(grad_shape[2:]) // shuffle**2
    return 2 * positions * prod(weight_shape) * sum(output_mask[:2])


register_flop_formula(operators.ghost_conv_backward)(_backward_flops)
register_fake("ghost_conv", _fake)
register_fake("ghost_conv_backward", _fake_backward)
refuse_double_backward("ghost_conv_backward")
register_gradient("ghost_conv", _recorded)
register_autocast("ghost_conv")
