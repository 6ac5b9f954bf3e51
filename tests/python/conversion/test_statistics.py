import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.conversion.clustering import ShiftKernel
from ghostsr_ext.conversion.fitting import fit_statistics
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.conversion.statistics import (
    border,
    candidate_offsets,
    gather_statistics,
    run_surrounded,
    shifted,
    surround,
)
from ghostsr_ext.conversion.tables import build_ghost_layer
from torch import nn
from torch.nn import functional

FIELDS = ("gram", "patch_mean", "cross", "energy", "mean")
AROUND = (6, 6)

KEEPING_THE_SIZE = {
    "3x3": nn.Conv2d(4, 6, 3, padding=1),
    "1x1": nn.Conv2d(4, 6, 1),
    "3x5": nn.Conv2d(4, 6, (3, 5), padding=(1, 2)),
    "dilated": nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    "grouped": nn.Conv2d(4, 6, 3, padding=1, groups=2),
}
OTHERS = {
    "strided": nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2),
    "reflecting": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "unpadded": nn.Conv2d(4, 6, 3),
}


def _inputs(count=3, channels=4, size=(13, 15)):
    """Maps whose mean is ten times their spread, which is nothing near their rim."""
    maps = torch.zeros(count, channels, *size)
    maps[..., 3:-3, 3:-3] = torch.randn(count, channels, size[0] - 6, size[1] - 6)
    maps = maps - maps.mean(dim=(0, 2, 3), keepdim=True) * (maps != 0)
    return 10 * maps.std() * torch.randn(channels).sign()[:, None, None] + maps


def _gathered(layer, inputs, max_shift=1):
    targets = run_surrounded(layer, max_shift, layer, inputs).detach()
    return gather_statistics(layer, inputs, targets, max_shift)


def _check_sums(layer, found, padded, targets):
    """Compare with sums over the patches of ``padded`` that give ``targets``."""
    per_in, per_out = 4 // layer.groups, 6 // layer.groups
    for group, sums in enumerate(found):
        own = padded[:, group * per_in : (group + 1) * per_in].double()
        patches = functional.unfold(own, layer.kernel_size, layer.dilation, 0, layer.stride)
        patches = patches.transpose(0, 1).flatten(1)
        patches = patches - patches.mean(1, keepdim=True)
        wanted = targets[:, group * per_out : (group + 1) * per_out].double()
        wanted = wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)
        close = {"rtol": 1e-3, "atol": 1e-3 * float(wanted.square().sum())}
        torch.testing.assert_close(sums.gram, patches @ patches.T, **close)
        torch.testing.assert_close(sums.energy, wanted.square().sum(dim=(0, 2, 3)), **close)
        for k, (dy, dx) in enumerate(candidate_offsets(1)):
            moved = shifted(wanted, -dy, -dx).transpose(0, 1).flatten(1)
            torch.testing.assert_close(sums.cross[k], moved @ patches.T, **close)


@pytest.mark.parametrize("name", KEEPING_THE_SIZE)
def test_sums_are_those_of_pictures_that_go_on_with_their_mean(name):
    layer, inputs = KEEPING_THE_SIZE[name], _inputs()
    around = surround(inputs, AROUND)
    targets = functional.conv2d(
        around, layer.weight, layer.bias, dilation=layer.dilation, groups=layer.groups
    )
    _check_sums(layer, _gathered(layer, inputs), around, targets.detach())


@pytest.mark.parametrize("name", OTHERS)
def test_sums_of_other_layers_are_those_of_their_own_positions(name):
    layer, inputs = OTHERS[name], _inputs()
    assert border(layer) is None
    mode = "reflect" if name == "reflecting" else "constant"
    margin = 0 if name == "unpadded" else 1
    padded = functional.pad(inputs, [margin] * 4, mode=mode)
    _check_sums(layer, _gathered(layer, inputs), padded, layer(inputs).detach())


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_the_predicted_error_is_the_measured_one_at_every_shift(affine):
    """On inputs whose mean is ten times their spread."""
    layer, inputs = nn.Conv2d(4, 6, 3, padding=1), _inputs(size=(30, 30))
    [sums] = _gathered(layer, inputs)
    sums.outside.zero_()
    kernel = ShiftKernel(sums, affine=affine)
    own = torch.zeros(6, 6, 9, dtype=torch.float64)
    own[range(6), range(6), 4] = 1
    predicted, gain = kernel.served_error(own, torch.arange(6))
    filters = kernel.filters(own).view(6, 4, 3, 3)
    around = surround(inputs, (2, 2)).double()
    outputs = functional.conv2d(around, filters)
    outputs = outputs - outputs.mean(dim=(0, 2, 3), keepdim=True)
    wanted = functional.conv2d(around, layer.weight.double())
    wanted = wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)
    means = torch.zeros(6) if affine else sums.mean
    for k, (dy, dx) in enumerate(candidate_offsets(1)):
        for channel in range(6):
            for source in range(6):
                made = gain[channel, source, k] * shifted(outputs[:, source], dy, dx)
                missed = (wanted[:, channel] - made).square().sum()
                missed += sums.count * (means[channel] - means[source]).square()
                assert predicted[channel, source, k].item() == pytest.approx(
                    missed.item(), rel=1e-2, abs=1e-3 * kernel.energy[channel].item()
                )


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_the_fits_error_is_that_of_the_ghost_layer(affine, scope):
    """Inside a larger picture, on inputs whose mean is ten times their spread."""
    layer, inputs = nn.Conv2d(4, 12, 3, padding=1), _inputs(size=(30, 30))
    [sums] = _gathered(layer, inputs)
    sums.outside.zero_()
    settings = GhostSettings(1, scope, affine)
    fit = fit_statistics(layer, [sums], 0.5, settings)
    ghost = build_ghost_layer(layer, fit, 0.5, settings)
    wanted, found = (run_surrounded(layer, 0, run, inputs) for run in (layer, ghost))
    inside = (..., slice(1, -1), slice(1, -1))
    missed = (found - wanted)[inside].double().square().sum()
    energy = wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)
    measured = missed / energy.double().square().sum()
    assert fit.relative_error == pytest.approx(measured.item(), rel=1e-2)


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_shifts_never_make_a_fit_worse(affine, scope):
    for seed in range(5):
        torch.manual_seed(seed)
        layer = nn.Conv2d(4, 12, 3, padding=1)
        inputs = _inputs(size=(20, 20)) + functional.avg_pool2d(torch.randn(3, 4, 22, 22), 3, 1)
        still, moved = (
            fit_statistics(
                layer, _gathered(layer, inputs, d), 0.5, GhostSettings(d, scope, affine)
            ).relative_error
            for d in (0, 1)
        )
        assert moved <= still * (1 + 1e-6)


def test_shifts_do_not_make_a_conversion_worse_where_inputs_have_a_large_mean():
    class Level(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 8, 3, padding=1)
            self.middle = nn.Conv2d(8, 16, 3, padding=1)
            self.exit = nn.Conv2d(16, 3, 3, padding=1)
            with torch.no_grad():
                self.entry.bias.fill_(10 * float(self.entry.weight.square().sum().sqrt() / 4))

        def forward(self, image):
            return self.exit(self.middle(self.entry(image)))

    dense = Level()
    images = torch.randn(6, 3, 24, 24)
    errors = [
        convert(dense, calibration=images, max_shift=d, polish_minutes=0, affine=affine)[1]
        .layers[0]
        .relative_error
        for affine in (False, True)
        for d in (1, 0)
    ]
    # What ghosts miss at the rim is reckoned with on the average only.
    assert errors[0] <= errors[1] * 1.01
    assert errors[2] <= errors[3] * 1.01


@pytest.mark.parametrize("layer", [*KEEPING_THE_SIZE.values(), OTHERS["strided"]])
def test_statistics_of_two_batches_add_up_to_those_of_both(layer):
    inputs = _inputs(6)
    # The mean that a picture goes on with is that of its batch.
    inputs[:2] -= inputs[:2].mean(dim=(0, 2, 3), keepdim=True)
    inputs[2:] -= inputs[2:].mean(dim=(0, 2, 3), keepdim=True)
    # Without the mean around it, what a moved map loses at the rim is not the same for both.
    max_shift = 1 if border(layer) else 0
    one, other = (
        _gathered(layer, inputs[part], max_shift)[0] for part in (slice(0, 2), slice(2, 6))
    )
    whole = _gathered(layer, inputs, max_shift)[0]
    added = one + other
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(added, field), getattr(whole, field), rtol=1e-4, atol=1e-3
        )
    assert added.count == whole.count


def test_means_that_differ_between_batches_are_part_of_the_sums_of_both():
    layer = nn.Conv2d(2, 3, 1)
    first, second = torch.randn(2, 2, 8, 8), 5 + torch.randn(1, 2, 8, 8)
    one, other = (_gathered(layer, maps, 0)[0] for maps in (first, second))
    whole = _gathered(layer, torch.cat([first, second]), 0)[0]
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(one + other, field), getattr(whole, field), rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("dy", [-2, 0, 1, 9])
def test_shifted_reads_at_an_offset_and_zero_outside(dy):
    maps = torch.randn(2, 5, 4)
    moved = shifted(maps, dy, -1)
    for y in range(5):
        for x in range(4):
            inside = 0 <= y + dy < 5 and 0 <= x - 1 < 4
            expected = maps[:, y + dy, x - 1] if inside else torch.zeros(2)
            assert torch.equal(moved[:, y, x], expected)
