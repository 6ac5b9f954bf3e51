import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import luma, luma_uint8, rgb_to_ycbcr, round_to_uint8, ycbcr_to_rgb
from skimage.color import rgb2ycbcr, ycbcr2rgb

PICTURE = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)


def test_luma_of_black_and_white_spans_the_studio_range():
    picture = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)

    np.testing.assert_allclose(luma(picture), [[16, 235]], atol=2e-3)


def test_luma_is_the_published_weighted_sum_in_double_precision():
    red, green, blue = np.moveaxis(PICTURE.astype(np.float64), 2, 0)
    expected = (65.738 * red + 129.057 * green + 25.064 * blue) / 256 + 16

    assert luma(PICTURE).dtype == np.float64
    np.testing.assert_allclose(luma(PICTURE), expected, rtol=1e-14)


def test_ycbcr_agrees_with_scikit_image():
    # scikit-image gives its blue and red weights one digit less.
    np.testing.assert_allclose(rgb_to_ycbcr(PICTURE), rgb2ycbcr(PICTURE), atol=1e-3)


def test_rgb_from_ycbcr_agrees_with_scikit_image():
    ycbcr = rgb2ycbcr(PICTURE)

    np.testing.assert_allclose(ycbcr_to_rgb(ycbcr), 255 * ycbcr2rgb(ycbcr), atol=1e-2)


def test_ycbcr_round_trip_is_exact_to_rounding():
    np.testing.assert_allclose(ycbcr_to_rgb(rgb_to_ycbcr(PICTURE)), PICTURE, atol=1e-11)


def test_rounded_luma_is_the_nearest_whole_number():
    np.testing.assert_array_equal(
        luma_uint8(PICTURE), np.floor(rgb_to_ycbcr(PICTURE)[..., 0] + 0.5)
    )


def test_rounding_takes_halves_up_and_clips():
    values = np.array([-3.0, 0.49999, 0.5, 1.5, 2.5, 254.5, 300.0])

    np.testing.assert_array_equal(round_to_uint8(values), [0, 0, 1, 2, 3, 255, 255])


@pytest.mark.parametrize("function", [luma, luma_uint8, rgb_to_ycbcr, ycbcr_to_rgb])
def test_pictures_without_three_channels_are_refused(function):
    with pytest.raises(InputError, match=r"\(4, 4\).*\[H, W, 3\]"):
        function(np.zeros((4, 4)))
