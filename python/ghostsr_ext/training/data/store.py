"""Decoded pairs of pictures in one memory-mapped file."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.errors import InputError

FORMAT_VERSION = 1
PIXELS_FILE = "pixels.bin"
INDEX_FILE = "index.json"


@dataclass(frozen=True)
class StoredPair:
    """Where one pair lies: the original, then its small version.

    Attributes:
        name: The original's file name without suffix.
        rows: Rows of the original, a multiple of the scale.
        columns: Columns of the original, a multiple of the scale.
        offset: Place of the first byte in the file.
        checksum: CRC-32 of both.
    """

    name: str
    rows: int
    columns: int
    offset: int
    checksum: int


class PictureStore:
    """Pairs of an original and its small version, read where they lie.

    It can be sent to other processes; each maps the file for itself.

    Args:
        folder: Written by :func:`write_store`.

    Attributes:
        scale: How many times the originals are larger.
        pairs: The pairs of pictures that the store holds.

    Raises:
        InputError: The folder is damaged or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
            version = index["format_version"]
            self.scale: int = index["scale"]
            self.pairs = tuple(StoredPair(**entry) for entry in index["pairs"])
            length = (folder / PIXELS_FILE).stat().st_size
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cache {folder}: is damaged ({error}); remove it") from error
        if version != FORMAT_VERSION or length != index["length"]:
            raise InputError(f"cache {folder}: is damaged or of another version; remove it")
        self._pixels: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        """Pairs."""
        return len(self.pairs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}

    def high(self, index: int) -> NDArray[np.uint8]:
        """Return the original [rows, columns, 3] of a pair, not to be written to."""
        pair = self.pairs[index]
        return self._view(pair.offset, pair.rows, pair.columns)

    def low(self, index: int) -> NDArray[np.uint8]:
        """Return the small version [rows / scale, columns / scale, 3], not to be written to."""
        pair = self.pairs[index]
        offset = pair.offset + 3 * pair.rows * pair.columns
        return self._view(offset, pair.rows // self.scale, pair.columns // self.scale)

    def verify(self) -> None:
        """Compare every pair with its checksum.

        Raises:
            InputError: A pair has changed.
        """
        for index, pair in enumerate(self.pairs):
            if _checksum(self.high(index), self.low(index)) != pair.checksum:
                raise InputError(
                    f"cache {self._folder}: the copy of {pair.name} is damaged; remove the folder"
                )

    def _view(self, offset: int, rows: int, columns: int) -> NDArray[np.uint8]:
        if self._pixels is None:
            self._pixels = np.memmap(self._folder / PIXELS_FILE, dtype=np.uint8, mode="r")
        size = 3 * rows * columns
        return self._pixels[offset : offset + size].reshape(rows, columns, 3)


def write_store(
    folder: Path,
    scale: int,
    pictures: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]],
) -> None:
    """Write pairs to a folder that exists and is empty.

    Args:
        folder: The folder that the store is written to.
        scale: How many times the originals are larger.
        pictures: Name, original [H, W, 3] and small version [H / scale, W / scale, 3].
    """
    pairs = []
    with (folder / PIXELS_FILE).open("wb") as file:
        for name, high, low in pictures:
            rows, columns = high.shape[:2]
            pairs.append(StoredPair(name, rows, columns, file.tell(), _checksum(high, low)))
            file.write(np.ascontiguousarray(high).data)
            file.write(np.ascontiguousarray(low).data)
        length = file.tell()
        file.flush()
        os.fsync(file.fileno())
    index = {
        "format_version": FORMAT_VERSION,
        "scale": scale,
        "length": length,
        "pairs": [asdict(pair) for pair in pairs],
    }
    (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")


def _checksum(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> int:
    return zlib.crc32(np.ascontiguousarray(low).data, zlib.crc32(np.ascontiguousarray(high).data))
