"""RDN.

Source: Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models.base import SRModel, checked_count
from ghostsr_ext.models.layers import (
    ChannelStack,
    PixelShuffleUpsampler,
    same_conv,
    upsampling_steps,
)


class ResidualDenseBlock(nn.Module):
    """Densely connected 3x3 convolutions, a 1x1 fusion and a residual (section 3.2)."""

    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            same_conv(features + layer * growth, growth, 3, activation="relu")
            for layer in range(layers)
        )
        self.local_fusion = same_conv(features + layers * growth, features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        dense = ChannelStack(features, self.local_fusion)
        for layer in self.layers:
            dense.append_output(layer)
        output: Tensor = self.local_fusion(dense.joined, features)
        return output


class _NearestTail(nn.Module):
    """The tail of idealo's networks, with nearest-neighbour enlargement."""

    def __init__(self, features: int, scale: int) -> None:
        super().__init__()
        self.conv1 = same_conv(features, 64, 5, activation="relu")
        self.conv2 = same_conv(64, 32, 3, activation="relu")
        self.conv3 = same_conv(32, 3 * scale**2, 3)
        self.enlarge = nn.Upsample(scale_factor=scale, mode="nearest")
        self.output = same_conv(3 * scale**2, 3, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to a picture [N, 3, scale * h, scale * w]."""
        output: Tensor = self.output(self.enlarge(self.conv3(self.conv2(self.conv1(features)))))
        return output


class _PixelShuffleTail(nn.Module):
    """The tail of the paper: sub-pixel convolution in feature space and a 3x3 convolution."""

    def __init__(self, features: int, scale: int) -> None:
        super().__init__()
        self.upsampler = PixelShuffleUpsampler(features, scale)
        self.output = same_conv(features, 3, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to a picture [N, 3, scale * h, scale * w]."""
        output: Tensor = self.output(self.upsampler(features))
        return output


class RDN(SRModel):
    """The residual dense network.

    Args:
        scale: 2, 3, 4 or 8.
        blocks: Residual dense blocks, D in the paper.
        layers: 3x3 convolutions in each, C in the paper.
        growth: Channels that each of them adds, G in the paper.
        features: Channels between the blocks, G0 in the paper.
        value_range: The value of white: 1.0 or 255.0.
        mean: Mean color in 0..``value_range``, or None.
        tail: ``"pixel_shuffle"`` as in the paper, or ``"nearest"``: convolutions of 5x5 to 64, 3x3
            to 32 and 3x3 to 3 * scale² channels, nearest-neighbour enlargement and a 3x3
            convolution, as in the networks published by idealo.

    Raises:
        InputError: An argument is out of its domain.
    """

    architecture = "rdn"
    capturable = True

    def __init__(
        self,
        *,
        scale: int = 2,
        blocks: int = 16,
        layers: int = 8,
        growth: int = 64,
        features: int = 64,
        value_range: float = 1.0,
        mean: Sequence[float] | None = None,
        tail: Literal["pixel_shuffle", "nearest"] = "pixel_shuffle",
    ) -> None:
        checked_count("blocks", blocks, 1024)
        checked_count("layers", layers, 256)
        checked_count("growth", growth, 4096)
        checked_count("features", features, 4096)
        upsampling_steps(scale)
        if tail not in ("pixel_shuffle", "nearest"):
            raise InputError(f"tail: got {tail!r}, allowed are 'pixel_shuffle' and 'nearest'")
        super().__init__(
            config={
                "scale": scale,
                "blocks": blocks,
                "layers": layers,
                "growth": growth,
                "features": features,
                "value_range": value_range,
                "mean": None if mean is None else list(mean),
                "tail": tail,
            },
            scales=(scale,),
            value_range=value_range,
            mean=mean,
        )
        self.shallow1 = same_conv(3, features, 3)
        self.shallow2 = same_conv(features, features, 3)
        self.blocks = nn.ModuleList(
            ResidualDenseBlock(features, growth, layers) for _ in range(blocks)
        )
        self.global_fusion1 = same_conv(blocks * features, features, 1)
        self.global_fusion2 = same_conv(features, features, 3)
        tail_type = _PixelShuffleTail if tail == "pixel_shuffle" else _NearestTail
        self.tail = tail_type(features, scale)

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        """Map [N, 3, h, w] to [N, 3, scale * h, scale * w], both less the mean."""
        shallow = self.shallow1(image)
        features = self.shallow2(shallow)
        local_features = []
        for block in self.blocks:
            features = block(features)
            local_features.append(features)
        fused = self.global_fusion1(torch.cat(local_features, dim=1))
        output: Tensor = self.tail(self.global_fusion2(fused, shallow))
        return output

    def default_layers(self) -> list[str]:
        """Return the 3x3 convolutions of the residual dense blocks."""
        layers = self.config["layers"]
        return [f"blocks.{d}.layers.{c}" for d in range(len(self.blocks)) for c in range(layers)]
