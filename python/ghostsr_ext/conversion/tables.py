"""How the output channels of one dense convolution become intrinsic and ghost channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.nn import GhostConv2d, convolution_arguments, epilogue_arguments, ghost_count

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ChannelTable:
    """Where each output channel of a layer comes from.

    Attributes:
        intrinsic: Channels [I] that are computed, ascending; every group of the convolution has the
            same number of them.
        ghosts: The other channels [G], ascending.
        source: [G]; ghost g is made from channel ``intrinsic[source[g]]``.
        shift: (dy, dx) of each ghost, [G, 2].
    """

    intrinsic: Indices
    ghosts: Indices
    source: Indices
    shift: Indices

    @property
    def order(self) -> Indices:
        """Permutation [C_out]: channel p is concat(intrinsic, ghosts)[order[p]]."""
        return np.argsort(np.concatenate([self.intrinsic, self.ghosts]), kind="stable")


@dataclass(frozen=True)
class GhostFit:
    """What a method found for one layer.

    Attributes:
        table: The channels.
        weight: Intrinsic filters [I, C_in / groups, kH, kW].
        bias: [I] or None.
        gain: [G] or None.
        ghost_bias: [G] or None.
        relative_error: Squared error of the layer's output (or of its filters, where a method sees
            no pictures) over the variance of the dense one's; NaN if the method measures none.
        error_if_dense: The same for the dense layer in the converted network; NaN if not measured.
    """

    table: ChannelTable
    weight: Tensor
    bias: Tensor | None
    gain: Tensor | None = None
    ghost_bias: Tensor | None = None
    relative_error: float = float("nan")
    error_if_dense: float = float("nan")


def intrinsic_per_group(layer: nn.Conv2d, ghost_ratio: float) -> int:
    """Return how many channels of each group of ``layer`` are computed at ``ghost_ratio``."""
    ghosts = ghost_count(layer.out_channels, ghost_ratio, layer.groups)
    return (layer.out_channels - ghosts) // layer.groups


def table_from_groups(groups: list[ChannelTable], channels_per_group: int) -> ChannelTable:
    """Join the tables of a layer's groups, each of which counts its channels from 0."""
    intrinsic, ghosts, source, computed = [], [], [], 0
    for number, group in enumerate(groups):
        intrinsic.append(group.intrinsic + number * channels_per_group)
        ghosts.append(group.ghosts + number * channels_per_group)
        source.append(group.source + computed)
        computed += len(group.intrinsic)
    return ChannelTable(
        np.concatenate(intrinsic),
        np.concatenate(ghosts),
        np.concatenate(source),
        np.concatenate([group.shift for group in groups]),
    )


def build_ghost_layer(
    dense: nn.Conv2d, fit: GhostFit, ghost_ratio: float, settings: GhostSettings
) -> GhostConv2d:
    """Return the ghost layer that replaces ``dense``: same forward, shifts frozen."""
    layer = GhostConv2d(
        dense.in_channels,
        dense.out_channels,
        **convolution_arguments(dense),
        ghost_ratio=ghost_ratio,
        max_shift=settings.max_shift,
        shift_scope=settings.shift_scope,
        affine=fit.gain is not None,
        **epilogue_arguments(dense),
        device=dense.weight.device,
        dtype=dense.weight.dtype,
    )
    table = fit.table
    layer.set_tables(
        torch.from_numpy(table.source),
        torch.from_numpy(table.shift),
        torch.from_numpy(table.order),
    )
    layer.freeze_shifts()
    with torch.no_grad():
        for parameter, value in (
            (layer.weight, fit.weight),
            (layer.bias, fit.bias),
            (layer.gain, fit.gain),
            (layer.ghost_bias, fit.ghost_bias),
            (layer.prelu_weight, getattr(dense, "prelu_weight", None)),
        ):
            if parameter is not None and value is not None:
                parameter.copy_(value)
    layer.requires_grad_(dense.weight.requires_grad)
    return layer.train(dense.training)
