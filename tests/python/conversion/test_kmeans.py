import numpy as np
import torch
from ghostsr_ext.conversion.kmeans import fit_kmeans
from sklearn.cluster import KMeans
from torch import nn


def test_the_real_filter_nearest_each_centre_represents_its_cluster():
    layer = nn.Conv2d(4, 12, 3)
    fit = fit_kmeans(layer, 0.5, seed=3)
    filters = layer.weight.detach().flatten(1).double().numpy()
    clusters = KMeans(6, n_init=10, random_state=3).fit(filters)
    for channel in fit.table.intrinsic:
        members = np.flatnonzero(clusters.labels_ == clusters.labels_[channel])
        centre = clusters.cluster_centers_[clusters.labels_[channel]]
        distances = ((filters[members] - centre) ** 2).sum(1)
        assert channel == members[distances.argmin()]
    made_from = fit.table.intrinsic[fit.table.source]
    assert (clusters.labels_[fit.table.ghosts] == clusters.labels_[made_from]).all()


def test_weights_and_biases_are_those_of_the_representatives():
    layer = nn.Conv2d(4, 10, 3)
    fit = fit_kmeans(layer, 0.5, seed=0)
    assert torch.equal(fit.weight, layer.weight[fit.table.intrinsic])
    assert torch.equal(fit.bias, layer.bias[fit.table.intrinsic])


def test_ghosts_do_not_move():
    assert not fit_kmeans(nn.Conv2d(4, 10, 3), 0.5, seed=0).table.shift.any()


def test_the_same_seed_gives_the_same_tables():
    layer = nn.Conv2d(4, 16, 3)
    first, second = (fit_kmeans(layer, 0.5, seed=7).table for _ in range(2))
    assert np.array_equal(first.intrinsic, second.intrinsic)
    assert np.array_equal(first.source, second.source)


def test_every_group_keeps_as_many_intrinsic_channels_and_its_own_sources():
    table = fit_kmeans(nn.Conv2d(8, 16, 3, groups=4), 0.5, seed=0).table
    assert np.bincount(table.intrinsic // 4).tolist() == [2, 2, 2, 2]
    assert (table.intrinsic[table.source] // 4 == table.ghosts // 4).all()


def test_order_puts_every_channel_back():
    table = fit_kmeans(nn.Conv2d(4, 12, 3), 0.25, seed=0).table
    computed_then_made = np.concatenate([table.intrinsic, table.ghosts])
    assert computed_then_made[table.order].tolist() == list(range(12))


def test_dead_channels_that_leave_clusters_empty_still_fill_the_layer():
    layer = nn.Conv2d(4, 8, 3)
    with torch.no_grad():
        layer.weight[2:] = 0
    table = fit_kmeans(layer, 0.25, seed=0).table
    assert len(table.intrinsic) == 6
    assert {0, 1} <= set(table.intrinsic.tolist())
