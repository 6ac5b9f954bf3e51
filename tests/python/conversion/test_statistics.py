import pytest
import torch
from ghostsr_ext.conversion import statistics
from ghostsr_ext.conversion.statistics import border, gather_statistics, shifted
from ghostsr_ext.reference import candidate_shifts
from torch import nn
from torch.nn import functional

FIELDS = ("gram", "patch_sum", "cross", "energy", "mean")


def _enlarged(layer, size=(9, 11), count=3):
    rows, columns = border(layer)
    inputs = torch.randn(count, layer.in_channels, *size)
    return functional.pad(inputs, [columns, columns, rows, rows])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 1),
        nn.Conv2d(4, 6, (3, 5), padding=(1, 2)),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
    ],
    ids=["3x3", "1x1", "3x5", "dilated", "grouped"],
)
def test_correlating_whole_maps_gives_the_sums_over_patches(layer, monkeypatch):
    inputs = _enlarged(layer)
    targets = layer(inputs).detach()
    by_lags = gather_statistics(layer, inputs, targets, 1)
    monkeypatch.setattr(statistics, "border", lambda _: None)
    by_patches = gather_statistics(layer, inputs, targets, 1)
    for one, other in zip(by_lags, by_patches, strict=True):
        # At the rim a target that is moved back leaves the map in one sum and not in the other.
        for field in set(FIELDS) - {"cross"}:
            torch.testing.assert_close(
                getattr(one, field), getattr(other, field), rtol=1e-4, atol=1e-3
            )
        middle = one.cross.shape[0] // 2
        torch.testing.assert_close(one.cross[middle], other.cross[middle], rtol=1e-4, atol=1e-3)


def test_cross_sums_are_those_of_targets_moved_back():
    layer = nn.Conv2d(2, 3, 3, padding=1)
    inputs = functional.pad(torch.randn(1, 2, 6, 6), [3, 3, 3, 3])
    targets = torch.zeros(1, 3, 12, 12)
    targets[:, :, 4:8, 4:8] = torch.randn(1, 3, 4, 4)
    [found] = gather_statistics(layer, inputs, targets, 1)
    centred = (targets - targets.mean(dim=(0, 2, 3), keepdim=True)).double()
    patches = functional.unfold(inputs.double(), 3, padding=1)[0]
    for k, (dy, dx) in enumerate(candidate_shifts(9, torch.device("cpu")).tolist()):
        expected = shifted(centred, -dy, -dx)[0].flatten(1) @ patches.T
        torch.testing.assert_close(found.cross[k], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_statistics_of_two_batches_add_up_to_those_of_both(stride):
    layer = nn.Conv2d(3, 4, 3, stride=stride, padding=1, padding_mode="reflect")
    inputs = torch.randn(6, 3, 12, 12)
    # Zero at the rim, so that no moved target leaves the map.
    targets = layer(inputs).detach()
    parts = [
        gather_statistics(layer, inputs[part], targets[part], 0)[0]
        for part in (slice(0, 2), slice(2, 6))
    ]
    [whole] = gather_statistics(layer, inputs, targets, 0)
    added = parts[0] + parts[1]
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(added, field), getattr(whole, field), rtol=1e-4, atol=1e-3
        )
    assert added.count == whole.count


@pytest.mark.parametrize("dy", [-2, 0, 1, 9])
def test_shifted_reads_at_an_offset_and_zero_outside(dy):
    maps = torch.randn(2, 5, 4)
    moved = shifted(maps, dy, -1)
    for y in range(5):
        for x in range(4):
            inside = 0 <= y + dy < 5 and 0 <= x - 1 < 4
            expected = maps[:, y + dy, x - 1] if inside else torch.zeros(2)
            assert torch.equal(moved[:, y, x], expected)
