"""CARN and CARN-M.

Source: Ahn et al., "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual
Network", ECCV 2018, and the code published with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models.base import SRModel, checked_count, checked_scales, scaled_div2k_mean
from ghostsr_ext.models.layers import (
    ChannelStack,
    PixelShuffleUpsampler,
    compute_into,
    same_conv,
    upsampling_steps,
)
from ghostsr_ext.ops.given_maps import OfferedMap

UNITS = 3
"""Residual blocks in a cascading block, and cascading blocks in the network."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions in a residual block: ReLU(x + conv(ReLU(conv(x)))) (figure 4a)."""

    converted = ("conv1", "conv2")

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out_channels = features
        self.conv1 = same_conv(features, features, 3, activation="relu")
        self.conv2 = same_conv(features, features, 3, activation="relu")

    def forward(self, features: Tensor, *, out: Tensor | OfferedMap | None = None) -> Tensor:
        """Map [N, C, h, w] to the same shape, into ``out`` if possible."""
        return compute_into(out, self.conv2, self.conv1(features), features)


class EfficientResidualBlock(nn.Module):
    """Two grouped 3x3 convolutions and a 1x1 one with a residual connection (figure 4b)."""

    converted = ("conv1", "conv2", "pointwise")

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.out_channels = features
        self.conv1 = same_conv(features, features, 3, groups=groups, activation="relu")
        self.conv2 = same_conv(features, features, 3, groups=groups, activation="relu")
        self.pointwise = same_conv(features, features, 1, activation="relu")

    def forward(self, features: Tensor, *, out: Tensor | OfferedMap | None = None) -> Tensor:
        """Map [N, C, h, w] to the same shape, into ``out`` if possible."""
        return compute_into(out, self.pointwise, self.conv2(self.conv1(features)), features)


class Cascade(nn.Module):
    """Three units in a row; the input and all unit outputs so far are fused after each (figure 3).

    Args:
        units: The units; one unit alone is used three times (the recursive network of section 3.3).
        features: Channels between the units.
    """

    def __init__(self, units: Sequence[nn.Module], features: int) -> None:
        super().__init__()
        self.out_channels = features
        self.units = nn.ModuleList(units)
        self.fusions = nn.ModuleList(
            same_conv((step + 2) * features, features, 1, activation="relu")
            for step in range(UNITS)
        )

    def forward(self, features: Tensor, *, out: Tensor | OfferedMap | None = None) -> Tensor:
        """Map [N, C, h, w] to the same shape, into ``out`` if possible."""
        cascade = ChannelStack(features, self.fusions[-1])
        output = features
        for step, fusion in enumerate(self.fusions):
            unit = self.units[step % len(self.units)]
            cascade.append_output(unit, output)
            is_last = fusion is self.fusions[-1]
            output = compute_into(out if is_last else None, fusion, cascade.joined)
        return output


class CARN(SRModel):
    """The cascading residual network, CARN, and its mobile form, CARN-M.

    One network may serve several scales: all but the upsampling head is then shared.

    Args:
        scale: One scale of 2, 3, 4 and 8, or several.
        features: Channels; 64 in the paper.
        groups: 1 for CARN. With more, efficient residual blocks and grouped upsampling convolutions
            are used; 4 in CARN-M.
        recursive: Whether the residual blocks of a cascading block are one block used three times,
            as in CARN-M.
        value_range: The value of white: 1.0 or 255.0.
        mean: Mean color in 0..``value_range``; ``"div2k"`` for that of DIV2K, None for no mean
            shift.

    Raises:
        InputError: An argument is out of its domain.
    """

    architecture = "carn"
    capturable = True

    def __init__(
        self,
        *,
        scale: int | Sequence[int] = (2, 3, 4),
        features: int = 64,
        groups: int = 1,
        recursive: bool = False,
        value_range: float = 1.0,
        mean: Sequence[float] | str | None = "div2k",
    ) -> None:
        scales = checked_scales(scale)
        for one in scales:
            upsampling_steps(one)
        checked_count("features", features, 4096)
        checked_count("groups", groups, features)
        if features % groups:
            raise InputError(f"groups: got {groups}, which does not divide features = {features}")
        if isinstance(mean, str):
            if mean != "div2k":
                raise InputError(f"mean: got {mean!r}, allowed are 'div2k', numbers and None")
            mean = scaled_div2k_mean(value_range)
        super().__init__(
            config={
                "scale": scales[0] if len(scales) == 1 else list(scales),
                "features": features,
                "groups": groups,
                "recursive": recursive,
                "value_range": value_range,
                "mean": None if mean is None else list(mean),
            },
            scales=scales,
            value_range=value_range,
            mean=mean,
        )

        def residual_block() -> nn.Module:
            if groups == 1:
                return ResidualBlock(features)
            return EfficientResidualBlock(features, groups)

        def cascading_block() -> nn.Module:
            blocks = [residual_block() for _ in range(1 if recursive else UNITS)]
            return Cascade(blocks, features)

        self.entry = same_conv(3, features, 3)
        self.cascade = Cascade([cascading_block() for _ in range(UNITS)], features)
        self.upsamplers = nn.ModuleDict(
            {
                f"x{one}": PixelShuffleUpsampler(features, one, groups=groups, activation="relu")
                for one in self.scales
            }
        )
        self.exit = same_conv(features, 3, 3)

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        """Map [N, 3, h, w] to [N, 3, scale * h, scale * w], both less the mean."""
        features = self.cascade(self.entry(image))
        output: Tensor = self.exit(self.upsamplers[f"x{scale}"](features))
        return output

    def default_layers(self) -> list[str]:
        """Return the convolutions of the residual blocks, not the 1x1 fusions of the cascades.

        In CARN-M these are the grouped 3x3 convolutions and the 1x1 one that mixes their groups.
        """
        return [
            f"{name}.{conv}"
            for name, module in self.named_modules()
            if isinstance(module, ResidualBlock | EfficientResidualBlock)
            for conv in module.converted
        ]
