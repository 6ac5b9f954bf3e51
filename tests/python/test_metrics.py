import json
import math

import numpy as np
import pytest
import scipy.io
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import imresize, luma, read_image
from ghostsr_ext.metrics import Protocol, compare, psnr, ssim
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

SET5 = ("baby", "bird", "butterfly", "head", "woman")
RNG = np.random.default_rng(0)


def noisy(picture, amount=20):
    noise = np.random.default_rng(1).normal(0, amount, picture.shape)
    return (picture + noise).clip(0, 255)


@pytest.mark.parametrize("shape", [(40, 33), (20, 24, 3)])
def test_psnr_agrees_with_scikit_image(shape):
    picture = RNG.uniform(0, 255, shape)

    expected = peak_signal_noise_ratio(picture, noisy(picture), data_range=255)
    assert psnr(noisy(picture), picture) == pytest.approx(expected, rel=1e-12)


def test_psnr_of_an_error_of_one_is_its_closed_form():
    assert psnr(np.full((3, 3), 7), np.full((3, 3), 8)) == pytest.approx(20 * math.log10(255))


def test_psnr_does_not_wrap_around_in_uint8():
    assert psnr(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == pytest.approx(0)


def test_equal_pictures_have_infinite_psnr_and_ssim_one():
    picture = RNG.integers(0, 256, (16, 16), np.uint8)

    assert psnr(picture, picture) == math.inf
    assert ssim(picture, picture) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shape", [(11, 11), (11, 40), (64, 37)])
def test_ssim_agrees_with_scikit_image_where_the_window_fits(shape):
    picture = RNG.uniform(0, 255, shape)
    other = noisy(picture, 40)

    _, per_pixel = structural_similarity(
        picture,
        other,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    expected = per_pixel[5:-5, 5:-5].mean()
    assert ssim(other, picture) == pytest.approx(expected, rel=1e-10)


def test_ssim_of_color_is_the_mean_of_its_channels():
    picture = RNG.uniform(0, 255, (20, 20, 3))
    other = noisy(picture)

    expected = np.mean([ssim(other[..., c], picture[..., c]) for c in range(3)])
    assert ssim(other, picture) == pytest.approx(expected)


def test_a_picture_smaller_than_the_window_has_no_ssim():
    assert math.isnan(ssim(np.zeros((10, 50)), np.zeros((10, 50))))


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 60))
@settings(max_examples=25, deadline=None)
def test_ssim_is_symmetric_and_at_most_one(seed, amount):
    rng = np.random.default_rng(seed)
    one = rng.uniform(0, 255, (14, 17))
    other = one + rng.normal(0, amount, one.shape)

    assert ssim(one, other) == pytest.approx(ssim(other, one), rel=1e-12)
    assert ssim(one, other) <= 1 + 1e-12


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_on_set5_has_the_golden_psnr_and_ssim(data_dir, scale):
    measured = json.loads((data_dir / "golden/measured_per_image.json").read_text())
    golden = measured[f"bicubic(own,MATLAB-like) x{scale}"]
    for index, name in enumerate(SET5):
        low = read_image(data_dir / f"Set5/LR_bicubic/X{scale}/{name}x{scale}.png")
        high = read_image(data_dir / f"Set5/HR/{name}.png")
        high = high[: scale * low.shape[0], : scale * low.shape[1]]

        quality = compare(imresize(low, scale), high, Protocol.benchmark(scale))

        assert quality.psnr == pytest.approx(golden["psnr"][index], abs=2e-5)
        assert quality.ssim == pytest.approx(golden["ssim"][index], abs=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_on_set5_has_the_published_psnr_with_rounded_luma(data_dir, scale):
    table = scipy.io.loadmat(data_dir / f"golden/selfexsr_tables/result_Set5_SRF_{scale}.mat")
    protocol = Protocol.benchmark(scale, y_rounding="uint8")
    for index, name in enumerate(SET5):
        high = read_image(data_dir / f"Set5/HR/{name}.png")
        high = high[: high.shape[0] // scale * scale, : high.shape[1] // scale * scale]
        low = imresize(high, 1 / scale, border="replicate")

        quality = compare(imresize(low, scale, border="replicate"), high, protocol)

        assert quality.psnr == pytest.approx(table["PSNR_table"][index, 0], abs=1e-4)
        assert quality.ssim == pytest.approx(table["SSIM_table"][index, 0], abs=1e-5)


def test_the_named_protocols_are_those_of_the_papers():
    assert Protocol.benchmark(3) == Protocol("y", "float", "uint8", 3, "uint8")
    assert Protocol.benchmark(2, y_rounding="uint8") == Protocol("y", "uint8", "uint8", 2, "uint8")
    assert Protocol.div2k(4) == Protocol("rgb", "float", "uint8", 10, "uint8")
    assert Protocol.vdsr(2) == Protocol("y", "float", "float", 2, "float")


def test_the_protocol_is_json():
    assert json.loads(json.dumps(Protocol.div2k(2).as_dict())) == {
        "channel": "rgb",
        "y_rounding": "float",
        "output_rounding": "uint8",
        "crop_border": 8,
        "low_resolution": "uint8",
    }


HIGH = RNG.integers(0, 256, (30, 26, 3), np.uint8)


def test_pixels_of_the_border_do_not_count():
    output = HIGH.astype(float)
    output[:4] = output[-4:] = output[:, :4] = output[:, -4:] = 0

    assert compare(output, HIGH, Protocol(crop_border=4)).psnr == math.inf
    assert compare(output, HIGH, Protocol(crop_border=3)).psnr < 60


def test_the_output_is_clipped_and_rounded_before_luma_is_taken():
    output = HIGH + 0.49
    output[HIGH == 255] = 900.0

    assert compare(output, HIGH, Protocol()).psnr == math.inf
    assert compare(output, HIGH, Protocol(output_rounding="float")).psnr < 60


def test_rounded_luma_hides_small_color_errors_that_float_luma_shows():
    output = HIGH.astype(float)
    output[..., 2] = np.where(HIGH[..., 2] > 0, HIGH[..., 2] - 1, 1)

    rounded = compare(output, HIGH, Protocol(y_rounding="uint8")).psnr
    exact = compare(output, HIGH, Protocol()).psnr
    assert exact == pytest.approx(20 * math.log10(255 / (25.064 / 256)), abs=1e-9)
    assert rounded != exact


def test_rgb_measures_all_channels():
    output = HIGH.astype(float)
    output[..., 0] = np.where(HIGH[..., 0] > 0, HIGH[..., 0] - 1, 1)

    expected = 20 * math.log10(255) + 10 * math.log10(3)
    assert compare(output, HIGH, Protocol("rgb")).psnr == pytest.approx(expected)


def test_luma_alone_can_be_measured():
    y = luma(HIGH)
    protocol = Protocol(output_rounding="float")

    assert compare(y + 1, y, protocol).psnr == pytest.approx(20 * math.log10(255))


@pytest.mark.parametrize(
    ("output", "target", "protocol", "message"),
    [
        (HIGH[1:], HIGH, Protocol(), "output: 26x29.*26x30"),
        (np.full(HIGH.shape, np.nan), HIGH, Protocol(), "NaN or infinite"),
        (np.full(HIGH.shape, np.inf), HIGH, Protocol(), "NaN or infinite"),
        (
            HIGH,
            HIGH,
            Protocol(crop_border=13),
            "crop_border: 13 leaves nothing of a picture of 26x30",
        ),
        (HIGH[..., 0], HIGH[..., 0], Protocol("rgb"), "'rgb' cannot be measured on luma"),
    ],
)
def test_what_cannot_be_compared_is_said(output, target, protocol, message):
    with pytest.raises(InputError, match=message):
        compare(output, target, protocol)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channel": "ycbcr"}, "channel: 'ycbcr' is not one of 'y', 'rgb'"),
        ({"y_rounding": "int"}, "y_rounding: 'int'"),
        ({"crop_border": -1}, "crop_border: -1"),
        ({"crop_border": 1.5}, "crop_border: 1.5"),
    ],
)
def test_a_wrong_protocol_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Protocol(**arguments)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_metrics_refuse_shapes_that_differ_or_are_empty(metric):
    with pytest.raises(InputError, match=r"\(3, 4\).*\(4, 3\)"):
        metric(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(InputError, match="no pixels"):
        metric(np.zeros((0, 4)), np.zeros((0, 4)))
