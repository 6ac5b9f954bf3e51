import pytest
import torch
from ghostsr_ext.report.similarity import count_alike, similar_pairs


@pytest.fixture
def maps():
    return torch.rand(6, 30, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shift", [(0, 1), (-1, 0), (1, 1), (0, 0)])
def test_a_shifted_copy_is_found_with_its_shift(maps, shift):
    # Up to brightness and contrast.
    maps[4] = 3 * maps[1].roll((-shift[0], -shift[1]), (0, 1)) + 5

    best = similar_pairs(maps)[0]

    found = (best.channel, best.other, best.shift)
    assert found in ((4, 1, shift), (1, 4, (-shift[0], -shift[1])))
    assert best.correlation == pytest.approx(1, abs=1e-9)


def test_no_map_is_in_two_pairs_and_the_best_come_first(maps):
    pairs = similar_pairs(maps, count=99)

    used = [channel for pair in pairs for channel in (pair.channel, pair.other)]
    assert len(used) == len(set(used))
    correlations = [pair.correlation for pair in pairs]
    assert correlations == sorted(correlations, reverse=True)


def test_constant_maps_are_like_nothing():
    assert similar_pairs(torch.ones(4, 9, 9)) == []


def test_maps_smaller_than_the_shift_are_compared_in_place():
    assert similar_pairs(torch.rand(2, 1, 1), max_shift=3) == []


def test_maps_with_a_partner_are_counted(maps):
    assert count_alike(maps) == 0
    maps[4] = 3 * maps[1].roll((0, -1), (0, 1)) + 5
    assert count_alike(maps) == 2
    assert count_alike(maps, max_shift=0) == 0
