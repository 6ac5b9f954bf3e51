"""Putting a ghost layer in the place of a dense one."""

from typing import Any

from ghostsr_ext.nn import GhostConv2d, convolution_arguments, epilogue_arguments
from torch import nn


def put_ghost_layer(model: nn.Module, name: str, **options: Any) -> GhostConv2d:
    """Replace the layer ``name`` by a new ghost layer of its sizes, which is returned."""
    dense = model.get_submodule(name)
    assert isinstance(dense, nn.Conv2d)
    layer = GhostConv2d(
        dense.in_channels,
        dense.out_channels,
        **convolution_arguments(dense),
        **epilogue_arguments(dense),
        **options,
        device=dense.weight.device,
    )
    model.set_submodule(name, layer.train(dense.training))
    return layer
