"""Writing picture files."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ghostsr_ext.errors import InputError
from ghostsr_ext.files import atomic_write
from ghostsr_ext.imaging.read import Picture

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
_HOLDS_ALPHA = ("PNG", "WEBP", "TIFF")
_HOLDS_PROFILE = ("PNG", "JPEG", "WEBP", "TIFF")
_LOSSY_QUALITY = 95


def write_picture(
    path: str | os.PathLike[str],
    picture: Picture,
    *,
    quality: int = _LOSSY_QUALITY,
    overwrite: bool = False,
) -> None:
    """Write a picture, whole or not at all, in the format of the file's suffix.

    A grey picture is stored with one channel, and the colour profile is kept where the format has a
    place for it (all but BMP).

    Args:
        path: ``.png`` (8 or 16 bits), or ``.jpg``, ``.jpeg``, ``.webp``, ``.tif``, ``.tiff``,
            ``.bmp`` (8 bits).
        picture: What to write.
        quality: 1 to 100, of JPEG and WebP.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: An unknown suffix; a picture that the format cannot hold without loss of opacity
            or bits; a wrong quality; or a path that cannot be written.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"output {path}: suffix must be one of {', '.join(sorted(_FORMATS))}")
    if not 1 <= quality <= 100:
        raise InputError(f"quality: {quality}; must be 1 to 100")
    if picture.alpha is not None and kind not in _HOLDS_ALPHA:
        raise InputError(f"output {path}: {kind} has no transparency; write .png, .webp or .tif")
    if picture.pixels.dtype == np.uint16 and kind != "PNG":
        raise InputError(f"output {path}: 16 bits per channel are written as .png only")

    channels = _channels(picture)
    with atomic_write(path, overwrite=overwrite) as temporary:
        if channels.dtype == np.uint16:
            temporary.write_bytes(_encode_png(channels, picture.icc_profile))
            return
        options: dict[str, Any] = {}
        if kind in _HOLDS_PROFILE and picture.icc_profile is not None:
            options["icc_profile"] = picture.icc_profile
        if kind in ("JPEG", "WEBP"):
            options["quality"] = quality
        try:
            Image.fromarray(channels).save(temporary, format=kind, **options)
        except (OSError, ValueError) as error:
            raise InputError(f"output {path}: cannot be written as {kind} ({error})") from error


def picture_to_pil(picture: Picture) -> Image.Image:
    """Hand a picture over to Pillow.

    Args:
        picture: 8 bits, or 16, of which Pillow can hold only those of opaque grey; others become 8.

    Returns:
        An image of mode L, LA, RGB, RGBA or I;16 with the colour profile in its ``info``.

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
    if picture.grey:
        pixels = pixels[..., :1]
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_PNG_FILTER_UP = 2


def _encode_png(channels: NDArray[np.uint16], icc_profile: bytes | None) -> bytes:
    """Encode 16 bits per channel as PNG, for which Pillow has no mode."""
    rows, columns = channels.shape[:2]
    count = 1 if channels.ndim == 2 else channels.shape[2]
    lines = np.frombuffer(channels.astype(">u2").tobytes(), dtype=np.uint8).reshape(rows, -1)
    # The "up" filter: each byte minus the one above it, modulo 256.
    filtered = lines - np.concatenate([np.zeros_like(lines[:1]), lines[:-1]])
    kinds = np.full((rows, 1), _PNG_FILTER_UP, dtype=np.uint8)
    header = struct.pack(">IIBBBBB", columns, rows, 16, _PNG_COLOUR_TYPES[count], 0, 0, 0)
    chunks = [_png_chunk(b"IHDR", header)]
    if icc_profile is not None:
        chunks.append(_png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile)))
    chunks.append(_png_chunk(b"IDAT", zlib.compress(np.hstack([kinds, filtered]).tobytes())))
    chunks.append(_png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
