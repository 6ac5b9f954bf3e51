"""Maps stacked step by step are what their concatenation is."""

import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.models import CARN, RDN, layers
from ghostsr_ext.models.layers import ChannelStack
from ghostsr_ext.nn import FusedConv2d
from torch import nn


def _maps():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, 5, 6, generator=generator) for channels in (4, 3, 5)]


def _stacked(reader):
    first, *others = _maps()
    stack = ChannelStack(first, reader)
    seen = [stack.joined]
    for features in others:
        stack.append(features)
        seen.append(stack.joined)
    return seen


@pytest.mark.parametrize(
    "reader", [FusedConv2d(12, 4, 1), nn.Conv2d(12, 4, 1)], ids=["fused", "plain"]
)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_every_step_holds_the_concatenation_so_far(reader, mode):
    with mode():
        seen = _stacked(reader)

    maps = _maps()
    for count, joined in enumerate(seen, start=1):
        assert torch.equal(joined, torch.cat(maps[:count], dim=1))


@pytest.mark.parametrize(
    ("reader", "shared"),
    [(FusedConv2d(12, 4, 1), True), (nn.Conv2d(12, 4, 1), False)],
    ids=["fused", "plain"],
)
def test_only_layers_that_read_slices_share_one_map(reader, shared):
    with torch.no_grad():
        seen = _stacked(reader)

    assert (len({joined.data_ptr() for joined in seen}) == 1) == shared


def test_maps_share_one_map_while_gradients_are_recorded_and_get_the_gradients_of_their_parts():
    maps = [features.to(memory_format=torch.channels_last).requires_grad_() for features in _maps()]
    twins = [features.detach().clone().requires_grad_() for features in maps]
    readers = [nn.Conv2d(channels, 2, 1) for channels in (4, 7, 12)]
    stack = ChannelStack(maps[0], FusedConv2d(12, 4, 1))
    seen = [stack.joined]
    for features in maps[1:]:
        stack.append(features)
        seen.append(stack.joined)
    assert len({joined.data_ptr() for joined in seen}) == 1

    sum(
        reader(joined).square().sum() for reader, joined in zip(readers, seen, strict=True)
    ).backward()

    sum(
        reader(torch.cat(twins[:count], dim=1)).square().sum()
        for count, reader in enumerate(readers, start=1)
    ).backward()
    for features, twin in zip(maps, twins, strict=True):
        torch.testing.assert_close(features.grad, twin.grad, rtol=1e-4, atol=1e-5)


def test_the_maps_given_stay_as_they_are():
    first, second, _ = _maps()
    with torch.no_grad():
        stack = ChannelStack(first, FusedConv2d(12, 4, 1))
        stack.append(second)

    assert torch.equal(first, _maps()[0])
    assert stack.joined.data_ptr() != first.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "network",
    [
        CARN(scale=2, features=16, groups=2, recursive=True),
        CARN(scale=2, features=16),
        RDN(scale=2, blocks=2, layers=3, growth=8, features=16),
    ],
    ids=["carn_m", "carn", "rdn"],
)
def test_networks_compute_the_same_with_and_without_gradients(network, dtype):
    network = network.to(dtype).eval()
    image = torch.rand(2, 3, 9, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
    expected = network(image).detach()

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)


def _layer(kind):
    torch.manual_seed(0)
    if kind == "plain":
        return nn.Conv2d(4, 8, 3, padding=1)
    return FusedConv2d(4, 8, 3, padding=1, activation="relu")


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["fused", "plain"])
def test_a_layer_may_make_the_next_map_of_all_so_far(kind, mode):
    first = _maps()[0]
    layer = _layer(kind)
    with mode():
        stack = ChannelStack(first, FusedConv2d(12, 4, 1))
        stack.append_output(layer)

        expected = torch.cat([first, layer(first)], dim=1)
    torch.testing.assert_close(stack.joined, expected)


def test_a_layer_of_the_package_writes_straight_into_the_shared_map(monkeypatch):
    layer = _layer("fused")
    places = []
    forward = FusedConv2d.forward
    monkeypatch.setattr(
        FusedConv2d,
        "forward",
        lambda self, input, *, out: places.append(out) or forward(self, input, out=out),
    )
    with torch.no_grad():
        stack = ChannelStack(_maps()[0], FusedConv2d(12, 4, 1))
        stack.append_output(layer)

    assert places[0].data_ptr() == stack.joined[:, 4:].data_ptr()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("groups", [1, 4], ids=["carn", "carn_m"])
def test_the_units_of_a_cascade_write_straight_into_the_shared_map(groups, mode):
    network = CARN(scale=2, features=16, groups=groups, recursive=groups > 1).eval()
    network.to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, 24, 20)
    network(image)
    with mode(), torch.profiler.profile(record_shapes=True) as profiler:
        network(image)
    copied = [event.input_shapes[0] for event in profiler.events() if event.name == "aten::copy_"]
    # The first map of each of four cascades, and one that is shuffled.
    assert copied.count([1, 16, 24, 20]) <= 5


class Silent(FusedConv2d):
    """Knows no ``out``."""

    def forward(self, input, residual=None):
        return super().forward(input, residual)


def test_a_unit_whose_last_layer_was_replaced_is_copied_into_the_shared_map():
    network = CARN(scale=2, features=16).eval()
    image = torch.rand(1, 3, 24, 20)
    block = network.cascade.units[0].units[1]
    block.conv2 = Silent(16, 16, 3, padding=1, activation="relu")
    expected = network(image).detach()
    with torch.no_grad():
        torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)


class Foreign(nn.Module):
    def forward(self, features, out=None):
        return features[:, :3] if out is None else pytest.fail("another meaning of out")


def test_a_unit_that_tells_no_channels_is_copied_into_the_shared_map():
    with torch.no_grad():
        stack = ChannelStack(_maps()[0], FusedConv2d(12, 4, 1))
        stack.append_output(Foreign())

    assert torch.equal(stack.joined[:, 4:], _maps()[0][:, :3])


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_what_a_hook_puts_in_the_place_of_an_output_counts(mode):
    layer = _layer("fused").to(memory_format=torch.channels_last)
    layer.register_forward_hook(lambda module, args, output: torch.ones_like(output))
    with mode():
        stack = ChannelStack(_maps()[0], FusedConv2d(12, 4, 1))
        stack.append_output(layer)

    assert bool((stack.joined[:, 4:] == 1).all())


def test_gradients_outlast_what_a_hook_puts_in_the_place_of_an_output(monkeypatch):
    features = _maps()[0].to(memory_format=torch.channels_last)
    layer = FusedConv2d(4, 8, 3, padding=1, activation="relu")
    layer.register_forward_hook(lambda module, args, output: output - 0.2)
    gradients = []
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(layers, "_may_be_written", lambda features: False)
        layer.zero_grad()
        stack = ChannelStack(features, FusedConv2d(12, 4, 1))
        stack.append_output(layer)
        stack.joined.square().sum().backward()
        gradients.append(layer.weight.grad.clone())

    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("groups", [1, 4], ids=["carn", "carn_m"])
@pytest.mark.parametrize("converted", [False, True])
def test_the_gradients_of_a_cascade_in_a_shared_map_are_those_of_concatenations(
    groups, converted, monkeypatch
):
    torch.manual_seed(0)
    network = CARN(scale=2, features=16, groups=groups).double()
    if converted:
        network, _ = convert(network, method="kmeans")
    image = torch.rand(2, 3, 9, 7, dtype=torch.float64)
    gradients = []
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(layers, "_may_be_written", lambda features: False)
        network.zero_grad()
        network(image).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for shared, apart in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, apart)


def test_gradients_reach_every_map():
    maps = [features.requires_grad_() for features in _maps()]
    stack = ChannelStack(maps[0], FusedConv2d(12, 4, 1))
    for features in maps[1:]:
        stack.append(features)

    stack.joined.sum().backward()

    for features in maps:
        assert torch.equal(features.grad, torch.ones_like(features))


@pytest.mark.parametrize("model", [RDN, CARN])
def test_forward_derivatives_need_no_gradient_mode(model):
    torch.manual_seed(0)
    size = {"blocks": 2, "layers": 2, "growth": 4} if model is RDN else {}
    network = model(scale=2, features=8, **size).eval().requires_grad_(False)
    image, tangent = torch.rand(2, 1, 3, 6, 6)

    recorded = torch.func.jvp(network, (image,), (tangent,))
    with torch.no_grad():
        found = torch.func.jvp(network, (image,), (tangent,))

    for ours, theirs in zip(found, recorded, strict=True):
        torch.testing.assert_close(ours, theirs)
