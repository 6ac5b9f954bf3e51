"""Conversion without pictures: a ghost's filter is approximated by a shifted intrinsic filter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.fitting import fit_statistics
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.conversion.statistics import Statistics, candidate_offsets, kernel_offsets
from ghostsr_ext.conversion.tables import GhostFit

_CORRELATION = 0.8


def fit_filters(layer: nn.Conv2d, ghost_ratio: float, settings: GhostSettings) -> GhostFit:
    """Choose and fit intrinsic filters so that their shifted copies are close to the dense filters.

    Distances between filters are errors of the output for an input whose channels are independent
    and whose neighbouring pixels are correlated, as those of feature maps are.

    Args:
        layer: The dense convolution.
        ghost_ratio: In [0, 1).
        settings: Settings of the ghost layer.
    """
    per_out = layer.out_channels // layer.groups
    statistics = [
        _expected_statistics(layer, filters, bias, settings.max_shift)
        for filters, bias in zip(
            layer.weight.detach().cpu().double().split(per_out),
            _bias(layer).split(per_out),
            strict=True,
        )
    ]
    return fit_statistics(layer, statistics, ghost_ratio, settings)


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        return torch.zeros(layer.out_channels, dtype=torch.float64)
    return layer.bias.detach().cpu().double()


def _expected_statistics(
    layer: nn.Conv2d, filters: Tensor, bias: Tensor, max_shift: int
) -> Statistics:
    positions = torch.tensor(kernel_offsets(layer), dtype=torch.float64)
    within = _correlation(positions, positions)
    channels = filters.shape[1]
    flat = filters.flatten(2)
    cross = torch.stack(
        [
            (flat @ _correlation(positions - torch.tensor(moved), positions)).flatten(1)
            for moved in candidate_offsets(max_shift)
        ]
    )
    return Statistics(
        torch.kron(torch.eye(channels, dtype=torch.float64), within),
        torch.zeros(channels * len(positions), dtype=torch.float64),
        cross,
        ((flat @ within) * flat).sum(dim=(1, 2)),
        bias,
        1,
        torch.zeros(len(cross), dtype=torch.float64),
    )


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    distance = torch.cdist(first, second)
    return torch.where(distance == 0, 1.0, _CORRELATION**distance)
