"""Pictures as arrays of pixels, and pixels as values that are computed with, on any device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import Picture

PEAK = 255.0
"""White, in the values that are computed with."""

_WHITE = {"u1": 255.0, "u2": 65535.0, "f4": 1.0, "f8": 1.0}
_GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114])
# Values that one core's cache holds through all the steps that make pixels of them.
_CHUNK = 1 << 14


def white_of(dtype: np.dtype[Any]) -> float:
    """Return the value of white in pictures of a type."""
    return _WHITE[f"{dtype.kind}{dtype.itemsize}"]


def to_values(pixels: NDArray[Any], white: float, device: torch.device) -> Tensor:
    """Return pixels [H, W, C], of which ``white`` is white, as float64 in 0..255 on a device.

    Pixels of eight bits travel as they are.
    """
    if pixels.dtype == np.uint8:
        return torch.from_numpy(np.array(pixels)).to(device).to(torch.float64).mul_(PEAK / white)
    return torch.from_numpy(pixels.astype(np.float64) * (PEAK / white)).to(device)


@torch.inference_mode()
def to_pixels(values: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return values in 0..255 on any device as pixels of a type: clipped, whole numbers rounded.

    Args:
        values: [H, W, C] in float64; they are overwritten.
        dtype: The type of the pixels.
    """
    white = white_of(dtype)
    kinds = {"u1": torch.uint8, "u2": torch.int32, "f4": torch.float32, "f8": torch.float64}
    kind = kinds[f"{dtype.kind}{dtype.itemsize}"]
    pixels = torch.empty(values.shape, dtype=kind, device=values.device)
    on_cpu = values.device.type == "cpu"
    rows = max(1, _CHUNK // max(1, values[0].numel())) if on_cpu else len(values)
    for source, result in zip(values.split(rows), pixels.split(rows), strict=True):
        if white != PEAK:
            source.mul_(white / PEAK)
        if dtype.kind == "u":
            source.add_(0.5).floor_()
        result.copy_(source.clamp_(0, white))
    array: NDArray[Any] = pixels.cpu().numpy()
    return array.astype(dtype, copy=False)


def gray(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return three equal channels, as bright as the three given ones."""
    brightness = pixels.astype(np.float64) @ _GRAY_WEIGHTS
    if pixels.dtype.kind == "u":
        brightness = np.floor(brightness + 0.5)
    return np.repeat(brightness.astype(pixels.dtype)[..., None], 3, axis=2)


def check(picture: Picture) -> None:
    """Refuse a picture that cannot be enlarged.

    Raises:
        InputError: Its shape, type or range is not allowed.
    """
    pixels, alpha = picture.pixels, picture.alpha
    if f"{pixels.dtype.kind}{pixels.dtype.itemsize}" not in _WHITE:
        raise InputError(f"image: {pixels.dtype}; must be uint8, uint16, float32 or float64")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(f"image: shape {pixels.shape}; must be [H, W, 3] with at least one pixel")
    if alpha is not None and (alpha.dtype != pixels.dtype or alpha.shape != pixels.shape[:2]):
        raise InputError(
            f"alpha: {alpha.dtype} {alpha.shape}; must be {pixels.dtype} {pixels.shape[:2]}"
        )
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise InputError(f"image: has values from {low:g} to {high:g}; floats must be in 0..1")


def from_array(image: NDArray[Any]) -> Picture:
    """Return an array [H, W], [H, W, 3] or [H, W, 4] as a picture.

    Raises:
        InputError: It has another shape, or is no array.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"image: {type(image).__name__}; must be a NumPy array, a Pillow image or a Picture"
        )
    if image.ndim == 2:
        return Picture(np.repeat(image[..., None], 3, axis=2), gray=True)
    if image.ndim == 3 and image.shape[2] == 4:
        return Picture(image[..., :3], image[..., 3])
    if image.ndim == 3 and image.shape[2] == 3:
        return Picture(image)
    raise InputError(f"image: shape {image.shape}; must be [H, W], [H, W, 3] or [H, W, 4]")


def to_array(picture: Picture) -> NDArray[Any]:
    """Return a picture as the array that it was made of, undoing :func:`from_array`."""
    if picture.gray:
        return picture.pixels[..., 0]
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[..., None]], axis=2)
