import io

import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import read_picture, read_size
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from tiff_files import packed, tiff

tifffile = pytest.importorskip("tifffile", reason="writes the TIFF files that are read here")

RNG = np.random.default_rng(0)


def in_memory(content):
    return io.BytesIO(content)


def gray(bits, values, **tags):
    rows, columns = values.shape
    numbered = {int(name.removeprefix("tag")): value for name, value in tags.items()}
    return in_memory(
        tiff(
            {256: columns, 257: rows, 258: bits, 262: 1, 278: rows, **numbered},
            packed(values, bits) if bits != 16 else values.astype("<u2").tobytes(),
        )
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_tifffile_writes_is_read_as_it_was(data):
    choose = data.draw
    dtype = choose(st.sampled_from([np.uint8, np.uint16]))
    white = np.iinfo(dtype).max
    rows, columns = choose(st.integers(1, 50)), choose(st.integers(1, 50))
    photometric = choose(st.sampled_from(["minisblack", "miniswhite", "rgb"]))
    opacity = choose(st.sampled_from([None, "unassalpha", "assocalpha"]))
    if photometric == "miniswhite" and opacity == "assocalpha":
        opacity = None
    colors = 3 if photometric == "rgb" else 1
    samples = colors + (opacity is not None)
    values = RNG.integers(0, white + 1, (rows, columns, samples), dtype)
    alpha = None if opacity is None else values[..., -1]
    light = values[..., :colors]
    if opacity == "assocalpha":
        # Of colors that are multiplied, none is above the opacity.
        light[:] = np.minimum(light, alpha[..., None])
    planar = "separate" if samples > 1 and choose(st.booleans()) else "contig"
    stored = values.transpose(2, 0, 1) if planar == "separate" else values
    tile = choose(st.sampled_from([None, (16, 16), (32, 16), (64, 48)]))
    compression = choose(st.sampled_from([None, "adobe_deflate", "deflate", "lzma"]))
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        stored[..., 0] if samples == 1 else stored,
        photometric=photometric,
        planarconfig=planar if samples > 1 else None,
        extrasamples=None if opacity is None else [opacity],
        tile=tile,
        rowsperstrip=None if tile else choose(st.sampled_from([None, 1, 7])),
        compression=compression,
        predictor=compression is not None and choose(st.booleans()),
        byteorder=choose(st.sampled_from("<>")),
        bigtiff=choose(st.booleans()),
        metadata=None,
    )

    picture = read_picture(file)

    if opacity == "assocalpha":
        straight = np.round(light / np.maximum(alpha, 1)[..., None].astype(float) * white)
        np.testing.assert_allclose(picture.pixels, straight + np.zeros(3), atol=1)
    else:
        shown = white - light if photometric == "miniswhite" else light
        np.testing.assert_array_equal(picture.pixels, np.broadcast_to(shown, (rows, columns, 3)))
    assert picture.pixels.dtype == dtype
    assert picture.gray == (photometric != "rgb")
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(picture.alpha, alpha)
    assert read_size(file) == (rows, columns)


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16])
def test_every_number_of_bits_reaches_from_black_to_white(bits, white_is_zero):
    most = (1 << bits) - 1
    values = RNG.integers(0, most + 1, (5, 13))
    values[0, :2] = 0, most

    picture = read_picture(gray(bits, values, tag262=0 if white_is_zero else 1))

    white = 255 if bits <= 8 else 65535
    assert picture.pixels.dtype == (np.uint8 if bits <= 8 else np.uint16)
    expected = np.round((most - values if white_is_zero else values) / most * white)
    np.testing.assert_array_equal(picture.pixels[..., 0], expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_is_resolved(bits):
    colors = RNG.integers(0, 256, (1 << bits, 3))
    indices = RNG.integers(0, 1 << bits, (5, 7))
    palette = tuple(int(value) for value in (colors * 257).T.ravel())

    picture = read_picture(gray(bits, indices, tag262=3, tag320=palette))

    np.testing.assert_array_equal(picture.pixels, colors[indices])
    assert picture.pixels.dtype == np.uint8


def test_a_palette_of_16_bits_keeps_them():
    colors = RNG.integers(0, 65536, (16, 3))
    indices = RNG.integers(0, 16, (5, 7))
    palette = tuple(int(value) for value in colors.T.ravel())

    picture = read_picture(gray(4, indices, tag262=3, tag320=palette))

    np.testing.assert_array_equal(picture.pixels, colors[indices])


@pytest.mark.parametrize(
    "compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd", "lzma", "raw"]
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16"])
def test_pillows_files_are_read_whatever_compressed_them(tmp_path, compression, mode):
    channels = {"L": (), "I;16": (), "LA": (2,), "RGB": (3,), "RGBA": (4,)}[mode]
    dtype = np.uint16 if mode == "I;16" else np.uint8
    values = RNG.integers(0, np.iinfo(dtype).max + 1, (40, 30, *channels), dtype)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)

    picture = read_picture(tmp_path / "a.tif")

    values = values.reshape(40, 30, -1)
    colors = 3 if values.shape[2] > 2 else 1
    np.testing.assert_array_equal(picture.pixels, values[..., :colors] + np.zeros(3, dtype))
    if values.shape[2] > colors:
        np.testing.assert_array_equal(picture.alpha, values[..., -1])


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_a_fax_is_black_on_white(tmp_path, compression):
    values = RNG.integers(0, 2, (40, 29)).astype(bool)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)

    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels[..., 0], values * 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr"])
def test_jpeg_in_a_tiff_is_read(tmp_path, mode):
    smooth = np.linspace(0, 255, 64)[:, None, None] * np.array([1, 0.5, 0.2])
    image = Image.fromarray((smooth + np.zeros((1, 40, 1))).astype(np.uint8))
    shown = np.asarray(image.convert("L" if mode == "L" else "RGB")).reshape(64, 40, -1)
    image.convert(mode).save(tmp_path / "a.tif", compression="jpeg", quality=100)

    picture = read_picture(tmp_path / "a.tif")

    np.testing.assert_allclose(picture.pixels, shown + np.zeros(3), atol=6)


def test_inks_become_light_and_lose_their_profile(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tif", icc_profile=profile)

    picture = read_picture(tmp_path / "a.tif")

    np.testing.assert_array_equal(picture.pixels[0, 0], [255, 0, 0])
    assert picture.icc_profile is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "adobe_deflate"])
def test_a_turned_picture_is_set_upright(orientation, compression):
    values = RNG.integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    tag = (274, "H", 1, orientation, False)
    tifffile.imwrite(file, values, extratags=[tag], compression=compression, photometric="rgb")

    upright = {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.transpose(1, 0, 2),
        6: values[::-1].transpose(1, 0, 2),
        7: values[::-1, ::-1].transpose(1, 0, 2),
        8: values[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    np.testing.assert_array_equal(read_picture(file).pixels, upright)
    assert read_size(file) == upright.shape[:2]


def test_a_smaller_copy_of_the_picture_is_no_second_page():
    values = RNG.integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(values[::2, ::2], subfiletype=1, photometric="rgb")
        writer.write(values, photometric="rgb")

    np.testing.assert_array_equal(read_picture(file).pixels, values)


def written(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file


BYTES = np.zeros((5, 4, 6), np.uint8)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (written(BYTES[..., :3].astype(np.float32), photometric="rgb"), "floating-point"),
        (written(BYTES[..., 0].astype(np.float64)), "floating-point"),
        (written(BYTES[..., 0].astype(np.float16)), "floating-point"),
        (written(BYTES[..., 0].astype(np.int16)), "signed"),
        (written(BYTES[..., 0].astype(np.uint32)), "32 bits per channel"),
        (written(BYTES[..., 0].astype(np.uint64)), "64 bits per channel"),
        (written(BYTES[..., :4].astype(np.uint16), photometric="separated"), "inks of 16 bits"),
        (written(BYTES[..., :5], photometric="separated", extrasamples=[2]), "5 inks"),
        (written(BYTES[..., :3], photometric="cielab"), "CIELAB"),
        (written(BYTES[..., :3].astype(np.uint16), photometric="icclab"), "ICCLAB"),
        (written(BYTES[..., 0], photometric="cfa"), "color filter array"),
        (written(BYTES[..., :4], photometric="rgb", extrasamples=[0]), "1 channels beside"),
        (written(BYTES[..., :5], photometric="rgb", extrasamples=[2, 0]), "2 channels beside"),
        (written(BYTES[..., :2], photometric="minisblack", planarconfig="contig"), "beside"),
        (written(BYTES.transpose(2, 0, 1), photometric="minisblack"), "6 frames or pages"),
        (gray(8, BYTES[..., 0], tag262=4), "transparency mask"),
        (gray(8, BYTES[..., 0], tag262=99), "unknown kind 99"),
        (gray(8, BYTES[..., 0], tag259=34712), "JPEG 2000"),
        (gray(8, BYTES[..., 0], tag259=50001), "WebP"),
        (gray(8, BYTES[..., 0], tag259=777), "number 777"),
        (gray(8, BYTES[..., 0], tag262=3, tag320=(0, 0, 0)), "palette"),
        (gray(8, BYTES[..., 0], tag262=6), "samples|beside|YCbCr"),
        (gray(8, BYTES[..., 0], tag317=3), "predictor 3"),
        (gray(8, BYTES[..., 0], tag256=0), "no pixels"),
        (gray(8, BYTES[..., 0], tag258=(8, 16)), "samples of"),
        (gray(8, BYTES[..., 0], tag273=99999), "needs bytes"),
        (gray(8, BYTES[..., 0], tag279=0), "lacks"),
        (gray(8, BYTES[..., 0], tag279=3), "broken or truncated"),
        (gray(8, BYTES[..., 0], tag279=2**31), "longer than the file"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(file, message):
    with pytest.raises(InputError, match=message):
        read_picture(file)


def test_tiles_count_in_full_before_anything_is_decoded():
    values = RNG.integers(0, 256, (5, 4), np.uint8)
    file = gray(8, values, tag322=4096, tag323=4096)

    with pytest.raises(InputError, match="tiles of 4096x4096, too large; at most 1000000 pixels"):
        read_picture(file, max_pixels=1_000_000)
    with pytest.raises(InputError, match="tiles of 4096x4096"):
        read_size(file, max_pixels=1_000_000)


def test_parts_that_are_named_twice_are_not_read_twice():
    strips = 200
    content = tiff(
        {256: 8, 257: strips, 258: 8, 262: 1, 278: 1, 273: (8,) * strips, 279: (8,) * strips},
        bytes(8),
    )

    read_picture(in_memory(content))
    with pytest.raises(InputError, match="longer than the file"):
        read_picture(
            in_memory(content.replace(bytes((8, 0, 0, 0)) * 50, bytes((255, 0, 0, 0)) * 50))
        )


def test_a_circle_of_pages_ends():
    content = bytearray(tiff({256: 2, 257: 1, 258: 8, 262: 1}, b"\1\2"))
    content[-4:] = content[4:8]

    np.testing.assert_array_equal(read_picture(in_memory(bytes(content))).pixels[0, :, 0], [1, 2])


@pytest.mark.parametrize(("unit", "dpi"), [(1, None), (2, (300.0, 150.0)), (3, (762.0, 381.0))])
def test_the_resolution_is_kept(unit, dpi):
    picture = read_picture(written(BYTES[..., 0], resolution=(300, 150), resolutionunit=unit))

    assert picture.metadata.dpi == (None if dpi is None else pytest.approx(dpi))
