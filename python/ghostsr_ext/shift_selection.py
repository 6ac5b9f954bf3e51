"""How a layer in training draws a shift for each ghost, and what its logits learn from the draw.

The operators choose the candidate with the largest (logits + noise) / tau and give logits the
straight-through gradient: that of the soft mixture at the same place (GhostSR, section on learnable
shift). :func:`choose_by_reinmax` stands before them and gives another gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gumbel_noise(logits: Tensor) -> Tensor:
    """Return standard Gumbel noise of the shape of ``logits``, drawn from torch's generator."""
    uniform = torch.rand_like(logits, dtype=torch.float32).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    return -torch.log((-torch.log(uniform)).clamp_min(torch.finfo(torch.float32).tiny)).to(
        logits.dtype
    )


def draw_rows(logits: Tensor, exploration_rate: float) -> Tensor:
    """Return [G, 1], whether a row draws; each does with the chance ``exploration_rate``."""
    if exploration_rate == 1:
        # No random numbers, so that the noise alone depends on the seed, as in the paper's method.
        return torch.ones_like(logits[:, :1], dtype=torch.bool)
    return torch.rand_like(logits[:, :1], dtype=torch.float32) < exploration_rate


def choose_by_reinmax(logits: Tensor, noise: Tensor, tau: float, drawn: Tensor) -> Tensor:
    """Choose each row's candidate with the largest logits / tau + noise, with ReinMax's gradient.

    With Gumbel noise the choice is a draw from softmax(logits / tau). Where the loss of a ghost's
    feature map is about quadratic, the gradient is on average that of the expected loss of the
    draw. The straight-through gradient is that of the loss of the mean map, a mixture of shifts,
    which may be best where no shift alone is; it then spreads the logits.

    Source: Liu et al., "Bridging discrete and backpropagation: straight-through and beyond",
    NeurIPS 2023, algorithm 2.

    Args:
        logits: [G, K].
        noise: [G, K]; zero for rows that do not draw.
        tau: Above 0.
        drawn: [G, 1]; rows without get no gradient: what they chose was no draw.

    Returns:
        [G, K], ones at the chosen candidates: logits for the operators, to be used without noise
        and at a temperature of 1.
    """
    chosen: Tensor = _ReinMax.apply(logits, noise, tau, drawn)  # type: ignore[no-untyped-call]
    return chosen


class _ReinMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, noise: Tensor, tau: float, drawn: Tensor) -> Tensor:
        perturbed = logits / tau + noise
        chosen = torch.zeros_like(logits).scatter_(1, perturbed.argmax(1, keepdim=True), 1)
        ctx.save_for_backward(logits, chosen, drawn)
        ctx.tau = tau
        return chosen

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        logits, chosen, drawn = ctx.saved_tensors
        # The operators' gradient is q * (v - q'v) with q the softmax of their logits and v the
        # candidates' scores, which are wanted up to a constant.
        scores = gradient / chosen.softmax(dim=1)
        before = (logits / ctx.tau).softmax(dim=1)
        between = (chosen + before) / 2
        result = 2 * _softmax_gradient(between, scores) - _softmax_gradient(before, scores) / 2
        return result * drawn / ctx.tau, None, None, None


def _softmax_gradient(probability: Tensor, scores: Tensor) -> Tensor:
    return probability * (scores - (probability * scores).sum(dim=1, keepdim=True))
