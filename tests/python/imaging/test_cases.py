"""Small files that once were read wrongly, each of which stands for a kind."""

import sys

import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import read_picture, read_size
from peak_memory import peak_bytes_per_pixel


@pytest.fixture
def pictures(cases_dir):
    return cases_dir / "pictures"


def test_white_is_zero_is_no_negative(pictures):
    picture = read_picture(pictures / "white_is_zero.tif")

    assert picture.pixels.dtype == np.uint16
    assert (picture.pixels[:, 0] == 0).all()
    assert (picture.pixels[:, -1] == 65535).all()


def test_separate_planes_of_16_bits_are_put_together(pictures):
    picture = read_picture(pictures / "planes.tif")

    assert picture.pixels.dtype == np.uint16
    assert picture.pixels[0, 0].tolist() == [0, 65535, 30000]


def test_premultiplied_opacity_is_divided_out(pictures):
    picture = read_picture(pictures / "assoc.tif")

    np.testing.assert_allclose(picture.pixels, 40000, atol=2)
    np.testing.assert_array_equal(picture.alpha, 30000)


def test_12_bits_reach_from_black_to_white(pictures):
    picture = read_picture(pictures / "grey_12_bit.tif")

    tifffile = pytest.importorskip("tifffile", reason="tells where the samples are")
    with tifffile.TiffFile(pictures / "grey_12_bit.tif") as file:
        place = file.pages[0].dataoffsets[0]
    first, second, third = (pictures / "grey_12_bit.tif").read_bytes()[place : place + 3]
    expected = np.array([first << 4 | second >> 4, (second & 15) << 8 | third])
    np.testing.assert_allclose(picture.pixels[0, :2, 0], expected / 4095 * 65535, atol=0.5)
    assert picture.pixels.max() > 60000


def test_the_size_of_a_turned_picture_is_that_of_its_pixels(pictures):
    assert read_size(pictures / "turned.tif") == (32, 24)
    assert read_picture(pictures / "turned.tif").pixels.shape == (32, 24, 3)


def test_an_enormous_tile_is_refused(pictures):
    with pytest.raises(InputError, match=r"tiles of 46320x46320, too large"):
        read_picture(pictures / "enormous_tile.tif")


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux gives it")
def test_a_small_file_of_many_keyed_pixels_takes_no_more_than_the_limit(pictures):
    (peak,) = peak_bytes_per_pixel(pictures / "large_1_bit_keyed.png").values()

    assert 2.5 < peak < 10
