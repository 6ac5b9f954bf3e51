"""Pixels become values and values pixels, by the definition of each."""

import numpy as np
import pytest
import torch
from ghostsr_ext.inference.pixels import to_pixels, to_values
from hypothesis import given
from hypothesis import strategies as st

CPU = torch.device("cpu")
WHITE = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}


def noise(shape, low=-40.0, high=300.0):
    return torch.from_numpy(np.random.default_rng(0).uniform(low, high, shape))


@pytest.mark.parametrize("dtype", WHITE)
# One chunk and less, and more than one of rows of any width.
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (90, 100, 3), (3, 9000, 3), (700, 11, 1)])
def test_values_are_clipped_and_whole_numbers_rounded_half_up(dtype, shape):
    values, white = noise(shape), WHITE[dtype]
    scaled = values.numpy() * (white / 255)
    expected = (np.floor(scaled + 0.5) if white > 1 else scaled).clip(0, white).astype(dtype)

    pixels = to_pixels(values.clone(), np.dtype(dtype))

    assert pixels.dtype == np.dtype(dtype)
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("dtype", WHITE)
def test_pixels_come_back_as_they_were(dtype):
    top = WHITE[dtype]
    pixels = np.linspace(0, top, 3 * 211 * 13).reshape(211, 13, 3).astype(dtype)

    values = to_values(pixels, top, CPU)

    assert values.dtype == torch.float64
    assert values.max() == 255
    back = to_pixels(values, np.dtype(dtype))
    np.testing.assert_allclose(back, pixels, rtol=1e-15 if dtype == "float64" else 1e-7)
    assert top == 1 or np.array_equal(back, pixels)


@given(st.integers(0, 254))
def test_a_half_belongs_to_the_value_above(level):
    assert to_pixels(torch.full((1, 1, 3), level + 0.5).double(), np.dtype("uint8")).min() == (
        level + 1
    )


def test_a_part_of_a_map_is_taken_in_its_own_order():
    values = noise((3, 40, 50)).permute(1, 2, 0)[3:30, 5:45]
    expected = np.floor(values.numpy() + 0.5).clip(0, 255)

    assert np.array_equal(to_pixels(values, np.dtype("uint8")), expected)


@pytest.mark.parametrize("dtype", WHITE)
def test_the_picture_itself_is_neither_written_nor_held(dtype):
    pixels = np.ones((4, 6, 3), dtype)
    pixels.flags.writeable = False

    to_values(pixels[1:, ::2], WHITE[dtype], CPU).zero_()

    assert (pixels == 1).all()
