import pytest
import torch
from ghostsr_ext.conversion.clustering import ShiftKernel, factorize, fit_clusters
from ghostsr_ext.conversion.statistics import (
    candidate_offsets,
    gather_statistics,
    shifted,
)
from torch import nn
from torch.nn import functional


def _layer_statistics(channels=8):
    torch.manual_seed(1)
    layer = nn.Conv2d(3, channels, 3, padding=1).requires_grad_(False)
    inputs = torch.zeros(2, 3, 24, 24)
    inputs[:, :, 6:18, 6:18] = torch.randn(2, 3, 12, 12)
    targets = torch.zeros(2, channels, 24, 24)
    targets[:, :, 4:20, 4:20] = torch.randn(2, channels, 16, 16)
    # Features that a linear filter explains in part.
    targets = targets * 0.3 + functional.conv2d(inputs, layer.weight, padding=1)
    [statistics] = gather_statistics(layer, inputs, targets, 1)
    return layer, inputs, targets, statistics


@pytest.mark.parametrize("affine", [False, True])
def test_reported_error_is_the_error_of_the_fitted_outputs(affine):
    _, inputs, targets, statistics = _layer_statistics()
    found = fit_clusters(ShiftKernel(statistics, affine=affine), 4, "channel")
    filters = found.filters.view(4, 3, 3, 3)
    computed = functional.conv2d(inputs.double(), filters, padding=1)
    # Take the bias out: filters are fitted to maps about their mean.
    computed = computed - computed.mean(dim=(0, 2, 3), keepdim=True)
    wanted = targets.double()
    if affine:
        wanted = wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)
    offsets = candidate_offsets(1)
    missed = 0.0
    for index, channel in enumerate(found.intrinsic):
        members = [wanted[:, channel].mean()]
        members += [wanted[:, ghost].mean() for ghost in found.ghosts[found.source == index]]
        bias = 0.0 if affine else sum(members) / len(members)
        missed += (wanted[:, channel] - computed[:, index] - bias).square().sum()
        for ghost, source, shift, gain in zip(
            found.ghosts, found.source, found.shift, found.gain, strict=True
        ):
            if source == index:
                output = gain * shifted(computed[:, index], *offsets[shift]) + bias
                missed += (wanted[:, ghost] - output).square().sum()
    assert float(missed) == pytest.approx(found.squared_error, rel=0.02)


def test_gains_never_make_the_fit_worse():
    *_, statistics = _layer_statistics(channels=12)
    plain, affine = (
        fit_clusters(ShiftKernel(statistics, affine=affine), 6, "channel").squared_error
        for affine in (False, True)
    )
    assert affine <= plain


def test_more_intrinsic_channels_never_make_the_fit_worse():
    *_, statistics = _layer_statistics(channels=12)
    kernel = ShiftKernel(statistics, affine=False)
    errors = [fit_clusters(kernel, count, "channel").squared_error for count in (2, 6, 10)]
    assert errors == sorted(errors, reverse=True)


def test_one_shift_a_layer_gives_all_ghosts_the_same_shift():
    *_, statistics = _layer_statistics()
    found = fit_clusters(ShiftKernel(statistics, affine=False), 4, "layer")
    assert found.shift.unique().numel() == 1


def test_with_gains_inputs_that_are_almost_copies_do_not_get_huge_weights():
    torch.manual_seed(1)
    layer = nn.Conv2d(2, 4, 1).requires_grad_(False)
    picture, difference = torch.randn(2, 2, 1, 24, 24)
    inputs = torch.cat([picture, picture + 1e-3 * difference], dim=1)
    targets = difference * torch.tensor([1.0, -2.0, 3.0, -4.0])[:, None, None]
    [statistics] = gather_statistics(layer, inputs, targets, 1)

    plain, with_gains = (
        fit_clusters(ShiftKernel(statistics, affine=affine), 2, "channel")
        .filters.abs()
        .max()
        .item()
        for affine in (False, True)
    )

    # The difference of the inputs times 1000 would be the target.
    assert plain > 100
    assert with_gains < 25


def test_with_gains_inputs_that_hardly_vary_do_not_get_huge_weights():
    gram = torch.tensor([[1, 0], [0, 1e-8]], dtype=torch.float64)
    wanted = torch.tensor([[0.0], [1e-5]], dtype=torch.float64)

    plain, with_gains = (
        torch.cholesky_solve(wanted, factorize(gram, gains=gains)).abs().max().item()
        for gains in (False, True)
    )

    assert plain > 500
    assert with_gains < 50
