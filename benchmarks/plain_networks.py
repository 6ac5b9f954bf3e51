"""The networks that benchmarks run: through the package's layers, and in plain torch."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.export.lowered_layers import SlicedGhostLayer
from ghostsr_ext.models import SRModel, create_model
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, convolution_arguments, epilogue_arguments
from ghostsr_ext.reference import activate
from torch import Tensor, nn

NETWORKS = ("edsr", "rdn", "carn")
SCALES = (2, 3, 4)
GhostsBy = Literal["depthwise", "slices"]
_USUAL_SIZES = {"edsr": 96, "realesrgan_x4plus_anime_6b": 48, "realesr_animevideov3": 96}


def usual_size(preset: str) -> int:
    """Return the height and width of the small picture that a network is measured on."""
    return _USUAL_SIZES.get(preset, 128)


def usual_scale(preset: str) -> int:
    """Return how many times a network enlarges: 4 for Real-ESRGAN's, which are for x4, else 2."""
    return 4 if preset.startswith("realesr") else 2


def make_network(
    preset: str, *, ghost: bool, scale: int | None = None, shuffled: bool = False
) -> SRModel:
    """Return a network with random weights, always the same, ready for inference.

    A ghost network has one ghost channel for each intrinsic one in the layers that the paper
    converts; the shifts are random.

    Args:
        preset: A name for ``ghostsr_ext.models.create_model``.
        ghost: Whether it has ghost layers.
        scale: Of the picture; by default the network's usual one.
        shuffled: See ``ghost_layer``.
    """
    torch.manual_seed(0)
    network = create_model(preset, scale=usual_scale(preset) if scale is None else scale)
    if ghost:
        for name in network.default_layers() or ():
            dense = network.get_submodule(name)
            replace_module(network, dense, ghost_layer(dense, shuffled=shuffled))
    return network.eval().requires_grad_(False)


def ghost_layer(dense: nn.Module, *, shuffled: bool = False) -> GhostConv2d:
    """Return a ghost layer of the size of ``dense`` with fixed random shifts.

    Args:
        dense: The layer.
        shuffled: Whether sources and order are random, too, as those of a converted network.
            Otherwise the ghosts follow the intrinsic channels in their order, so that no other
            engine needs to reorder channels and each is measured at its best.
    """
    assert isinstance(dense, FusedConv2d)
    layer = GhostConv2d(
        dense.in_channels,
        dense.out_channels,
        **convolution_arguments(dense),
        **epilogue_arguments(dense),
    )
    ghosts, intrinsic = layer.ghost_channels, layer.intrinsic_channels
    source = torch.randint(intrinsic, (ghosts,)) if shuffled else torch.arange(ghosts)
    order = torch.randperm(layer.out_channels) if shuffled else None
    return layer.set_tables(source, torch.randint(-1, 2, (ghosts, 2)), order).freeze_shifts()


class PlainNetwork(nn.Module):
    """An enlarger of plain torch modules: convolutions, additions, activations, concatenations.

    Args:
        network: The network, which is copied.
        ghosts_by: See ``plain_layer``.
    """

    def __init__(self, network: SRModel, ghosts_by: GhostsBy = "depthwise") -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.scale = network.scale
        for module in list(self.network.modules()):
            if isinstance(module, FusedConv2d | GhostConv2d):
                replace_module(self.network, module, plain_layer(module, ghosts_by))

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, 3, h, w] to the enlarged picture, in whatever layout ``image`` has."""
        if self.network.mean is None:
            return self.network.upscale(image, self.scale)
        return self.network.upscale(image - self.network.mean, self.scale) + self.network.mean


def plain_layer(layer: FusedConv2d | GhostConv2d, ghosts_by: GhostsBy = "depthwise") -> nn.Module:
    """Return a fused or ghost layer as one writes it in plain torch.

    Args:
        layer: The layer, whose shifts are frozen.
        ghosts_by: "depthwise" makes the ghosts by a depthwise convolution of one-hot filters, the
            fastest form in every engine measured; "slices" cuts them from the padded map.
    """
    if isinstance(layer, GhostConv2d) and ghosts_by == "slices":
        return SlicedGhostLayer(layer)
    return _PlainLayer(layer)


class _PlainLayer(nn.Module):
    """Every step of a layer is an operator of its own."""

    def __init__(self, layer: FusedConv2d | GhostConv2d) -> None:
        super().__init__()
        arguments = convolution_arguments(layer)
        self.convolution = nn.Conv2d(layer.in_channels, layer.weight.shape[0], **arguments)
        self.convolution.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        if layer.bias is not None:
            self.convolution.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
        self.ghosts = _DepthwiseGhosts(layer) if isinstance(layer, GhostConv2d) else None
        self.activation = layer.activation
        self.negative_slope = layer.negative_slope
        self.prelu_weight = layer.prelu_weight
        self.residual_scale = layer.residual_scale

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        output: Tensor = self.convolution(input)
        if self.ghosts is not None:
            output = self.ghosts(output)
        if self.residual_scale != 1:
            output = output * self.residual_scale
        if residual is not None:
            output = residual + output
        return activate(output, self.activation, self.negative_slope, self.prelu_weight)


class _DepthwiseGhosts(nn.Module):
    """Moves channels by a one-hot depthwise convolution; reorders them only where they must be."""

    source: Tensor | None
    order: Tensor | None

    def __init__(self, layer: GhostConv2d) -> None:
        super().__init__()
        ghosts, radius = layer.ghost_channels, layer.max_shift
        size = 2 * radius + 1
        self.move = nn.Conv2d(ghosts, ghosts, size, padding=radius, groups=ghosts, bias=False)
        filters = torch.zeros(ghosts, 1, size, size)
        rows, columns = (layer.shift + radius).unbind(dim=1)
        filters[torch.arange(ghosts), 0, rows, columns] = 1
        self.move.weight = nn.Parameter(filters, requires_grad=False)
        for name, channels in (("source", layer.source), ("order", layer.order)):
            in_order = torch.equal(channels, torch.arange(len(channels)))
            all_of_them = name == "order" or ghosts == layer.intrinsic_channels
            self.register_buffer(name, None if in_order and all_of_them else channels.clone())

    def forward(self, intrinsic: Tensor) -> Tensor:
        gathered = intrinsic if self.source is None else intrinsic[:, self.source]
        output = torch.cat([intrinsic, self.move(gathered)], dim=1)
        return output if self.order is None else output[:, self.order]
