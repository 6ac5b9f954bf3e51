"""Writing picture files."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ghostsr_ext.errors import InputError
from ghostsr_ext.files import atomic_write
from ghostsr_ext.imaging.describe import metadata_of_result
from ghostsr_ext.imaging.picture import Metadata, Picture
from ghostsr_ext.imaging.png import PngWriter
from ghostsr_ext.imaging.tiff import TiffWriter

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
WRITABLE_SUFFIXES = frozenset(_FORMATS)
"""Lower-case suffixes of the files that are written."""

LOSSY_SUFFIXES = frozenset((".jpg", ".jpeg", ".webp"))
"""Lower-case suffixes of the formats that have a quality."""

_ROW_WRITERS: dict[str, type[PngWriter | TiffWriter]] = {"PNG": PngWriter, "TIFF": TiffWriter}
_HOLDS_ALPHA = ("PNG", "WEBP", "TIFF")
_HOLDS_SIXTEEN_BITS = ("PNG", "TIFF")
_MOST_PIXELS_ASIDE = {"JPEG": 65500, "WEBP": 16383}
_LOSSY_QUALITY = 95
# Segments have 64 KiB, with a header each.
_LONGEST_JPEG_SEGMENT = 65_000


def write_picture(
    path: str | os.PathLike[str],
    picture: Picture,
    *,
    quality: int = _LOSSY_QUALITY,
    overwrite: bool = False,
) -> None:
    """Write a picture, whole or not at all, in the format of the file's suffix.

    A gray picture is stored with one channel, and the color profile is kept where the format has a
    place for it (all but BMP). Only a translucent gray TIFF of 16 bits is stored in color. The
    metadata is kept as far as the format has a place for it: the resolution in all but WebP; EXIF
    in PNG, JPEG and WebP; XMP in all but BMP; all text in PNG, a description, an author, a
    copyright and a program in TIFF, a comment in JPEG; gamma in PNG.

    Args:
        path: ``.png``, ``.tif`` or ``.tiff`` (8 or 16 bits), or ``.jpg``, ``.jpeg``, ``.webp``,
            ``.bmp`` (8 bits).
        picture: What to write.
        quality: 1 to 100, of JPEG and WebP.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: An unknown suffix; a picture that the format cannot hold without loss of opacity
            or bits; a wrong quality; or a path that cannot be written.
    """
    rows = picture.pixels.shape[0]
    write_bands(path, [picture], rows=rows, quality=quality, overwrite=overwrite)


def write_bands(
    path: str | os.PathLike[str],
    bands: Iterable[Picture],
    *,
    rows: int,
    quality: int = _LOSSY_QUALITY,
    overwrite: bool = False,
    metadata: Metadata | None = None,
    software: str | None = None,
) -> None:
    """Write a picture that comes in pieces, whole or not at all.

    PNG and TIFF are written as the pieces come; for other formats they are put together first.

    Args:
        path: As in :func:`write_picture`.
        bands: Full-width pieces from top to bottom, alike in all but their rows.
        rows: Rows of the whole picture.
        quality: As in :func:`write_picture`.
        overwrite: As in :func:`write_picture`.
        metadata: What to say beside the pixels; None for what the first piece says.
        software: Text that says what made the picture, or None.

    Raises:
        InputError: As :func:`write_picture`.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"output {path}: suffix must be one of {', '.join(sorted(_FORMATS))}")
    if not 1 <= quality <= 100:
        raise InputError(f"quality: {quality}; must be 1 to 100")
    pieces = iter(bands)
    with atomic_write(path, overwrite=overwrite) as temporary:
        first = next(pieces)
        channels = _channels(first)
        _check_kind(path, kind, first, rows)
        if kind == "TIFF" and channels.shape[2:] == (2,) and channels.dtype == np.uint16:
            # Pillow, with which others will open it, reads no such file.
            pieces = (replace(piece, gray=False) for piece in pieces)
            channels = _channels(replace(first, gray=False))
        columns = channels.shape[1]
        said = metadata_of_result(
            first.metadata if metadata is None else metadata,
            rows=rows,
            columns=columns,
            software=software,
        )
        # By Python's own file: encoders that write for themselves take a full disk for a success.
        with temporary.open("wb") as file:
            if kind in _ROW_WRITERS:
                depth = 1 if channels.ndim == 2 else channels.shape[2]
                writer = _ROW_WRITERS[kind](
                    file, rows, columns, depth, channels.dtype, first.icc_profile, said
                )
                writer.write(channels)
                for piece in pieces:
                    writer.write(_channels(piece))
                writer.finish()
            else:
                parts = [channels, *(_channels(piece) for piece in pieces)]
                whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
                options = _options(kind, first.icc_profile, said, quality)
                try:
                    content = _encoded(whole, kind, **options)
                except (OSError, ValueError) as error:
                    raise InputError(
                        f"output {path}: cannot be written as {kind} ({error})"
                    ) from error
                if kind == "BMP" and software is not None:
                    content = _bmp_with_text(content, software)
                file.write(content)


def _encoded(channels: NDArray[Any], kind: str, **options: Any) -> bytes:
    """Encode a picture in memory, in one of Pillow's formats."""
    content = io.BytesIO()
    Image.fromarray(channels).save(content, format=kind, **options)
    return content.getvalue()


def _options(
    kind: str, icc_profile: bytes | None, metadata: Metadata, quality: int
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if kind in ("JPEG", "WEBP"):
        options = {
            "quality": quality,
            "icc_profile": icc_profile,
            "exif": metadata.exif,
            "xmp": metadata.xmp,
        }
    if kind == "JPEG":
        options["comment"] = dict(metadata.text).get("Comment", "").encode(errors="replace")
        for name in ("exif", "xmp", "comment"):
            if len(options[name] or b"") > _LONGEST_JPEG_SEGMENT:
                del options[name]
    # What does not fit into the format is not said.
    if kind in ("JPEG", "BMP") and metadata.dpi is not None and max(metadata.dpi) < 1 << 15:
        options["dpi"] = metadata.dpi
    return {name: value for name, value in options.items() if value}


def _bmp_with_text(content: bytes, text: str) -> bytes:
    """Put text between the headers and the pixels of a BMP file, where readers pass over it."""
    size, pixels = struct.unpack_from("<I4xI", content, 2)
    words = text.encode(errors="replace")
    words += bytes(-len(words) % 4)
    header = bytearray(content[:pixels])
    struct.pack_into("<I4xI", header, 2, size + len(words), pixels + len(words))
    return bytes(header) + words + content[pixels:]


def _check_kind(path: Path, kind: str, picture: Picture, rows: int) -> None:
    if picture.alpha is not None and kind not in _HOLDS_ALPHA:
        raise InputError(f"output {path}: {kind} has no transparency; write .png, .webp or .tif")
    if picture.pixels.dtype == np.uint16 and kind not in _HOLDS_SIXTEEN_BITS:
        raise InputError(f"output {path}: {kind} has no 16 bits per channel; write .png or .tif")
    most = _MOST_PIXELS_ASIDE.get(kind)
    columns = picture.pixels.shape[1]
    if most is not None and max(rows, columns) > most:
        raise InputError(
            f"output {path}: {columns}x{rows}; {kind} holds {most} pixels a side, write .png"
        )


def picture_to_pil(picture: Picture) -> Image.Image:
    """Hand a picture over to Pillow.

    Args:
        picture: 8 bits, or 16, of which Pillow can hold only those of opaque gray; others become 8.

    Returns:
        An image of mode L, LA, RGB, RGBA or I;16 with the color profile in its ``info``.

    Raises:
        InputError: Its arrays have a wrong shape or type.
    """
    channels = _channels(picture)
    if channels.dtype == np.uint16 and channels.ndim == 3:
        channels = ((channels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    image = Image.fromarray(channels)
    if picture.icc_profile is not None:
        image.info["icc_profile"] = picture.icc_profile
    return image


def write_image(
    path: str | os.PathLike[str], image: NDArray[Any], *, overwrite: bool = False
) -> None:
    """Write an opaque RGB picture; see :func:`write_picture`.

    Args:
        path: As in :func:`write_picture`.
        image: RGB values ``[H, W, 3]``, uint8, or uint16 for ``.png``.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: As :func:`write_picture`.
    """
    write_picture(path, Picture(image), overwrite=overwrite)


def _channels(picture: Picture) -> NDArray[Any]:
    """The picture as an encoder takes it: ``[H, W]`` or ``[H, W, 2, 3 or 4]``."""
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"image: {pixels.dtype} {pixels.shape}; must be uint8 or uint16 [H, W, 3]")
    if 0 in pixels.shape:
        raise InputError(f"image: shape {pixels.shape} has no pixels")
    if alpha is not None and (alpha.dtype != pixels.dtype or alpha.shape != pixels.shape[:2]):
        raise InputError(
            f"alpha: {alpha.dtype} {alpha.shape}; must be {pixels.dtype} {pixels.shape[:2]}"
        )
    if picture.gray:
        pixels = pixels[..., :1]
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
