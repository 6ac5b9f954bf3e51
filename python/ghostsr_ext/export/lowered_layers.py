"""The package's layers in torch's ordinary operators."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.nn import FusedConv2d, GhostConv2d, convolution_arguments
from ghostsr_ext.reference import activate


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


class DenseLayer(nn.Module):
    """``FusedConv2d``."""

    def __init__(self, layer: FusedConv2d) -> None:
        super().__init__()
        self.conv = _plain_conv(layer, layer.out_channels, layer.residual_scale)
        self.epilogue = _Epilogue(layer)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H', W'], the shape that ``residual`` must have."""
        output: Tensor = self.epilogue(self.conv(input), residual)
        return output


class DepthwiseGhostLayer(nn.Module):
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
        """Map [N, C_in, H, W] to [N, C_out, H', W'], the shape that ``residual`` must have."""
        output: Tensor = self.epilogue(self.move(self.copy(self.conv(input))), residual)
        return output


class SlicedGhostLayer(nn.Module):
    """``GhostConv2d`` with a slice of the padded map for each shift."""

    factor: Tensor
    offset: Tensor

    def __init__(self, layer: GhostConv2d) -> None:
        super().__init__()
        tables = _Tables(layer)
        self.conv = _plain_conv(layer, layer.intrinsic_channels, 1.0)
        self.radius = int(tables.shift.abs().max()) if layer.ghost_channels else 0
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
        """Map [N, C_in, H, W] to [N, C_out, H', W'], the shape that ``residual`` must have."""
        convolved = self.conv(input)
        radius = self.radius
        padded = functional.pad(convolved, (radius, radius, radius, radius))
        rows, columns = convolved.shape[2:]
        pieces = []
        for number, (dy, dx) in enumerate(self.shifts):
            top, left = radius + dy, radius + dx
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
