"""What follows the convolution of a layer, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ghostsr_ext import reference
from ghostsr_ext.activations import Activation
from ghostsr_ext.ops.maps import empty_map, layout_of
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

_shift_concat = operators.shift_concat.default
_shift_concat_backward = operators.shift_concat_backward.default
_shift_selection_backward = operators.shift_selection_backward.default


def shift_concat(
    intrinsic: Tensor,
    source: Tensor,
    shift: Tensor,
    *,
    gain: Tensor | None = None,
    ghost_bias: Tensor | None = None,
    order: Tensor | None = None,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    prelu_weight: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """Make the ghost channels and finish the layer, in one pass over memory.

    ``activation(residual + residual_scale * concat(intrinsic, ghost)[order])``, where ghost g is
    intrinsic channel ``source[g]``, zero outside the map, moved by ``shift[g]``, times ``gain[g]``
    plus ``ghost_bias[g]``. :func:`ghostsr_ext.reference.shift_concat` is the same in plain torch.

    Args:
        intrinsic: Y, [N, I, H, W], float32, float64, float16 or bfloat16.
        source: int64 or int32 [G], the intrinsic channel (0..I-1) of each ghost.
        shift: int64 or int32 [G, 2], (dy, dx) of each ghost in pixels, each in -7..7.
        gain: Optional [G] factor of each ghost.
        ghost_bias: Optional [G] constant added to each ghost.
        order: Optional permutation [I + G]: output p is ``concat(intrinsic, ghost)[order[p]]``.
        activation: "none", "relu", "leaky_relu" or "prelu".
        negative_slope: Factor of negative values under "leaky_relu"; finite.
        prelu_weight: Factors of negative values under "prelu", [1] or [I + G]; else None.
        residual: Optional [N, I + G, H, W], added after scaling.
        residual_scale: Factor of the layer's own output.

    Returns:
        [N, I + G, H, W] in the layout of ``intrinsic``.

    Raises:
        RuntimeError: An argument is outside the allowed values; the message names it.

    Source: GhostSR (arXiv 2101.08525), the shift operation on intrinsic features.
    """
    result: Tensor = call(
        _shift_concat,
        intrinsic,
        source,
        shift,
        gain=gain,
        ghost_bias=ghost_bias,
        order=order,
        activation=activation,
        negative_slope=negative_slope,
        prelu_weight=prelu_weight,
        residual=residual,
        residual_scale=residual_scale,
    )
    return result


def shift_concat_backward(
    grad_output: Tensor,
    source: Tensor,
    shift: Tensor,
    *,
    gain: Tensor | None = None,
    ghost_bias: Tensor | None = None,
    order: Tensor | None = None,
    intrinsic: Tensor | None = None,
    output: Tensor | None = None,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    residual_scale: float = 1.0,
    output_mask: Sequence[bool] = (True, True, True),
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of :func:`shift_concat` for its intrinsic map and small parameters.

    The activation is undone by the signs of ``output``; without it they are made again from
    ``intrinsic``, which is right for a layer without a residual.

    Args:
        grad_output: [N, I + G, H, W], in any layout.
        source: As in the forward.
        shift: As in the forward.
        gain: As in the forward.
        ghost_bias: As in the forward; only read to make signs again.
        order: As in the forward.
        intrinsic: [N, I, H, W]; needed for the gradient of the gain, and for an activation without
            ``output``.
        output: [N, I + G, H, W], a map with the signs that the activation saw: the forward's result
            under "relu", or under "leaky_relu" with a slope of at least 0.
        activation: "none", "relu" or "leaky_relu"; the gradient of "prelu" is torch's own.
        negative_slope: As in the forward.
        residual_scale: As in the forward.
        output_mask: Which of the three gradients are wanted.

    Returns:
        Gradients [N, I, H, W], [G] and [G]; an unwanted one is an empty tensor.

    Raises:
        RuntimeError: An argument is outside the allowed values, or the result is differentiated.
    """
    first, second, third = call(
        _shift_concat_backward,
        grad_output,
        source,
        shift,
        gain=gain,
        ghost_bias=ghost_bias,
        order=order,
        intrinsic=intrinsic,
        output=output,
        activation=activation,
        negative_slope=negative_slope,
        residual_scale=residual_scale,
        output_mask=output_mask,
    )
    return first, second, third


def _fake(intrinsic: Tensor, source: Tensor, shift: Tensor, **_: Any) -> Tensor:
    batch, channels, height, width = intrinsic.shape
    size = (batch, channels + source.shape[0], height, width)
    return empty_map(intrinsic, size, layout_of(intrinsic))


def _fake_backward(
    grad_output: Tensor,
    source: Tensor,
    shift: Tensor,
    *,
    intrinsic: Tensor | None = None,
    output: Tensor | None = None,
    output_mask: Sequence[bool] = (True, True, True),
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, height, width = grad_output.shape
    ghosts = source.shape[0]
    known = output if output is not None else intrinsic if intrinsic is not None else grad_output
    # The CUDA kernels keep the gradient's layout.
    layout = layout_of(grad_output if grad_output.device.type == "cuda" else known)
    grad_intrinsic = (
        empty_map(grad_output, (batch, channels - ghosts, height, width), layout)
        if output_mask[0]
        else grad_output.new_empty(0)
    )
    grad_gain = grad_output.new_empty(ghosts if output_mask[1] else 0)
    grad_ghost_bias = grad_output.new_empty(ghosts if output_mask[2] else 0)
    return grad_intrinsic, grad_gain, grad_ghost_bias


class _ShiftConcat(torch.autograd.Function):
    """``shift_concat``; given logits, with the straight-through gradient for them."""

    @staticmethod
    def forward(
        ctx: Any,
        intrinsic: Tensor,
        source: Tensor,
        shift: Tensor,
        logits: Tensor | None,
        noise: Tensor | None,
        tau: float,
        gain: Tensor | None,
        ghost_bias: Tensor | None,
        order: Tensor | None,
        activation: Activation,
        negative_slope: float,
        residual: Tensor | None,
        residual_scale: float,
    ) -> Tensor:
        output: Tensor = _shift_concat(
            intrinsic,
            source,
            shift,
            gain=gain,
            ghost_bias=ghost_bias,
            order=order,
            activation=activation,
            negative_slope=negative_slope,
            residual=residual,
            residual_scale=residual_scale,
        )
        reads_intrinsic = any(ctx.needs_input_grad[index] for index in (3, 4, 6))
        # The next layer keeps the output alive anyway, so it is the cheaper witness of the signs
        # unless the intrinsic map is saved already and, there being no residual, tells them too.
        reads_output = activation != "none" and (residual is not None or not reads_intrinsic)
        ctx.save_for_backward(
            source,
            shift,
            logits,
            noise,
            gain,
            ghost_bias,
            order,
            intrinsic if reads_intrinsic else None,
            output if reads_output else None,
        )
        ctx.tau = tau
        ctx.activation = activation
        ctx.negative_slope = negative_slope
        ctx.residual_scale = residual_scale
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        source, shift, logits, noise, gain, ghost_bias, order, intrinsic, output = ctx.saved_tensors
        activation = ctx.activation
        if activation != "none" and ctx.needs_input_grad[11]:
            grad_output = undo_activation(grad_output, output, activation, ctx.negative_slope)
            activation, output = "none", None
        epilogue = {
            "gain": gain,
            "ghost_bias": ghost_bias,
            "order": order,
            "output": output,
            "activation": activation,
            "negative_slope": ctx.negative_slope,
            "residual_scale": ctx.residual_scale,
        }
        mask = [ctx.needs_input_grad[0], ctx.needs_input_grad[6], ctx.needs_input_grad[7]]
        grad_intrinsic = grad_gain = grad_ghost_bias = grad_logits = None
        if any(mask):
            gradients = _shift_concat_backward(
                grad_output, source, shift, intrinsic=intrinsic, output_mask=mask, **epilogue
            )
            grad_intrinsic, grad_gain, grad_ghost_bias = (
                gradient if wanted else None
                for gradient, wanted in zip(gradients, mask, strict=True)
            )
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            _, grad_logits = _shift_selection_backward(
                grad_output, intrinsic, source, logits, noise, ctx.tau, **epilogue
            )
        return (
            grad_intrinsic,
            None,
            None,
            grad_logits if ctx.needs_input_grad[3] else None,
            # The noise enters beside the logits, and has the same gradient.
            grad_logits if ctx.needs_input_grad[4] else None,
            None,
            grad_gain,
            grad_ghost_bias,
            None,
            None,
            None,
            grad_output if ctx.needs_input_grad[11] else None,
            None,
        )


def output_tells_signs(activation: Activation, negative_slope: float) -> bool:
    """Whether an output has the signs that the activation saw, as no slope is negative."""
    return activation != "prelu" and not (activation == "leaky_relu" and negative_slope < 0)


def undo_activation(
    grad_output: Tensor, output: Tensor, activation: Activation, negative_slope: float
) -> Tensor:
    """Return the gradient of what the activation saw, from that of its output."""
    result: Tensor
    if activation == "relu":
        result = torch.ops.aten.threshold_backward(grad_output, output, 0)
    else:
        result = torch.ops.aten.leaky_relu_backward(grad_output, output, negative_slope, True)
    return result


def recorded_shift_concat(
    intrinsic: Tensor,
    source: Tensor,
    shift: Tensor,
    *,
    logits: Tensor | None = None,
    noise: Tensor | None = None,
    tau: float = 1.0,
    gain: Tensor | None = None,
    ghost_bias: Tensor | None = None,
    order: Tensor | None = None,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    prelu_weight: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """Run :func:`shift_concat` with a gradient, which given logits have a part in."""
    keeps_signs = output_tells_signs(activation, negative_slope)
    check_prelu_weight(prelu_weight, activation, intrinsic.shape[1] + source.shape[0])
    output: Tensor = _ShiftConcat.apply(  # type: ignore[no-untyped-call]
        intrinsic,
        source,
        shift,
        logits,
        noise,
        tau,
        gain,
        ghost_bias,
        order,
        activation if keeps_signs else "none",
        negative_slope,
        residual,
        residual_scale,
    )
    if keeps_signs:
        return output
    return reference.activate(output, activation, negative_slope, prelu_weight)


def check_prelu_weight(prelu_weight: Tensor | None, activation: Activation, channels: int) -> None:
    """Raise a RuntimeError unless the slopes are those that the activation needs."""
    if prelu_weight is None and activation == "prelu":
        raise RuntimeError('ghostsr: prelu_weight: found None; a tensor is needed for "prelu"')
    if prelu_weight is not None and activation != "prelu":
        raise RuntimeError(
            f'ghostsr: prelu_weight: found a tensor beside activation "{activation}"; only "prelu" '
            "takes one"
        )
    if prelu_weight is not None and tuple(prelu_weight.shape) not in ((1,), (channels,)):
        raise RuntimeError(
            f"ghostsr: prelu_weight: found shape {list(prelu_weight.shape)}; [1] or [{channels}] "
            "is needed"
        )


_redispatch = below_autograd("shift_concat")


def _recorded(
    keyset: torch._C.DispatchKeySet,
    intrinsic: Tensor,
    source: Tensor,
    shift: Tensor,
    **epilogue: Any,
) -> Any:
    if is_transformed():
        return reference.shift_concat(intrinsic, source, shift, **epilogue)
    if records_gradient(intrinsic, *epilogue.values()):
        return recorded_shift_concat(intrinsic, source, shift, **epilogue)
    return _redispatch(keyset, intrinsic, source, shift, **epilogue)


register_fake("shift_concat", _fake)
register_fake("shift_concat_backward", _fake_backward)
register_gradient("shift_concat", _recorded)
refuse_double_backward("shift_concat_backward")
register_autocast("shift_concat")
