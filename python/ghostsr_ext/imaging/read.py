"""Reading picture files, friendly or hostile, into arrays."""

from __future__ import annotations

import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging.cmyk import cmyk_converter
from ghostsr_ext.imaging.jpeg import with_end_marker
from ghostsr_ext.imaging.orientation import known_orientation, swaps_sides, upright
from ghostsr_ext.imaging.picture import Canvas, Metadata, Picture, band_rows
from ghostsr_ext.imaging.png import exif_chunk
from ghostsr_ext.imaging.tiff_directory import is_tiff
from ghostsr_ext.imaging.tiff_reader import read_tiff, tiff_size

MAX_PIXELS = 150_000_000
"""Pixels (rows times columns) above which a picture is refused before anything is decoded.

Pillow itself refuses 178,956,970 and more. Reading takes at most 10 bytes of memory for each pixel
of 8 bits a channel, and 20 in WebP or with 16 bits a channel.
"""

PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"))
"""Lower-case suffixes of the files that are taken for pictures in a folder."""

# Only readers that run inside Pillow: its EPS reader, for one, starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_SUPPORTED = "PNG, JPEG, WebP, TIFF, BMP or GIF"
# A camera's MPO is a JPEG with previews behind it.
_FORMATS_WITH_EXTRA_FRAMES = ("MPO", "JPEG")

_warning_filters = threading.Lock()


def read_picture(
    source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Read a picture with all that a faithful copy of it needs.

    Palettes are resolved, CMYK is turned into RGB (by its color profile where it has one), the
    EXIF or TIFF orientation is applied, premultiplied opacity is divided out, and up to 16 bits per
    channel are kept; fewer than 8 become 8, and 9 to 15 become 16. Of TIFF, what is not understood
    (float values, CIELAB, several pages, channels without a meaning, ...) is refused by name.

    Args:
        source: A PNG, JPEG, WebP, TIFF, BMP or GIF file, or a binary stream that can seek.
        max_pixels: The most rows times columns to decode, checked before anything is.

    Returns:
        The picture.

    Raises:
        InputError: The file is missing, no picture, broken, too large, animated, or has values that
            are no integers of up to 16 bits.
    """
    with _opened(source, max_pixels) as file:
        if _is_tiff(file):
            return read_tiff(file, max_pixels)
        with _open_quietly(file) as image:
            _check_header(image, max_pixels)
            return _decode(image, file)


def picture_from_pil(image: Image.Image) -> Picture:
    """Take a picture over from Pillow, as :func:`read_picture` would read it from a file.

    Args:
        image: Opened or made in memory.

    Raises:
        InputError: It is broken, animated, has no pixels, or values that are no 8 or 16-bit
            integers.
    """
    name = str(getattr(image, "filename", "") or "image")
    with _named(name, MAX_PIXELS):
        _check_header(image, MAX_PIXELS)
        file: Any = getattr(image, "fp", None)
        if image.format == "TIFF" and file is not None and getattr(image, "tile", None):
            position = file.tell()
            try:
                return read_tiff(file, MAX_PIXELS)
            finally:
                file.seek(position)
        return _decode(image, file)


def read_image(
    source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read a picture for measuring or training: 8 bits, opaque, three channels.

    Args:
        source: As in :func:`read_picture`.
        max_pixels: As in :func:`read_picture`.

    Returns:
        RGB values ``[H, W, 3]``; a gray picture has three equal channels.

    Raises:
        InputError: As :func:`read_picture`; or the picture has 16 bits or is translucent, for which
            the protocols of the field define nothing.
    """
    picture = read_picture(source, max_pixels=max_pixels)
    name = _name(source)
    if picture.pixels.dtype != np.uint8:
        raise InputError(f"{name}: has 16 bits per channel; convert it to 8 bits first")
    if picture.alpha is not None and (picture.alpha != 255).any():
        raise InputError(f"{name}: has transparent pixels; flatten it to opaque RGB or gray first")
    pixels: NDArray[np.uint8] = picture.pixels
    return pixels


def read_size(
    source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Read the upright size of a picture from its header: that of what ``read_picture`` returns.

    Args:
        source: As in :func:`read_picture`.
        max_pixels: As in :func:`read_picture`.

    Returns:
        Rows and columns.

    Raises:
        InputError: The file is missing, no picture, or too large.
    """
    with _opened(source, max_pixels) as file:
        if _is_tiff(file):
            return tiff_size(file, max_pixels)
        with _open_quietly(file) as image:
            _check_header(image, max_pixels)
            columns, rows = image.size
            turned = swaps_sides(_orientation(image, file))
            return (columns, rows) if turned else (rows, columns)


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
def _opened(source: str | os.PathLike[str] | BinaryIO, max_pixels: int) -> Iterator[BinaryIO]:
    """Open a picture file; whatever goes wrong inside becomes one InputError that names it."""
    name = _name(source)
    with _named(name, max_pixels):
        if not isinstance(source, str | os.PathLike):
            file = source if source.seekable() else io.BytesIO(source.read())
            file.seek(0)
            yield file
            return
        with Path(source).open("rb") as file:
            if not file.read(1):
                raise InputError("is empty")
            file.seek(0)
            yield file


@contextmanager
def _named(name: str, max_pixels: int) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
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


def _is_tiff(file: BinaryIO) -> bool:
    start = file.read(4)
    file.seek(0)
    return is_tiff(start)


def _check_header(image: Image.Image, max_pixels: int) -> None:
    columns, rows = image.size
    if columns < 1 or rows < 1:
        raise InputError(f"has no pixels ({columns}x{rows})")
    if columns * rows > max_pixels:
        raise InputError(f"{columns}x{rows} is too large; at most {max_pixels} pixels are read")
    with _quietly():
        frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _FORMATS_WITH_EXTRA_FRAMES:
        raise InputError(f"has {frames} frames or pages; only single pictures are read")


def _decode(image: Image.Image, file: Any) -> Picture:
    # Before the pixels, so that what is behind them in a file does not change it.
    orientation = _orientation(image, file)
    raw = _sixteen_bit_raw_mode(image)
    if raw is None:
        image = _loaded(image, file)
    icc_profile = image.info.get("icc_profile")
    gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    if raw is not None:
        canvas, gray = _decode_sixteen_bits(image, raw)
    elif image.mode.startswith("I"):
        canvas = _decode_integers(image)
    elif image.mode == "F":
        raise InputError("has floating-point values; 8 or 16-bit integers are read")
    elif image.mode == "CMYK":
        canvas = _decode_inks(image, icc_profile)
        icc_profile = None
    else:
        canvas = _decode_eight_bits(image, gray=gray)
    return Picture(
        upright(canvas.pixels, orientation),
        None if canvas.alpha is None else upright(canvas.alpha, orientation),
        gray,
        icc_profile or None,
        _metadata(image, swapped=swaps_sides(orientation)),
    )


def _loaded(image: Image.Image, file: Any) -> Image.Image:
    """Decode; a JPEG that lacks nothing but the marker at its end is complete."""
    try:
        image.load()
    except OSError:
        if image.format not in ("JPEG", "MPO") or file is None:
            raise
        file.seek(0)
        mended = with_end_marker(file.read())
        if mended is None:
            raise
        return mended
    return image


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Cut a decoded image into pieces, so that what is made of them on the way stays small."""
    step = band_rows(image.width, 8)
    for top in range(0, image.height, step):
        yield top, image.crop((0, top, image.width, min(top + step, image.height)))


def _decode_eight_bits(image: Image.Image, *, gray: bool) -> Canvas:
    translucent = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "RGBa")
    mode = "RGBA" if translucent else "L" if gray else "RGB"
    canvas = Canvas(image.height, image.width, np.uint8, alpha=translucent)
    for top, band in _bands(image):
        values = np.asarray(band if band.mode == mode else band.convert(mode))
        if translucent:
            canvas.put(top, values[..., 0] if gray else values[..., :3], values[..., 3])
        else:
            canvas.put(top, values)
    return canvas


def _decode_inks(image: Image.Image, icc_profile: bytes | None) -> Canvas:
    canvas = Canvas(image.height, image.width, np.uint8, alpha=False)
    to_rgb = cmyk_converter(icc_profile)
    for top, band in _bands(image):
        canvas.put(top, np.asarray(to_rgb(band)))
    return canvas


def _decode_integers(image: Image.Image) -> Canvas:
    low, high = image.getextrema()
    if low < 0 or high > 65535:  # type: ignore[operator]
        raise InputError(f"has integers from {low} to {high}; 8 or 16 bits are read")
    key = image.info.get("transparency")
    canvas = Canvas(image.height, image.width, np.uint16, alpha=key is not None)
    for top, band in _bands(image):
        values = np.asarray(band).astype(np.uint16)
        canvas.put(top, values, _keyed_alpha(values[..., None], key))
    return canvas


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return raw if isinstance(raw, str) else ""


def _sixteen_bit_raw_mode(image: Image.Image) -> str | None:
    """The raw mode of a color or gray-alpha file with 16 bits per channel, else None."""
    raws = (_raw_mode(tile) for tile in getattr(image, "tile", ()))
    return next((raw for raw in raws if raw.startswith(("RGB", "LA;")) and ";16" in raw), None)


def _decode_sixteen_bits(image: Image.Image, raw: str) -> tuple[Canvas, bool]:
    """Decode more bits than Pillow's modes hold, by reading the bytes as something else.

    Pillow keeps the high byte of each value. Read with the byte order swapped, it keeps the low
    one; and a 16-bit gray-alpha pixel has the four bytes of an 8-bit RGBA pixel.
    """
    if raw.startswith("LA"):
        octets_of = _decoded_as(image, raw, "RGBA")
        canvas = Canvas(image.height, image.width, np.uint16, alpha=True)
        for top, band in _bands(octets_of):
            octets = np.asarray(band).astype(np.uint16)
            canvas.put(
                top, octets[..., 0] << 8 | octets[..., 1], octets[..., 2] << 8 | octets[..., 3]
            )
        return canvas, True
    channels, order = raw.split(";16")
    big_endian = order == "B" or (order == "N" and sys.byteorder == "big")
    low_bytes = _decoded_as(image, raw, f"{channels};16{'L' if big_endian else 'B'}")
    image.load()
    key = image.info.get("transparency") if channels == "RGB" else None
    translucent = channels == "RGBA" or key is not None
    canvas = Canvas(image.height, image.width, np.uint16, alpha=translucent)
    for (top, high), (_, low) in zip(_bands(image), _bands(low_bytes), strict=True):
        values = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
        alpha = values[..., 3] if channels == "RGBA" else _keyed_alpha(values[..., :3], key)
        canvas.put(top, values[..., :3], alpha)
    return canvas, False


def _decoded_as(image: Image.Image, raw: str, read_as: str) -> Image.Image:
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
        tiles.append(tile._replace(args=replaced) if _raw_mode(tile) == raw else tile)
    again.tile = tiles
    again.load()
    file.seek(position)
    decoded: Image.Image = again
    return decoded


def _keyed_alpha(values: NDArray[Any], key: Any) -> NDArray[np.uint16] | None:
    """Opacity of a 16-bit PNG that declares one color transparent."""
    if key is None:
        return None
    transparent = (values == np.asarray(key, dtype=np.uint16)).all(axis=2)
    return np.where(transparent, np.uint16(0), np.uint16(65535))


def _orientation(image: Image.Image, file: Any) -> int:
    try:
        with _quietly():
            if image.format != "PNG":
                return known_orientation(image.getexif().get(ExifTags.Base.Orientation, 1))
            # Asked for EXIF, Pillow decodes a whole PNG to look behind its pixels.
            block = image.info.get("exif")
            if block is None and file is not None:
                block = exif_chunk(file)
            exif = Image.Exif()
            exif.load(block or b"")
            return known_orientation(exif.get(ExifTags.Base.Orientation, 1))
    # A damaged EXIF block does not make the pixels unreadable.
    except Exception:
        return 1


def _metadata(image: Image.Image, *, swapped: bool) -> Metadata:
    """What else the file says; a part that is damaged counts as absent."""
    info = image.info
    dpi = info.get("dpi")
    if not (isinstance(dpi, tuple) and len(dpi) == 2 and all(_is_positive(part) for part in dpi)):
        dpi = None
    else:
        dpi = float(dpi[0]), float(dpi[1])
        dpi = dpi[::-1] if swapped else dpi
    xmp = info.get("xmp", info.get("XML:com.adobe.xmp"))
    text = dict(getattr(image, "text", {})) if image.format == "PNG" else {}
    if isinstance(info.get("comment"), bytes):
        text["Comment"] = info["comment"].decode("utf-8", errors="replace")
    known = info.get("chromaticity")
    return Metadata(
        dpi=dpi,
        gamma=info["gamma"] if _is_positive(info.get("gamma")) else None,
        chromaticities=tuple(known) if isinstance(known, tuple) and len(known) == 8 else None,
        exif=info["exif"] if isinstance(info.get("exif"), bytes) else None,
        xmp=xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else None,
        text=tuple(
            (str(key), str(value))
            for key, value in text.items()
            if key != "XML:com.adobe.xmp" and not key.startswith("Raw profile type ")
        ),
    )


def _is_positive(value: Any) -> bool:
    # A fraction of TIFF's kind may be no number at all.
    try:
        return 0 < float(value) < float("inf")
    except (TypeError, ValueError, ZeroDivisionError):
        return False
