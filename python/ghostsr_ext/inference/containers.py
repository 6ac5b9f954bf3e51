"""Whether a video file is as long as it says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_MOST_PARTS = 100_000


def missing_bytes(path: Path) -> int:
    """Return how many bytes a video file lacks at its end, by what its containers say.

    Matroska and WebM, AVI, and MP4 and QuickTime are understood.

    Args:
        path: The file.

    Returns:
        0 if it is whole, or does not say how long it is.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = file.read(12)
        file.seek(0)
        if start[:4] == _EBML:
            end = _end_of_matroska(file)
        elif start[:4] == b"RIFF":
            end = _end_of_riff(file, size)
        elif start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            end = _end_of_boxes(file, size)
        else:
            end = None
    return 0 if end is None else max(0, end - size)


def _end_of_matroska(file: BinaryIO) -> int | None:
    """Source: RFC 8794, section 4, and RFC 9559, section 5."""
    file.seek(4)
    header = _variable_size(file)
    if header is None:
        return None
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return None
    segment = _variable_size(file)
    return None if segment is None else file.tell() + segment


def _variable_size(file: BinaryIO) -> int | None:
    """Read a size whose first bits say how long it is; None where all others are set: unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    digits = bytes((first[0] & (0xFF >> length),)) + file.read(length - 1)
    size = int.from_bytes(digits, "big")
    return None if size == (1 << 7 * length) - 1 else size


def _end_of_riff(file: BinaryIO, size: int) -> int | None:
    """A long AVI file consists of several RIFF lists."""
    end = 0
    for _ in range(_MOST_PARTS):
        file.seek(end)
        header = file.read(8)
        length = int.from_bytes(header[4:8], "little")
        if len(header) < 8 or header[:4] != b"RIFF" or not length:
            break
        end += 8 + length + length % 2
        if end > size:
            # The byte that pads the last list is often left out.
            return end - length % 2
    return None


def _end_of_boxes(file: BinaryIO, size: int) -> int | None:
    """Source: ISO/IEC 14496-12, section 4.2."""
    place = 0
    for _ in range(_MOST_PARTS):
        file.seek(place)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if len(header) < 8 or length < 8:
            # Of length 0 is what reaches to the end.
            break
        place += length
        if place > size:
            return place
    return None
