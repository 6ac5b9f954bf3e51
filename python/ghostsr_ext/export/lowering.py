"""Saying what a network does in torch's ordinary operators alone."""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, convolution_arguments
from ghostsr_ext.reference import activate

GhostForm = Literal["depthwise", "slices"]
GHOST_FORMS: tuple[str, ...] = get_args(GhostForm)


def lower(
    model: SRModel,
    *,
    scale: int | None = None,
    ghost_as: GhostForm = "depthwise",
) -> LoweredNetwork:
    """Return a copy of a network that uses no operator of this package.

    Args:
        model: The network; it is not changed.
        scale: One of its scales; None for its own.
        ghost_as: What ghost channels become. ``"depthwise"``: a 1x1 convolution that copies each
            ghost's source, then a depthwise convolution that moves it; both have filters of one 1
            and zeros elsewhere. Fastest where convolutions are fast: in all runtimes measured.
            ``"slices"``: a padded map, of which each shift is a slice, and a concatenation.

    Raises:
        InputError: An argument is out of its domain.
    """
    scale = model.scale if scale is None else scale
    if scale not in model.scales:
        served = ", ".join(f"x{served}" for served in model.scales)
        raise InputError(f"scale: {scale}; this network serves {served}")
    if ghost_as not in GHOST_FORMS:
        raise InputError(f"ghost_as: {ghost_as!r}; must be one of {', '.join(GHOST_FORMS)}")
    network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    original = copy.deepcopy(network)
    _replace_layers(network, ghost_as)
    return LoweredNetwork(network, original, scale, ghost_as)


class LoweredNetwork(nn.Module):
    """A network at one scale, in torch's ordinary operators.

    Attributes:
        original: The network that it must agree with, in float64.
        scale: How many times it enlarges.
        ghost_as: What ghost channels have become.
    """

    def __init__(
        self, network: SRModel, original: SRModel, scale: int, ghost_as: GhostForm
    ) -> None:
        super().__init__()
        self.network = network
        # In a list, so that its weights are no part of this module.
        self._original = [original.double()]
        self.scale = scale
        self.ghost_as = ghost_as
        self.eval()

    @property
    def original(self) -> SRModel:
        """The network that it must agree with."""
        return self._original[0]

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, C, h, w] in 0..``value_range`` to the enlarged picture.

        Both are float32, whatever the weights are.
        """
        dtype = next(self.parameters()).dtype
        image = image.to(dtype)
        # As SRModel.forward, less its checks and its choice of a memory layout: other runtimes make
        # their own.
        mean = self.network.mean
        if mean is None:
            return self.network.upscale(image, self.scale).float()
        return (self.network.upscale(image - mean, self.scale) + mean).float()

    def description(self) -> dict[str, str]:
        """What a caller has to know, as texts."""
        network = self.original
        return {
            "architecture": network.architecture,
            "scale": str(self.scale),
            "value_range": f"{network.value_range:g}",
            "colour": network.colour,
            "input_upscaled": str(network.input_upscaled).lower(),
            "receptive_field": str(network.receptive_field),
            "layout": "NCHW",
        }

    def example(self, rows: int, columns: int) -> Tensor:
        """Return an input of this size, smooth with some noise, the same at each call."""
        generator = torch.Generator().manual_seed(rows * 1000 + columns)
        shape = (1, self.original.channels, rows, columns)
        noise = torch.rand(shape, generator=generator)
        ramp = torch.linspace(0, 1, columns).expand(shape)
        return (0.2 * noise + 0.8 * ramp) * self.original.value_range


class _Epilogue(nn.Module):
    """What follows a convolution: the residual and the activation."""

    def __init__(self, layer: FusedConv2d | GhostConv2d) -> None:
        super().__init__()
        self.activation = layer.activation
        self.negative_slope = layer.negative_slope
        self.prelu_weight = copy.deepcopy(layer.prelu_weight)

    def forward(self, output: Tensor, residual: Tensor | None) -> Tensor:
        if residual is not None:
            output = residual + output
        return activate(output, self.activation, self.negative_slope, self.prelu_weight)


class _DenseLayer(nn.Module):
    """``FusedConv2d``."""

    def __init__(self, layer: FusedConv2d) -> None:
        super().__init__()
        self.conv = _plain_conv(layer, layer.out_channels, layer.residual_scale)
        self.epilogue = _Epilogue(layer)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        output: Tensor = self.epilogue(self.conv(input), residual)
        return output


class _DepthwiseGhostLayer(nn.Module):
    """``GhostConv2d`` with one-hot filters that copy and move channels."""

    def __init__(self, layer: GhostConv2d) -> None:
        super().__init__()
        tables = _Tables(layer)
        outputs, intrinsic = layer.out_channels, layer.intrinsic_channels
        self.conv = _plain_conv(layer, intrinsic, 1.0)
        # Both one-hot convolutions take the output's order, so nothing has to be permuted.
        self.copy = nn.Conv2d(intrinsic, outputs, 1, bias=False)
        self.copy.weight.data = functional.one_hot(tables.channel, intrinsic).float()[
            :, :, None, None
        ]
        rows, columns = tables.shift.abs().amax(dim=0).tolist()
        self.move = nn.Conv2d(
            outputs,
            outputs,
            (2 * rows + 1, 2 * columns + 1),
            padding=(rows, columns),
            groups=outputs,
        )
        filters = torch.zeros(outputs, 1, 2 * rows + 1, 2 * columns + 1)
        down, right = (tables.shift + torch.tensor([rows, columns])).unbind(dim=1)
        filters[torch.arange(outputs), 0, down, right] = tables.gain * layer.residual_scale
        self.move.weight.data = filters
        assert self.move.bias is not None
        self.move.bias.data = tables.offset * layer.residual_scale
        self.epilogue = _Epilogue(layer)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        output: Tensor = self.epilogue(self.move(self.copy(self.conv(input))), residual)
        return output


class _SlicedGhostLayer(nn.Module):
    """``GhostConv2d`` with a slice of the padded map for each shift."""

    factor: Tensor
    offset: Tensor

    def __init__(self, layer: GhostConv2d) -> None:
        super().__init__()
        tables = _Tables(layer)
        self.conv = _plain_conv(layer, layer.intrinsic_channels, 1.0)
        self.reach = int(tables.shift.abs().max()) if layer.ghost_channels else 0
        self.shifts = [tuple(shift) for shift in torch.unique(tables.shift, dim=0).tolist()]
        placed = []
        for number, shift in enumerate(self.shifts):
            outputs = (tables.shift == torch.tensor(shift)).all(dim=1).nonzero()[:, 0]
            self.register_buffer(f"channels{number}", tables.channel[outputs])
            placed.append(outputs)
        self.register_buffer("order", torch.cat(placed).argsort())
        self.register_buffer("factor", (tables.gain * layer.residual_scale)[:, None, None])
        self.register_buffer("offset", (tables.offset * layer.residual_scale)[:, None, None])
        self.is_scaled = bool((self.factor != 1).any())
        self.is_offset = bool((self.offset != 0).any())
        self.epilogue = _Epilogue(layer)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        convolved = self.conv(input)
        reach = self.reach
        padded = functional.pad(convolved, (reach, reach, reach, reach))
        rows, columns = convolved.shape[2:]
        pieces = []
        for number, (dy, dx) in enumerate(self.shifts):
            top, left = reach + dy, reach + dx
            moved = padded[:, :, top : top + rows, left : left + columns]
            pieces.append(moved.index_select(1, self.get_buffer(f"channels{number}")))
        output = torch.cat(pieces, dim=1).index_select(1, self.get_buffer("order"))
        if self.is_scaled:
            output = output * self.factor
        if self.is_offset:
            output = output + self.offset
        result: Tensor = self.epilogue(output, residual)
        return result


class _Tables:
    """Where each output channel of a ghost layer comes from, intrinsic ones included.

    Attributes:
        channel: The intrinsic channel, [C_out].
        shift: (dy, dx), [C_out, 2].
        gain: Its factor, [C_out].
        offset: What is added to it, [C_out].
    """

    def __init__(self, layer: GhostConv2d) -> None:
        intrinsic, ghosts = layer.intrinsic_channels, layer.ghost_channels
        gain = torch.ones(ghosts) if layer.gain is None else layer.gain.detach()
        offset = torch.zeros(ghosts) if layer.ghost_bias is None else layer.ghost_bias.detach()
        channel = torch.cat([torch.arange(intrinsic), layer.source])
        shift = torch.cat([torch.zeros(intrinsic, 2, dtype=torch.int64), layer.selected_shift()])
        self.channel = channel[layer.order]
        self.shift = shift[layer.order]
        self.gain = torch.cat([torch.ones(intrinsic), gain])[layer.order]
        self.offset = torch.cat([torch.zeros(intrinsic), offset])[layer.order]


def _plain_conv(layer: FusedConv2d | GhostConv2d, outputs: int, factor: float) -> nn.Conv2d:
    conv = nn.Conv2d(
        layer.in_channels,
        outputs,
        **convolution_arguments(layer),
    )
    conv.weight.data = layer.weight.detach() * factor
    if conv.bias is not None and layer.bias is not None:
        conv.bias.data = layer.bias.detach() * factor
    return conv


def _replace_layers(network: nn.Module, ghost_as: GhostForm) -> None:
    ghost_layer = _DepthwiseGhostLayer if ghost_as == "depthwise" else _SlicedGhostLayer
    # A layer that is used under several names stays one layer.
    lowered: dict[nn.Module, nn.Module] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, GhostConv2d):
            lowered.setdefault(module, ghost_layer(module))
        elif isinstance(module, FusedConv2d):
            lowered.setdefault(module, _DenseLayer(module))
        else:
            continue
        network.set_submodule(name, lowered[module])
