"""MATLAB's ``imresize``, the way in which super-resolution benchmarks make their inputs.

Neither ``torch.nn.functional.interpolate(antialias=True)`` nor Pillow gives these numbers: both
renormalise the kernel at the border where MATLAB mirrors the picture, and Pillow rounds weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.errors import InputError

Border = Literal["symmetric", "replicate"]

_KERNEL_WIDTH = 4.0
# Bounds the scratch arrays of a pass, and keeps them in a core's cache.
_CHUNK_VALUES = 1 << 17


@dataclass(frozen=True)
class _Contributions:
    """What each output position of one axis is made from.

    Attributes:
        indices: Input positions, ``[length, taps]``, inside the picture.
        weights: Their float64 weights, ``[length, taps]``; each row sums to 1.
    """

    indices: NDArray[np.intp]
    weights: NDArray[np.float64]


def imresize(
    image: NDArray[Any],
    scale: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    border: Border = "symmetric",
) -> NDArray[Any]:
    """Resize a picture as MATLAB's ``imresize(image, scale, "bicubic")`` does.

    Cubic convolution with a = -0.5, widened by ``1 / scale`` when shrinking (antialiasing). The
    axis with the smaller scale is resized first, rows first when they are equal. An integer picture
    is rounded (halves up) and clipped to its type after each of the two passes; a floating picture
    is neither rounded nor clipped.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``; uint8, uint16, float32 or float64, in any range and
            byte order.
        scale: Output over input size. The output has ``ceil(scale * H)`` rows, columns alike.
        size: ``(rows, columns)`` of the output, in place of ``scale``.
        border: What lies outside the picture: ``"symmetric"`` mirrors it with the edge repeated
            (MATLAB since 2007), ``"replicate"`` repeats the edge (older releases, and the
            published SelfExSR tables).

    Returns:
        The resized picture with the axes of ``image``; of its type when it is an integer type, else
        float64.

    Raises:
        InputError: A wrong shape, type, scale, size or border.
    """
    _check_image(image)
    if border not in ("symmetric", "replicate"):
        raise InputError(f"border: {border!r} is not one of 'symmetric', 'replicate'")
    rows, columns = image.shape[:2]
    if (scale is None) == (size is None):
        raise InputError("imresize: give either scale or size")
    if size is not None:
        lengths = _check_size(size)
        scales = (lengths[0] / rows, lengths[1] / columns)
    else:
        assert scale is not None
        factor = _check_scale(scale)
        lengths = (_length(rows, factor), _length(columns, factor))
        scales = (factor, factor)

    result = image
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        contributions = _contributions(image.shape[axis], lengths[axis], scales[axis], border)
        result = _resize_axis(result, axis, contributions)
    return np.ascontiguousarray(result)


def _check_image(image: NDArray[Any]) -> None:
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        found = f"shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"image: {found}; must be an array [H, W] or [H, W, C]")
    if image.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.float32, np.float64):
        raise InputError(f"image: dtype {image.dtype}; must be uint8, uint16, float32 or float64")
    if image.size == 0:
        raise InputError(f"image: shape {image.shape} has no pixels")


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or any(length != int(length) or length < 1 for length in size):
        raise InputError(f"size: {size}; must be two whole numbers (rows, columns), 1 or more")
    return int(size[0]), int(size[1])


def _check_scale(scale: float) -> float:
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"scale: {scale}; must be a finite number above 0")
    return float(scale)


def _length(length: int, scale: float) -> int:
    """Output length for a scale; 1/3 of 255 is 85 although ``255 * (1 / 3)`` may round above it."""
    product = length * scale
    nearest = round(product)
    if abs(product - nearest) <= 1e-9 * max(1.0, product):
        return max(1, nearest)
    return math.ceil(product)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5, with MATLAB's order of operations."""
    x = np.abs(x)
    x2 = x**2
    x3 = x**3
    near = 1.5 * x3 - 2.5 * x2 + 1.0
    far = -0.5 * x3 + 2.5 * x2 - 4.0 * x + 2.0
    return near * (x <= 1) + far * ((x > 1) & (x <= 2))


def _contributions(length: int, resized: int, scale: float, border: Border) -> _Contributions:
    stretch = min(scale, 1.0)
    width = _KERNEL_WIDTH / stretch
    # Positions in MATLAB's coordinates, where the first pixel's centre is 1.
    centre = np.arange(1, resized + 1, dtype=np.float64) / scale + 0.5 * (1.0 - 1.0 / scale)
    left = np.floor(centre - width / 2)
    taps = left[:, None] + np.arange(math.ceil(width) + 2)
    weights = stretch * _cubic(stretch * (centre[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    weights, taps = weights[:, used], taps[:, used]

    indices = taps.astype(np.intp) - 1
    if border == "symmetric":
        indices %= 2 * length
        indices = np.where(indices < length, indices, 2 * length - 1 - indices)
    else:
        indices = indices.clip(0, length - 1)
    return _Contributions(indices, weights)


def _resize_axis(image: NDArray[Any], axis: int, contributions: _Contributions) -> NDArray[Any]:
    source = np.ascontiguousarray(np.moveaxis(image, axis, 0))
    indices, weights = contributions.indices, contributions.weights
    resized, taps = weights.shape
    shape = source.shape[1:]
    integer = np.issubdtype(image.dtype, np.integer)
    out = np.empty((resized, *shape), dtype=image.dtype if integer else np.float64)
    limit = np.iinfo(image.dtype).max if integer else 0

    step = max(1, _CHUNK_VALUES // max(1, math.prod(shape)))
    broadcast = (slice(None),) + (None,) * len(shape)
    for start in range(0, resized, step):
        chunk = slice(start, start + step)
        total = np.zeros((len(weights[chunk]), *shape), dtype=np.float64)
        for tap in range(taps):
            total += weights[chunk, tap][broadcast] * source[indices[chunk, tap]]
        if integer:
            total = np.floor(total + 0.5).clip(0, limit)
        out[chunk] = total
    return np.moveaxis(out, 0, axis)
