from itertools import combinations

import torch
from ghostsr_ext.conversion.medoids import medoids
from hypothesis import given, settings
from hypothesis import strategies as st


def _total(cost, chosen):
    own = cost.clone().fill_diagonal_(0)
    return float(own[:, list(chosen)].amin(1).sum())


def _random_cost(size, seed):
    return torch.rand(size, size, generator=torch.Generator().manual_seed(seed)).double()


@settings(deadline=None, max_examples=40)
@given(size=st.integers(2, 9), seed=st.integers(0, 999), data=st.data())
def test_no_single_swap_improves_the_choice(size, seed, data):
    count = data.draw(st.integers(1, size - 1))
    cost = _random_cost(size, seed)
    chosen = medoids(cost, count).tolist()
    for out in chosen:
        for new in set(range(size)) - set(chosen):
            swapped = [new if channel == out else channel for channel in chosen]
            assert _total(cost, swapped) >= _total(cost, chosen) - 1e-9


def test_well_separated_clusters_are_found_exactly():
    points = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 9.0, 9.3, 9.1]).double()
    cost = (points[:, None] - points) ** 2
    chosen = medoids(cost, 3)
    best = min(combinations(range(8), 3), key=lambda some: _total(cost, some))
    assert chosen.tolist() == list(best)


def test_choosing_all_returns_all():
    assert medoids(_random_cost(5, 0), 5).tolist() == [0, 1, 2, 3, 4]


def test_equal_channels_still_give_distinct_medoids():
    assert medoids(torch.zeros(6, 6), 4).unique().numel() == 4


def test_the_cost_matrix_is_left_alone():
    cost = _random_cost(6, 1)
    before = cost.clone()
    medoids(cost, 2)
    assert torch.equal(cost, before)
