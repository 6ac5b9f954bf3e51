import subprocess
import sys
import textwrap

import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import (
    Metadata,
    Picture,
    read_picture,
    write_bands,
    write_image,
    write_picture,
)
from PIL import ExifTags, Image, ImageCms

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("translucent", [False, True])
def test_a_lossless_round_trip_keeps_everything(tmp_path, suffix, dtype, gray, translucent):
    top = np.iinfo(dtype).max + 1
    pixels = RNG.integers(0, top, (9, 6, 3), dtype)
    picture = Picture(
        np.repeat(pixels[..., :1], 3, axis=2) if gray else pixels,
        RNG.integers(0, top, (9, 6), dtype) if translucent else None,
        gray,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )

    write_picture(tmp_path / f"a{suffix}", picture)
    again = read_picture(tmp_path / f"a{suffix}")

    np.testing.assert_array_equal(again.pixels, picture.pixels)
    assert again.pixels.dtype == dtype
    assert (again.alpha is None) == (picture.alpha is None)
    if translucent:
        np.testing.assert_array_equal(again.alpha, picture.alpha)
    stored_in_color = suffix == ".tif" and dtype == np.uint16 and translucent
    assert again.gray == (gray and not stored_in_color)
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


def camera_exif():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Orientation] = 6
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.ExifImageWidth] = 9
    details[ExifTags.Base.FNumber] = 2.8
    return exif.tobytes()


SAID = Metadata(
    dpi=(300.0, 150.0),
    gamma=0.5,
    chromaticities=(0.31, 0.33, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
    exif=camera_exif(),
    xmp=b'<x:xmpmeta><rdf tiff:Orientation="6" dc:title="Kept"/></x:xmpmeta>',
    text=(("Description", "a tree, größer"), ("Author", "A"), ("Comment", "word"), ("Own", "x")),
)
WORDS = {
    ".png": {"Description", "Author", "Comment", "Own", "Software"},
    ".tif": {"Description", "Author", "Software"},
    ".jpg": {"Comment"},
    ".webp": set(),
    ".bmp": set(),
}


@pytest.mark.parametrize("suffix", WORDS)
def test_what_the_format_has_a_place_for_is_kept(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"

    write_bands(
        path, [Picture(np.zeros((8, 12, 3), np.uint8), metadata=SAID)], rows=8, software="ghostsr"
    )

    kept = read_picture(path).metadata
    assert kept.dpi == (None if suffix == ".webp" else pytest.approx((300, 150), rel=1e-3))
    assert (kept.gamma, kept.chromaticities) == (
        (0.5, pytest.approx(SAID.chromaticities)) if suffix == ".png" else (None, None)
    )
    assert (kept.xmp is None) == (suffix == ".bmp")
    if kept.xmp is not None:
        assert b'dc:title="Kept"' in kept.xmp
        assert b'tiff:Orientation="1"' in kept.xmp
    words = dict(kept.text)
    assert set(words) == WORDS[suffix]
    assert all(words[key] == value for key, value in SAID.text if key in words)
    if suffix in (".png", ".jpg", ".webp"):
        exif = Image.Exif()
        exif.load(kept.exif)
        assert exif[ExifTags.Base.Make] == "Camera"
        assert exif[ExifTags.Base.Orientation] == 1
        assert exif[ExifTags.Base.Software] == "ghostsr"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == 12
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == 2.8
    assert b"ghostsr" in path.read_bytes()
    assert read_picture(path).pixels.shape == (8, 12, 3)


@pytest.mark.parametrize("suffix", WORDS)
@pytest.mark.parametrize(
    "said",
    [
        Metadata(exif=b"Exif\0\0junk"),
        Metadata(
            exif=b"", xmp=b"", text=(("", "x"), ("k" * 99, "x"), ("ключ", "x"), ("a\0b", "x"))
        ),
        Metadata(dpi=(1e9, 1e-9), gamma=1e9),
        Metadata(xmp=b"x" * 99_999, text=(("Comment", "x" * 99_999),)),
    ],
    ids=range(4),
)
def test_what_cannot_be_kept_hinders_nothing(tmp_path, suffix, said):
    pixels = np.full((8, 12, 3), 7, np.uint8)

    write_picture(tmp_path / f"a{suffix}", Picture(pixels, metadata=said))

    np.testing.assert_allclose(read_picture(tmp_path / f"a{suffix}").pixels, pixels, atol=2)


def test_a_gray_bmp_with_text_is_read_by_others(tmp_path):
    pixels = RNG.integers(0, 256, (7, 5), np.uint8)
    gray = Picture(np.repeat(pixels[..., None], 3, axis=2), gray=True)

    write_bands(tmp_path / "a.bmp", [gray], rows=7, software="ghostsr of a length of 27")

    with Image.open(tmp_path / "a.bmp") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_full_disk_leaves_nothing(tmp_path):
    # A write over the limit is cut short first, as on a full disk, and refused only then.
    program = textwrap.dedent(
        """
        import resource, signal, sys
        import numpy as np
        from ghostsr_ext.errors import InputError
        from ghostsr_ext.imaging import Metadata, Picture, write_picture
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
        for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
            for limit in (0, 1, 500, 9000, 20000):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    write_picture(sys.argv[1] + suffix, Picture(noise))
                except InputError as error:
                    assert "cannot be written (File too large)" in str(error), error
                else:
                    raise AssertionError((suffix, limit))
        """
    )

    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a"], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
