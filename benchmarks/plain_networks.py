"""The package's networks without its operators: what a user of another engine would run."""

from __future__ import annotations

import copy

import torch
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.models import SRModel, create_model
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, epilogue_arguments
from ghostsr_ext.reference import activate
from torch import Tensor, nn

_USUAL_SIZES = {"edsr": 96, "realesrgan_x4plus_anime_6b": 48, "realesr_animevideov3": 96}


def usual_size(preset: str) -> int:
    """Return the height and width of the small picture that a network is measured on."""
    return _USUAL_SIZES.get(preset, 128)


def usual_scale(preset: str) -> int:
    """Return how many times a network enlarges: 4 for Real-ESRGAN's, which are for x4, else 2."""
    return 4 if preset.startswith("realesr") else 2


def make_network(preset: str, *, ghost: bool) -> SRModel:
    """Return a network with random weights, always the same, ready for inference.

    A ghost network has one ghost channel for each intrinsic one, in order after them, in the layers
    that the paper converts; the shifts are random. No other engine needs to reorder channels then,
    so that each is measured at its best.

    Args:
        preset: A name for ``ghostsr_ext.models.create_model``.
        ghost: Whether to convert it.
    """
    torch.manual_seed(0)
    network = create_model(preset, scale=usual_scale(preset))
    if ghost:
        for name in network.default_layers():
            replace_module(network, network.get_submodule(name), _ghost_layer(network, name))
    return network.eval().requires_grad_(False)


def _ghost_layer(network: SRModel, name: str) -> GhostConv2d:
    dense = network.get_submodule(name)
    assert isinstance(dense, FusedConv2d)
    layer = GhostConv2d(
        dense.in_channels,
        dense.out_channels,
        dense.kernel_size,
        padding=dense.padding,
        groups=dense.groups,
        **epilogue_arguments(dense),
    )
    shift = torch.randint(-1, 2, (layer.ghost_channels, 2))
    return layer.set_tables(torch.arange(layer.ghost_channels), shift).freeze_shifts()


class PlainNetwork(nn.Module):
    """An enlarger of plain torch modules: convolutions, additions, activations, concatenations.

    Ghosts are made by a depthwise 3x3 convolution of one-hot filters, the fastest form in every
    engine measured.
    """

    def __init__(self, network: SRModel) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.scale = network.scale
        for module in list(self.network.modules()):
            if isinstance(module, FusedConv2d | GhostConv2d):
                replace_module(self.network, module, _PlainLayer(module))

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, 3, h, w] to the enlarged picture, in whatever layout ``image`` has."""
        if self.network.mean is None:
            return self.network.upscale(image, self.scale)
        return self.network.upscale(image - self.network.mean, self.scale) + self.network.mean


class _PlainLayer(nn.Module):
    def __init__(self, layer: FusedConv2d | GhostConv2d) -> None:
        super().__init__()
        filters = layer.weight.shape[0]
        self.convolution = nn.Conv2d(
            layer.in_channels,
            filters,
            layer.kernel_size,
            padding=layer.padding,
            groups=layer.groups,
        )
        self.convolution.weight = layer.weight
        self.convolution.bias = layer.bias
        self.ghost = _one_hot_filters(layer) if isinstance(layer, GhostConv2d) else None
        self.activation = layer.activation
        self.negative_slope = layer.negative_slope
        self.prelu_weight = layer.prelu_weight
        self.residual_scale = layer.residual_scale

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        output = self.convolution(input)
        if self.ghost is not None:
            output = torch.cat([output, self.ghost(output)], dim=1)
        if self.residual_scale != 1:
            output = output * self.residual_scale
        if residual is not None:
            output = residual + output
        return activate(output, self.activation, self.negative_slope, self.prelu_weight)


def _one_hot_filters(layer: GhostConv2d) -> nn.Conv2d:
    ghosts = layer.ghost_channels
    convolution = nn.Conv2d(ghosts, ghosts, 3, padding=1, groups=ghosts, bias=False)
    filters = torch.zeros(ghosts, 1, 3, 3)
    rows, columns = (layer.shift + 1).unbind(dim=1)
    filters[torch.arange(ghosts), 0, rows, columns] = 1
    convolution.weight = nn.Parameter(filters, requires_grad=False)
    return convolution
