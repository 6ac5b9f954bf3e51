"""The activations that a layer can end with, by torch's own names."""

from __future__ import annotations

import math
from typing import Literal, get_args

Activation = Literal["none", "relu", "leaky_relu", "prelu"]

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


def check_activation(
    activation: str, negative_slope: float, prelu_parameters: int, out_channels: int
) -> None:
    """Check what a layer is told about its activation.

    Args:
        activation: One of ``ACTIVATIONS``.
        negative_slope: Factor of negative values under "leaky_relu"; finite.
        prelu_parameters: Learned factors of negative values under "prelu": 1 or ``out_channels``.
        out_channels: Channels of the layer's output.

    Raises:
        ValueError: An argument is outside the allowed values.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f'activation: found "{activation}"; allowed are {", ".join(ACTIVATIONS)}')
    if not math.isfinite(negative_slope):
        raise ValueError(f"negative_slope: found {negative_slope}; a finite number is needed")
    if prelu_parameters not in (1, out_channels):
        raise ValueError(
            f"prelu_parameters: found {prelu_parameters}; 1 or out_channels = {out_channels} is "
            "allowed"
        )
