"""Reading TIFF: what is understood is read right, and everything else is refused by name.

libtiff, by way of Pillow, undoes the compression and is asked for bytes alone: each piece of the
file is handed to it as an 8-bit gray picture. What the bytes mean is decided here, since Pillow has
no mode for most of what TIFF can hold, and opens some of it as something else.

Source: TIFF revision 6.0, and Adobe's supplements for Deflate and for predictors.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging.cmyk import cmyk_converter
from ghostsr_ext.imaging.orientation import known_orientation, swaps_sides, upright
from ghostsr_ext.imaging.picture import Canvas, Metadata, Picture, band_rows
from ghostsr_ext.imaging.tiff import TEXT_TAGS
from ghostsr_ext.imaging.tiff_directory import TiffDirectory, picture_directory, read_part

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_OTHER_COLORS = {
    4: "a transparency mask",
    8: "CIELAB colors",
    9: "ICCLAB colors",
    10: "ITULAB colors",
    32803: "a camera's color filter array",
    32844: "LogL values",
    32845: "LogLuv colors",
    34892: "a camera's linear values",
}
_UNCOMPRESSED, _JPEG = 1, 7
_FAX = (2, 3, 4)
# LZW, Deflate under both numbers, PackBits, LZMA and Zstandard: of bytes, whatever these mean.
_OF_BYTES = (_UNCOMPRESSED, 5, 8, 32946, 32773, 34925, 50000)
_OTHER_COMPRESSIONS = {
    6: "old-style JPEG",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_PREMULTIPLIED, _OPACITY = 1, 2
_TILE_GRID = 16
# Descriptions that programs write for themselves; they would be untrue of a copy.
_PROGRAMS_WORDS = ("{", "ImageJ=", "<?xml", "<OME")
_UNSIGNED, _FLOAT = 1, 3
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_ADVICE = "; convert it to 8 or 16-bit RGB or gray first"


@dataclass(frozen=True)
class _Layout:
    """Where the pixels of a file are, and what they mean.

    Attributes:
        rows: Rows of the picture.
        columns: Columns of the picture.
        bits: Bits of each sample, 1 to 16.
        samples: Samples of each pixel.
        photometric: What the colors are.
        extra: What the sample behind the colors is, or 0 for none.
        compression: The file's.
        predictor: 1 for none, 2 for differences along rows.
        planes: How many the samples are spread over: 1 or ``samples``.
        tile_rows: Rows of a tile or a strip.
        tile_columns: Columns of a tile; those of the picture for strips.
        tiled: Whether there are tiles.
        offsets: Offsets of the tiles or strips.
        lengths: Lengths of the tiles or strips.
    """

    rows: int
    columns: int
    bits: int
    samples: int
    photometric: int
    extra: int
    compression: int
    predictor: int
    planes: int
    tile_rows: int
    tile_columns: int
    tiled: bool
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.columns // self.tile_columns)

    @property
    def down(self) -> int:
        """Tiles or strips one below the other."""
        return -(-self.rows // self.tile_rows)

    @property
    def tile_row_bytes(self) -> int:
        """Bytes of one row of one tile in one plane."""
        return -(-self.tile_columns * (self.samples // self.planes) * self.bits // 8)


def tiff_size(file: BinaryIO, max_pixels: int) -> tuple[int, int]:
    """Return the upright rows and columns of a TIFF file that :func:`read_tiff` understands.

    Raises:
        InputError: As for :func:`read_tiff`, but for what only shows in the pixels.
    """
    directory = picture_directory(file)
    layout = _understood(directory, max_pixels)
    size = layout.rows, layout.columns
    return size[::-1] if swaps_sides(_orientation(directory)) else size


def read_tiff(file: BinaryIO, max_pixels: int) -> Picture:
    """Read a TIFF or BigTIFF file.

    Args:
        file: The file.
        max_pixels: The most pixels to decode; tiles and strips count in full.

    Returns:
        The picture, upright.

    Raises:
        InputError: The file has several pages, is broken, too large, or holds what a
            :class:`Picture` cannot: the message says what, and leaves the file to be named.
    """
    directory = picture_directory(file)
    layout = _understood(directory, max_pixels)
    if sum(layout.lengths) > file.seek(0, 2):
        raise InputError("is broken or truncated (its parts are longer than the file)")
    icc_profile = directory.raw(34675) or None
    to_colors = _interpretation(directory, layout, icc_profile)
    canvas: Canvas | None = None
    for top, samples in _bands(file, directory, layout):
        colors, alpha = _split(samples, layout)
        colors = to_colors(colors)
        if canvas is None:
            canvas = Canvas(layout.rows, layout.columns, colors.dtype, alpha=alpha is not None)
        canvas.put(top, colors, alpha)
    assert canvas is not None
    orientation = _orientation(directory)
    return Picture(
        upright(canvas.pixels, orientation),
        None if canvas.alpha is None else upright(canvas.alpha, orientation),
        layout.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO),
        None if layout.photometric == _CMYK else icc_profile,
        _metadata(directory, swapped=swaps_sides(orientation)),
    )


def _orientation(directory: TiffDirectory) -> int:
    return known_orientation(directory.integer(274, 1))


def _understood(directory: TiffDirectory, max_pixels: int) -> _Layout:
    """Check all that the meaning of the pixels depends on."""
    columns, rows = directory.integer(256, 0), directory.integer(257, 0)
    if columns < 1 or rows < 1:
        raise InputError(f"has no pixels ({columns}x{rows})")
    if columns * rows > max_pixels:
        raise InputError(f"{columns}x{rows} is too large; at most {max_pixels} pixels are read")
    photometric = directory.integer(262, -1)
    if photometric not in _COLORS:
        what = _OTHER_COLORS.get(photometric, f"colors of the unknown kind {photometric}")
        raise InputError(f"has {what}{_ADVICE}")
    compression = directory.integer(259, _UNCOMPRESSED)
    if compression not in (*_OF_BYTES, *_FAX, _JPEG):
        what = _OTHER_COMPRESSIONS.get(compression, f"number {compression}")
        raise InputError(f"is compressed as {what}; save it with LZW or Deflate, or without")
    samples = directory.integer(277, 1)
    bits = _bits(directory, samples)
    extra = _extra_sample(directory, samples - _COLORS[photometric])
    planes = samples if directory.integer(284, 1) == 2 else 1
    predictor = directory.integer(317, 1)
    if predictor not in (1, 2) or (predictor == 2 and bits not in (8, 16)):
        raise InputError(f"has predictor {predictor} of {bits} bits; 2 of 8 or 16 bits is read")
    layout = _Layout(
        rows=rows,
        columns=columns,
        bits=bits,
        samples=samples,
        photometric=photometric,
        extra=extra,
        compression=compression,
        predictor=predictor if compression in _OF_BYTES[1:] else 1,
        planes=planes,
        **_pieces(directory, rows, columns),
    )
    _check_colors(directory, layout)
    _check_pieces(layout, max_pixels)
    return layout


def _bits(directory: TiffDirectory, samples: int) -> int:
    each = directory.integers(258, (1,))
    if not 1 <= samples <= 5 or len(set(each)) != 1 or len(each) not in (1, samples):
        raise InputError(f"has {samples} samples of {each[:9]} bits a pixel{_ADVICE}")
    formats = set(directory.integers(339, (_UNSIGNED,)))
    if formats == {_FLOAT}:
        raise InputError("has floating-point values; 8 or 16-bit integers are read")
    if formats != {_UNSIGNED}:
        raise InputError("has signed or other values; unsigned integers are read")
    if not 1 <= each[0] <= 16:
        raise InputError(f"has {each[0]} bits per channel; 1 to 16 are read")
    return each[0]


def _extra_sample(directory: TiffDirectory, number: int) -> int:
    if number == 0:
        return 0
    meanings = directory.integers(338, (0,))
    if number != 1 or len(meanings) != 1 or meanings[0] not in (_PREMULTIPLIED, _OPACITY):
        raise InputError(
            f"has {number} channels beside its colors, of kinds {meanings[:9]}; "
            "one is read that is marked as opacity (1 or 2)"
        )
    return meanings[0]


def _pieces(directory: TiffDirectory, rows: int, columns: int) -> dict[str, Any]:
    tiled = 322 in directory
    first = 324 if tiled else 273
    return {
        "tiled": tiled,
        "tile_rows": directory.integer(323, 0)
        if tiled
        else min(directory.integer(278, rows), rows),
        "tile_columns": directory.integer(322, 0) if tiled else columns,
        "offsets": directory.integers(first),
        "lengths": directory.integers(325 if tiled else 279),
    }


def _check_colors(directory: TiffDirectory, layout: _Layout) -> None:
    kind, bits, extra = layout.photometric, layout.bits, layout.extra
    if kind == _PALETTE and (bits > 8 or len(directory.integers(320)) != 3 << bits):
        raise InputError(f"has a palette of {bits} bits and {len(directory.integers(320))} values")
    if extra == _PREMULTIPLIED and kind not in (_BLACK_IS_ZERO, _RGB):
        raise InputError(f"has colors of kind {kind} that are multiplied by opacity{_ADVICE}")
    if kind == _CMYK and (bits != 8 or extra or directory.integer(332, 1) != 1):
        raise InputError(f"has {layout.samples} inks of {bits} bits; CMYK of 8 bits is read")
    if kind == _YCBCR and layout.compression != _JPEG:
        raise InputError(f"has YCbCr colors that are not compressed as JPEG{_ADVICE}")
    if layout.compression in _FAX and (bits != 1 or layout.samples != 1):
        raise InputError(f"is a fax of {layout.samples} samples of {bits} bits; it can have one")
    if layout.compression == _JPEG:
        plain = kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR) and not extra
        if bits != 8 or not plain or layout.planes > 1:
            raise InputError(f"has JPEG data that is no 8-bit gray, RGB or YCbCr picture{_ADVICE}")


def _check_pieces(layout: _Layout, max_pixels: int) -> None:
    rows, columns = layout.tile_rows, layout.tile_columns
    if rows < 1 or (layout.tiled and (rows % _TILE_GRID or columns < 1 or columns % _TILE_GRID)):
        raise InputError(f"has tiles of {columns}x{rows}; sides are multiples of {_TILE_GRID}")
    if layout.tiled and layout.across * columns * layout.down * rows > max_pixels:
        raise InputError(
            f"has tiles of {columns}x{rows}, too large; at most {max_pixels} pixels are read"
        )
    number = layout.across * layout.down * layout.planes
    if min(len(layout.offsets), len(layout.lengths)) < number or 0 in layout.lengths[:number]:
        raise InputError("is broken or truncated (it lacks tiles or strips)")


_Samples = NDArray[Any]
"""uint8 or uint16."""

_T = TypeVar("_T")


def _bands(
    file: BinaryIO, directory: TiffDirectory, layout: _Layout
) -> Iterator[tuple[int, _Samples]]:
    """Yield the picture from top to bottom: where rows begin, and their samples [h, W, S]."""
    layout = _finer_strips(layout)
    rows = band_rows(layout.columns, 8 * layout.samples)
    together = max(1, rows // layout.tile_rows)
    for first in range(0, layout.down, together):
        count = min(together, layout.down - first)
        images = [
            _decode_pieces(file, directory, layout, plane, first, count)
            for plane in range(layout.planes)
        ]
        top = first * layout.tile_rows
        height = min(count * layout.tile_rows, layout.rows - top)
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            parts = [_samples(image, start, stop, directory.order, layout) for image in images]
            yield top + start, parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _finer_strips(layout: _Layout) -> _Layout:
    """Cut long strips that are not compressed, so that none is read whole."""
    row_bytes = layout.tile_row_bytes
    fine = band_rows(1, row_bytes)
    if layout.tiled or layout.compression != _UNCOMPRESSED or fine >= layout.tile_rows:
        return layout
    offsets, lengths = [], []
    for number in range(layout.down * layout.planes):
        top = number % layout.down * layout.tile_rows
        height = min(layout.tile_rows, layout.rows - top)
        if layout.lengths[number] < height * row_bytes:
            return layout
        for start in range(0, height, fine):
            offsets.append(layout.offsets[number] + start * row_bytes)
            lengths.append(min(fine, height - start) * row_bytes)
    if layout.down > 1 and layout.tile_rows % fine:
        # Strips of unequal heights are none that a file could have.
        return layout
    return replace(layout, tile_rows=fine, offsets=tuple(offsets), lengths=tuple(lengths))


def _decode_pieces(
    file: BinaryIO, directory: TiffDirectory, layout: _Layout, plane: int, first: int, count: int
) -> Image.Image:
    """Decode rows of tiles, or strips, of one plane by libtiff."""
    start = (plane * layout.down + first) * layout.across
    pieces = [
        read_part(file, layout.offsets[number], layout.lengths[number])
        for number in range(start, start + count * layout.across)
    ]
    rows = count * layout.tile_rows
    if not layout.tiled:
        rows = min(rows, layout.rows - first * layout.tile_rows)
    if layout.compression == _UNCOMPRESSED:
        last = rows - (count - 1) * layout.tile_rows
        for number, piece in enumerate(pieces):
            height = last if number >= len(pieces) - layout.across else layout.tile_rows
            if len(piece) < height * layout.tile_row_bytes:
                raise InputError("is broken or truncated (a strip or tile is too short)")
    columns, tile_columns, bits, samples, photometric = (
        layout.tile_row_bytes * layout.across,
        layout.tile_row_bytes,
        8,
        1,
        _BLACK_IS_ZERO,
    )
    if layout.compression not in _OF_BYTES:
        columns, tile_columns = layout.across * layout.tile_columns, layout.tile_columns
        bits, samples = layout.bits, layout.samples
        photometric = layout.photometric if samples == 3 else _BLACK_IS_ZERO
    tags: dict[int, tuple[int, tuple[int, ...] | bytes]] = {
        256: (_LONG, (columns,)),
        257: (_LONG, (rows,)),
        258: (_SHORT, (bits,) * samples),
        259: (_SHORT, (layout.compression,)),
        262: (_SHORT, (photometric,)),
        266: (_SHORT, (directory.integer(266, 1),)),
        277: (_SHORT, (samples,)),
    }
    if layout.compression == _JPEG:
        if 347 in directory:
            tags[347] = (_UNDEFINED, directory.raw(347))
        if photometric == _YCBCR:
            tags[530] = (_SHORT, directory.integers(530, (2, 2)))
    for tag in (292, 293):
        if layout.compression in _FAX and tag in directory:
            tags[tag] = (_LONG, directory.integers(tag)[:1])
    if layout.tiled:
        tags[322] = (_LONG, (tile_columns,))
        tags[323] = (_LONG, (layout.tile_rows,))
    else:
        tags[278] = (_LONG, (layout.tile_rows,))
    content = _file_of(tags, pieces, tiled=layout.tiled)
    # Its own class: Image.open would count bytes as pixels, against a limit of its own.
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(content))
    if image.size != (columns, rows):
        raise InputError(f"is broken or truncated (a part is of {image.size})")
    image.load()
    return image


def _file_of(
    tags: dict[int, tuple[int, tuple[int, ...] | bytes]], pieces: list[bytes], *, tiled: bool
) -> bytes:
    """Put a little-endian TIFF file together."""
    content = bytearray(b"II*\0\0\0\0\0")
    offsets = []
    for piece in pieces:
        offsets.append(len(content))
        content += piece
        content += b"\0" * (len(content) % 2)
    if len(content) >> 31:
        raise InputError("has a strip or a row of tiles of more than 2 GiB")
    tags[324 if tiled else 273] = (_LONG, tuple(offsets))
    tags[325 if tiled else 279] = (_LONG, tuple(map(len, pieces)))
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = (
            values
            if isinstance(values, bytes)
            else struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        )
        number = len(values)
        if len(packed) > 4:
            place = len(content)
            content += packed + b"\0" * (len(packed) % 2)
            packed = struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, kind, number) + packed.ljust(4, b"\0")
    struct.pack_into("<I", content, 4, len(content))
    content += struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    return bytes(content)


def _samples(image: Image.Image, start: int, stop: int, order: str, layout: _Layout) -> _Samples:
    """Return rows of decoded pieces as samples [h, W, S], 8 or 16 bits wide, as stored."""
    values: NDArray[np.uint8] = np.asarray(image.crop((0, start, image.width, stop)))
    if layout.compression not in _OF_BYTES:
        values = values.astype(np.uint8, copy=False)
        return values.reshape(stop - start, image.width, -1)[:, : layout.columns]
    # Each tile's rows begin anew, so that what is undone along rows is undone within tiles.
    parts = values.reshape(stop - start, layout.across, layout.tile_row_bytes)
    per_pixel = layout.samples // layout.planes
    number = layout.tile_columns * per_pixel
    samples: _Samples
    if layout.bits == 8:
        samples = parts
    elif layout.bits == 16:
        samples = parts.view(order + "u2").astype(np.uint16)
    else:
        bits = np.unpackbits(parts, axis=2, count=number * layout.bits)
        samples = np.zeros((*parts.shape[:2], number), np.uint8 if layout.bits < 8 else np.uint16)
        for place in range(layout.bits):
            samples <<= 1
            samples |= bits[:, :, place :: layout.bits]
    samples = samples.reshape(stop - start, layout.across, layout.tile_columns, per_pixel)
    if layout.predictor == 2:
        samples = np.cumsum(samples, axis=2, dtype=samples.dtype)
    return samples.reshape(stop - start, -1, per_pixel)[:, : layout.columns]


def _split(samples: _Samples, layout: _Layout) -> tuple[_Samples, _Samples | None]:
    """Part colors from opacity, and undo what was multiplied by it."""
    if not layout.extra:
        return samples, None
    colors = samples[..., :-1]
    alpha = samples[..., -1]
    if layout.extra == _PREMULTIPLIED:
        colors = _divided(colors, alpha, (1 << layout.bits) - 1)
    return colors, _full_scale(alpha, layout.bits)


def _divided(colors: _Samples, alpha: _Samples, white: int) -> _Samples:
    over = np.maximum(alpha, 1).astype(np.uint32)[..., None]
    straight = (colors.astype(np.uint32) * np.uint32(white) + over // 2) // over
    divided: _Samples = np.minimum(straight, white).astype(colors.dtype)
    return divided


def _inverted(values: _Samples, bits: int) -> _Samples:
    inverted: _Samples = values.dtype.type((1 << bits) - 1) - values
    return inverted


def _full_scale(values: _Samples, bits: int) -> _Samples:
    """Widen to all 8 or 16 bits, so that white stays white."""
    if bits in (8, 16):
        return values
    most = (1 << bits) - 1
    white = 255 if bits < 8 else 65535
    table = (np.arange(most + 1, dtype=np.uint32) * white + most // 2) // most
    widened: _Samples = table.astype(values.dtype)[values]
    return widened


def _interpretation(
    directory: TiffDirectory, layout: _Layout, icc_profile: bytes | None
) -> Callable[[_Samples], _Samples]:
    """Return what makes RGB [h, W, 3] or gray [h, W] of the samples of a band."""
    bits = layout.bits
    if layout.photometric == _PALETTE:
        palette = np.array(directory.integers(320), np.uint16).reshape(3, -1).T
        if not (palette % 257).any() or not (palette % 256).any():
            palette = (palette >> 8).astype(np.uint8)
        if (palette.dtype == np.uint16 or bits < 8) and layout.extra:
            raise InputError(f"has opacity of {bits} bits beside a palette of other bits{_ADVICE}")
        return lambda samples: palette[samples[..., 0]]
    if layout.photometric == _CMYK:
        to_rgb = cmyk_converter(icc_profile)

        def from_inks(samples: _Samples) -> _Samples:
            inks = np.ascontiguousarray(samples)
            size = inks.shape[1], inks.shape[0]
            return np.asarray(to_rgb(Image.frombytes("CMYK", size, inks.tobytes())))

        return from_inks
    if layout.photometric == _WHITE_IS_ZERO:
        return lambda samples: _full_scale(_inverted(samples[..., 0], bits), bits)
    if layout.photometric == _BLACK_IS_ZERO:
        return lambda samples: _full_scale(samples[..., 0], bits)
    return lambda samples: _full_scale(samples, bits)


def _metadata(directory: TiffDirectory, *, swapped: bool) -> Metadata:
    """What else the file says, as far as it can be read; it does not matter to the pixels."""
    dpi = None
    per_inch = {2: 1.0, 3: 2.54}.get(_lenient(lambda: directory.integer(296, 2), 1))
    across = _lenient(lambda: directory.values(282, most=1)[0], 0.0)
    down = _lenient(lambda: directory.values(283, most=1)[0], 0.0)
    if per_inch is not None and across > 0 and down > 0:
        dpi = (
            (down * per_inch, across * per_inch)
            if swapped
            else (across * per_inch, down * per_inch)
        )
    text = []
    for tag, keyword in TEXT_TAGS.items():
        words = _lenient(partial(directory.raw, tag), b"").split(b"\0")[0]
        content = words.decode("utf-8", errors="replace").strip()
        if content and not content.startswith(_PROGRAMS_WORDS):
            text.append((keyword, content))
    return Metadata(
        dpi=dpi, xmp=_lenient(lambda: directory.raw(700), b"") or None, text=tuple(text)
    )


def _lenient(read: Callable[[], _T], otherwise: _T) -> _T:
    try:
        return read()
    except (InputError, IndexError):
        return otherwise
