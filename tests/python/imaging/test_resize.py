import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import imresize, read_image, rgb_to_ycbcr
from hypothesis import given, settings
from hypothesis import strategies as st

SET5 = ("baby", "bird", "butterfly", "head", "woman")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", SET5)
def test_shrinking_uint8_equals_matlab_bit_for_bit(data_dir, name, scale):
    expected = read_image(data_dir / f"Set5/LR_bicubic/X{scale}/{name}x{scale}.png")
    rows, columns = (scale * length for length in expected.shape[:2])
    picture = read_image(data_dir / f"Set5/HR/{name}.png")[:rows, :columns]

    np.testing.assert_array_equal(imresize(picture, 1 / scale), expected)


@pytest.mark.parametrize("name", ["bird", "butterfly", "head", "woman"])
def test_double_precision_equals_matlab_to_1e_12(data_dir, name):
    golden = np.load(data_dir / "golden/matlab_imresize_double_set5.npz")
    y = rgb_to_ycbcr(read_image(data_dir / f"Set5/HR/{name}.png"))[..., 0]
    for scale in (2, 3, 4):
        y = y[: y.shape[0] // scale * scale, : y.shape[1] // scale * scale]
        small = golden[f"{name}_x{scale}_im_l_y"]

        np.testing.assert_allclose(imresize(y, 1 / scale), small, rtol=1e-12, atol=0)
        np.testing.assert_allclose(
            imresize(small, scale), golden[f"{name}_x{scale}_im_b_y"], rtol=1e-12, atol=0
        )


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    scale=st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.77, 1, 1.5, 2, 3, 4]),
    border=st.sampled_from(["symmetric", "replicate"]),
    value=st.integers(0, 255),
)
@settings(max_examples=60, deadline=None)
def test_a_flat_picture_stays_flat_at_every_size(rows, columns, scale, border, value):
    picture = np.full((rows, columns, 3), value, np.uint8)

    resized = imresize(picture, scale, border=border)

    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, value)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_resizing_is_linear_and_has_the_size_asked_for(rows, columns, to_rows, to_columns):
    rng = np.random.default_rng(rows * 31 + columns)
    one, other = rng.random((2, rows, columns))

    def resize(picture):
        return imresize(picture, size=(to_rows, to_columns))

    assert resize(one).shape == (to_rows, to_columns)
    np.testing.assert_allclose(
        resize(3 * one - other), 3 * resize(one) - resize(other), rtol=1e-9, atol=1e-12
    )


@given(st.integers(1, 25), st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_scale_one_returns_the_same_values(rows, columns):
    picture = np.random.default_rng(rows).integers(0, 256, (rows, columns), np.uint8)

    np.testing.assert_array_equal(imresize(picture, 1), picture)


@pytest.mark.parametrize(
    ("length", "scale", "expected"), [(255, 1 / 3, 85), (256, 1 / 3, 86), (7, 0.5, 4), (3, 0.1, 1)]
)
def test_output_length_is_rounded_up_from_the_exact_product(length, scale, expected):
    assert imresize(np.zeros((length, length)), scale).shape == (expected, expected)


def test_rows_are_rounded_before_columns_are_resized():
    picture = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)

    stepwise = imresize(imresize(picture, size=(6, 12)), size=(6, 6))

    np.testing.assert_array_equal(imresize(picture, 0.5), stepwise)


def test_replicated_border_differs_from_the_mirrored_one_only_near_the_edge():
    picture = np.random.default_rng(1).integers(0, 256, (40, 40), np.uint8)

    mirrored = imresize(picture, 0.5)
    replicated = imresize(picture, 0.5, border="replicate")

    assert (mirrored != replicated).any()
    np.testing.assert_array_equal(mirrored[2:-2, 2:-2], replicated[2:-2, 2:-2])


def test_channels_are_resized_independently_from_any_memory_layout():
    planes = np.random.default_rng(2).integers(0, 256, (3, 20, 31), np.uint8)

    together = imresize(np.moveaxis(planes, 0, 2), 2)

    for channel in range(3):
        np.testing.assert_array_equal(together[..., channel], imresize(planes[channel], 2))
    assert together.flags.c_contiguous


def test_uint16_is_rounded_and_clipped_to_its_own_range():
    picture = np.zeros((16, 16), np.uint16)
    picture[:, 8:] = 65535

    resized = imresize(picture, 3)

    exact = imresize(picture.astype(np.float64), 3)
    assert exact.max() > 65535
    assert exact.min() < 0
    assert resized.dtype == np.uint16
    assert abs(resized - exact.clip(0, 65535)).max() <= 2


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", "<f4", ">f8", "<f8"])
def test_numbers_of_either_byte_order_are_resized_alike(dtype):
    numbers = np.arange(35.0).reshape(5, 7).astype(dtype)

    result = imresize(numbers, 2)

    assert result.dtype.kind == numbers.dtype.kind
    assert np.array_equal(result, imresize(numbers.astype(dtype[1:]), 2))


def test_float32_is_computed_and_returned_in_double_precision():
    picture = np.random.default_rng(3).random((9, 9)).astype(np.float32)

    resized = imresize(picture, 2)

    assert resized.dtype == np.float64
    np.testing.assert_array_equal(resized, imresize(picture.astype(np.float64), 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either scale or size"),
        ({"scale": 2, "size": (3, 3)}, "either scale or size"),
        ({"scale": 0}, "scale: 0"),
        ({"scale": float("nan")}, "scale: nan"),
        ({"size": (0, 3)}, r"size: \(0, 3\)"),
        ({"size": (2.5, 3)}, r"size: \(2.5, 3\)"),
        ({"scale": 2, "border": "circular"}, "border: 'circular'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        imresize(np.zeros((4, 4)), **arguments)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((2, 2, 2, 2)), "shape"),
        (np.zeros((0, 4)), "no pixels"),
        (np.zeros((4, 4), np.int64), "dtype int64"),
        ([[1.0]], "list"),
    ],
)
def test_wrong_pictures_are_named(image, message):
    with pytest.raises(InputError, match=message):
        imresize(image, 2)
