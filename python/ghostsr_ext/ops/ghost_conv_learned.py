"""A GhostSR layer whose shifts logits select, in one operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ghostsr_ext import reference
from ghostsr_ext.activations import Activation
from ghostsr_ext.ops.maps import empty_convolved
from ghostsr_ext.ops.registration import (
    below_autograd,
    call,
    is_transformed,
    operators,
    records_gradient,
    register_autocast,
    register_fake,
    register_gradient,
    said,
)
from ghostsr_ext.ops.shift_concat import recorded_shift_concat

_ghost_conv_learned = operators.ghost_conv_learned.default


def ghost_conv_learned(
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
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    prelu_weight: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    cache: Tensor | None = None,
) -> Tensor:
    """Run a GhostSR layer whose shifts logits select, with the straight-through gradient.

    The value is that of :func:`~ghostsr_ext.ops.ghost_conv` with the shifts that
    :func:`~ghostsr_ext.ops.select_shift` returns; the gradient of the logits is that of the soft
    mixture of all candidates, see :func:`~ghostsr_ext.ops.shift_selection_backward`.
    :func:`ghostsr_ext.reference.ghost_conv_learned` is the same in plain torch.

    Args:
        input: [N, C_in, H, W], float32, float64, float16 or bfloat16.
        weight: Intrinsic filters, [I, C_in / groups, kH, kW], of the input's dtype and device.
        bias: Optional [I].
        source: int64 or int32 [G], the intrinsic channel (0..I-1) of each ghost.
        logits: z, [G, K], or [1, K] for one shift per layer.
        noise: Optional Gumbel noise, of the logits' shape and dtype.
        tau: Temperature, positive.
        gain: See :func:`~ghostsr_ext.ops.ghost_conv`.
        ghost_bias: See :func:`~ghostsr_ext.ops.ghost_conv`.
        order: See :func:`~ghostsr_ext.ops.ghost_conv`.
        stride: See :func:`~ghostsr_ext.ops.ghost_conv`.
        padding: See :func:`~ghostsr_ext.ops.ghost_conv`.
        dilation: See :func:`~ghostsr_ext.ops.ghost_conv`.
        groups: See :func:`~ghostsr_ext.ops.ghost_conv`.
        activation: See :func:`~ghostsr_ext.ops.ghost_conv`.
        negative_slope: See :func:`~ghostsr_ext.ops.ghost_conv`.
        prelu_weight: See :func:`~ghostsr_ext.ops.ghost_conv`.
        residual: See :func:`~ghostsr_ext.ops.ghost_conv`.
        residual_scale: See :func:`~ghostsr_ext.ops.ghost_conv`.
        cache: See :func:`~ghostsr_ext.ops.ghost_conv`.

    Returns:
        [N, I + G, H', W'], channels_last if the input or the weight is.

    Raises:
        RuntimeError: An argument is outside the allowed values; the message names it.

    Source: GhostSR (arXiv 2101.08525), section on learnable shift.
    """
    result: Tensor = call(
        _ghost_conv_learned,
        input,
        weight,
        bias,
        source,
        logits,
        noise,
        tau,
        **said(
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
        ),
    )
    return result


def _fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    logits: Tensor,
    noise: Tensor | None,
    tau: float,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    **_: Any,
) -> Tensor:
    channels = weight.shape[0] + source.shape[0]
    return empty_convolved(input, weight, channels, stride, padding, dilation)


_redispatch = below_autograd("ghost_conv_learned")


def _recorded(
    keyset: torch._C.DispatchKeySet,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    logits: Tensor,
    noise: Tensor | None,
    tau: float,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    cache: Tensor | None = None,
    **epilogue: Any,
) -> Any:
    geometry = (stride, padding, dilation, groups)
    named: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }
    if is_transformed():
        return reference.ghost_conv_learned(
            input, weight, bias, source, logits, noise, tau, **named, **epilogue
        )
    if records_gradient(input, weight, bias, logits, noise, *epilogue.values()):
        shift = operators.select_shift(logits.detach(), noise, tau, source.shape[0])
        intrinsic = operators.convolution(input, weight, bias, *geometry, cache=cache)
        return recorded_shift_concat(
            intrinsic, source, shift, logits=logits, noise=noise, tau=tau, **epilogue
        )
    return _redispatch(
        keyset, input, weight, bias, source, logits, noise, tau, **named, cache=cache, **epilogue
    )


register_fake("ghost_conv_learned", _fake)
register_gradient("ghost_conv_learned", _recorded)
register_autocast("ghost_conv_learned")
