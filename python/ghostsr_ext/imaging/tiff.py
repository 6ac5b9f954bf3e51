"""Writing TIFF files row by row.

Pillow has no mode for 16 bits per color and writes whole pictures only.
"""

from __future__ import annotations

import struct
import sys
import zlib
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging.describe import SOFTWARE
from ghostsr_ext.imaging.picture import Metadata

_MOST_BYTES = 0xFFFFFFFF
_DEFLATE = 8
_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 2, 3, 4, 5, 7
_FORMATS = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I", _UNDEFINED: "B"}
_INCH = 2
_SOFTWARE = 305
TEXT_TAGS = {270: "Description", _SOFTWARE: SOFTWARE, 315: "Author", 33432: "Copyright"}
"""Tags of texts, and the keywords that PNG has for them."""

_Tags = dict[int, tuple[int, list[int] | bytes]]
_STRIP_BYTES = 1 << 18


class TiffWriter:
    """Encodes a picture piece by piece, losslessly compressed.

    Source: TIFF revision 6.0 and Adobe's technical note on Deflate.

    Args:
        file: Where to write; must be able to seek.
        rows: Rows of the whole picture.
        columns: Columns of the whole picture.
        channels: 1 (gray), 2 (gray and opacity), 3 (RGB) or 4 (RGB and opacity).
        dtype: uint8 or uint16.
        icc_profile: The color profile, or None.
        metadata: What to say beside; of its text, what TIFF has tags for.
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
        self._rows, self._columns, self._channels = rows, columns, channels
        self._bits = 8 * dtype.itemsize
        self._icc_profile = icc_profile
        self._metadata = metadata
        self._strip_rows = max(1, _STRIP_BYTES // (columns * channels * dtype.itemsize))
        self._pending: NDArray[Any] | None = None
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._position = 0
        order = b"II" if sys.byteorder == "little" else b"MM"
        # The place of the directory is filled in at the end.
        self._write(order + struct.pack("=HI", 42, 0))

    def write(self, values: NDArray[Any]) -> None:
        """Append rows, [h, columns] or [h, columns, channels].

        Raises:
            InputError: The file would be larger than TIFF allows.
        """
        if self._pending is not None:
            values = np.concatenate([self._pending, values])
        whole = len(values) // self._strip_rows * self._strip_rows
        for top in range(0, whole, self._strip_rows):
            self._strip(values[top : top + self._strip_rows])
        self._pending = values[whole:].copy()

    def finish(self) -> None:
        """Write the last rows and the directory.

        Raises:
            InputError: As for :meth:`write`.
        """
        if self._pending is not None and len(self._pending):
            self._strip(self._pending)
        colors = 1 if self._channels < 3 else 3
        tags: _Tags = {
            256: (_LONG, [self._columns]),
            257: (_LONG, [self._rows]),
            258: (_SHORT, [self._bits] * self._channels),
            259: (_SHORT, [_DEFLATE]),
            262: (_SHORT, [1 if colors == 1 else 2]),
            273: (_LONG, self._offsets),
            277: (_SHORT, [self._channels]),
            278: (_LONG, [self._strip_rows]),
            279: (_LONG, self._lengths),
            284: (_SHORT, [1]),
        }
        if self._channels > colors:
            tags[338] = (_SHORT, [2])
        if self._icc_profile is not None:
            tags[34675] = (_UNDEFINED, self._icc_profile)
        tags |= _describing(self._metadata)
        entries: dict[int, bytes] = {}
        # What made the picture stands last, where it is found without reading far.
        for tag, (kind, values) in sorted(tags.items(), key=lambda item: item[0] == _SOFTWARE):
            content = struct.pack(f"={len(values)}{_FORMATS[kind]}", *values)
            if len(content) > 4:
                self._align()
                place = self._position
                self._write(content)
                content = struct.pack("=I", place)
            count = len(values) // 2 if kind == _RATIONAL else len(values)
            entries[tag] = struct.pack("=HHI", tag, kind, count) + content.ljust(4, b"\0")
        self._align()
        directory = self._position
        content = b"".join(entry for _, entry in sorted(entries.items()))
        self._write(struct.pack("=H", len(tags)) + content + struct.pack("=I", 0))
        self._file.seek(4)
        self._file.write(struct.pack("=I", directory))

    def _strip(self, values: NDArray[Any]) -> None:
        compressed = zlib.compress(np.ascontiguousarray(values).data)
        self._align()
        self._offsets.append(self._position)
        self._lengths.append(len(compressed))
        self._write(compressed)

    def _align(self) -> None:
        if self._position % 2:
            self._write(b"\0")

    def _write(self, content: bytes) -> None:
        self._position += len(content)
        if self._position > _MOST_BYTES:
            raise InputError("TIFF: the file would be larger than 4 GiB; write .png")
        self._file.write(content)


def _describing(metadata: Metadata) -> _Tags:
    tags: _Tags = {}
    if metadata.dpi is not None:
        for tag, value in zip((282, 283), metadata.dpi, strict=True):
            fraction = Fraction(value).limit_denominator(1000)
            if 0 < fraction.numerator <= _MOST_BYTES:
                tags[tag] = _RATIONAL, [fraction.numerator, fraction.denominator]
        tags[296] = _SHORT, [_INCH]
    if metadata.xmp is not None:
        tags[700] = _BYTE, metadata.xmp
    texts = dict(metadata.text)
    for tag, keyword in TEXT_TAGS.items():
        text = texts.get(keyword, "").replace("\0", "")
        if text:
            tags[tag] = _ASCII, text.encode(errors="replace") + b"\0"
    return tags
