"""Which pictures a network takes and gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ghostsr_ext.checkpoints.probing import smooth_picture_error
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d

_SIDE = 24
_VALUE_RANGES = (1.0, 255.0)
# A network that keeps smooth pictures misses them by less than a hundredth of white.
_HOPELESS = 0.05
_CLEARLY_BETTER = 0.7


@dataclass(frozen=True)
class PictureFormat:
    """Which pictures a network takes and gives.

    Attributes:
        scales: What it can enlarge by; its default scale is ``scale``.
        scale: The default one of them.
        value_range: The value of white.
        color: "rgb", or "y" for luma.
        input_upscaled: Whether its input is enlarged already.
    """

    scales: tuple[int, ...]
    scale: int
    value_range: float
    color: Literal["rgb", "y"]
    input_upscaled: bool


def picture_format(
    model: nn.Module, *, scale: int | None = None, value_range: float | None = None
) -> PictureFormat:
    """Return what an ``SRModel`` declares, or find it out by trying the network.

    The scale is that of the output's size to the input's. The value range is the one, of 1 and
    255, at which a smooth picture, enlarged and averaged again, returns.

    Args:
        model: The network, in evaluation mode.
        scale: What is known of it: for a network whose input is enlarged already, by how much.
        value_range: The value of white, where it is known.

    Raises:
        InputError: The network takes no pictures or its value range cannot be told, or what is
            given contradicts what it declares or does.
    """
    _check(scale, value_range)
    if isinstance(model, SRModel):
        for name, given, own in (
            ("scale", scale, model.scale),
            ("value_range", value_range, model.value_range),
        ):
            if given not in (None, own):
                raise InputError(f"{name}: found {given}; the network says {own:g} itself")
        return PictureFormat(
            model.scales, model.scale, model.value_range, model.color, model.input_upscaled
        )
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d | GhostConv2d))
    channels = first.in_channels
    if channels not in (1, 3):
        raise InputError(
            f"calibration: the network's first convolution takes {channels} channels, so it may "
            "not take pictures; pass inputs of it as a tensor [N, C, H, W]"
        )
    enlargement = output_scale(model, torch.zeros(1, channels, _SIDE, _SIDE))
    if enlargement is None:
        raise InputError(
            "calibration: the network gives no pictures of a multiple of its input's size; "
            "pass inputs of it as a tensor [N, C, H, W]"
        )
    if scale is not None and enlargement not in (1, scale):
        raise InputError(f"scale: found {scale}; the network enlarges by {enlargement}")
    scale = scale or enlargement
    return PictureFormat(
        (scale,),
        scale,
        _value_range(model, channels, first.weight) if value_range is None else value_range,
        "rgb" if channels == 3 else "y",
        input_upscaled=scale != enlargement,
    )


@torch.no_grad()
def output_scale(model: nn.Module, example: Tensor) -> int | None:
    """Return how many times as large as ``example`` a network's output is; None if not a map."""
    like = next(p for p in model.parameters() if p.is_floating_point())
    try:
        output = model(example.to(like.device, like.dtype))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        return None
    if not isinstance(output, Tensor) or output.dim() != 4:
        return None
    ratios = {output.shape[axis] / example.shape[axis] for axis in (2, 3)}
    ratio = ratios.pop()
    same_channels = output.shape[1] == example.shape[1]
    return int(ratio) if same_channels and not ratios and ratio >= 1 and ratio % 1 == 0 else None


def _check(scale: int | None, value_range: float | None) -> None:
    if scale is not None and (isinstance(scale, bool) or scale not in range(1, 65)):
        raise InputError(f"scale: found {scale!r}; whole numbers from 1 to 64 are allowed")
    if value_range is not None and not 0 < value_range < math.inf:
        raise InputError(f"value_range: found {value_range!r}; the value of white is allowed")


def _value_range(model: nn.Module, channels: int, like: Tensor) -> float:
    errors = [smooth_picture_error(model, channels, white, like) for white in _VALUE_RANGES]
    best = min(errors)
    if best > _HOPELESS:
        raise InputError(
            "value_range: cannot be told, since smooth pictures do not come back from the network "
            f"(off by {errors[0]:.0%} of white at 1, {errors[1]:.0%} at 255); give it"
        )
    return _VALUE_RANGES[int(errors[1] < _CLEARLY_BETTER * errors[0])]
