"""The paper's conversion: filters are clustered, and one filter of each cluster is kept.

Source: GhostSR (arXiv 2101.08525), clustering of pretrained filters.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from ghostsr_ext.conversion.tables import (
    ChannelTable,
    GhostFit,
    intrinsic_per_group,
    table_from_groups,
)

_RESTARTS = 10


def fit_kmeans(layer: nn.Conv2d, ghost_ratio: float, seed: int) -> GhostFit:
    """Cluster the filters of ``layer`` and make every other channel a copy of its cluster's filter.

    In each group the filters, as vectors, are clustered into as many clusters as there shall be
    intrinsic channels. The filter nearest a centre represents the cluster; it keeps its weights and
    bias. The others are ghosts of it with shift (0, 0), where learning a shift starts.

    Args:
        layer: The dense convolution.
        ghost_ratio: In [0, 1).
        seed: Seed of the clustering.
    """
    count = intrinsic_per_group(layer, ghost_ratio)
    weight = layer.weight.detach()
    filters = weight.cpu().double().flatten(1).numpy()
    per_group = layer.out_channels // layer.groups
    groups = [
        _cluster(filters[start : start + per_group], count, seed)
        for start in range(0, layer.out_channels, per_group)
    ]
    table = table_from_groups(groups, per_group)
    made_from = table.intrinsic[table.source]
    missed = float(np.square(filters[table.ghosts] - filters[made_from]).sum())
    total = float(np.square(filters).sum())
    bias = None if layer.bias is None else layer.bias.detach()[table.intrinsic]
    return GhostFit(
        table,
        weight[table.intrinsic],
        bias,
        relative_error=missed / total if total else 0.0,
    )


def _cluster(filters: NDArray[np.float64], count: int, seed: int) -> ChannelTable:
    with warnings.catch_warnings():
        # Equal filters (dead channels, say) leave clusters empty, which is taken care of below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clustering = KMeans(count, n_init=_RESTARTS, random_state=seed).fit(filters)
    distance = np.square(filters - clustering.cluster_centers_[clustering.labels_]).sum(axis=1)
    representative = np.full(count, -1, dtype=np.int64)
    for cluster in np.unique(clustering.labels_):
        members = np.flatnonzero(clustering.labels_ == cluster)
        representative[cluster] = members[np.argmin(distance[members])]
    made_from = representative[clustering.labels_]
    intrinsic = set(representative[representative >= 0].tolist())
    # The place of an empty cluster goes to the filter that its representative serves worst.
    missed = np.square(filters - filters[made_from]).sum(axis=1)
    for channel in np.argsort(-missed, kind="stable").tolist():
        if len(intrinsic) == count:
            break
        intrinsic.add(channel)
    chosen = np.array(sorted(intrinsic), dtype=np.int64)
    ghosts = np.setdiff1d(np.arange(len(filters), dtype=np.int64), chosen)
    source = np.searchsorted(chosen, made_from[ghosts])
    return ChannelTable(chosen, ghosts, source, np.zeros((len(ghosts), 2), dtype=np.int64))
