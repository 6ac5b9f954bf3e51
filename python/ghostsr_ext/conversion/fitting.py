"""From the statistics of a layer to the tables and weights of its ghost layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.clustering import ClusterFit, ShiftKernel, fit_clusters
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.conversion.statistics import Statistics, candidate_offsets
from ghostsr_ext.conversion.tables import (
    ChannelTable,
    GhostFit,
    intrinsic_per_group,
    table_from_groups,
)


def fit_statistics(
    layer: nn.Conv2d,
    statistics: Sequence[Statistics],
    ghost_ratio: float,
    settings: GhostSettings,
    *,
    scaled: bool = False,
) -> GhostFit:
    """Choose the channels of a ghost layer and fit its filters by least squares.

    Args:
        layer: The dense convolution.
        statistics: The statistics of each group of the layer, gathered with the ``max_shift`` of
            ``settings``.
        ghost_ratio: The part of the output channels that becomes ghosts, in [0, 1).
        settings: Settings of the ghost layer.
        scaled: Whether ghosts without ``affine`` settings have positive gains all the same, for the
            following layer to take up. Their own bias is zero.

    Returns:
        The channels, weights and biases of the ghost layer, and the squared error that they are
        expected to have, over the variance of the wanted output.

    Raises:
        InputError: The inputs of the layer on these pictures are not finite.
    """
    affine = settings.affine
    count = intrinsic_per_group(layer, ghost_ratio)
    offsets = torch.tensor(candidate_offsets(settings.max_shift))
    tables, filters, biases, gains, ghost_biases = [], [], [], [], []
    missed = energy = 0.0
    for group in statistics:
        clusters = fit_clusters(
            ShiftKernel(group, affine=affine, scaled=scaled), count, settings.shift_scope
        )
        tables.append(
            ChannelTable(
                clusters.intrinsic.numpy(),
                clusters.ghosts.numpy(),
                clusters.source.numpy(),
                offsets[clusters.shift].numpy(),
            )
        )
        filters.append(clusters.filters)
        wanted = _wanted_mean(group, clusters, affine)
        biases.append(wanted - clusters.filters @ group.patch_mean)
        gains.append(clusters.gain)
        inherited = clusters.gain * wanted[clusters.source]
        own = group.mean[clusters.ghosts] if affine else inherited
        ghost_biases.append(own - inherited)
        missed += clusters.squared_error
        energy += float(group.energy.sum())
    weight = torch.cat(filters).view(-1, *layer.weight.shape[1:])
    return GhostFit(
        table_from_groups(tables, layer.out_channels // layer.groups),
        weight,
        None if layer.bias is None else torch.cat(biases),
        torch.cat(gains) if affine or scaled else None,
        torch.cat(ghost_biases) if affine or scaled else None,
        relative_error=missed / energy if energy else 0.0,
    )


def _wanted_mean(group: Statistics, clusters: ClusterFit, affine: bool) -> Tensor:
    """Mean output of each intrinsic channel: its own, or what it and its ghosts agree on."""
    if affine:
        return group.mean[clusters.intrinsic]
    return clusters.mixture.sum(2) @ group.mean
