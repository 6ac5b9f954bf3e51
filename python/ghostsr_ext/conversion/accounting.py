"""What layers cost before and after their conversion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.conversion_report import LayerReport
from ghostsr_ext.conversion.convolutions import TracedConvolution, forward_arguments
from ghostsr_ext.conversion.picture_format import output_scale
from ghostsr_ext.conversion.tables import GhostFit
from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.models import SRModel
from ghostsr_ext.models.layer_calls import trace_calls
from ghostsr_ext.nn import GhostConv2d, ghost_count
from ghostsr_ext.profiling import macs_by_layer

_HR_HEIGHT, _HR_WIDTH = 720, 1280


@dataclass(frozen=True)
class CountedPicture:
    """The picture that multiply-adds are counted for.

    Attributes:
        shape: Shape of the network's input.
        factor: From it to what is counted for; other than 1 where that is no whole size.
        name: What it is called.
        on_meta: Whether the network runs on torch's meta device.
    """

    shape: tuple[int, ...]
    factor: Fraction
    name: str
    on_meta: bool = True

    def macs(self, model: nn.Module) -> dict[str, int]:
        """Return the multiply-adds of each layer of a network, by its name."""
        arguments = forward_arguments(model)[0]
        calls = trace_calls(model, self.shape, arguments, reduced=not self.on_meta)
        return {name: round(count * self.factor) for name, count in macs_by_layer(calls).items()}


def counted_picture(model: nn.Module, example: Tensor, scale: int | None = None) -> CountedPicture:
    """Return what multiply-adds are counted for.

    It is an output of 1280 x 720 where the scale is known and the network can be followed at that
    size, else the example.

    Args:
        model: The network, in evaluation mode.
        example: An input of it.
        scale: What it enlarges its input by, if known.
    """
    if isinstance(model, SRModel):
        enlargement: int | None = 1 if model.input_upscaled else model.scale
        name = f"x{model.scale} to {_HR_WIDTH} x {_HR_HEIGHT}"
    else:
        enlargement = output_scale(model, example)
        name = f"x{scale or enlargement} to {_HR_WIDTH} x {_HR_HEIGHT}"
    height, width = example.shape[-2:]
    own = CountedPicture(tuple(example.shape), Fraction(1), f"input of {width} x {height}")
    pictures = [own]
    if enlargement is not None:
        height, width = (math.ceil(side / enlargement) for side in (_HR_HEIGHT, _HR_WIDTH))
        exact = Fraction(_HR_HEIGHT * _HR_WIDTH, enlargement**2 * height * width)
        pictures.insert(0, CountedPicture((1, example.shape[1], height, width), exact, name))
    for picture in pictures:
        try:
            picture.macs(model)
        # A network may not run on the meta device, nor at every size; it says so as it likes.
        except Exception:
            continue
        return picture
    return CountedPicture(own.shape, own.factor, own.name, on_meta=False)


def layer_macs(counts: Mapping[str, int], name: str) -> int:
    """Return the multiply-adds of a layer and of the layers inside it."""
    return sum(count for key, count in counts.items() if key == name or key.startswith(f"{name}."))


def depthwise_ratio(layer: nn.Conv2d, ghost_ratio: float, size: int) -> float:
    """Return the ghost ratio at which depthwise ghosts cost what shifted ones cost.

    Args:
        layer: The dense convolution.
        ghost_ratio: The ratio of a ghost layer with shifts.
        size: k of the depthwise filters.
    """
    per_channel = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    per_group = layer.out_channels // layer.groups
    ghosts = ghost_count(layer.out_channels, ghost_ratio, layer.groups) // layer.groups
    saved = ghosts * per_channel
    while ghosts < per_group - 1 and ghosts * (per_channel - size**2) < saved:
        ghosts += 1
    return ghosts / per_group


def layer_report(
    entry: TracedConvolution,
    layer: GhostConv2d | DepthwiseGhostConv2d,
    fit: GhostFit,
    macs: tuple[int, int],
) -> LayerReport:
    """Return the report on one layer.

    Args:
        entry: The dense layer.
        layer: What is in its place.
        fit: What that was made of.
        macs: Multiply-adds before and after.
    """
    dense, table = entry.module, fit.table
    assert isinstance(dense, nn.Conv2d)
    shifts: dict[str, int] = {}
    for dy, dx in table.shift.tolist():
        shifts[f"{dy},{dx}"] = shifts.get(f"{dy},{dx}", 0) + 1
    dead = torch.nonzero(dense.weight.detach().flatten(1).abs().amax(1) == 0).flatten()
    return LayerReport(
        name=entry.name,
        uses=entry.uses,
        out_channels=dense.out_channels,
        intrinsic=table.intrinsic.tolist(),
        source=table.intrinsic[table.source].tolist(),
        shifts=dict(sorted(shifts.items())),
        relative_error=_measured(fit.relative_error),
        error_if_dense=_measured(fit.error_if_dense),
        dead=dead.tolist(),
        parameters_before=count_parameters(dense),
        parameters_after=count_parameters(layer),
        macs_before=macs[0],
        macs_after=macs[1],
    )


def pruned_report(
    entry: TracedConvolution, layer: nn.Conv2d, kept: list[int], macs: tuple[int, int]
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
        error_if_dense=None,
        dead=[],
        parameters_before=count_parameters(dense),
        parameters_after=count_parameters(layer),
        macs_before=macs[0],
        macs_after=macs[1],
    )


def _measured(error: float) -> float | None:
    return None if math.isnan(error) else error


def count_parameters(module: nn.Module) -> int:
    """Return the number of weights of ``module``, without shift logits."""
    return sum(p.numel() for n, p in module.named_parameters() if n.rpartition(".")[2] != "logits")
