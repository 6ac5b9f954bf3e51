"""RRDBNet, the network of ESRGAN, Real-ESRGAN and BSRGAN.

Sources: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW
2018; and for the pixel unshuffle Wang et al., "Real-ESRGAN: Training Real-World Blind
Super-Resolution with Pure Synthetic Data", ICCVW 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models.base import SRModel, checked_count
from ghostsr_ext.models.layers import ChannelStack, same_conv

RESIDUAL_SCALE = 0.2
"""Factor of the residual branches, beta in the paper."""
NEGATIVE_SLOPE = 0.2
"""The slope of every LeakyReLU."""


class ResidualDenseBlock(nn.Module):
    """Five densely connected 3x3 convolutions, scaled and added to the input (figure 4)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _leaky_conv(features + layer * growth, growth) for layer in range(4)
        )
        self.fusion = same_conv(features + 4 * growth, features, 3, residual_scale=RESIDUAL_SCALE)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        dense = ChannelStack(features, self.fusion)
        for layer in self.layers:
            dense.append_output(layer)
        output: Tensor = self.fusion(dense.joined, features)
        return output


class ResidualInResidualDenseBlock(nn.Module):
    """Three residual dense blocks in a row, scaled and added to the input (figure 4)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualDenseBlock(features, growth) for _ in range(3))

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        output = features
        for block in self.blocks:
            output = block(output)
        return torch.add(features, output, alpha=RESIDUAL_SCALE)


class RRDBNet(SRModel):
    """The network of residual-in-residual dense blocks, for pictures in 0..1.

    Args:
        scale: 1, 2, 4, 8 or 16.
        blocks: Residual-in-residual dense blocks; 23 in the papers, 6 in Real-ESRGAN's network for
            drawings.
        features: Channels between the blocks.
        growth: Channels that each convolution of a dense block adds.
        unshuffle: 1, 2 or 4: the side of the squares of pixels that become channels before the
            first convolution. ``scale * unshuffle`` is what the network enlarges by, in steps of
            2. None for what Real-ESRGAN does: 4 at x1, 2 at x2, else 1.

    Raises:
        InputError: An argument is out of its domain.
    """

    architecture = "rrdbnet"
    capturable = True

    def __init__(
        self,
        *,
        scale: int = 4,
        blocks: int = 23,
        features: int = 64,
        growth: int = 32,
        unshuffle: int | None = None,
    ) -> None:
        if isinstance(scale, bool) or scale not in (1, 2, 4, 8, 16):
            raise InputError(f"scale: got {scale!r}, allowed are 1, 2, 4, 8 and 16")
        checked_count("blocks", blocks, 1024)
        checked_count("features", features, 4096)
        checked_count("growth", growth, 4096)
        if unshuffle is None:
            unshuffle = max(1, 4 // scale)
        if isinstance(unshuffle, bool) or unshuffle not in (1, 2, 4):
            raise InputError(f"unshuffle: got {unshuffle!r}, allowed are 1, 2 and 4")
        super().__init__(
            config={
                "scale": scale,
                "blocks": blocks,
                "features": features,
                "growth": growth,
                "unshuffle": unshuffle,
            },
            scales=(scale,),
            value_range=1.0,
            multiple=unshuffle,
        )
        steps = (scale * unshuffle).bit_length() - 1
        self.unshuffle = nn.PixelUnshuffle(unshuffle)
        self.first = same_conv(3 * unshuffle**2, features, 3)
        self.body = nn.ModuleList(
            ResidualInResidualDenseBlock(features, growth) for _ in range(blocks)
        )
        self.body_end = same_conv(features, features, 3)
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")
        self.enlarged = nn.ModuleList(_leaky_conv(features, features) for _ in range(steps))
        self.before_last = _leaky_conv(features, features)
        self.last = same_conv(features, 3, 3)

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        """Map [N, 3, h, w] to [N, 3, scale * h, scale * w]."""
        first = self.first(self.unshuffle(image))
        features = first
        for block in self.body:
            features = block(features)
        features = self.body_end(features, first)
        for conv in self.enlarged:
            features = conv(self.enlarge(features))
        output: Tensor = self.last(self.before_last(features))
        return output

    def default_layers(self) -> list[str]:
        """Return all convolutions of the dense blocks."""
        return [
            f"{name}.{conv}"
            for name, module in self.named_modules()
            if isinstance(module, ResidualDenseBlock)
            for conv in (*(f"layers.{layer}" for layer in range(4)), "fusion")
        ]


def _leaky_conv(in_channels: int, out_channels: int) -> nn.Module:
    return same_conv(
        in_channels, out_channels, 3, activation="leaky_relu", negative_slope=NEGATIVE_SLOPE
    )
