"""Reading picture files, friendly or hostile, into arrays."""

from __future__ import annotations

import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from ghostsr_ext.errors import InputError

MAX_PIXELS = 150_000_000
"""Pixels (rows times columns) above which a picture is refused before anything is decoded.

Pillow itself refuses 178,956,970 and more.
"""

PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"))
"""Lower-case suffixes of the files that are taken for pictures in a folder."""

# Only readers that run inside Pillow: its EPS reader, for one, starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
_SUPPORTED = "PNG, JPEG, WebP, TIFF, BMP or GIF"
# A camera's MPO is a JPEG with previews behind it.
_FORMATS_WITH_EXTRA_FRAMES = ("MPO", "JPEG")

_warning_filters = threading.Lock()

_TURNS: dict[int, tuple[int, bool]] = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}
"""EXIF orientation to quarter turns to the left, and then whether to mirror left to right."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: RGB values ``[H, W, 3]``, uint8 or uint16; a grey picture has three equal channels.
        alpha: Opacity ``[H, W]`` of the same type, or None for an opaque picture.
        grey: Whether the file had one colour channel.
        icc_profile: The colour profile of the file, or None.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    grey: bool = False
    icc_profile: bytes | None = None


def read_picture(
    source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Read a picture with all that a faithful copy of it needs.

    Palettes are resolved, CMYK is turned into RGB (by its colour profile where it has one), the
    EXIF orientation is applied, and 16 bits per channel are kept.

    Args:
        source: A PNG, JPEG, WebP, TIFF, BMP or GIF file, or a binary stream that can seek.
        max_pixels: The most rows times columns to accept, checked in the header.

    Returns:
        The picture.

    Raises:
        InputError: The file is missing, no picture, broken, too large, animated, or has values that
            are no 8 or 16-bit integers.
    """
    with _opened(source, max_pixels) as (image, name):
        return _decode(image, name)


def picture_from_pil(image: Image.Image) -> Picture:
    """Take a picture over from Pillow, as :func:`read_picture` would read it from a file.

    Args:
        image: Opened or made in memory.

    Raises:
        InputError: It is broken, animated, has no pixels, or values that are no 8 or 16-bit
            integers.
    """
    name = str(getattr(image, "filename", "") or "image")
    try:
        _check_header(image, name, MAX_PIXELS)
        return _decode(image, name)
    except InputError:
        raise
    # As for files: an image that is not loaded yet may be hostile.
    except Exception as error:
        raise InputError(f"{name}: is broken or truncated ({error})") from error


def read_image(
    source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read a picture for measuring or training: 8 bits, opaque, three channels.

    Args:
        source: As in :func:`read_picture`.
        max_pixels: As in :func:`read_picture`.

    Returns:
        RGB values ``[H, W, 3]``; a grey picture has three equal channels.

    Raises:
        InputError: As :func:`read_picture`; or the picture has 16 bits or is translucent, for which
            the protocols of the field define nothing.
    """
    picture = read_picture(source, max_pixels=max_pixels)
    name = _name(source)
    if picture.pixels.dtype != np.uint8:
        raise InputError(f"{name}: has 16 bits per channel; convert it to 8 bits first")
    if picture.alpha is not None and (picture.alpha != 255).any():
        raise InputError(f"{name}: has transparent pixels; flatten it to opaque RGB or grey first")
    pixels: NDArray[np.uint8] = picture.pixels
    return pixels


def read_size(
    source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Read the upright size of a picture from its header.

    Args:
        source: As in :func:`read_picture`.
        max_pixels: As in :func:`read_picture`.

    Returns:
        Rows and columns.

    Raises:
        InputError: The file is missing, no picture, or too large.
    """
    with _opened(source, max_pixels) as (image, _):
        columns, rows = image.size
        # Pillow decodes a whole PNG to look for EXIF data behind its pixels.
        known = image.format != "PNG" or "exif" in image.info
        turns, _ = _TURNS[_orientation(image) if known else 1]
        return (columns, rows) if turns % 2 else (rows, columns)


def picture_files(
    folder: str | os.PathLike[str], *, excluded: str | os.PathLike[str] | None = None
) -> list[Path]:
    """List the picture files in a folder and in the folders inside it, by suffix.

    Whatever searches a folder does it by this rule. Hidden files and folders are passed over, and
    links to folders are not followed.

    Args:
        folder: The folder.
        excluded: A folder inside it that is passed over, such as that of an earlier run's results.

    Returns:
        The paths, sorted by name within each folder, a folder's own files first; empty when there
        are none.

    Raises:
        InputError: The folder does not exist or cannot be listed.
    """
    folder = Path(folder)
    left_out = None if excluded is None else Path(excluded).resolve()

    def refuse(error: OSError) -> None:
        raise InputError(f"folder {folder}: cannot be read ({error.strerror})") from error

    files = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() != left_out
        )
        files += [
            here / name
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
        ]
    return files


def _name(source: str | os.PathLike[str] | BinaryIO) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "picture stream"))


@contextmanager
def _opened(
    source: str | os.PathLike[str] | BinaryIO, max_pixels: int
) -> Iterator[tuple[Image.Image, str]]:
    """Open a picture and check its header; whatever goes wrong inside becomes one InputError."""
    name = _name(source)
    try:
        with _open_quietly(_openable(source)) as image:
            _check_header(image, name, max_pixels)
            yield image, name
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: does not exist") from error
    except IsADirectoryError as error:
        raise InputError(f"{name}: is a folder; name a picture") from error
    except PermissionError as error:
        raise InputError(f"{name}: may not be read") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: is not a picture ({_SUPPORTED})") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: is too large; at most {max_pixels} pixels are read") from error
    # Pillow's readers let almost any exception out of a hostile file: struct.error, zlib.error,
    # KeyError, EOFError, MemoryError and more.
    except Exception as error:
        raise InputError(f"{name}: is broken or truncated ({error})") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Pillow's warnings back: our limit stands in for its own, and metadata may be damaged."""
    # Threads that decode side by side share one list of warning filters.
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_quietly(file: Any) -> Image.Image:
    with _quietly():
        return Image.open(file, formats=_FORMATS)


def _openable(source: str | os.PathLike[str] | BinaryIO) -> Any:
    if isinstance(source, str | os.PathLike):
        if Path(source).is_file() and Path(source).stat().st_size == 0:
            raise InputError(f"{_name(source)}: is empty")
        return source
    return source if source.seekable() else io.BytesIO(source.read())


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    columns, rows = image.size
    if columns < 1 or rows < 1:
        raise InputError(f"{name}: has no pixels ({columns}x{rows})")
    if columns * rows > max_pixels:
        raise InputError(
            f"{name}: {columns}x{rows} is too large; at most {max_pixels} pixels are read"
        )
    with _quietly():
        frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _FORMATS_WITH_EXTRA_FRAMES:
        raise InputError(f"{name}: has {frames} frames or pages; only single pictures are read")


def _decode(image: Image.Image, name: str) -> Picture:
    icc_profile = image.info.get("icc_profile")
    if _sixteen_bit_raw_mode(image) is not None:
        pixels, alpha, grey = _decode_sixteen_bits(image)
    elif image.mode.startswith("I"):
        pixels, alpha, grey = _decode_integers(image, name)
    elif image.mode == "F":
        raise InputError(f"{name}: has floating-point values; 8 or 16-bit integers are read")
    elif image.mode == "CMYK":
        pixels, alpha, grey = np.asarray(_cmyk_to_rgb(image, icc_profile)), None, False
        icc_profile = None
    else:
        pixels, alpha, grey = _decode_eight_bits(image)

    # Only now: in a PNG, metadata may follow the pixels.
    orientation = _orientation(image)
    return Picture(
        _upright(np.repeat(pixels[..., None], 3, axis=2) if grey else pixels, orientation),
        None if alpha is None else _upright(alpha, orientation),
        grey,
        icc_profile or None,
    )


_Channels = tuple[NDArray[Any], NDArray[Any] | None, bool]
"""Colour ``[H, W, 3]`` or grey ``[H, W]``; opacity; whether it is grey."""


def _decode_eight_bits(image: Image.Image) -> _Channels:
    grey = image.mode in ("1", "L", "LA")
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "RGBa"):
        values = np.asarray(_as_mode(image, "RGBA"))
        return values[..., 0] if grey else values[..., :3], values[..., 3], grey
    return np.asarray(_as_mode(image, "L" if grey else "RGB")), None, grey


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert, without the copy that Pillow makes even of what is right already."""
    return image if image.mode == mode else image.convert(mode)


def _decode_integers(image: Image.Image, name: str) -> _Channels:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"{name}: has integers from {values.min()} to {values.max()}; 8 or 16 bits are read"
        )
    values = values.astype(np.uint16)
    return values, _keyed_alpha(values[..., None], image), True


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return raw if isinstance(raw, str) else ""


def _sixteen_bit_raw_mode(image: Image.Image) -> str | None:
    """The raw mode of a colour or grey-alpha file with 16 bits per channel, else None."""
    raws = (_raw_mode(tile) for tile in getattr(image, "tile", ()))
    return next((raw for raw in raws if raw.startswith(("RGB", "LA;")) and ";16" in raw), None)


def _decode_sixteen_bits(image: Image.Image) -> _Channels:
    """Decode more bits than Pillow's modes hold, by reading the bytes as something else.

    Pillow keeps the high byte of each value. Read with the byte order swapped, it keeps the low
    one; and a 16-bit grey-alpha pixel has the four bytes of an 8-bit RGBA pixel.
    """
    raw = _sixteen_bit_raw_mode(image)
    assert raw is not None
    if raw.startswith("LA"):
        octets = _decode_as(image, raw, "RGBA").astype(np.uint16)
        return octets[..., 0] << 8 | octets[..., 1], octets[..., 2] << 8 | octets[..., 3], True
    channels, order = raw.split(";16")
    big_endian = order == "B" or (order == "N" and sys.byteorder == "big")
    low = _decode_as(image, raw, f"{channels};16{'L' if big_endian else 'B'}").astype(np.uint16)
    values = np.asarray(image).astype(np.uint16) << 8 | low
    colour = values[..., :3]
    if channels == "RGBA":
        return colour, values[..., 3], False
    return colour, _keyed_alpha(colour, image), False


def _decode_as(image: Image.Image, raw: str, read_as: str) -> NDArray[np.uint8]:
    """Decode a picture that is not loaded yet as another raw mode, and leave it unloaded."""
    file: Any = getattr(image, "fp", None)
    position = file.tell()
    file.seek(0)
    # Not closed: it would close the file that the first reading still needs.
    again: Any = _open_quietly(file)
    tiles = []
    for tile in again.tile:
        arguments = tile[3]
        replaced = read_as if isinstance(arguments, str) else (read_as, *arguments[1:])
        # Its own kind of tile: the reader of compressed TIFF asks for its fields by name.
        tiles.append(tile._replace(args=replaced) if _raw_mode(tile) == raw else tile)
    again.tile = tiles
    values: NDArray[np.uint8] = np.asarray(again)
    file.seek(position)
    return values


def _keyed_alpha(values: NDArray[Any], image: Image.Image) -> NDArray[np.uint16] | None:
    """Opacity of a 16-bit PNG that declares one colour transparent."""
    key = image.info.get("transparency")
    if key is None:
        return None
    transparent = (values == np.asarray(key, dtype=np.uint16)).all(axis=2)
    return np.where(transparent, np.uint16(0), np.uint16(65535))


def _cmyk_to_rgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    if icc_profile:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            converted = ImageCms.profileToProfile(
                image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        with _quietly():
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # A damaged EXIF block does not make the pixels unreadable.
    except Exception:
        return 1
    return orientation if orientation in _TURNS else 1


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    turns, mirrored = _TURNS[orientation]
    values = np.rot90(values, turns)
    return np.ascontiguousarray(values[:, ::-1] if mirrored else values)
