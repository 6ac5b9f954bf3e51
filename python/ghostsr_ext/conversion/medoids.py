"""k-medoids: the channels that serve all channels best."""

from __future__ import annotations

import torch
from torch import Tensor


def medoids(cost: Tensor, count: int) -> Tensor:
    """Choose the columns whose best one costs the rows least, greedily and then by swaps.

    Source: Schubert and Rousseeuw, "Fast and eager k-medoids clustering", 2021 (the swap of
    FastPAM).

    Args:
        cost: [C, C]; entry (c, s) is the cost of serving c by s. Its diagonal counts as zero, and
            what is below zero by rounding as well.
        count: Number of medoids, from 1 to C.

    Returns:
        The chosen columns [count], ascending.
    """
    cost = cost.double().clamp_min(0)
    cost.fill_diagonal_(0)
    size = len(cost)
    nearest = torch.full((size,), float("inf"), dtype=cost.dtype)
    chosen: list[int] = []
    for _ in range(count):
        total = torch.minimum(nearest[:, None], cost).sum(0)
        total[chosen] = float("inf")
        chosen.append(int(total.argmin()))
        nearest = torch.minimum(nearest, cost[:, chosen[-1]])
    medoid = torch.tensor(chosen)
    while True:
        served = cost[:, medoid]
        first, owner = served.min(1)
        others = served.scatter(1, owner[:, None], float("inf"))
        second = others.amin(1)
        kept = torch.minimum(cost, first[:, None])
        # Removing a medoid sends its rows to the second nearest, or to the newcomer.
        moved = torch.minimum(cost, second[:, None]) - kept
        total = kept.sum(0) + torch.zeros(count, size, dtype=cost.dtype).index_add_(0, owner, moved)
        total[:, medoid] = float("inf")
        best = int(total.argmin())
        if not float(total.flatten()[best]) < float(first.sum()) * (1 - 1e-9):
            return medoid.sort().values
        medoid[best // size] = best % size
