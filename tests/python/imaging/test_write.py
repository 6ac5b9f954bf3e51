import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import Picture, read_picture, write_image, write_picture
from PIL import Image, ImageCms

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("translucent", [False, True])
def test_a_png_round_trip_keeps_everything(tmp_path, dtype, grey, translucent):
    top = np.iinfo(dtype).max + 1
    pixels = RNG.integers(0, top, (9, 6, 3), dtype)
    picture = Picture(
        np.repeat(pixels[..., :1], 3, axis=2) if grey else pixels,
        RNG.integers(0, top, (9, 6), dtype) if translucent else None,
        grey,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )

    write_picture(tmp_path / "a.png", picture)
    again = read_picture(tmp_path / "a.png")

    np.testing.assert_array_equal(again.pixels, picture.pixels)
    assert again.pixels.dtype == dtype
    assert (again.alpha is None) == (picture.alpha is None)
    if translucent:
        np.testing.assert_array_equal(again.alpha, picture.alpha)
    assert again.grey == grey
    assert again.icc_profile == picture.icc_profile


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jpg", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF"), (".bmp", "BMP")]
)
def test_the_suffix_decides_the_format(tmp_path, suffix, kind):
    write_image(tmp_path / f"a{suffix}", np.full((8, 8, 3), 77, np.uint8))

    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.format == kind
        np.testing.assert_allclose(np.asarray(image), 77, atol=2)


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
        ("a.tif", Picture(RED.astype(np.uint16)), "16 bits per channel are written as .png only"),
        ("a.png", Picture(RED.astype(np.float32)), "float32"),
        ("a.png", Picture(RED[..., 0]), r"\(2, 2\)"),
        ("a.png", Picture(RED[:0]), "no pixels"),
        ("a.png", Picture(RED, np.zeros((3, 2), np.uint8)), r"alpha: uint8 \(3, 2\)"),
        ("gone/a.png", Picture(RED), "cannot be written"),
        ("a.webp", Picture(np.zeros((1, 20_000, 3), np.uint8)), "cannot be written as WEBP"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_left(tmp_path, name, picture, message):
    with pytest.raises(InputError, match=message):
        write_picture(tmp_path / name, picture)
    assert list(tmp_path.iterdir()) == []


def test_quality_outside_its_range_is_refused(tmp_path):
    with pytest.raises(InputError, match="quality: 101"):
        write_picture(tmp_path / "a.jpg", Picture(RED), quality=101)
