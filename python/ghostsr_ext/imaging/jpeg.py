"""JPEG files that end too early."""

from __future__ import annotations

import io

from PIL import Image

_END = b"\xff\xd9"
# Bits that a decoder takes for more of the picture, where it still needs more; it cannot make the
# same picture of all of them. Of nothing, it makes zeros.
_FILLINGS = (b"", b"\x00" * 4096, b"\xaa" * 4096, b"\x7e" * 4096)


def with_end_marker(content: bytes) -> Image.Image | None:
    """Decode a JPEG file that lacks the marker at its end.

    Args:
        content: What there is of the file.

    Returns:
        The picture, decoded; None if more is missing than the marker.
    """
    if content.endswith(b"\xff"):
        content = content[:-1]
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
