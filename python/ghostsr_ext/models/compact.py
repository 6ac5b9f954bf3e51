"""SRVGGNetCompact, the small network of Real-ESRGAN for videos and everyday pictures.

Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", ICCVW 2021, and the code published with it.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models.base import SRModel, checked_count
from ghostsr_ext.models.layers import add_shuffled_to_nearest, same_conv

NEGATIVE_SLOPE = 0.1
"""The slope of LeakyReLU in the published code."""

_ACTIVATIONS = ("prelu", "relu", "leaky_relu")


class SRVGGNetCompact(SRModel):
    """A chain of 3x3 convolutions that adds detail to a picture enlarged by repeating its pixels.

    Pictures are in 0..1.

    Args:
        scale: How many times the network enlarges, from 1 to 16.
        layers: Convolutions between the first and the last; 16 in the network for videos, 32 in
            the general one.
        features: Channels.
        activation: ``"prelu"`` with a slope a channel, ``"relu"``, or ``"leaky_relu"`` with slope
            0.1.

    Raises:
        InputError: An argument is out of its domain.
    """

    architecture = "compact"
    capturable = True

    def __init__(
        self,
        *,
        scale: int = 4,
        layers: int = 16,
        features: int = 64,
        activation: Literal["prelu", "relu", "leaky_relu"] = "prelu",
    ) -> None:
        checked_count("scale", scale, 16)
        checked_count("layers", layers, 1024)
        checked_count("features", features, 4096)
        if activation not in _ACTIVATIONS:
            raise InputError(
                f"activation: got {activation!r}, allowed are {', '.join(_ACTIVATIONS)}"
            )
        super().__init__(
            config={
                "scale": scale,
                "layers": layers,
                "features": features,
                "activation": activation,
            },
            scales=(scale,),
            value_range=1.0,
        )
        self.convs = nn.ModuleList(
            same_conv(
                features if layer else 3,
                features,
                3,
                activation=activation,
                negative_slope=NEGATIVE_SLOPE,
                prelu_parameters=features,
            )
            for layer in range(layers + 1)
        )
        self.last = same_conv(features, 3 * scale**2, 3)
        self.shuffle = nn.PixelShuffle(scale)
        self.enlarge = nn.Upsample(scale_factor=scale, mode="nearest")

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        """Map [N, 3, h, w] to [N, 3, scale * h, scale * w]."""
        features = image
        for conv in self.convs:
            features = conv(features)
        return add_shuffled_to_nearest(self.last, self.shuffle, features, self.enlarge, image)

    def default_layers(self) -> list[str]:
        """Return all convolutions but the first and the last."""
        return [f"convs.{layer}" for layer in range(1, len(self.convs))]
