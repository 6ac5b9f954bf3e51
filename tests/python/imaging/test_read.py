import io
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import (
    Picture,
    picture_files,
    read_image,
    read_picture,
    read_size,
    write_picture,
)
from peak_memory import peak_bytes_per_pixel
from PIL import Image, ImageCms, TiffImagePlugin

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GRAY = RGB[..., 0]


def save(path: Path, pixels, mode=None, **options) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png16(values, color_type: int, *extra: bytes) -> bytes:
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    rows, columns = values.shape[:2]
    header = struct.pack(">IIBBBBB", columns, rows, 16, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def png_of_size(columns: int, rows: int) -> bytes:
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_rgb_comes_back_from_every_lossless_format(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    picture = read_picture(save(tmp_path / f"a{suffix}", RGB, **options))

    np.testing.assert_array_equal(picture.pixels, RGB)
    assert picture.alpha is None
    assert not picture.gray


def test_gray_gets_three_equal_channels_and_is_marked(tmp_path):
    picture = read_picture(save(tmp_path / "a.png", GRAY))

    np.testing.assert_array_equal(picture.pixels, np.stack([GRAY] * 3, axis=2))
    assert picture.gray


def test_bilevel_is_read_as_black_and_white(tmp_path):
    picture = read_picture(save(tmp_path / "a.png", GRAY, "1"))

    assert picture.gray
    assert set(np.unique(picture.pixels)) <= {0, 255}


def test_palette_is_resolved(tmp_path):
    colors = np.array([[1, 2, 3], [200, 100, 0]], np.uint8)
    indices = RNG.integers(0, 2, (5, 7), np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "a.png")

    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colors[indices])


def test_alpha_is_kept_apart_from_color(tmp_path):
    rgba = RNG.integers(0, 256, (5, 7, 4), np.uint8)

    picture = read_picture(save(tmp_path / "a.png", rgba))

    np.testing.assert_array_equal(picture.pixels, rgba[..., :3])
    np.testing.assert_array_equal(picture.alpha, rgba[..., 3])


def test_a_palette_entry_can_be_transparent(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette(bytes([9, 9, 9, 8, 8, 8]))
    image.save(tmp_path / "a.png", transparency=1)

    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").alpha, [[255, 0]])


@pytest.mark.parametrize(
    ("color_type", "channels"),
    [(0, ()), (2, (3,)), (4, (2,)), (6, (4,))],
    ids=["L", "RGB", "LA", "RGBA"],
)
def test_all_16_bits_of_a_png_are_read(tmp_path, color_type, channels):
    values = RNG.integers(0, 65536, (5, 7, *channels), np.uint16)
    (tmp_path / "a.png").write_bytes(png16(values, color_type))

    picture = read_picture(tmp_path / "a.png")

    gray = color_type in (0, 4)
    values = values[..., None] if values.ndim == 2 else values
    color = np.repeat(values[..., :1], 3, axis=2) if gray else values[..., :3]
    assert picture.pixels.dtype == np.uint16
    assert picture.gray == gray
    np.testing.assert_array_equal(picture.pixels, color)
    if color_type in (4, 6):
        np.testing.assert_array_equal(picture.alpha, values[..., -1])
    else:
        assert picture.alpha is None


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_all_16_bits_of_a_color_tiff_are_read(tmp_path, byte_order):
    values = RNG.integers(0, 65536, (5, 7, 3), np.uint16)
    strip = values.astype(f"{byte_order}u2").tobytes()
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II" if byte_order == "<" else b"MM")
    directory[256], directory[257] = 7, 5
    directory[258], directory[259], directory[262] = (16, 16, 16), 1, 2
    directory[277], directory[278], directory[279] = 3, 5, len(strip)
    directory[273] = 0  # counted from the end of the directory
    header = (b"II*\0" if byte_order == "<" else b"MM\0*") + struct.pack(f"{byte_order}I", 8)
    (tmp_path / "a.tif").write_bytes(header + directory.tobytes(8) + strip)

    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, values)


def test_a_16_bit_color_can_be_transparent(tmp_path):
    values = np.array([[[258, 1, 2], [257, 1, 2]]], np.uint16)
    key = chunk(b"tRNS", struct.pack(">HHH", 257, 1, 2))
    (tmp_path / "a.png").write_bytes(png16(values, 2, key))

    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").alpha, [[65535, 0]])


def test_cmyk_is_turned_into_rgb(tmp_path):
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    cmyk.save(tmp_path / "a.jpg", quality=100)

    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[0, 0], [255, 0, 0], atol=3)


def test_the_color_profile_is_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    picture = read_picture(save(tmp_path / "a.png", RGB, icc_profile=profile))

    assert picture.icc_profile == profile


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", RGB, exif=exif)

    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: RGB[::-1].transpose(1, 0, 2),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: RGB[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    np.testing.assert_array_equal(read_image(path), upright)
    assert read_size(path) == upright.shape[:2]


def test_a_stream_is_read_like_a_file():
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "PNG")
    stream.seek(0)

    np.testing.assert_array_equal(read_image(stream), RGB)


def test_reading_in_threads_leaves_the_warning_filters_alone(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    before = list(warnings.filters)

    with ThreadPoolExecutor(8) as threads:
        for pixels in threads.map(lambda _: read_image(path), range(200)):
            np.testing.assert_array_equal(pixels, RGB)

    assert list(warnings.filters) == before


def test_measuring_refuses_16_bits(tmp_path):
    path = save(tmp_path / "deep.png", RNG.integers(0, 65536, (4, 4), np.uint16))

    with pytest.raises(InputError, match=r"deep\.png: has 16 bits.*8 bits"):
        read_image(path)


def test_measuring_refuses_transparency_but_not_an_opaque_alpha_channel(tmp_path):
    rgba = np.concatenate([RGB, np.full((5, 7, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(read_image(save(tmp_path / "opaque.png", rgba)), RGB)

    rgba[2, 3, 3] = 254
    with pytest.raises(InputError, match=r"glass\.png: has transparent pixels"):
        read_image(save(tmp_path / "glass.png", rgba))


def test_the_size_is_refused_from_the_header_alone(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(12_500, 12_001))

    with pytest.raises(InputError, match=r"bomb\.png: 12500x12001 is too large; at most 150000000"):
        read_picture(path)
    with pytest.raises(InputError, match=r"at most 34 pixels"):
        read_size(save(tmp_path / "small.png", RGB), max_pixels=34)


def test_a_size_beyond_pillows_own_limit_is_refused_too(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(200_000, 200_000))

    with pytest.raises(InputError, match=r"bomb\.png: is too large"):
        read_picture(path)


def animation(path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone.png", lambda path: None, "does not exist"),
        ("folder.png", Path.mkdir, "is a folder"),
        ("empty.png", lambda path: path.write_bytes(b""), "is empty"),
        ("text.png", lambda path: path.write_text("no picture"), "is not a picture"),
        (
            "script.png",
            lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"),
            "not a picture",
        ),
        ("zero.png", lambda path: path.write_bytes(png_of_size(0, 5)), "zero.png"),
        ("short.png", lambda path: path.write_bytes(png_of_size(50, 50)), "broken or truncated"),
        ("moving.gif", animation, "has 2 frames"),
        (
            "float.tif",
            lambda path: save(path, RGB[..., 0].astype(np.float32)),
            "floating-point values",
        ),
        ("wide.tif", lambda path: save(path, np.full((2, 2), 70000, np.int32)), "signed"),
    ],
)
def test_unreadable_files_are_named_with_the_reason(tmp_path, name, make, message):
    make(tmp_path / name)

    with pytest.raises(InputError, match=message) as caught:
        read_picture(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".gif"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_files_never_raise_anything_but_input_error(tmp_path, suffix, damage):
    whole = save(tmp_path / f"whole{suffix}", np.tile(RGB, (6, 6, 1))).read_bytes()
    broken = tmp_path / f"broken{suffix}"
    rng = np.random.default_rng(1)
    messages = []
    for _ in range(40):
        content = bytearray(whole)
        if damage == "cut":
            del content[rng.integers(1, len(content)) :]
        else:
            for position in rng.integers(0, min(len(content), 200), 4):
                content[position] = rng.integers(0, 256)
        broken.write_bytes(content)
        try:
            read_picture(broken)
        except InputError as error:
            messages.append(str(error))
    assert messages
    assert all(str(broken) in message for message in messages)


def test_a_folder_lists_its_pictures_by_name(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()

    assert [path.name for path in picture_files(tmp_path)] == ["a.jpg", "b.PNG"]


def test_folders_inside_are_listed_too_but_for_hidden_and_excluded_ones(tmp_path):
    for name in ("z.png", "b/2.png", "b/1.png", "a/3.png", ".thumbs/t.png", "out/o.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = picture_files(tmp_path, excluded=tmp_path / "out")
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["z.png", "a/3.png", "b/1.png", "b/2.png"]


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: cannot be read"):
        picture_files(tmp_path / "nowhere")


def photograph():
    smooth = np.cumsum(np.cumsum(RNG.normal(0, 0.3, (99, 70, 3)), axis=0), axis=1)
    return (smooth % 256).astype(np.uint8)


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_rows": 1}, {"mode": "L"}],
    ids=str,
)
def test_a_jpeg_that_lacks_only_the_marker_at_its_end_is_read(tmp_path, options):
    options = dict(options)
    whole = save(tmp_path / "a.jpg", photograph(), options.pop("mode", None), **options)
    pixels = read_picture(whole).pixels
    content = whole.read_bytes()

    for missing in (1, 2):
        whole.write_bytes(content[:-missing])
        np.testing.assert_array_equal(read_picture(whole).pixels, pixels)
        assert read_size(whole) == pixels.shape[:2]


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str
)
def test_a_jpeg_that_lacks_pixels_is_refused(tmp_path, options):
    whole = save(tmp_path / "a.jpg", photograph(), **options)
    pixels = read_picture(whole).pixels
    content = whole.read_bytes()

    for left in range(len(content) // 8, len(content) - 2, len(content) // 40):
        whole.write_bytes(content[:left])
        try:
            read = read_picture(whole).pixels
        except InputError:
            continue
        np.testing.assert_array_equal(read, pixels)
        assert left > 0.9 * len(content)


def test_a_progressive_jpeg_that_ends_between_two_scans_is_refused(tmp_path):
    path = save(tmp_path / "a.jpg", photograph(), progressive=True)
    content = path.read_bytes()
    last_scan = content.rindex(b"\xff\xda")

    path.write_bytes(content[:last_scan])

    with pytest.raises(InputError, match="truncated"):
        read_picture(path)


def test_an_exif_orientation_behind_the_pixels_is_in_the_size_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = save(tmp_path / "a.png", RGB).read_bytes()
    end = content.index(b"IEND") - 4
    path = tmp_path / "late.png"
    path.write_bytes(content[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + content[end:])

    np.testing.assert_array_equal(read_image(path), RGB[::-1].transpose(1, 0, 2))
    assert read_size(path) == (7, 5)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", [0, *range(1, 9), 77])
def test_the_size_is_that_of_the_pixels(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a{suffix}", RGB, exif=exif)

    assert read_size(path) == read_picture(path).pixels.shape[:2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux gives it")
def test_reading_takes_no_more_memory_than_the_document_says(tmp_path):
    most = {}
    for name, mode, bound in [
        ("rgb.png", "RGB", 10),
        ("rgba.png", "RGBA", 10),
        ("gray.png", "L", 10),
        ("palette.png", "P", 10),
        ("deep.png", "I;16", 20),
        ("rgb.jpg", "RGB", 10),
        ("inks.jpg", "CMYK", 10),
        ("rgba.webp", "RGBA", 20),
        ("rgb.bmp", "RGB", 10),
        ("palette.gif", "P", 10),
        ("rgba.tif", "RGBA", 10),
        ("inks.tif", "CMYK", 10),
        ("deep.tif", "I;16", 20),
        ("fax.tif", "1", 10),
    ]:
        options = {"transparency": 0} if mode == "P" else {}
        Image.new(mode, (4000, 3000)).save(tmp_path / name, **options)
        most[tmp_path / name] = bound
    for name in ("deep_rgba.png", "deep_rgba.tif"):
        deep = np.zeros((3000, 4000, 3), np.uint16)
        write_picture(tmp_path / name, Picture(deep, deep[..., 0]))
        most[tmp_path / name] = 20

    peaks = peak_bytes_per_pixel(*most)

    for path, peak in peaks.items():
        # The colors alone take three.
        assert 2.5 < peak < most[path], path.name
