"""The pictures of a report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ghostsr_ext.imaging import imresize
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.models import SRModel

_ZOOM = 2


@dataclass(frozen=True)
class Crop:
    """One detail of a picture, as each method gives it.

    Attributes:
        name: The picture's name.
        versions: uint8 arrays [side, side, 3] by method: ``bicubic``, the networks' names, and
            ``original``.
    """

    name: str
    versions: dict[str, NDArray[Any]]


def make_crop(
    name: str,
    low: NDArray[Any],
    high: NDArray[Any],
    models: dict[str, SRModel],
    scale: int,
    side: int = 96,
) -> Crop:
    """Cut the detail where bicubic enlargement is worst.

    Args:
        name: The picture's name.
        low: The small picture, [h, w, 3] uint8.
        high: The original, [scale * h, scale * w, 3] uint8.
        models: The networks.
        scale: How many times they enlarge.
        side: Side of the detail, in pixels of the original.
    """
    versions = {"bicubic": imresize(low, scale)}
    versions |= {label: Upscaler(model, scale=scale)(low) for label, model in models.items()}
    versions["original"] = high
    error = np.abs(versions["bicubic"].astype(int) - high).sum(axis=2)
    top, left = _worst_window(error, side)
    return Crop(
        name, {label: p[top : top + side, left : left + side] for label, p in versions.items()}
    )


def _worst_window(error: NDArray[Any], side: int) -> tuple[int, int]:
    rows, columns = error.shape
    side_y, side_x = min(side, rows), min(side, columns)
    sums = np.zeros((rows + 1, columns + 1))
    sums[1:, 1:] = error.cumsum(axis=0).cumsum(axis=1)
    windows = (
        sums[side_y:, side_x:]
        - sums[:-side_y, side_x:]
        - sums[side_y:, :-side_x]
        + sums[:-side_y, :-side_x]
    )
    top, left = np.unravel_index(windows.argmax(), windows.shape)
    return int(top), int(left)


def map_picture(feature_map: Tensor) -> NDArray[np.uint8]:
    """A feature map [h, w] as a gray picture, stretched to its own range."""
    values = feature_map.float()
    low, high = torch.quantile(values.flatten()[: 1 << 20], torch.tensor([0.01, 0.99])).tolist()
    span = max(high - low, 1e-9)
    gray: NDArray[np.uint8] = ((values - low) / span * 255).clamp(0, 255).byte().cpu().numpy()
    return gray


def png(pixels: NDArray[Any], zoom: int = 1) -> bytes:
    """Encode a picture, each pixel as a square of ``zoom`` pixels."""
    enlarged = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    file = io.BytesIO()
    Image.fromarray(enlarged).save(file, "PNG", optimize=True)
    return file.getvalue()


def crop_png(pixels: NDArray[Any]) -> bytes:
    """Encode a detail, enlarged so that its pixels can be seen."""
    return png(pixels, _ZOOM)


def data_uri(content: bytes) -> str:
    """A PNG as a page holds it inside."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
