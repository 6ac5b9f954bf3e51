"""The networks that benchmarks run: dense, and with untrained ghost layers in their places."""

from __future__ import annotations

from typing import Literal

import torch
from ghostsr_ext.models import SRModel, create_model
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, convolution_arguments, epilogue_arguments
from ghostsr_ext.reference import activate
from torch import Tensor, nn
from torch.nn import functional

NETWORKS = ("edsr", "rdn", "carn")
SCALES = (2, 3, 4)
Form = Literal["dense", "naive", "ours"]
GhostsBy = Literal["depthwise", "slices"]


def make_network(
    name: str,
    scale: int,
    form: Form,
    ghost_ratio: float = 0.5,
    *,
    ghosts_by: GhostsBy = "depthwise",
    plain: bool = True,
) -> SRModel:
    """Return an untrained network in evaluation mode.

    Args:
        name: A preset of ``ghostsr_ext.models``.
        scale: Of the picture.
        form: "dense" is plain torch; "ours" has this library's ghost layers where the network
            declares them; "naive" has the same ghost layers in plain torch.
        ghost_ratio: Part of each layer's outputs that is made by shifting.
        ghosts_by: How "naive" makes its ghosts.
        plain: Whether the forms in plain torch really are; otherwise their layers stay fused, and
            tell what they do.
    """
    network = create_model(name, scale=scale)
    if form != "dense":
        for layer in network.default_layers():
            network.set_submodule(layer, ghost_layer(network.get_submodule(layer), ghost_ratio))
    if form != "ours" and plain:
        for layer, module in list(network.named_modules()):
            if isinstance(module, FusedConv2d | GhostConv2d):
                network.set_submodule(layer, PlainConv2d(module, ghosts_by))
    return network.eval().requires_grad_(False)


def ghost_layer(dense: nn.Module, ghost_ratio: float) -> GhostConv2d:
    """Return a ghost layer of the size of ``dense`` with frozen shifts drawn at random."""
    assert isinstance(dense, FusedConv2d)
    layer = GhostConv2d(
        dense.in_channels,
        dense.out_channels,
        **convolution_arguments(dense),
        ghost_ratio=ghost_ratio,
        **epilogue_arguments(dense),
    )
    generator = torch.Generator().manual_seed(0)
    ghosts = layer.ghost_channels
    layer.set_tables(
        torch.randint(layer.intrinsic_channels, (ghosts,), generator=generator),
        torch.randint(-1, 2, (ghosts, 2), generator=generator),
        torch.randperm(layer.out_channels, generator=generator),
    )
    return layer.freeze_shifts()


class PlainConv2d(nn.Module):
    """A fused or a ghost layer as one writes it in plain torch, every step an operator of its own.

    Args:
        layer: The layer, whose shifts are frozen.
        ghosts_by: "depthwise" makes the ghosts by a depthwise convolution of one-hot filters;
            "slices" cuts them from the padded map, one slice for each of the shifts in use.
    """

    def __init__(
        self,
        layer: FusedConv2d | GhostConv2d,
        ghosts_by: GhostsBy = "depthwise",
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            layer.in_channels,
            layer.weight.shape[0],
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            layer.bias is not None,
        )
        self.convolution.weight = nn.Parameter(layer.weight.detach())
        if layer.bias is not None:
            self.convolution.bias = nn.Parameter(layer.bias.detach())
        self.activation = layer.activation
        self.negative_slope = layer.negative_slope
        self.prelu_weight = layer.prelu_weight
        self.residual_scale = layer.residual_scale
        self.ghosts: DepthwiseGhosts | SlicedGhosts | None = None
        if isinstance(layer, GhostConv2d) and layer.ghost_channels:
            self.ghosts = (DepthwiseGhosts if ghosts_by == "depthwise" else SlicedGhosts)(layer)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return what the layer's own forward does."""
        output: Tensor = self.convolution(input)
        if self.ghosts is not None:
            output = self.ghosts(output)
        if self.residual_scale != 1:
            output = output * self.residual_scale
        if residual is not None:
            output = output + residual
        return activate(output, self.activation, self.negative_slope, self.prelu_weight)


class DepthwiseGhosts(nn.Module):
    """Makes all output channels of the intrinsic ones by a one-hot depthwise convolution."""

    source: Tensor
    order: Tensor
    filters: Tensor

    def __init__(self, layer: GhostConv2d) -> None:
        super().__init__()
        ghosts = layer.ghost_channels
        self.radius = layer.max_shift
        filters = torch.zeros(ghosts, 1, 2 * self.radius + 1, 2 * self.radius + 1)
        dy, dx = (layer.shift + self.radius).unbind(1)
        filters[torch.arange(ghosts), 0, dy, dx] = 1
        self.register_buffer("filters", filters)
        self.register_buffer("source", layer.source.clone())
        self.register_buffer("order", layer.order.clone())

    def forward(self, intrinsic: Tensor) -> Tensor:
        """Return [N, I + G, H, W]."""
        ghosts = len(self.source)
        gathered = intrinsic[:, self.source]
        ghost = functional.conv2d(gathered, self.filters, None, 1, self.radius, 1, ghosts)
        return torch.cat([intrinsic, ghost], 1)[:, self.order]


class SlicedGhosts(nn.Module):
    """The same by slices of the padded map, one for each of the shifts in use."""

    source: Tensor
    order: Tensor

    def __init__(self, layer: GhostConv2d) -> None:
        super().__init__()
        self.radius = layer.max_shift
        ghosts, intrinsic = layer.ghost_channels, layer.intrinsic_channels
        groups: dict[tuple[int, int], list[int]] = {}
        for ghost, (dy, dx) in enumerate(layer.shift.tolist()):
            groups.setdefault((dy, dx), []).append(ghost)
        self.moves = [(dy, dx, len(members)) for (dy, dx), members in groups.items()]
        grouped = torch.tensor([ghost for members in groups.values() for ghost in members])
        self.register_buffer("source", layer.source[grouped])
        channels = torch.cat([torch.arange(intrinsic), intrinsic + torch.empty_like(grouped)])
        channels[intrinsic + grouped] = intrinsic + torch.arange(ghosts)
        self.register_buffer("order", channels[layer.order])

    def forward(self, intrinsic: Tensor) -> Tensor:
        """Return [N, I + G, H, W]."""
        height, width = intrinsic.shape[2:]
        padded = functional.pad(intrinsic, [self.radius] * 4)
        pieces = [intrinsic]
        for (dy, dx, _), source in zip(
            self.moves, self.source.split([count for *_, count in self.moves]), strict=True
        ):
            top, left = self.radius + dy, self.radius + dx
            pieces.append(padded[:, source, top : top + height, left : left + width])
        return torch.cat(pieces, 1)[:, self.order]
