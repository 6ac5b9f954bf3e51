"""EDSR.

Source: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models.base import SRModel, checked_count, checked_number, scaled_div2k_mean
from ghostsr_ext.models.layers import (
    PixelShuffleUpsampler,
    convolve_and_shuffle,
    same_conv,
    upsampling_steps,
)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a ReLU, scaled and added to the input (section 3.1)."""

    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.conv1 = same_conv(features, features, 3, activation="relu")
        self.conv2 = same_conv(features, features, 3, residual_scale=residual_scale)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        output: Tensor = self.conv2(self.conv1(features), features)
        return output


class EDSR(SRModel):
    """The single-scale EDSR.

    Args:
        scale: 2, 3, 4 or 8.
        blocks: Residual blocks; 32 in the paper, 16 in its baseline.
        features: Channels of the body; 256 in the paper, 64 in its baseline.
        residual_scale: Factor on the residual branch of each block; 0.1 in the paper, 1 in its
            baseline.
        value_range: The value of white: 1.0 or 255.0.
        mean: Mean color in 0..``value_range``; ``"div2k"`` for that of DIV2K, None for no mean
            shift.
        tail: ``"pixel_shuffle"`` upsamples in feature space and ends with a 3x3 convolution, as the
            paper does; ``"direct"`` has one convolution to 3 * scale² channels and a pixel shuffle.

    Raises:
        InputError: An argument is out of its domain.
    """

    architecture = "edsr"
    capturable = True

    def __init__(
        self,
        *,
        scale: int = 2,
        blocks: int = 32,
        features: int = 256,
        residual_scale: float = 0.1,
        value_range: float = 255.0,
        mean: Sequence[float] | Literal["div2k"] | None = "div2k",
        tail: Literal["pixel_shuffle", "direct"] = "pixel_shuffle",
    ) -> None:
        checked_count("blocks", blocks, 1024)
        checked_count("features", features, 4096)
        checked_number("residual_scale", residual_scale)
        upsampling_steps(scale)
        if tail not in ("pixel_shuffle", "direct"):
            raise InputError(f"tail: got {tail!r}, allowed are 'pixel_shuffle' and 'direct'")
        color_mean = scaled_div2k_mean(value_range) if mean == "div2k" else mean
        super().__init__(
            config={
                "scale": scale,
                "blocks": blocks,
                "features": features,
                "residual_scale": residual_scale,
                "value_range": value_range,
                "mean": None if color_mean is None else list(color_mean),
                "tail": tail,
            },
            scales=(scale,),
            value_range=value_range,
            mean=color_mean,
        )
        self.head = same_conv(3, features, 3)
        self.body = nn.ModuleList(ResidualBlock(features, residual_scale) for _ in range(blocks))
        self.body_end = same_conv(features, features, 3)
        self.upsampler: nn.Module
        if tail == "pixel_shuffle":
            self.upsampler = PixelShuffleUpsampler(features, scale)
            self.tail = same_conv(features, 3, 3)
        else:
            self.upsampler = nn.PixelShuffle(scale)
            self.tail = same_conv(features, 3 * scale**2, 3)

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        """Map [N, 3, h, w] to [N, 3, scale * h, scale * w], both less the mean."""
        head = self.head(image)
        features = head
        for block in self.body:
            features = block(features)
        features = self.body_end(features, head)
        if self.config["tail"] == "direct":
            return convolve_and_shuffle(self.tail, self.upsampler, features)
        output: Tensor = self.tail(self.upsampler(features))
        return output

    def default_layers(self) -> list[str]:
        """Return the two convolutions of every residual block, as the released GhostSR network."""
        return [f"body.{i}.{conv}" for i in range(len(self.body)) for conv in ("conv1", "conv2")]
