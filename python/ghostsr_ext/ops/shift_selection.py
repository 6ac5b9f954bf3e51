"""Which shift the logits of a layer select, and the gradient of that choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ghostsr_ext.activations import Activation
from ghostsr_ext.ops.registration import operators, refuse_double_backward, register_fake

_select_shift = operators.select_shift.default
_shift_selection_backward = operators.shift_selection_backward.default


def select_shift(logits: Tensor, noise: Tensor | None, tau: float, ghosts: int) -> Tensor:
    """Return the shift of each ghost: the candidate with the largest ``(logits + noise) / tau``.

    Args:
        logits: z, [G, K], or [1, K] for one shift per layer; K is the square of an odd number up to
            15. Candidate k is the shift (k // side - d, k % side - d) with side = 2d + 1.
        noise: Optional noise of the logits' shape and dtype.
        tau: Temperature, positive.
        ghosts: Number of ghost channels, G.

    Returns:
        int64 [G, 2], (dy, dx) of each ghost in pixels. Among equal candidates the first is taken.

    Raises:
        RuntimeError: An argument is outside the allowed values; the message names it.
    """
    result: Tensor = _select_shift(logits, noise, tau, ghosts)
    return result


def shift_selection_backward(
    grad_output: Tensor,
    intrinsic: Tensor,
    source: Tensor,
    logits: Tensor,
    noise: Tensor | None,
    tau: float,
    *,
    gain: Tensor | None = None,
    ghost_bias: Tensor | None = None,
    order: Tensor | None = None,
    output: Tensor | None = None,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    residual_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the scores of all candidate shifts and the straight-through gradient of the logits.

    ``scores[g, k]`` is ``gain[g]`` times the sum over n, y, x of the ghost's gradient times its
    source moved by candidate k; with ``p = softmax((logits + noise) / tau)`` the gradient is
    ``p[g, k] * (scores[g, k] - sum_j p[g, j] * scores[g, j]) / tau``. For logits [1, K] the scores
    are summed over the ghosts first.

    Args:
        grad_output: [N, I + G, H, W], in any layout.
        intrinsic: Y, [N, I, H, W].
        source: int64 or int32 [G].
        logits: [G, K] or [1, K].
        noise: The noise of the forward, or None.
        tau: Temperature of the forward.
        gain: As in the forward.
        ghost_bias: As in the forward.
        order: As in the forward.
        output: See :func:`~ghostsr_ext.ops.shift_concat_backward`.
        activation: "none", "relu" or "leaky_relu".
        negative_slope: As in the forward.
        residual_scale: As in the forward.

    Returns:
        Scores [G, K] and the gradient of the logits, of their shape.

    Raises:
        RuntimeError: An argument is outside the allowed values, or the result is differentiated.

    Source: GhostSR (arXiv 2101.08525), learnable shift by the Gumbel-softmax trick.
    """
    scores, gradient = _shift_selection_backward(
        grad_output,
        intrinsic,
        source,
        logits,
        noise,
        tau,
        gain=gain,
        ghost_bias=ghost_bias,
        order=order,
        output=output,
        activation=activation,
        negative_slope=negative_slope,
        residual_scale=residual_scale,
    )
    return scores, gradient


def _fake_select_shift(logits: Tensor, noise: Tensor | None, tau: float, ghosts: int) -> Tensor:
    return logits.new_empty((ghosts, 2), dtype=torch.int64)


def _fake_shift_selection_backward(
    grad_output: Tensor,
    intrinsic: Tensor,
    source: Tensor,
    logits: Tensor,
    noise: Tensor | None,
    tau: float,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    scores = logits.new_empty((source.shape[0], logits.shape[1]))
    return scores, torch.empty_like(logits, memory_format=torch.contiguous_format)


register_fake("select_shift", _fake_select_shift)
register_fake("shift_selection_backward", _fake_shift_selection_backward)
refuse_double_backward("shift_selection_backward")
