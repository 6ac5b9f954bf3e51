"""Writing PNG files row by row, and finding a chunk in one.

Pillow has no mode for 16 bits per color and writes whole pictures only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.imaging.describe import SOFTWARE
from ghostsr_ext.imaging.picture import Metadata

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
# Rows filtered at a time: the five candidates stay in a core's cache.
_FILTERED_BYTES = 1 << 18
_MOST_EXIF_BYTES = 1 << 24
_LONGEST_KEYWORD = 79
_METRES_PER_INCH = 0.0254
_FRACTION = 100_000


class PngWriter:
    """Encodes a picture piece by piece.

    Args:
        file: Where to write.
        rows: Rows of the whole picture.
        columns: Columns of the whole picture.
        channels: 1 (gray), 2 (gray and opacity), 3 (RGB) or 4 (RGB and opacity).
        dtype: uint8 or uint16.
        icc_profile: The color profile, or None.
        metadata: What to say beside.
    """

    def __init__(
        self,
        file: BinaryIO,
        rows: int,
        columns: int,
        channels: int,
        dtype: np.dtype[Any],
        icc_profile: bytes | None,
        metadata: Metadata,
    ) -> None:
        self._file = file
        self._pixel_bytes = channels * dtype.itemsize
        self._above: NDArray[np.uint8] = np.zeros(columns * self._pixel_bytes, dtype=np.uint8)
        self._compressor = zlib.compressobj()
        file.write(b"\x89PNG\r\n\x1a\n")
        kind = _COLOR_TYPES[channels]
        self._chunk(
            b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8 * dtype.itemsize, kind, 0, 0, 0)
        )
        # First, where it is found without reading far.
        self._text([entry for entry in metadata.text if entry[0] == SOFTWARE])
        if icc_profile is not None:
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile))
        self._describe(metadata)

    def write(self, values: NDArray[Any]) -> None:
        """Append rows, [h, columns] or [h, columns, channels]."""
        lines = np.frombuffer(
            np.ascontiguousarray(values.astype(values.dtype.newbyteorder(">"), copy=False)),
            dtype=np.uint8,
        ).reshape(values.shape[0], -1)
        step = max(1, _FILTERED_BYTES // lines.shape[1])
        for top in range(0, len(lines), step):
            part = lines[top : top + step]
            above = np.concatenate([self._above[None], part[:-1]])
            self._above = part[-1]
            filtered = _filter(part, above, self._pixel_bytes)
            self._data(self._compressor.compress(filtered))

    def finish(self) -> None:
        """Write what follows the last row."""
        self._data(self._compressor.flush())
        self._chunk(b"IEND", b"")

    def _describe(self, metadata: Metadata) -> None:
        if metadata.gamma is not None:
            self._numbers(b"gAMA", (metadata.gamma,), _FRACTION)
        if metadata.chromaticities is not None:
            self._numbers(b"cHRM", metadata.chromaticities, _FRACTION)
        if metadata.dpi is not None:
            self._numbers(b"pHYs", metadata.dpi, 1 / _METRES_PER_INCH, b"\1")
        if metadata.exif is not None:
            self._chunk(b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
        if metadata.xmp is not None:
            self._chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)
        self._text([entry for entry in metadata.text if entry[0] != SOFTWARE])

    def _text(self, entries: Iterable[tuple[str, str]]) -> None:
        for keyword, text in entries:
            try:
                name = keyword.encode("latin-1")
            except UnicodeEncodeError:
                continue
            if 1 <= len(name) <= _LONGEST_KEYWORD and b"\0" not in name:
                content = text.replace("\0", "").encode(errors="replace")
                self._chunk(b"iTXt", name + b"\0\0\0\0\0" + content)

    def _numbers(
        self, kind: bytes, values: tuple[float, ...], unit: float, end: bytes = b""
    ) -> None:
        numbers = [round(value * unit) for value in values]
        if all(0 <= number < 1 << 31 for number in numbers):
            self._chunk(kind, struct.pack(f">{len(numbers)}I", *numbers) + end)

    def _data(self, compressed: bytes) -> None:
        if compressed:
            self._chunk(b"IDAT", compressed)

    def _chunk(self, kind: bytes, content: bytes) -> None:
        checksum = zlib.crc32(content, zlib.crc32(kind))
        self._file.write(struct.pack(">I", len(content)) + kind)
        self._file.write(content)
        self._file.write(struct.pack(">I", checksum))


def _filter(lines: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> bytes:
    """Filter each row as compresses best by the usual guess: the smallest sum of differences.

    Source: PNG specification (ISO/IEC 15948), sections 9 and 12.8.
    """
    left = _moved_right(lines, pixel_bytes)
    corner = _moved_right(above, pixel_bytes)
    average = ((left.astype(np.uint16) + above) >> 1).astype(np.uint8)
    predictions = [np.zeros_like(lines), left, above, average, _paeth(left, above, corner)]
    candidates = np.stack([lines - prediction for prediction in predictions])
    sums = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = sums.argmin(axis=0)
    chosen = candidates[best, np.arange(len(lines))]
    return np.hstack([best.astype(np.uint8)[:, None], chosen]).tobytes()


def _moved_right(lines: NDArray[np.uint8], pixel_bytes: int) -> NDArray[np.uint8]:
    moved = np.zeros_like(lines)
    moved[:, pixel_bytes:] = lines[:, :-pixel_bytes]
    return moved


def _paeth(
    left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Predict the neighbour that is nearest to left + above - corner."""
    wide_corner = corner.astype(np.int16)
    to_left = np.abs(above - wide_corner)
    to_above = np.abs(left - wide_corner)
    to_corner = np.abs(left + (above - 2 * wide_corner))
    return np.where(
        (to_left <= to_above) & (to_left <= to_corner),
        left,
        np.where(to_above <= to_corner, above, corner),
    )


def exif_chunk(file: BinaryIO) -> bytes | None:
    """Find the EXIF block of a PNG file before or behind its pixels, without decoding these.

    Args:
        file: The file; it is left where it was.

    Returns:
        The block; None if there is none.
    """
    position = file.tell()
    try:
        place = 8
        while True:
            file.seek(place)
            header = file.read(8)
            if len(header) < 8 or header[4:] == b"IEND":
                return None
            (size,) = struct.unpack(">I", header[:4])
            if header[4:] == b"eXIf":
                return file.read(size) if size <= _MOST_EXIF_BYTES else None
            place += 12 + size
    finally:
        file.seek(position)
