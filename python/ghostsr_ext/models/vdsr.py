"""VDSR.

Source: Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ghostsr_ext.models.base import SRModel, checked_count, checked_scales
from ghostsr_ext.models.layers import same_conv


class VDSR(SRModel):
    """A chain of 3x3 convolutions that adds detail to a bicubically enlarged picture.

    One network serves all scales, because its input already has the size of its output.

    Args:
        scale: The scales that the network was trained for, or one of them.
        layers: Convolutions, from 3; 20 in the paper.
        features: Channels; 64 in the paper.
        bias: Whether the convolutions have biases.
        color: ``"y"`` for luma as in the paper, ``"rgb"`` for three channels.
        value_range: The value of white: 1.0 or 255.0.

    Raises:
        InputError: An argument is out of its domain.
    """

    architecture = "vdsr"
    capturable = True

    def __init__(
        self,
        *,
        scale: int | Sequence[int] = (2, 3, 4),
        layers: int = 20,
        features: int = 64,
        bias: bool = True,
        color: Literal["y", "rgb"] = "y",
        value_range: float = 1.0,
    ) -> None:
        checked_count("layers - 2", layers - 2, 1022)
        checked_count("features", features, 4096)
        scales = checked_scales(scale)
        super().__init__(
            config={
                "scale": scales[0] if len(scales) == 1 else list(scales),
                "layers": layers,
                "features": features,
                "bias": bias,
                "color": color,
                "value_range": value_range,
            },
            scales=scales,
            value_range=value_range,
            color=color,
            input_upscaled=True,
        )
        widths = [self.channels, *[features] * (layers - 1), self.channels]
        self.convs = nn.ModuleList(
            same_conv(
                widths[i],
                widths[i + 1],
                3,
                bias=bias,
                activation="relu" if i < layers - 1 else "none",
            )
            for i in range(layers)
        )

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        """Map the enlarged picture [N, C, H, W] to the sharper one of the same shape."""
        features = image
        *inner, last = self.convs
        for conv in inner:
            features = conv(features)
        output: Tensor = last(features, image)
        return output

    def default_layers(self) -> list[str]:
        """Return all convolutions but the first and the last."""
        return [f"convs.{i}" for i in range(1, len(self.convs) - 1)]
