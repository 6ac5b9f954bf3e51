"""GhostNet's way to make ghost channels, for comparison with shifting them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostsr_ext.activations import Activation, check_activation
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, convolution_arguments, epilogue_arguments
from ghostsr_ext.reference import activate


class DepthwiseGhostConv2d(nn.Module):
    """A convolution that makes part of its outputs by depthwise convolutions of the others.

    The forward of ``GhostConv2d`` with a k x k filter for every ghost in the place of a shift and a
    gain; a shift is the filter with a single one. Its cost is G * k * k multiply-adds a pixel.

    Source: Han et al., "GhostNet: more features from cheap operations", CVPR 2020, figure 2.

    Args:
        primary: The convolution [N, C_in, H, W] to [N, I, H', W'], without activation.
        ghost_channels: Number of ghost channels, G.
        size: k, odd.
        activation: "none", "relu", "leaky_relu" or "prelu".
        negative_slope: Factor of negative values under "leaky_relu".
        prelu_parameters: Learned factors of negative values under "prelu": 1 or C_out.
        residual_scale: Factor of the layer's output before the residual is added.

    Attributes:
        primary: The convolution to the intrinsic channels.
        cheap: The depthwise convolution [N, G, H', W'] to the same shape.
        source: int64 buffer [G], the intrinsic channel that each ghost is made from.
        order: int64 buffer [I + G]; output p is concat(intrinsic, ghost)[order[p]].
        prelu_weight: [1] or [I + G] under "prelu", else None.
    """

    prelu_weight: nn.Parameter | None
    source: Tensor
    order: Tensor

    def __init__(
        self,
        primary: nn.Conv2d,
        ghost_channels: int,
        size: int,
        *,
        activation: Activation = "none",
        negative_slope: float = 0.01,
        prelu_parameters: int = 1,
        residual_scale: float = 1.0,
    ) -> None:
        outputs = primary.out_channels + ghost_channels
        check_activation(activation, negative_slope, prelu_parameters, outputs)
        super().__init__()
        self.primary = primary
        self.cheap = nn.Conv2d(
            ghost_channels, ghost_channels, size, padding=size // 2, groups=ghost_channels
        )
        self.activation = activation
        self.negative_slope = negative_slope
        slopes = torch.full((prelu_parameters,), 0.25) if activation == "prelu" else None
        self.register_parameter("prelu_weight", None if slopes is None else nn.Parameter(slopes))
        self.residual_scale = residual_scale
        self.register_buffer("source", torch.zeros(ghost_channels, dtype=torch.int64))
        self.register_buffer("order", torch.arange(primary.out_channels + ghost_channels))

    @classmethod
    def from_shifts(cls, layer: GhostConv2d) -> DepthwiseGhostConv2d:
        """Return the layer that computes what ``layer``, with frozen shifts, computes."""
        primary = FusedConv2d(
            layer.in_channels,
            layer.intrinsic_channels,
            **convolution_arguments(layer),
        )
        result = cls(
            primary,
            layer.ghost_channels,
            2 * layer.max_shift + 1,
            **epilogue_arguments(layer),
        ).to(layer.weight.device, layer.weight.dtype)
        with torch.no_grad():
            primary.weight.copy_(layer.weight)
            if layer.bias is not None and primary.bias is not None:
                primary.bias.copy_(layer.bias)
            rows, columns = (layer.selected_shift() + layer.max_shift).unbind(1)
            ghosts = torch.arange(layer.ghost_channels, device=rows.device)
            result.cheap.weight.zero_()
            gain = 1.0 if layer.gain is None else layer.gain
            result.cheap.weight[ghosts, 0, rows, columns] = gain
            assert result.cheap.bias is not None
            result.cheap.bias.zero_()
            if layer.ghost_bias is not None:
                result.cheap.bias.copy_(layer.ghost_bias)
            if result.prelu_weight is not None and layer.prelu_weight is not None:
                result.prelu_weight.copy_(layer.prelu_weight)
            result.source.copy_(layer.source)
            result.order.copy_(layer.order)
        result.requires_grad_(layer.weight.requires_grad)
        return result.train(layer.training)

    @property
    def out_channels(self) -> int:
        """C_out = I + G."""
        return len(self.order)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Convolve [N, C_in, H, W] to [N, C_out, H', W'], the shape that ``residual`` must have."""
        computed = self.primary(input)
        made = self.cheap(computed[:, self.source])
        output = torch.cat([computed, made], dim=1)[:, self.order] * self.residual_scale
        if residual is not None:
            output = residual + output
        return activate(output, self.activation, self.negative_slope, self.prelu_weight)
