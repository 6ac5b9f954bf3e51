"""The operators in plain torch: their specification, and the oracle of their tests.

Every function mirrors the operator of the same name in ``torch.ops.ghostsr``: what its arguments
are and which values they may have stands with the operator, in ``ghostsr_ext.ops``. The functions
here check nothing, work on any device and dtype, are differentiable by autograd, and favour clarity
over speed and memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ghostsr_ext.activations import Activation


def candidate_shifts(candidates: int, device: torch.device | None = None) -> Tensor:
    """Return the shifts that the K candidates of a learned layer stand for.

    Candidate k = (dy + d) * (2d + 1) + (dx + d) is the shift (dy, dx), with K = (2d + 1)^2.

    Args:
        candidates: K, an odd square.
        device: Where the table is made.

    Returns:
        int64 table [K, 2] of (dy, dx), each in -d..d.

    Raises:
        ValueError: K is not an odd square.
    """
    side = round(candidates**0.5)
    if side * side != candidates or side % 2 == 0:
        raise ValueError(
            f"logits: found {candidates} candidates; allowed are 1, 9, 25, 49, 81, ..., 225"
        )
    offsets = torch.arange(side, device=device) - side // 2
    return torch.cartesian_prod(offsets, offsets).reshape(candidates, 2)


def move(features: Tensor, shift: Tensor) -> Tensor:
    """Move every channel by its own shift, with zeros coming in from outside the map.

    ``out[n, g, y, x] = features[n, g, y + dy[g], x + dx[g]]``, zero where that lies outside.

    Args:
        features: [N, G, H, W].
        shift: Integer table [G, 2] of (dy, dx).

    Returns:
        [N, G, H, W].
    """
    batch, channels, height, width = features.shape
    if features.numel() == 0:
        return features.clone()
    rows = torch.arange(height, device=features.device) + shift[:, 0:1]
    columns = torch.arange(width, device=features.device) + shift[:, 1:2]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None
    ]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    moved = features.flatten(2).gather(2, index.flatten(1).expand(batch, -1, -1))
    return torch.where(inside, moved.view(batch, channels, height, width), 0)


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
    """Make the ghost channels and finish the layer: all that follows the convolution.

    Ghost g is channel ``source[g]`` of ``intrinsic``, moved by ``shift[g]``, times ``gain[g]`` plus
    ``ghost_bias[g]``. The result is ``activation(residual + residual_scale * concat(intrinsic,
    ghost)[order])``, [N, I + G, H, W]. Arguments are those of
    :func:`ghostsr_ext.ops.shift_concat`.
    """
    ghost = move(intrinsic[:, source.long()], shift.long())
    output = _assemble(intrinsic, ghost, gain, ghost_bias, order, residual, residual_scale)
    return activate(output, activation, negative_slope, prelu_weight)


def activate(
    features: Tensor,
    activation: Activation,
    negative_slope: float = 0.01,
    prelu_weight: Tensor | None = None,
) -> Tensor:
    """Apply what a layer ends with.

    Args:
        features: [N, C, H, W].
        activation: "none", "relu", "leaky_relu" or "prelu".
        negative_slope: Factor of negative values under "leaky_relu".
        prelu_weight: Factors of negative values under "prelu", [1] or [C].

    Returns:
        [N, C, H, W].
    """
    if activation == "relu":
        return functional.relu(features)
    if activation == "leaky_relu":
        return functional.leaky_relu(features, negative_slope)
    if activation == "prelu":
        assert prelu_weight is not None
        return functional.prelu(features, prelu_weight)
    return features


def _assemble(
    intrinsic: Tensor,
    ghost: Tensor,
    gain: Tensor | None,
    ghost_bias: Tensor | None,
    order: Tensor | None,
    residual: Tensor | None,
    residual_scale: float,
) -> Tensor:
    if gain is not None:
        ghost = ghost * gain[:, None, None]
    if ghost_bias is not None:
        ghost = ghost + ghost_bias[:, None, None]
    output = torch.cat([intrinsic, ghost], dim=1)
    if order is not None:
        output = output[:, order.long()]
    output = output * residual_scale
    return output if residual is None else residual + output


def _concat_gradient(
    grad_output: Tensor,
    order: Tensor | None,
    output: Tensor | None,
    activation: Activation,
    negative_slope: float,
    residual_scale: float,
) -> Tensor:
    """Return the gradient of concat(intrinsic, ghost), before ``order``."""
    if activation != "none":
        assert output is not None
        slope = 0.0 if activation == "relu" else negative_slope
        grad_output = torch.where(output > 0, grad_output, slope * grad_output)
    gradient = grad_output * residual_scale
    if order is None:
        return gradient
    return gradient[:, torch.argsort(order.long())]


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

    The activation is undone by the signs of ``output``; without it they are computed again from
    ``intrinsic``, which is right for a layer without a residual. Arguments and results are those of
    :func:`ghostsr_ext.ops.shift_concat_backward`.
    """
    ghosts = source.numel()
    if activation != "none" and output is None:
        assert intrinsic is not None
        output = shift_concat(
            intrinsic,
            source,
            shift,
            gain=gain,
            ghost_bias=ghost_bias,
            order=order,
            residual_scale=residual_scale,
        )
    concat = _concat_gradient(
        grad_output, order, output, activation, negative_slope, residual_scale
    )
    own, ghost = concat.split([concat.shape[1] - ghosts, ghosts], dim=1)
    empty = grad_output.new_empty(0)
    grad_intrinsic, grad_gain, grad_ghost_bias = empty, empty, empty
    if output_mask[0]:
        moved = move(ghost if gain is None else ghost * gain[:, None, None], -shift.long())
        grad_intrinsic = own.index_add(1, source.long(), moved)
    if output_mask[1]:
        assert intrinsic is not None
        grad_gain = (ghost * move(intrinsic[:, source.long()], shift.long())).sum(dim=(0, 2, 3))
    if output_mask[2]:
        grad_ghost_bias = ghost.sum(dim=(0, 2, 3))
    return grad_intrinsic, grad_gain, grad_ghost_bias


def select_shift(logits: Tensor, noise: Tensor | None, tau: float, ghosts: int) -> Tensor:
    """Return the shift of each ghost: the candidate with the largest ``(logits + noise) / tau``.

    Args:
        logits: z, [G, K] or [1, K].
        noise: Optional Gumbel noise of the same shape.
        tau: Temperature, positive.
        ghosts: Number of ghost channels, G.

    Returns:
        int64 table [G, 2] of (dy, dx).
    """
    perturbed = (logits if noise is None else logits + noise) / tau
    chosen = candidate_shifts(logits.shape[1], logits.device)[perturbed.argmax(dim=1)]
    return chosen.expand(ghosts, 2).contiguous()


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

    ``scores[g, k] = gain[g] * sum over n, y, x of dL/dghost[n, g, y, x] * Y0[n, source[g], y +
    dy_k, x + dx_k]`` and ``grad_logits[g, k] = p[g, k] * (scores[g, k] - sum_j p[g, j] * scores[g,
    j]) / tau`` with ``p = softmax((logits + noise) / tau)``. For logits [1, K] the scores are
    summed over the ghosts first. Arguments and results are those of
    :func:`ghostsr_ext.ops.shift_selection_backward`.
    """
    ghosts = source.numel()
    if activation != "none" and output is None:
        output = shift_concat(
            intrinsic,
            source,
            select_shift(logits, noise, tau, ghosts),
            gain=gain,
            ghost_bias=ghost_bias,
            order=order,
            residual_scale=residual_scale,
        )
    concat = _concat_gradient(
        grad_output, order, output, activation, negative_slope, residual_scale
    )
    ghost = concat[:, concat.shape[1] - ghosts :]
    sources = intrinsic[:, source.long()]
    candidates = candidate_shifts(logits.shape[1], logits.device)
    scores = torch.stack(
        [
            (ghost * move(sources, shift.expand(ghosts, 2))).sum(dim=(0, 2, 3))
            for shift in candidates
        ],
        dim=1,
    )
    if gain is not None:
        scores = scores * gain[:, None]
    probability = ((logits if noise is None else logits + noise) / tau).softmax(dim=1)
    scores = scores.to(logits.dtype)
    totals = scores
    if logits.shape[0] != ghosts:
        totals = totals.sum(dim=0, keepdim=True)
    mean = (probability * totals).sum(dim=1, keepdim=True)
    return scores, probability * (totals - mean) / tau


def pixel_shuffle(map: Tensor, factor: int) -> Tensor:
    """Make ``factor`` times as many rows and columns of a map's channels.

    Channel (c factor + i) factor + j at (y, x) becomes channel c at (factor y + i, factor x + j).

    Args:
        map: [N, C, H, W].
        factor: Its square divides C; 1 returns the map itself.

    Returns:
        [N, C / factor², factor H, factor W].
    """
    return map if factor == 1 else functional.pixel_shuffle(map, factor)


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
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    prelu_weight: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    shuffle: int = 1,
) -> Tensor:
    """Convolve, then :func:`shift_concat`: a GhostSR layer with fixed shifts.

    A pixel shuffle by ``shuffle`` follows. Arguments are those of
    :func:`ghostsr_ext.ops.ghost_conv`; ``stride``, ``padding`` and ``dilation`` are given for both
    axes.
    """
    intrinsic = functional.conv2d(
        input, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups
    )
    output = shift_concat(
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
    return pixel_shuffle(output, shuffle)


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
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    prelu_weight: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """Run a GhostSR layer whose shifts logits select, with the straight-through gradient.

    All K shifted copies are made, which the native operator never does. The value is that of the
    selected shifts; the gradient of the logits is that of the soft mixture. Arguments are those of
    :func:`ghostsr_ext.ops.ghost_conv_learned`.
    """
    intrinsic = functional.conv2d(
        input, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups
    )
    ghosts = source.numel()
    perturbed = (logits if noise is None else logits + noise) / tau
    soft = perturbed.softmax(dim=1)
    # Not one_hot, which vmap does not know.
    index = torch.arange(logits.shape[1], device=logits.device)
    hard = (index == perturbed.argmax(dim=1, keepdim=True)).to(soft)
    selection = (hard + (soft - soft.detach())).expand(ghosts, -1).to(intrinsic.dtype)
    sources = intrinsic[:, source.long()]
    candidates = candidate_shifts(logits.shape[1], logits.device)
    moved = torch.stack([move(sources, k.expand(ghosts, 2)) for k in candidates], dim=-1)
    ghost = (moved * selection[:, None, None, :]).sum(dim=-1)
    output = _assemble(intrinsic, ghost, gain, ghost_bias, order, residual, residual_scale)
    return activate(output, activation, negative_slope, prelu_weight)
