"""PSNR and SSIM as super-resolution papers measure them, with the protocol beside the number."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging.color import luma, luma_uint8, round_to_uint8

Channel = Literal["y", "rgb"]
Rounding = Literal["uint8", "float"]

PEAK = 255.0
"""Largest value of a picture, as PSNR and SSIM take it."""

SSIM_WINDOW = 11
"""Side of the Gaussian window of SSIM; smaller pictures have no SSIM."""

_SSIM_SIGMA = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03

# EDSR (Lim et al. 2017, section 4) leaves out 6 + scale pixels on DIV2K.
_DIV2K_EXTRA_BORDER = 6


@dataclass(frozen=True)
class Protocol:
    """How a super-resolved picture is compared with the original.

    Attributes:
        channel: ``"y"`` compares luma, ``"rgb"`` all three channels.
        y_rounding: Whether luma is rounded to ``"uint8"`` (CARN, SelfExSR) or kept in ``"float"``
            (EDSR, RDN). Has no meaning for ``"rgb"``.
        output_rounding: Whether the network's output is clipped and rounded to ``"uint8"`` before
            the comparison, or kept in ``"float"`` (clipped all the same).
        crop_border: Pixels left out along each edge.
        low_resolution: What the network is given: the data set's small pictures, ``"uint8"``; or
            small pictures made from the originals in floating point, ``"float"`` (VDSR).
    """

    channel: Channel = "y"
    y_rounding: Rounding = "float"
    output_rounding: Rounding = "uint8"
    crop_border: int = 0
    low_resolution: Rounding = "uint8"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: One of them is not allowed.
        """
        _check_choice("channel", self.channel, ("y", "rgb"))
        for name in ("y_rounding", "output_rounding", "low_resolution"):
            _check_choice(name, getattr(self, name), ("uint8", "float"))
        if self.crop_border != int(self.crop_border) or self.crop_border < 0:
            raise InputError(f"crop_border: {self.crop_border}; must be a whole number, 0 or more")

    @classmethod
    def benchmark(cls, scale: int, *, y_rounding: Rounding = "float") -> Protocol:
        """Set5, Set14, B100, Urban100: luma, with ``scale`` pixels left out along each edge."""
        return cls(y_rounding=y_rounding, crop_border=scale)

    @classmethod
    def div2k(cls, scale: int) -> Protocol:
        """DIV2K: all three channels, with ``scale + 6`` pixels left out along each edge."""
        return cls(channel="rgb", crop_border=scale + _DIV2K_EXTRA_BORDER)

    @classmethod
    def vdsr(cls, scale: int) -> Protocol:
        """VDSR (Kim et al. 2016): luma in floating point from the small picture to the output."""
        return cls(output_rounding="float", crop_border=scale, low_resolution="float")

    def as_dict(self) -> dict[str, Any]:
        """The protocol as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Quality:
    """What a comparison gives.

    Attributes:
        psnr: The PSNR in dB; infinite for equal pictures.
        ssim: The SSIM, at most 1; NaN where what is left without the border is smaller than its
            window.
    """

    psnr: float
    ssim: float


def compare(output: NDArray[Any], target: NDArray[Any], protocol: Protocol) -> Quality:
    """Measure a network's output against the original by a protocol.

    Args:
        output: RGB ``[H, W, 3]`` or luma ``[H, W]`` in 0..255 before rounding and clipping.
        target: The original, of the same height and width: RGB, or luma when ``output`` is luma.
        protocol: How to compare. Its ``low_resolution`` is a matter of the caller.

    Returns:
        PSNR and SSIM.

    Raises:
        InputError: Sizes or channels that do not match, a NaN or infinite output, or nothing left
            after shaving.
    """
    if output.shape[:2] != target.shape[:2]:
        raise InputError(f"output: {_size(output)}; must have the target's size {_size(target)}")
    if not np.isfinite(output).all():
        raise InputError("output: has NaN or infinite values")
    output = output.clip(0, PEAK)
    if protocol.output_rounding == "uint8":
        output = round_to_uint8(output)
    measured, expected = _measured(output, protocol), _measured(target, protocol)
    return Quality(psnr(measured, expected), ssim(measured, expected))


def psnr(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio over all values of two pictures.

    Args:
        image: Values in 0..255, any shape and numeric type.
        reference: The picture to compare with, of the same shape.

    Returns:
        ``10 log10(255^2 / mean squared error)`` in dB, in double precision; infinite when equal.

    Raises:
        InputError: Shapes that differ or are empty.
    """
    image, reference = _pair(image, reference)
    error = float(np.mean(np.square(image - reference)))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Structural similarity (Wang et al. 2004), as their ``ssim_index.m`` computes it.

    Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only where the window fits;
    double precision.

    Args:
        image: ``[H, W]`` or ``[H, W, C]`` in 0..255; channels are averaged.
        reference: The picture to compare with, of the same shape.

    Returns:
        The mean over the picture; NaN when a side is shorter than the window.

    Raises:
        InputError: Shapes that differ, are empty, or are no picture's.
    """
    image, reference = _pair(image, reference)
    if image.ndim not in (2, 3):
        raise InputError(f"image: shape {image.shape}; must be [H, W] or [H, W, C]")
    if image.ndim == 3:
        channels = range(image.shape[2])
        return float(np.mean([ssim(image[..., c], reference[..., c]) for c in channels]))
    if min(image.shape) < SSIM_WINDOW:
        return math.nan
    c1, c2 = (_SSIM_K1 * PEAK) ** 2, (_SSIM_K2 * PEAK) ** 2
    mean_x, mean_y = _window_mean(image), _window_mean(reference)
    variances = _window_mean(image**2 + reference**2) - mean_x**2 - mean_y**2
    covariance = _window_mean(image * reference) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return float(np.mean(luminance * structure))


def _measured(image: NDArray[Any], protocol: Protocol) -> NDArray[Any]:
    if protocol.channel == "y" and image.ndim == 3:
        image = luma(image) if protocol.y_rounding == "float" else luma_uint8(image)
    elif protocol.channel == "y" and protocol.y_rounding == "uint8":
        image = round_to_uint8(image)
    elif protocol.channel == "rgb" and image.ndim == 2:
        raise InputError("protocol: channel 'rgb' cannot be measured on luma alone; use 'y'")
    border = protocol.crop_border
    rows, columns = image.shape[:2]
    if 2 * border >= min(rows, columns):
        raise InputError(f"crop_border: {border} leaves nothing of a picture of {_size(image)}")
    return image[border : rows - border, border : columns - border]


def _window_mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter with the Gaussian window where it fits: ``[H - 10, W - 10]``."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        length = image.shape[axis] - SSIM_WINDOW + 1
        image = sum(
            weight * np.take(image, range(tap, tap + length), axis)
            for tap, weight in enumerate(weights)
        )
    return image


def _pair(
    image: NDArray[Any], reference: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if image.shape != reference.shape:
        raise InputError(f"image: shape {image.shape}; must be the reference's {reference.shape}")
    if image.size == 0:
        raise InputError(f"image: shape {image.shape} has no pixels")
    return image.astype(np.float64), reference.astype(np.float64)


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name}: {value!r} is not one of {', '.join(map(repr, allowed))}")
