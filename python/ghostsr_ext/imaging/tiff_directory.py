"""The tags of a TIFF file, and which of its pages is the picture."""

from __future__ import annotations

import struct
from typing import BinaryIO

from ghostsr_ext.errors import InputError

_MAGIC = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
# Type to the code of one value in a struct; fractions are pairs.
_TYPES = {
    1: "B",
    2: "c",
    3: "H",
    4: "I",
    5: "II",
    6: "b",
    7: "c",
    8: "h",
    9: "i",
    10: "ii",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_BYTES = (2, 7)
_FRACTIONS = (5, 10)
_NEW_SUBFILE_TYPE = 254
_REDUCED = 1
# More are no single picture; and a file may hold a loop of them.
_MOST_PAGES = 1000


def is_tiff(start: bytes) -> bool:
    """Whether the first four bytes of a file are those of TIFF or BigTIFF."""
    return start in _MAGIC


class TiffDirectory:
    """The tags of one page. Values are read when they are asked for.

    Args:
        file: The TIFF file.
        order: ``"<"`` or ``">"``.
        big: Whether offsets have 64 bits.
        place: Where the directory is.
    """

    def __init__(self, file: BinaryIO, order: str, big: bool, place: int) -> None:
        self.order = order
        self._file = file
        self._code = order + ("HHQ8s" if big else "HHI4s")
        count_code, offset_code = ("Q", "Q") if big else ("H", "I")
        file.seek(place)
        count = self._read_one(count_code)
        if count > 0xFFFF:
            raise InputError(f"TIFF: a directory of {count} tags")
        size = struct.calcsize(self._code)
        content = file.read(count * size)
        self._entries: dict[int, tuple[int, int, bytes]] = {
            tag: (kind, number, content)
            for tag, kind, number, content in struct.iter_unpack(
                self._code, content[: len(content) // size * size]
            )
        }
        self.following = self._read_one(offset_code) if len(content) == count * size else 0

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def values(self, tag: int, *, most: int | None = None) -> tuple[float, ...]:
        """Return the numbers of a tag; none if it is absent.

        Raises:
            InputError: They are no numbers, more than ``most``, or beyond the file's end.
        """
        if tag not in self._entries:
            return ()
        kind, count, _ = self._entries[tag]
        if kind not in _TYPES or kind in _BYTES or (most is not None and count > most):
            raise InputError(f"TIFF: tag {tag} holds {count} values of type {kind}")
        code = f"{self.order}{self._numbers(tag)}{_TYPES[kind][0]}"
        numbers: tuple[float, ...] = struct.unpack(code, self.raw(tag))
        if kind not in _FRACTIONS:
            return numbers
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple(above / below if below else 0.0 for above, below in pairs)

    def integers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the whole numbers of a tag, or a default if it is absent.

        Raises:
            InputError: As for :meth:`values`; or they are no whole numbers.
        """
        if tag not in self._entries:
            return default
        values = self.values(tag)
        if not values or not all(isinstance(value, int) for value in values):
            raise InputError(f"TIFF: tag {tag} holds no whole numbers")
        return tuple(int(value) for value in values)

    def integer(self, tag: int, default: int) -> int:
        """Return the only, or first, whole number of a tag, or a default if it is absent."""
        return self.integers(tag, (default,))[0]

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a tag; none if it is absent.

        Raises:
            InputError: They are beyond the file's end.
        """
        if tag not in self._entries:
            return b""
        kind, _, content = self._entries[tag]
        if kind not in _TYPES:
            raise InputError(f"TIFF: tag {tag} has the unknown type {kind}")
        size = struct.calcsize("=" + _TYPES[kind][0]) * self._numbers(tag)
        if size <= len(content):
            return content[:size]
        (place,) = struct.unpack(self.order + ("Q" if len(content) == 8 else "I"), content)
        return read_part(self._file, place, size)

    def _numbers(self, tag: int) -> int:
        kind, count, _ = self._entries[tag]
        return count * len(_TYPES[kind])

    def _read_one(self, code: str) -> int:
        content = self._file.read(struct.calcsize("=" + code))
        if len(content) < struct.calcsize("=" + code):
            raise InputError("TIFF: a directory lies beyond the file's end")
        number: int
        (number,) = struct.unpack(self.order + code, content)
        return number


def read_part(file: BinaryIO, place: int, size: int) -> bytes:
    """Read a part of a file of known size, without asking for memory for what is not there.

    Raises:
        InputError: It is not in the file.
    """
    end = file.seek(0, 2)
    if place + size > end:
        raise InputError(f"TIFF: needs bytes {place} to {place + size}; the file has {end}")
    file.seek(place)
    return file.read(size)


def picture_directory(file: BinaryIO) -> TiffDirectory:
    """Find the page that is the picture: the only one that is no smaller copy of another.

    Args:
        file: A TIFF or BigTIFF file.

    Raises:
        InputError: There is none, there are several, or the file is broken.
    """
    file.seek(0)
    order, big = _MAGIC[file.read(4)]
    header = file.read(12 if big else 4)
    try:
        place: int = struct.unpack(order + ("4xQ" if big else "I"), header)[0]
    except struct.error as error:
        raise InputError("TIFF: ends within its header") from error
    pages = []
    seen: set[int] = set()
    while place and place not in seen and len(seen) < _MOST_PAGES:
        seen.add(place)
        page = TiffDirectory(file, order, big, place)
        if not page.integer(_NEW_SUBFILE_TYPE, 0) & _REDUCED:
            pages.append(page)
        place = page.following
    if len(pages) != 1:
        raise InputError(f"has {len(pages)} frames or pages; only single pictures are read")
    return pages[0]
