"""What the file of a changed picture says about it."""

from __future__ import annotations

import re
from dataclasses import replace

from PIL import ExifTags, Image

from ghostsr_ext.imaging.picture import Metadata

SOFTWARE = "Software"
"""Keyword of the text that says what made a picture."""

_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)\d""")


def metadata_of_result(
    metadata: Metadata, *, rows: int, columns: int, software: str | None
) -> Metadata:
    """Adapt what a file said to a picture that was made of it: upright, and of another size.

    Args:
        metadata: What the first file said.
        rows: Rows of the new picture.
        columns: Columns of the new picture.
        software: What made the new picture; None to leave that open.

    Returns:
        Metadata with a new EXIF block, whose preview is left out, and new text.
    """
    text = [entry for entry in metadata.text if entry[0] != SOFTWARE or software is None]
    if software is not None:
        text.append((SOFTWARE, software))
    return replace(
        metadata,
        exif=_exif(metadata.exif, rows, columns, software),
        xmp=None if metadata.xmp is None else _XMP_ORIENTATION.sub(rb"\g<1>1", metadata.xmp),
        text=tuple(text),
    )


def _exif(block: bytes | None, rows: int, columns: int, software: str | None) -> bytes | None:
    if block is None and software is None:
        return None
    exif = Image.Exif()
    try:
        exif.load(block or b"")
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        if ExifTags.Base.ExifOffset in exif:
            details = exif.get_ifd(ExifTags.IFD.Exif)
            for tag, size in (
                (ExifTags.Base.ExifImageWidth, columns),
                (ExifTags.Base.ExifImageHeight, rows),
            ):
                if tag in details:
                    details[tag] = size
        if software is not None:
            exif[ExifTags.Base.Software] = software
        return exif.tobytes()
    # It comes from a file, and may be damaged in any way.
    except Exception:
        return None if software is None else _exif(None, rows, columns, software)
