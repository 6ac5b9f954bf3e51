"""Files that pretend to be pictures: each is broken, cut, absurd or hostile in its own way."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    image = Image.fromarray(RNG.integers(0, 256, (24, 32, 3), np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(
    columns: int, rows: int, bits: int = 8, color: int = 2, data: bytes = b"", extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", columns, rows, bits, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


def bmp(columns: int, rows: int, bits: int = 24, compression: int = 0) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, columns, rows, 1, bits, compression, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header + b"\0" * 12


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + b"\0" * 64


def hostile_pictures() -> Iterator[tuple[str, bytes]]:
    """Yield at least 40 names and contents; none may be accepted."""
    suffixes = {
        "PNG": "png",
        "JPEG": "jpg",
        "WEBP": "webp",
        "TIFF": "tif",
        "BMP": "bmp",
        "GIF": "gif",
    }
    for kind, suffix in suffixes.items():
        whole = encoded(kind)
        yield f"empty.{suffix}", b""
        yield f"first_byte.{suffix}", whole[:1]
        yield f"header_only.{suffix}", whole[:20]
        yield f"noise.{suffix}", RNG.bytes(500)
        if kind != "TIFF":
            yield f"cut.{suffix}", whole[: len(whole) // 2]
    yield "cut.tif", encoded("TIFF")[:1000]
    yield "zeros.png", b"\0" * 1000
    yield "text.png", b"not a picture\n" * 40
    yield "script.jpg", b"#!/bin/sh\necho pwned\n"
    yield "postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    yield "vector.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "pickle.png", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."
    yield "archive.png", b"PK\x03\x04" + b"\0" * 60
    yield "no_pixels.png", png(0, 5)
    yield "bomb.png", png(60_000, 60_000, data=zlib.compress(b"\0" * 9999))
    yield "largest.png", png(2**31 - 1, 2**31 - 1)
    yield "no_data.png", png(9, 9)
    yield "short_data.png", png(99, 99, data=zlib.compress(b"\0" * 50))
    yield "bad_data.png", png(9, 9, data=b"not compressed")
    yield "bad_filter.png", png(4, 4, data=zlib.compress((b"\x09" + b"\0" * 12) * 4))
    yield "bad_bits.png", png(9, 9, bits=3)
    yield "bad_color.png", png(9, 9, color=5)
    yield "bad_checksum.png", encoded("PNG").replace(b"IDAT", b"IDAU", 1)
    yield (
        "text_bomb.png",
        png(9, 9, extra=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * (80 << 20)))),
    )
    yield "bomb.bmp", bmp(60_000, 60_000)
    yield "negative.bmp", bmp(-9, 9)
    yield "bad_bits.bmp", bmp(9, 9, bits=7)
    yield "bad_compression.bmp", bmp(9, 9, compression=99)
    yield "bomb.tif", tiff((256, 4, 1, 90_000), (257, 4, 1, 90_000), (262, 3, 1, 2))
    yield "no_size.tif", tiff((262, 3, 1, 2))
    yield "wild_offset.tif", tiff((256, 4, 1, 9), (257, 4, 1, 9), (273, 4, 1, 0xFFFFFFF0))
    yield "bomb.gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";"
    moving = [Image.new("RGB", (8, 8), color) for color in ("red", "green")]
    file = io.BytesIO()
    moving[0].save(file, "GIF", save_all=True, append_images=moving[1:])
    yield "moving.gif", file.getvalue()
    file = io.BytesIO()
    Image.fromarray(np.full((3, 3), 0.5, np.float32)).save(file, "TIFF")
    yield "floating.tif", file.getvalue()
    file = io.BytesIO()
    Image.fromarray(np.full((3, 3), 70_000, np.int32)).save(file, "TIFF")
    yield "wide.tif", file.getvalue()
