"""What a result remembers: which network made it, how, and of which file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# A record stands near the start of a file or near its end, behind the pixels.
_SEARCHED_BYTES = 1 << 20
_RECORD = re.compile(rb"ghostsr((?: [a-z-]{1,20}=[a-z0-9.-]{1,40}){1,12});")
_SAID = {
    "model": "with another model",
    "scale": "at another scale",
    "dtype": "in another number type",
    "self-ensemble": "with another --self-ensemble",
    "quality": "in another quality",
    "metadata": "with another --metadata",
    "source": "of another picture or video",
}


@dataclass(frozen=True)
class Record:
    """How a result was made. Two results with equal records have equal pixels.

    Attributes:
        entries: ``model``, ``scale``, ``dtype``, ``self-ensemble``, ``quality`` (of lossy
            formats), ``metadata`` and ``source``, as text.
    """

    entries: Mapping[str, str]

    def __str__(self) -> str:
        """Return the text that is stored in the file."""
        return "".join(
            ("ghostsr", *(f" {key}={value}" for key, value in self.entries.items()), ";")
        )

    def difference(self, other: Record) -> str | None:
        """Say in what another record differs; None if in nothing."""
        keys = [key for key in _SAID if self.entries.get(key) != other.entries.get(key)]
        return " and ".join(_SAID[key] for key in keys) or None


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """Find the record in a picture or a video.

    Args:
        path: Any file.

    Returns:
        The record; None if there is none, or the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            content = file.read(_SEARCHED_BYTES)
            file.seek(max(len(content), size - _SEARCHED_BYTES))
            content += file.read()
    except OSError:
        return None
    # The last one: what a source said, it says after that.
    records = _RECORD.findall(content)
    if not records:
        return None
    pairs = (entry.partition("=") for entry in records[-1].decode("ascii").split())
    return Record({key: value for key, _, value in pairs})
