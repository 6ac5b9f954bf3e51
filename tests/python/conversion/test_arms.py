"""The conversions that GhostSR is compared with: pruning and depthwise ghosts."""

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import CARN, EDSR, RDN, VDSR, SRVGGNetCompact
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.profiling import cost
from torch import nn

NETWORKS = {
    "edsr": lambda: EDSR(blocks=2, features=16, residual_scale=1.0),
    "carn_m": lambda: CARN(scale=2, features=16, groups=2, recursive=True),
    "vdsr": lambda: VDSR(scale=2, layers=6, features=16),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_pruning_comes_down_to_the_multiply_adds_of_the_ghost_network(name):
    dense = NETWORKS[name]()
    ghost, _ = convert(dense, 0.5)
    pruned, report = convert(dense, 0.5, method="prune")
    assert cost(pruned).macs == report.macs_after
    assert 0.8 * cost(ghost).macs < cost(pruned).macs <= cost(ghost).macs


def test_filters_with_the_least_norm_are_removed():
    dense = NETWORKS["edsr"]()
    pruned, report = convert(dense, 0.5, method="prune")
    norms = dense.body[0].conv1.weight.abs().flatten(1).sum(1)
    assert report.layers[0].intrinsic == sorted(norms.topk(8).indices.tolist())
    kept = report.layers[0].intrinsic
    assert torch.equal(pruned.body[0].conv1.weight, dense.body[0].conv1.weight[kept])
    assert torch.equal(pruned.body[0].conv2.weight, dense.body[0].conv2.weight[:, kept])


def test_removing_dead_filters_changes_nothing():
    dense = NETWORKS["edsr"]()
    with torch.no_grad():
        for block in dense.body:
            block.conv1.weight[::2] = 0
            block.conv1.bias[::2] = 0
    pruned, _ = convert(dense, 0.5, method="prune")
    image = torch.rand(1, 3, 12, 12) * 255
    torch.testing.assert_close(pruned(image), dense(image))


def test_the_following_layer_is_refitted_on_pictures():
    dense = NETWORKS["edsr"]().requires_grad_(False)
    images = torch.rand(4, 3, 16, 16) * 255
    plain, _ = convert(dense, 0.5, method="prune")
    refitted, _ = convert(dense, 0.5, method="prune", calibration=images)
    error = [(model(images) - dense(images)).square().mean() for model in (plain, refitted)]
    assert error[1] < error[0]


def test_groups_lose_as_many_channels_each():
    pruned, _ = convert(NETWORKS["carn_m"](), 0.5, method="prune")
    unit = pruned.cascade.units[0].units[0]
    assert unit.conv1.out_channels % 2 == 0
    assert unit.conv1.out_channels < 16
    assert unit.conv1.weight.shape == (unit.conv1.out_channels, 8, 3, 3)


def test_outputs_that_others_read_too_are_not_pruned():
    with pytest.raises(InputError, match="no layer's output is read by the following"):
        convert(RDN(blocks=1, layers=2, growth=8, features=8), 0.5, method="prune")


def test_outputs_that_a_skip_reads_are_not_pruned():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(2, 8, 3, padding=1)
            self.first = nn.Conv2d(8, 8, 3, padding=1)
            self.second = nn.Conv2d(8, 8, 3, padding=1)
            self.exit = nn.Conv2d(8, 2, 3, padding=1)

        def forward(self, image):
            features = self.first(self.entry(image))
            return self.exit(torch.relu(self.second(features)) + features)

    with pytest.raises(InputError, match="no layer's output"):
        convert(Skip(), 0.25, method="prune")


def test_sums_that_only_one_convolution_reads_are_not_pruned():
    pruned, _ = convert(NETWORKS["edsr"](), 0.5, method="prune")
    assert pruned.body[-1].conv2.out_channels == 16


def test_depthwise_ghosts_start_as_shifts():
    layer = GhostConv2d(4, 10, 3, padding=1, groups=2, affine=True, activation="relu")
    with torch.no_grad():
        layer.gain.normal_()
        layer.ghost_bias.normal_()
    layer.set_tables(
        torch.tensor([0, 2, 1, 4]),
        torch.tensor([[0, 1], [-1, 0], [1, 1], [0, 0]]),
        torch.randperm(10),
    )
    layer.freeze_shifts()
    depthwise = DepthwiseGhostConv2d.from_shifts(layer)
    image, residual = torch.randn(2, 4, 7, 6), torch.randn(2, 10, 7, 6)
    torch.testing.assert_close(depthwise(image, residual), layer(image, residual))


def test_depthwise_ghosts_cost_no_more_than_shifted_ones():
    dense = NETWORKS["edsr"]()
    ghost, _ = convert(dense, 0.5, method="filters")
    depthwise, report = convert(dense, 0.5, method="filters", ghost_op="depthwise")
    assert isinstance(depthwise.body[0].conv1, DepthwiseGhostConv2d)
    assert cost(depthwise).macs == report.macs_after
    assert 0.9 * cost(ghost).macs < cost(depthwise).macs <= cost(ghost).macs


def test_a_polish_trains_depthwise_filters():
    dense = NETWORKS["edsr"]()
    images = torch.rand(8, 3, 12, 12) * 255
    converted, _ = convert(dense, 0.5, calibration=images, ghost_op="depthwise")
    taps = converted.body[0].conv1.cheap.weight.flatten(1)
    assert int((taps != 0).sum(1).min()) > 1


@pytest.fixture
def compact():
    model = SRVGGNetCompact(scale=2, layers=3, features=8)
    with torch.no_grad():
        for conv in model.convs:
            conv.prelu_weight.uniform_(-0.5, 1.5)
    return model


def test_slopes_of_each_channel_go_with_the_channels_that_are_kept(compact):
    pruned, report = convert(compact, 0.5, method="prune")
    kept = report.layers[0].intrinsic
    narrowed = pruned.get_submodule(report.layers[0].name)
    dense = compact.get_submodule(report.layers[0].name)
    assert torch.equal(narrowed.prelu_weight, dense.prelu_weight[kept])


def test_a_network_with_an_outer_entry_for_each_channel_is_not_pruned():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 3, 3, padding=1),
    )
    with pytest.raises(InputError, match="does not run with fewer channels"):
        convert(model, 0.5, method="prune", calibration=torch.rand(2, 3, 16, 16), layers=["1"])


def test_depthwise_ghosts_end_with_the_slopes_of_each_channel(compact):
    ghost, _ = convert(compact, 0.5, method="filters")
    layer = ghost.convs[1]
    features = torch.randn(1, 8, 6, 6)
    depthwise = DepthwiseGhostConv2d.from_shifts(layer)
    torch.testing.assert_close(depthwise(features), layer(features))


@pytest.mark.parametrize("arguments", [{"method": "prune"}, {"ghost_op": "depthwise"}])
def test_prelu_networks_of_both_save_and_load(compact, arguments, tmp_path):
    converted, _ = convert(compact, 0.5, **arguments)
    save_model(converted, tmp_path / "arm.safetensors")
    image = torch.rand(1, 3, 10, 10)
    loaded = load_model(tmp_path / "arm.safetensors")
    torch.testing.assert_close(loaded(image), converted.eval()(image))


@pytest.mark.parametrize("arguments", [{"method": "prune"}, {"ghost_op": "depthwise"}])
def test_both_save_and_load(arguments, tmp_path):
    converted, _ = convert(NETWORKS["edsr"](), 0.5, **arguments)
    save_model(converted, tmp_path / "arm.safetensors")
    image = torch.rand(1, 3, 10, 10) * 255
    torch.testing.assert_close(
        load_model(tmp_path / "arm.safetensors")(image), converted.eval()(image)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ghost_op": "rotate"}, "ghost_op: found 'rotate'; allowed are shift, depthwise"),
        ({"ghost_op": "depthwise", "method": "prune"}, "makes no ghosts"),
        ({"method": "prune", "affine": True}, "has no gains"),
        ({"method": "prune", "target_macs": 0.5}, "takes one ghost_ratio"),
        ({"method": "prune", "ghost_ratio": 0.99}, "do not save so many"),
    ],
)
def test_bad_combinations_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        convert(NETWORKS["edsr"](), **arguments)
