"""How alike the feature maps of a layer are, up to shifts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ALIKE = 0.9
"""The correlation from which one map is counted as nearly a shifted copy of another."""


@dataclass(frozen=True)
class SimilarPair:
    """Two feature maps, and how alike they are after a shift.

    Attributes:
        channel: One map.
        other: The other one; ``channel`` at (y, x) is compared with it at (y + dy, x + dx).
        shift: (dy, dx), in pixels, the one at which they are most alike.
        correlation: Correlation of their values, in -1..1; it is 1 for a shifted copy, whatever its
            brightness and contrast.
    """

    channel: int
    other: int
    shift: tuple[int, int]
    correlation: float


def similar_pairs(features: Tensor, *, max_shift: int = 1, count: int = 6) -> list[SimilarPair]:
    """Find the most similar feature maps of a layer, each map in one pair at most.

    Source: the first figure of the GhostSR paper (arXiv 2101.08525).

    Args:
        features: [C, h, w].
        max_shift: Largest shift to try, in pixels.
        count: How many pairs to return at most.

    Returns:
        Pairs, the most similar first. Maps without any variation are in none.
    """
    channels = len(features)
    best, which, offsets = _best_correlations(features, max_shift)
    pairs: list[SimilarPair] = []
    while len(pairs) < min(count, channels // 2):
        channel, other = divmod(int(best.argmax()), channels)
        correlation = float(best[channel, other])
        if correlation <= 0:
            break
        shift = offsets[int(which[channel, other])]
        pairs.append(SimilarPair(channel, other, shift, correlation))
        for used in (channel, other):
            best[used, :] = -1
            best[:, used] = -1
    return pairs


def count_alike(features: Tensor, *, max_shift: int = 1) -> int:
    """Count the feature maps [C, h, w] that are nearly a copy of another one, shifted that far."""
    best, _, _ = _best_correlations(features, max_shift)
    return int((best.amax(dim=1) >= ALIKE).sum())


def _best_correlations(
    features: Tensor, max_shift: int
) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Return of all pairs the best correlation, the number of its shift, and the shifts.

    A map is not compared with itself: the diagonal is -1.
    """
    _, rows, columns = features.shape
    d = min(max_shift, (rows - 1) // 2, (columns - 1) // 2)
    inner = _normalized(features[:, d : rows - d, d : columns - d])
    offsets = [(dy, dx) for dy in range(-d, d + 1) for dx in range(-d, d + 1)]
    correlations = torch.stack(
        [
            inner @ _normalized(features[:, d + dy : rows - d + dy, d + dx : columns - d + dx]).T
            for dy, dx in offsets
        ]
    )
    best, which = correlations.max(dim=0)
    best.fill_diagonal_(-1)
    return best, which, offsets


def _normalized(maps: Tensor) -> Tensor:
    """Rows of zero mean and unit length, or zeros where a map is constant: [C, h * w]."""
    flat = maps.flatten(1).double()
    flat = flat - flat.mean(dim=1, keepdim=True)
    normalised: Tensor = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-9)
    return normalised
