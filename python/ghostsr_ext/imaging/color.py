"""Luma and YCbCr, as super-resolution papers compute them (ITU-R BT.601, studio range)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.errors import InputError

LUMA_WEIGHTS = (65.738 / 256, 129.057 / 256, 25.064 / 256)
"""Weights of R, G and B in Y, in the rounded form that EDSR and its successors use."""

LUMA_OFFSET = 16.0
"""Y of black, in 0..255."""

# MATLAB's own rgb2ycbcr, with which the older papers measure; for R, G and B in 0..255.
_YCBCR_MATRIX = (
    np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
    / 255
)
_YCBCR_OFFSET = np.array([16.0, 128.0, 128.0])
_RGB_MATRIX = np.linalg.inv(_YCBCR_MATRIX)


def luma(image: NDArray[Any]) -> NDArray[np.float64]:
    """The Y channel in floating point, not rounded: what PSNR and SSIM are measured on.

    Args:
        image: RGB values ``[H, W, 3]`` in 0..255, any numeric type.

    Returns:
        ``[H, W]`` in 16..235, float64.

    Raises:
        InputError: A wrong shape.
    """
    _check_rgb(image)
    values = np.asarray(image, dtype=np.float64)
    red, green, blue = LUMA_WEIGHTS
    y = values[..., 0] * red
    y += values[..., 1] * green
    y += values[..., 2] * blue
    y += LUMA_OFFSET
    return y


def luma_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """The Y channel rounded to whole numbers, as MATLAB gives it for a uint8 picture.

    Args:
        image: As in :func:`luma`.

    Returns:
        ``[H, W]``, uint8.

    Raises:
        InputError: A wrong shape.
    """
    return round_to_uint8(rgb_to_ycbcr(image)[..., 0])


def rgb_to_ycbcr(image: NDArray[Any]) -> NDArray[np.float64]:
    """MATLAB's ``rgb2ycbcr`` without its final rounding.

    Args:
        image: RGB values ``[H, W, 3]`` in 0..255, any numeric type.

    Returns:
        Y in 16..235 and Cb, Cr in 16..240: ``[H, W, 3]``, float64.

    Raises:
        InputError: A wrong shape.
    """
    _check_rgb(image)
    ycbcr: NDArray[np.float64] = np.asarray(image, dtype=np.float64) @ _YCBCR_MATRIX.T
    ycbcr += _YCBCR_OFFSET
    return ycbcr


def ycbcr_to_rgb(image: NDArray[Any]) -> NDArray[np.float64]:
    """MATLAB's ``ycbcr2rgb`` without its final rounding and clipping.

    Args:
        image: Y, Cb and Cr as :func:`rgb_to_ycbcr` returns them.

    Returns:
        RGB values ``[H, W, 3]``, float64; in 0..255 when the color exists.

    Raises:
        InputError: A wrong shape.
    """
    _check_rgb(image)
    centred = np.asarray(image, dtype=np.float64) - _YCBCR_OFFSET
    rgb: NDArray[np.float64] = centred @ _RGB_MATRIX.T
    return rgb


def round_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Round to the nearest whole number, halves up as MATLAB does, and clip to 0..255.

    Args:
        values: Numbers of any shape, finite.

    Returns:
        The same shape, uint8.
    """
    return np.floor(np.asarray(values, dtype=np.float64) + 0.5).clip(0, 255).astype(np.uint8)


def _check_rgb(image: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"image: shape {image.shape}; must be [H, W, 3]")
