"""Gradients of the operators.

``torch.library.register_autograd`` takes no keyword-only tensors, which the operators' schemas
have, so each gradient is a ``torch.autograd.Function`` behind the operator's Autograd key. The
fused layers are composed of ``convolution`` and ``shift_concat`` while a gradient is recorded: each
half saves just what its own gradient reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

_ops = torch.ops.ghostsr


def _records_gradient(*values: Any) -> bool:
    return torch.is_grad_enabled() and any(
        isinstance(value, Tensor) and value.requires_grad for value in values
    )


def _below_autograd(name: str) -> Callable[..., Any]:
    """Return a call of the operator's backend kernel that skips its Autograd key."""
    operator = getattr(_ops, name).default

    def call(keyset: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *args, **kwargs)

    return call


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
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = (stride, padding, dilation, groups)  # type: ignore[attr-defined]
        result: Tensor = _ops.convolution(input, weight, bias, stride, padding, dilation, groups)
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        mask = list(ctx.needs_input_grad[:3])
        gradients = _ops.convolution_backward(grad_output, input, weight, *ctx.geometry, mask)
        wanted = (
            gradient if want else None for gradient, want in zip(gradients, mask, strict=True)
        )
        return (*wanted, None, None, None, None)


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
        activation: str,
        residual: Tensor | None,
        residual_scale: float,
    ) -> Tensor:
        output: Tensor = _ops.shift_concat(
            intrinsic,
            source,
            shift,
            gain=gain,
            ghost_bias=ghost_bias,
            order=order,
            activation=activation,
            residual=residual,
            residual_scale=residual_scale,
        )
        reads_intrinsic = any(ctx.needs_input_grad[index] for index in (3, 4, 6))
        # The next layer keeps the output alive anyway, so it is the cheaper witness of a ReLU's
        # signs unless the intrinsic map is saved already and, there being no residual, tells them
        # too.
        reads_output = activation == "relu" and (residual is not None or not reads_intrinsic)
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
        ctx.residual_scale = residual_scale
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        source, shift, logits, noise, gain, ghost_bias, order, intrinsic, output = ctx.saved_tensors
        activation = ctx.activation
        if activation == "relu" and ctx.needs_input_grad[10]:
            grad_output = torch.ops.aten.threshold_backward(grad_output, output, 0)
            activation, output = "none", None
        epilogue = {
            "gain": gain,
            "ghost_bias": ghost_bias,
            "order": order,
            "output": output,
            "activation": activation,
            "residual_scale": ctx.residual_scale,
        }
        mask = [ctx.needs_input_grad[0], ctx.needs_input_grad[6], ctx.needs_input_grad[7]]
        grad_intrinsic = grad_gain = grad_ghost_bias = grad_logits = None
        if any(mask):
            gradients = _ops.shift_concat_backward(
                grad_output, source, shift, intrinsic=intrinsic, output_mask=mask, **epilogue
            )
            grad_intrinsic, grad_gain, grad_ghost_bias = (
                gradient if wanted else None
                for gradient, wanted in zip(gradients, mask, strict=True)
            )
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            _, grad_logits = _ops.shift_selection_backward(
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
            grad_output if ctx.needs_input_grad[10] else None,
            None,
        )


class _NoDoubleBackward(torch.autograd.Function):
    """Passes gradients through; asking for their own gradient is an error that names the operator.

    Takes the tensors that the gradients came from, so that every way back to them meets the error.
    """

    @staticmethod
    def forward(
        ctx: Any, name: str, count: int, *gradients_and_origins: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.name = name
        return tuple(gradient.view_as(gradient) for gradient in gradients_and_origins[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            f"ghostsr::{ctx.name}: double backward is not supported; differentiate once, or use "
            "ghostsr_ext.reference, whose functions are plain torch"
        )


def _refuse_double_backward(name: str) -> Callable[..., Any]:
    redispatch = _below_autograd(name)

    def kernel(keyset: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        gradients = redispatch(keyset, *args, **kwargs)
        values = (*args, *kwargs.values())
        if not _records_gradient(*values):
            return gradients
        origins = [value for value in values if isinstance(value, Tensor) and value.requires_grad]
        return _NoDoubleBackward.apply(name, len(gradients), *gradients, *origins)  # type: ignore[no-untyped-call]

    return kernel


def _convolution(
    keyset: torch._C.DispatchKeySet,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    arguments = (input, weight, bias, stride, padding, dilation, groups)
    if _records_gradient(input, weight, bias):
        return _Convolution.apply(*arguments)  # type: ignore[no-untyped-call]
    return _below_autograd("convolution")(keyset, *arguments)


def _shift_concat(
    keyset: torch._C.DispatchKeySet,
    intrinsic: Tensor,
    source: Tensor,
    shift: Tensor,
    *,
    gain: Tensor | None = None,
    ghost_bias: Tensor | None = None,
    order: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Any:
    if _records_gradient(intrinsic, gain, ghost_bias, residual):
        return _ShiftConcat.apply(  # type: ignore[no-untyped-call]
            intrinsic,
            source,
            shift,
            None,
            None,
            1.0,
            gain,
            ghost_bias,
            order,
            activation,
            residual,
            residual_scale,
        )
    return _below_autograd("shift_concat")(
        keyset,
        intrinsic,
        source,
        shift,
        gain=gain,
        ghost_bias=ghost_bias,
        order=order,
        activation=activation,
        residual=residual,
        residual_scale=residual_scale,
    )


def _ghost_conv(
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
    packed_weight: Tensor | None = None,
    **epilogue: Any,
) -> Any:
    if _records_gradient(input, weight, bias, *epilogue.values()):
        intrinsic = _ops.convolution(input, weight, bias, stride, padding, dilation, groups)
        return _ops.shift_concat(intrinsic, source, shift, **epilogue)
    return _below_autograd("ghost_conv")(
        keyset,
        input,
        weight,
        bias,
        source,
        shift,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        packed_weight=packed_weight,
        **epilogue,
    )


def _ghost_conv_learned(
    keyset: torch._C.DispatchKeySet,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    logits: Tensor,
    noise: Tensor | None,
    tau: float,
    *,
    gain: Tensor | None = None,
    ghost_bias: Tensor | None = None,
    order: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    activation: str = "none",
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Any:
    if _records_gradient(input, weight, bias, logits, noise, gain, ghost_bias, residual):
        shift = _ops.select_shift(logits.detach(), noise, tau, source.shape[0])
        intrinsic = _ops.convolution(input, weight, bias, stride, padding, dilation, groups)
        return _ShiftConcat.apply(  # type: ignore[no-untyped-call]
            intrinsic,
            source,
            shift,
            logits,
            noise,
            tau,
            gain,
            ghost_bias,
            order,
            activation,
            residual,
            residual_scale,
        )
    return _below_autograd("ghost_conv_learned")(
        keyset,
        input,
        weight,
        bias,
        source,
        logits,
        noise,
        tau,
        gain=gain,
        ghost_bias=ghost_bias,
        order=order,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
        residual=residual,
        residual_scale=residual_scale,
    )


def register(library: torch.library.Library) -> None:
    """Register the gradients of all operators on ``library``."""
    for name, kernel in {
        "convolution": _convolution,
        "shift_concat": _shift_concat,
        "ghost_conv": _ghost_conv,
        "ghost_conv_learned": _ghost_conv_learned,
        "convolution_backward": _refuse_double_backward("convolution_backward"),
        "shift_concat_backward": _refuse_double_backward("shift_concat_backward"),
        "shift_selection_backward": _refuse_double_backward("shift_selection_backward"),
    }.items():
        library.impl(name, kernel, "Autograd", with_keyset=True)
