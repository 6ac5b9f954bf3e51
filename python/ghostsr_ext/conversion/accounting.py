"""What layers cost before and after their conversion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.report import LayerReport
from ghostsr_ext.conversion.tables import GhostFit
from ghostsr_ext.conversion.tracing import Trace, TracedConvolution
from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d, ghost_count

_HR_PIXELS = 1280 * 720


def macs_unit(model: nn.Module, example: Tensor) -> tuple[Fraction, str]:
    """Return the factor from ``example`` to what multiply-adds are counted for, and its name."""
    height, width = example.shape[-2:]
    if not isinstance(model, SRModel):
        return Fraction(1), f"input of {width} x {height}"
    enlargement = 1 if model.input_upscaled else model.scale
    return Fraction(_HR_PIXELS, enlargement**2 * height * width), f"x{model.scale} to 1280 x 720"


def total_macs(network: Trace, replaced: Mapping[str, nn.Module], unit: Fraction) -> int:
    """Return the multiply-adds of a network with some layers replaced."""
    return round(
        unit
        * sum(
            entry.positions * macs_per_position(replaced.get(entry.name, entry.module))
            for entry in network.called
        )
    )


def macs_per_position(layer: nn.Module) -> int:
    """Return the multiply-adds of a convolution for one pixel of its output."""
    if isinstance(layer, DepthwiseGhostConv2d):
        return macs_per_position(layer.primary) + macs_per_position(layer.cheap)
    assert isinstance(layer, nn.Conv2d | GhostConv2d)
    computed = layer.intrinsic_channels if isinstance(layer, GhostConv2d) else layer.out_channels
    return computed * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)


def depthwise_ratio(layer: nn.Conv2d, ghost_ratio: float, size: int) -> float:
    """Return the ghost ratio at which depthwise ghosts cost what shifted ones cost.

    Args:
        layer: The dense convolution.
        ghost_ratio: Of a ghost layer with shifts.
        size: k of the depthwise filters.
    """
    per_channel = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    per_group = layer.out_channels // layer.groups
    ghosts = ghost_count(layer.out_channels, ghost_ratio, layer.groups) // layer.groups
    saved = ghosts * per_channel
    while ghosts < per_group - 1 and ghosts * (per_channel - size**2) < saved:
        ghosts += 1
    return ghosts / per_group


def computed_channels(entry: TracedConvolution) -> int:
    """Return how many channels the layer convolved to before the conversion."""
    module = entry.module
    return module.intrinsic_channels if isinstance(module, GhostConv2d) else module.out_channels


def layer_report(
    entry: TracedConvolution,
    layer: GhostConv2d | DepthwiseGhostConv2d,
    fit: GhostFit,
    unit: Fraction,
) -> LayerReport:
    """Return the report on one layer."""
    dense, table = entry.module, fit.table
    assert isinstance(dense, nn.Conv2d)
    shifts: dict[str, int] = {}
    for dy, dx in table.shift.tolist():
        shifts[f"{dy},{dx}"] = shifts.get(f"{dy},{dx}", 0) + 1
    error = fit.relative_error
    dead = torch.nonzero(dense.weight.detach().flatten(1).abs().amax(1) == 0).flatten()
    return LayerReport(
        name=entry.name,
        uses=entry.uses,
        out_channels=dense.out_channels,
        intrinsic=table.intrinsic.tolist(),
        source=table.intrinsic[table.source].tolist(),
        shifts=dict(sorted(shifts.items())),
        relative_error=error if error == error else None,
        dead=dead.tolist(),
        parameters_before=count_parameters(dense),
        parameters_after=count_parameters(layer),
        macs_before=round(entry.macs(dense.out_channels) * unit),
        macs_after=round(entry.positions * macs_per_position(layer) * unit),
    )


def pruned_report(
    entry: TracedConvolution, layer: nn.Conv2d, kept: list[int], unit: Fraction
) -> LayerReport:
    """Return the report on one layer that has lost inputs or outputs."""
    dense = entry.module
    return LayerReport(
        name=entry.name,
        uses=entry.uses,
        out_channels=dense.out_channels,
        intrinsic=kept,
        source=[],
        shifts={},
        relative_error=None,
        dead=[],
        parameters_before=count_parameters(dense),
        parameters_after=count_parameters(layer),
        macs_before=round(entry.macs(dense.out_channels) * unit),
        macs_after=round(entry.positions * macs_per_position(layer) * unit),
    )


def count_parameters(module: nn.Module) -> int:
    """Return the number of weights of ``module``, without shift logits."""
    return sum(p.numel() for n, p in module.named_parameters() if n.rpartition(".")[2] != "logits")
