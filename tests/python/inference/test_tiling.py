import pytest
from ghostsr_ext.inference.tiling import GRID, spans
from hypothesis import given
from hypothesis import strategies as st

LENGTHS = st.integers(1, 400)
SIDES = st.integers(1, 130)
MARGINS = st.integers(0, 60)


@given(LENGTHS, SIDES, MARGINS)
def test_every_pixel_is_delivered_once_and_in_order(length, side, margin):
    delivered = [
        pixel for tile in spans(length, side, margin) for pixel in range(tile.start, tile.stop)
    ]

    assert delivered == list(range(length))


@given(LENGTHS, SIDES, MARGINS)
def test_a_tile_reads_its_margin_as_far_as_the_picture_goes(length, side, margin):
    for tile in spans(length, side, margin):
        assert 0 <= tile.read_start <= max(0, tile.start - margin)
        assert min(length, tile.stop + margin) <= tile.read_stop <= length


@given(LENGTHS, SIDES, MARGINS)
def test_a_tile_reads_whole_blocks_of_the_pictures_grid(length, side, margin):
    for tile in spans(length, side, margin):
        assert tile.read_start % GRID == 0
        assert tile.read_stop % GRID == 0 or tile.read_stop == length


@pytest.mark.parametrize("growth", [1, 3])
def test_what_is_kept_of_an_enlarged_tile_is_what_is_delivered(growth):
    pixels = list(range(50))
    enlarged = [pixel for pixel in pixels for _ in range(growth)]

    for tile in spans(50, 17, 5):
        read = pixels[tile.read]
        own = [pixel for pixel in read for _ in range(growth)]
        assert own[tile.kept(growth)] == enlarged[tile.start * growth : tile.stop * growth]
