import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import Picture, read_picture, write_bands, write_image, write_picture
from PIL import Image, ImageCms

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("translucent", [False, True])
def test_a_lossless_round_trip_keeps_everything(tmp_path, suffix, dtype, grey, translucent):
    top = np.iinfo(dtype).max + 1
    pixels = RNG.integers(0, top, (9, 6, 3), dtype)
    picture = Picture(
        np.repeat(pixels[..., :1], 3, axis=2) if grey else pixels,
        RNG.integers(0, top, (9, 6), dtype) if translucent else None,
        grey,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )

    write_picture(tmp_path / f"a{suffix}", picture)
    again = read_picture(tmp_path / f"a{suffix}")

    np.testing.assert_array_equal(again.pixels, picture.pixels)
    assert again.pixels.dtype == dtype
    assert (again.alpha is None) == (picture.alpha is None)
    if translucent:
        np.testing.assert_array_equal(again.alpha, picture.alpha)
    stored_in_colour = suffix == ".tif" and dtype == np.uint16 and translucent
    assert again.grey == (grey and not stored_in_colour)
    assert again.icc_profile == picture.icc_profile


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jpg", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF"), (".bmp", "BMP")]
)
def test_the_suffix_decides_the_format(tmp_path, suffix, kind):
    write_image(tmp_path / f"a{suffix}", np.full((8, 8, 3), 77, np.uint8))

    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.format == kind
        np.testing.assert_allclose(np.asarray(image), 77, atol=2)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pieces_become_the_picture_that_they_were_cut_from(tmp_path, suffix, dtype):
    if dtype == np.uint16 and suffix == ".bmp":
        pytest.skip("BMP has no 16 bits per channel")
    rows, columns = 700, 210
    pixels = np.cumsum(RNG.integers(-9, 10, (rows, columns, 3)), axis=1).astype(dtype)

    bands = (Picture(pixels[top : top + 93]) for top in range(0, rows, 93))
    write_bands(tmp_path / f"a{suffix}", bands, rows=rows)

    np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}").pixels, pixels)


def test_a_photographic_png_is_about_as_small_as_pillows(tmp_path):
    smooth = np.cumsum(np.cumsum(RNG.normal(0, 0.3, (200, 200, 3)), axis=0), axis=1)
    pixels = (smooth % 256).astype(np.uint8)

    write_picture(tmp_path / "ours.png", Picture(pixels))
    Image.fromarray(pixels).save(tmp_path / "pillow.png")

    size = (tmp_path / "ours.png").stat().st_size
    assert size < 1.1 * (tmp_path / "pillow.png").stat().st_size


def test_pieces_that_fail_halfway_leave_nothing(tmp_path):
    def pieces():
        yield Picture(RED)
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        write_bands(tmp_path / "a.png", pieces(), rows=4)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, np.zeros((2, 2, 3), np.uint8))
    before = path.read_bytes()

    with pytest.raises(InputError, match="exists already"):
        write_image(path, np.ones((2, 2, 3), np.uint8))
    assert path.read_bytes() == before

    write_image(path, np.ones((2, 2, 3), np.uint8), overwrite=True)
    assert read_picture(path).pixels.max() == 1


RED = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("a.xyz", Picture(RED), "suffix must be one of .bmp, .jpeg"),
        ("a.jpg", Picture(RED, np.zeros((2, 2), np.uint8)), "JPEG has no transparency"),
        ("a.webp", Picture(RED.astype(np.uint16)), "WEBP has no 16 bits per channel"),
        ("a.png", Picture(RED.astype(np.float32)), "float32"),
        ("a.png", Picture(RED[..., 0]), r"\(2, 2\)"),
        ("a.png", Picture(RED[:0]), "no pixels"),
        ("a.png", Picture(RED, np.zeros((3, 2), np.uint8)), r"alpha: uint8 \(3, 2\)"),
        ("gone/a.png", Picture(RED), "cannot be written"),
        ("a.webp", Picture(np.zeros((1, 20_000, 3), np.uint8)), "WEBP holds 16383 pixels a side"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_left(tmp_path, name, picture, message):
    with pytest.raises(InputError, match=message):
        write_picture(tmp_path / name, picture)
    assert list(tmp_path.iterdir()) == []


def test_quality_outside_its_range_is_refused(tmp_path):
    with pytest.raises(InputError, match="quality: 101"):
        write_picture(tmp_path / "a.jpg", Picture(RED), quality=101)
