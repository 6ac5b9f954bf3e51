"""Pictures that nobody would make on purpose: each is read as a picture or refused by name."""

import io
import struct
import tracemalloc

import numpy as np
from fuzz_settings import FUZZ
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import Picture, read_picture, read_size, write_picture
from hypothesis import event, given
from hypothesis import strategies as st
from PIL import Image

MOST_PIXELS = 200_000
# What the document promises for each pixel, and the bands and buffers that come on top.
MOST_BYTES = 20 * MOST_PIXELS + (40 << 20)


def corpus(folder):
    """One small file of every format, mode and compression that is read."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    said = {"exif": exif, "icc_profile": b"x" * 200}
    files = []

    def add(kind, mode="RGB", **options):
        file = io.BytesIO()
        image.convert(mode).save(file, kind, **options)
        files.append(file.getvalue())

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        add("PNG", mode, **said)
    add("PNG", "P", transparency=0)
    add("PNG", "L", transparency=9)
    for mode in ("L", "RGB", "CMYK"):
        add("JPEG", mode, **said)
    add("JPEG", progressive=True, restart_marker_rows=1)
    add("WEBP", "RGBA", **said)
    add("WEBP", lossless=True)
    for mode in ("1", "L", "P", "RGB"):
        add("BMP", mode)
    add("GIF", "P")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        add("TIFF", compression=compression)
    for mode in ("L", "P", "RGBA", "CMYK", "I;16"):
        add("TIFF", mode, compression="tiff_lzw", **said)
    for compression in ("group3", "group4", "tiff_ccitt"):
        add("TIFF", "1", compression=compression)
    add("TIFF", compression="jpeg")
    add("TIFF", "YCbCr", compression="jpeg")
    for suffix in (".png", ".tif"):
        deep = rng.integers(0, 65536, (24, 20, 4), np.uint16)
        write_picture(folder / f"a{suffix}", Picture(deep[..., :3], deep[..., 3]), overwrite=True)
        files.append((folder / f"a{suffix}").read_bytes())
    return files


def checked(content):
    """Read a picture; whatever comes of it must be sound."""
    tracemalloc.start()
    picture, refusal = None, ""
    try:
        picture = read_picture(io.BytesIO(content), max_pixels=MOST_PIXELS)
    except InputError as error:
        refusal = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_BYTES
    if picture is None:
        event("refused")
        assert refusal.startswith("picture stream: ")
        return
    event("read")
    rows, columns, channels = picture.pixels.shape
    assert channels == 3
    assert 0 < rows * columns <= MOST_PIXELS
    assert picture.pixels.dtype in (np.uint8, np.uint16)
    if picture.gray:
        assert (picture.pixels == picture.pixels[..., :1]).all()
    if picture.alpha is not None:
        assert picture.alpha.shape == (rows, columns)
        assert picture.alpha.dtype == picture.pixels.dtype
    assert read_size(io.BytesIO(content), max_pixels=MOST_PIXELS) == (rows, columns)


_files = []


def files(tmp_path_factory):
    if not _files:
        _files.extend(corpus(tmp_path_factory.mktemp("corpus")))
    return _files


BYTES = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 0x7F, 0x80, 0xC0, 0xFE, 0xFF]) | st.integers(0, 255)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "repeat", "insert", "number"]),
        # Most of what matters stands at the beginning or the end.
        st.floats(0, 1) | st.floats(0, 0.1) | st.floats(0.9, 1),
        st.integers(1, 12),
        BYTES,
    ),
    min_size=1,
    max_size=6,
)


def edited(content, edits):
    content = bytearray(content)
    for kind, part, length, value in edits:
        place = int(part * len(content))
        if kind == "set":
            content[place : place + 1] = bytes((value,))
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "repeat":
            content[place:place] = content[place : place + length]
        elif kind == "insert":
            content[place:place] = bytes((value,)) * length
        else:
            content[place : place + 4] = struct.pack("<I", value << 8 * (length % 4))
    return bytes(content)


@FUZZ
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    seeds = files(tmp_path_factory)
    content = seeds[data.draw(st.integers(0, len(seeds) - 1))]

    checked(edited(content, data.draw(EDITS)))


@FUZZ
@given(st.data())
def test_a_cut_file_is_read_or_refused(tmp_path_factory, data):
    seeds = files(tmp_path_factory)
    content = seeds[data.draw(st.integers(0, len(seeds) - 1))]

    checked(content[: data.draw(st.integers(0, len(content)))])


SIZES = st.sampled_from([0, 1, 2, 7, 15, 16, 17, 32, 65535, 65536, 2**31, 2**32 - 1])
SMALL = st.integers(0, 9)
TAGS = {
    256: SIZES,
    257: SIZES,
    258: st.sampled_from([1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, 32, 64]),
    259: st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000, 777]),
    262: st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 9, 32803]),
    266: st.sampled_from([1, 2]),
    273: st.sampled_from([0, 8, 100, 2**32 - 1]),
    274: SMALL,
    277: st.integers(0, 6),
    278: SIZES,
    279: SIZES | st.integers(0, 4096),
    284: st.integers(0, 3),
    292: SMALL,
    317: st.integers(0, 4),
    322: SIZES,
    323: SIZES,
    324: st.sampled_from([0, 8, 100, 2**32 - 1]),
    325: SIZES,
    338: st.integers(0, 3),
    339: st.integers(0, 5),
    530: st.integers(0, 5),
}


@FUZZ
@given(
    st.fixed_dictionaries(
        {256: st.integers(1, 40), 257: st.integers(1, 40), 262: st.sampled_from([0, 1, 2, 3, 5])},
        optional={tag: values for tag, values in TAGS.items() if tag not in (256, 257, 262)},
    ),
    st.dictionaries(st.sampled_from(sorted(TAGS)), st.integers(0, 2**32 - 1), max_size=2),
    st.binary(max_size=2000),
    st.sampled_from("<>"),
    st.integers(1, 5),
)
def test_a_tiff_of_any_tags_is_read_or_refused(tags, wild, data, order, samples):
    data = data.ljust(1600, b"\x5a")
    tags = {277: samples, 258: 8, 273: 8, 279: len(data), **tags, **wild}
    entries = b""
    for tag, value in sorted(tags.items()):
        entries += struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    count = struct.pack(order + "H", len(tags))

    checked(head + data + count + entries + bytes(4))
