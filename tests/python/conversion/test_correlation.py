import numpy as np
import pytest
import torch
from ghostsr_ext import _native
from ghostsr_ext.conversion.correlation import correlate
from hypothesis import given, settings
from hypothesis import strategies as st


def _maps(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _expected(first, second, max_lag_y, max_lag_x):
    """Sum the products position by position, in float64."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    height, width = first.shape[2:]
    around = np.pad(second, ((0, 0), (0, 0), (max_lag_y, max_lag_y), (max_lag_x, max_lag_x)))
    return np.array(
        [
            [
                np.einsum("nihw,njhw->ij", first, around[:, :, y : y + height, x : x + width])
                for x in range(2 * max_lag_x + 1)
            ]
            for y in range(2 * max_lag_y + 1)
        ]
    )


def _norms(maps):
    return np.sqrt((maps.astype(np.float64) ** 2).sum(axis=(0, 2, 3)))


@settings(deadline=None, max_examples=60)
@given(
    pictures=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    max_lag=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    seed=st.integers(0, 99),
)
def test_sums_are_those_of_the_products(pictures, channels, size, max_lag, seed):
    first = _maps(pictures, channels[0], *size, seed=seed)
    second = _maps(pictures, channels[1], *size, seed=seed + 100)
    found = _native.correlate_maps(first, second, *max_lag)
    allowed = 1e-6 * _norms(first)[:, None] * _norms(second) + 1e-12
    assert (np.abs(found - _expected(first, second, *max_lag)) <= allowed).all()


def test_many_tiles_add_up():
    first, second = _maps(150, 2, 13, 17), _maps(150, 3, 13, 17, seed=1)
    found = _native.correlate_maps(first, second, 2, 1)
    expected = _expected(first, second, 2, 1)
    scale = _norms(first)[:, None] * _norms(second)
    assert (np.abs(found - expected) <= 1e-6 * scale).all()


def test_large_means_do_not_swamp_small_differences():
    maps = 1000 + _maps(4, 2, 48, 48)
    found = _native.correlate_maps(maps, maps, 1, 1)
    np.testing.assert_allclose(found, _expected(maps, maps, 1, 1), rtol=1e-6)


def test_opposite_lags_of_a_map_with_itself_are_transposes_exactly():
    maps = _maps(2, 11, 20, 23)
    found = _native.correlate_maps(maps, maps, 2, 3)
    assert np.array_equal(found, found[::-1, ::-1].transpose(0, 1, 3, 2))


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_the_number_of_threads_changes_nothing(threads):
    first, second = _maps(3, 17, 20, 23), _maps(3, 9, 20, 23, seed=1)
    assert np.array_equal(
        _native.correlate_maps(first, second, 2, 2),
        _native.correlate_maps(first, second, 2, 2, threads=threads),
    )


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 0, 5, 5), (2, 3, 0, 5), (2, 3, 5, 0)])
def test_the_sum_over_nothing_is_zero(shape):
    maps = np.zeros(shape, np.float32)
    found = _native.correlate_maps(maps, maps, 1, 2)
    assert found.shape == (3, 5, shape[1], shape[1])
    assert not found.any()


def test_a_single_pixel_meets_itself_at_lag_zero_alone():
    found = _native.correlate_maps(
        np.full((1, 1, 1, 1), 3, np.float32), np.full((1, 1, 1, 1), 5, np.float32), 1, 1
    )
    np.testing.assert_allclose(found[:, :, 0, 0], [[0, 0, 0], [0, 15, 0], [0, 0, 0]], atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spoils_its_channel_and_no_other(value):
    first, second = _maps(2, 10, 12, 12), _maps(2, 9, 12, 12, seed=1)
    clean = _native.correlate_maps(first, second, 1, 1)
    first[1, 4, 5, 6] = value
    found = _native.correlate_maps(first, second, 1, 1)
    assert not np.isfinite(found[:, :, 4]).any()
    others = np.arange(10) != 4
    assert np.array_equal(found[:, :, others], clean[:, :, others])


GOOD = _maps(2, 3, 6, 6)


@pytest.mark.parametrize(
    ("first", "second", "max_lag", "error", "message"),
    [
        (GOOD.astype(np.float64), GOOD, (1, 1), TypeError, "first: .* float64; float32 is"),
        (GOOD, GOOD.astype(np.int32), (1, 1), TypeError, "second: .* int32; float32 is"),
        (GOOD[0], GOOD, (1, 1), ValueError, r"first: found shape \[3, 6, 6\]"),
        (GOOD[:, :, :, ::2], GOOD[:, :, :, ::2], (1, 1), ValueError, "first: is not contiguous"),
        (GOOD, GOOD[:, ::-1], (1, 1), ValueError, "second: is not contiguous"),
        (GOOD, _maps(2, 3, 6, 7), (1, 1), ValueError, r"second: found shape \[2, 3, 6, 7\]"),
        (GOOD, GOOD, (-1, 1), ValueError, "max_lag_y: found -1; 0 to 8"),
        (GOOD, GOOD, (1, 9), ValueError, "max_lag_x: found 9; 0 to 8"),
    ],
)
def test_wrong_arguments_are_named(first, second, max_lag, error, message):
    with pytest.raises(error, match=message):
        _native.correlate_maps(first, second, *max_lag)


def test_no_thread_is_too_few():
    with pytest.raises(ValueError, match="threads: found 0"):
        _native.correlate_maps(GOOD, GOOD, 1, 1, threads=0)


@pytest.mark.parametrize("itself", [True, False])
def test_lags_beyond_the_native_reach_are_summed_one_by_one(itself):
    first = torch.from_numpy(_maps(2, 3, 14, 12))
    second = first if itself else torch.from_numpy(_maps(2, 4, 14, 12, seed=1))
    near = [(0, 0), (-2, 1), (2, -1), (8, -8)]
    far = correlate(first, second, [*near, (9, 0), (-9, 0), (20, 1)])
    expected = correlate(first, second, near)
    for lag in near:
        torch.testing.assert_close(far[lag], expected[lag], rtol=1e-5, atol=1e-4)
    moved = torch.einsum("nihw,njhw->ij", first[:, :, :-9].double(), second[:, :, 9:].double())
    torch.testing.assert_close(far[9, 0], moved, rtol=1e-5, atol=1e-4)
    assert not far[20, 1].any()


def test_maps_that_are_not_contiguous_are_correlated():
    maps = torch.from_numpy(_maps(2, 6, 9, 9))
    part = maps[:, 2:5]
    found = correlate(part, part, [(0, 1)])[0, 1]
    expected = _expected(part.numpy(), part.numpy(), 0, 1)[0, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
