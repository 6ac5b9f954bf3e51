"""A decoded picture and what its file says about it beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metadata:
    """What a picture file holds beside its pixels and its color profile.

    Attributes:
        dpi: Pixels per inch, across and down, of the upright picture; None where the file does not
            say.
        gamma: The exponent of a PNG's ``gAMA`` chunk, or None.
        chromaticities: The eight values of a PNG's ``cHRM`` chunk (white, red, green and blue, x
            and y each), or None.
        exif: An EXIF block as Pillow hands it out, or None.
        xmp: An XMP packet, or None.
        text: Keywords as PNG has them (``"Description"``, ``"Author"``, ``"Copyright"``,
            ``"Comment"``, ...) with their texts.
    """

    dpi: tuple[float, float] | None = None
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()

    def needed(self) -> Metadata:
        """Return only what is needed to show the pixels as they are meant: no one's words."""
        return Metadata(self.dpi, self.gamma, self.chromaticities)


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: RGB values ``[H, W, 3]``, uint8 or uint16; a gray picture has three equal channels.
        alpha: Opacity ``[H, W]`` of the same type, or None for an opaque picture. Colors are not
            multiplied by it.
        gray: Whether the file had one color channel.
        icc_profile: The color profile of the file, or None.
        metadata: What else the file says.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    gray: bool = False
    icc_profile: bytes | None = None
    metadata: Metadata = field(default_factory=Metadata)


class Canvas:
    """The arrays of a picture that is decoded piece by piece.

    Args:
        rows: Rows of the whole picture, before it is turned.
        columns: Columns of the whole picture, before it is turned.
        dtype: uint8 or uint16.
        alpha: Whether there is opacity.
    """

    def __init__(self, rows: int, columns: int, dtype: Any, *, alpha: bool) -> None:
        self.pixels: NDArray[Any] = np.empty((rows, columns, 3), dtype)
        self.alpha: NDArray[Any] | None = np.empty((rows, columns), dtype) if alpha else None

    def put(self, top: int, colors: NDArray[Any], alpha: NDArray[Any] | None = None) -> None:
        """Store rows.

        Args:
            top: The first one's place.
            colors: ``[h, W, 3]``, or ``[h, W]`` of a gray picture.
            alpha: ``[h, W]``, where there is opacity.
        """
        rows = slice(top, top + len(colors))
        self.pixels[rows] = colors if colors.ndim == 3 else colors[..., None]
        if self.alpha is not None:
            self.alpha[rows] = alpha


def band_rows(columns: int, bytes_per_pixel: int) -> int:
    """How many rows to take at a time, so that what is made of them on the way stays small."""
    return max(1, _BAND_BYTES // (columns * bytes_per_pixel))


_BAND_BYTES = 4 << 20
