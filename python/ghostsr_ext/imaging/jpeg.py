"""JPEG files that lack the marker at their end."""

from __future__ import annotations

import io

from PIL import Image

_END = b"\xff\xd9"
_RESTARTS = tuple(bytes((0xFF, marker)) for marker in range(0xD0, 0xD8))
# Bits that a decoder takes for more of the picture, where it still needs more; it cannot make the
# same picture of all of them. Of nothing, it makes zeros. Where it waits for a restart, it finds
# one.
_FILLINGS = (
    b"",
    *(
        bits + b"".join(restart + bits for restart in _RESTARTS)
        for bits in (b"\x00" * 512, b"\xaa" * 512, b"\x7e" * 512)
    ),
)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_WITHOUT_CONTENT = frozenset((0x00, 0x01, 0xFF, *range(0xD0, 0xD9)))
_COEFFICIENTS = 64


def with_end_marker(content: bytes) -> Image.Image | None:
    """Decode a JPEG file that lacks the marker at its end.

    Args:
        content: What there is of the file.

    Returns:
        The picture, decoded; None if more is missing than the marker.
    """
    if content.endswith(b"\xff"):
        content = content[:-1]
    if not _has_all_scans(content):
        return None
    pictures = []
    for filling in _FILLINGS:
        picture = Image.open(io.BytesIO(content + filling + _END), formats=("JPEG",))
        try:
            picture.load()
        except OSError:
            return None
        pictures.append(picture)
        if picture.tobytes() != pictures[0].tobytes():
            return None
    return pictures[0]


def _has_all_scans(content: bytes) -> bool:
    """Whether scans were begun that give every coefficient of every component in full.

    Source: ITU-T T.81, sections B.2.2, B.2.3 and G.1.1.1.
    """
    missing: set[tuple[int, int]] = set()
    framed = False
    place = 2
    while True:
        place = content.find(b"\xff", place)
        if place < 0 or place + 4 > len(content):
            return framed and not missing
        marker = content[place + 1]
        if marker in _WITHOUT_CONTENT:
            place += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(content[place + 2 : place + 4], "big")
        segment = content[place + 4 : place + 2 + size]
        if marker in _FRAMES and len(segment) > 5:
            framed = True
            components = segment[6 : 6 + 3 * segment[5] : 3]
            missing = {(name, k) for name in components for k in range(_COEFFICIENTS)}
        elif marker == _SCAN and len(segment) > 3 and len(segment) == 4 + 2 * segment[0]:
            names = segment[1 : 1 + 2 * segment[0] : 2]
            first, last, precision = segment[-3:]
            if not precision & 15:
                missing -= {(name, k) for name in names for k in range(first, last + 1)}
        place += 2 + size
