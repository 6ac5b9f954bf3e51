import numpy as np
import pytest
import torch
from conversion_networks import plant_shifts
from ghostsr_ext.conversion.filters import fit_filters
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.conversion.tables import build_ghost_layer
from torch import nn


def test_filters_that_are_moved_copies_are_recognised_and_converted_without_loss():
    dense = nn.Conv2d(3, 12, 5, padding=2, bias=False)
    plant_shifts(dense)
    fit = fit_filters(dense, 0.5, GhostSettings())
    assert fit.relative_error < 1e-4
    ghost = build_ghost_layer(dense, fit, 0.5, GhostSettings())
    image = torch.randn(1, 3, 16, 16)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ghost(image)[inner], dense(image)[inner], rtol=1e-3, atol=1e-3)


def test_a_gain_recovers_scaled_copies():
    dense = nn.Conv2d(3, 12, 5, padding=2, bias=False)
    plant_shifts(dense)
    with torch.no_grad():
        dense.weight[6:] *= torch.tensor([0.5, -1, 2, -0.3, 1.5, 0.8]).view(6, 1, 1, 1)
    assert fit_filters(dense, 0.5, GhostSettings(affine=True)).relative_error < 1e-4
    assert fit_filters(dense, 0.5, GhostSettings()).relative_error > 1e-2


@pytest.mark.parametrize("affine", [False, True])
def test_groups_are_converted_within_themselves(affine):
    table = fit_filters(nn.Conv2d(8, 16, 3, groups=4), 0.5, GhostSettings(affine=affine)).table
    assert np.bincount(table.intrinsic // 4).tolist() == [2, 2, 2, 2]
    assert (table.intrinsic[table.source] // 4 == table.ghosts // 4).all()


def test_without_room_to_move_there_are_no_shifts():
    fit = fit_filters(nn.Conv2d(3, 8, 3), 0.5, GhostSettings(max_shift=0))
    assert not fit.table.shift.any()


def test_a_layer_of_zeros_is_converted_to_a_layer_of_zeros():
    dense = nn.Conv2d(3, 8, 3, padding=1)
    nn.init.zeros_(dense.weight)
    fit = fit_filters(dense, 0.5, GhostSettings(affine=True))
    ghost = build_ghost_layer(dense, fit, 0.5, GhostSettings())
    image = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(ghost(image)[..., 1:-1, 1:-1], dense(image)[..., 1:-1, 1:-1])
