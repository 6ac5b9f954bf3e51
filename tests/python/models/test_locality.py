"""How far a network looks is found, whatever it is made of."""

import pytest
import torch
from ghostsr_ext.models import SRModel, create_model
from ghostsr_ext.models.locality import locality
from ghostsr_ext.nn import GhostConv2d
from torch import nn
from torch.nn import functional


class Any(SRModel):
    """A network of the layers that a test gives it, which enlarges by repetition."""

    def __init__(self, *layers, **declared):
        super().__init__(config={}, scales=(2,), value_range=1.0, **declared)
        torch.manual_seed(0)
        self.body = nn.Sequential(*layers)

    def upscale(self, image, scale):
        return functional.interpolate(self.body(image), scale_factor=scale)


def conv(size=3, channels=3, **arguments):
    return nn.Conv2d(channels, channels, size, padding="same", **arguments)


class ChannelAttention(nn.Module):
    def forward(self, maps):
        return maps * maps.mean(dim=(2, 3), keepdim=True).sigmoid()


class ChannelShuffle(nn.Module):
    def forward(self, maps):
        batch, _, rows, columns = maps.shape
        return maps.reshape(batch, 1, 3, rows, columns).transpose(1, 2).reshape(maps.shape)


class Shifted(nn.Module):
    def forward(self, maps):
        return maps.roll(5, dims=2)


class Attention(nn.Module):
    def forward(self, maps):
        tokens = maps.flatten(2).transpose(1, 2)
        weights = (tokens @ tokens.transpose(1, 2)).softmax(dim=-1)
        return (weights @ tokens).transpose(1, 2).reshape(maps.shape)


@pytest.mark.parametrize(
    ("layers", "radius"),
    [
        ([conv(), nn.ReLU(), conv()], 2),
        ([conv(5)], 2),
        ([conv(dilation=3)], 3),
        ([GhostConv2d(3, 4, 3, padding=1, max_shift=2), nn.Conv2d(4, 3, 1)], 3),
        ([conv(1), nn.PReLU()], 0),
        ([ChannelShuffle(), conv()], 1),
        (
            [nn.Conv2d(3, 3, 2, stride=2), conv(), nn.PixelShuffle(1), nn.Upsample(scale_factor=2)],
            3,
        ),
    ],
)
def test_convolutions_look_as_far_as_their_filters_reach(layers, radius):
    found = locality(Any(*layers).eval())
    assert found.operators == ()
    assert found.radius == radius


@pytest.mark.parametrize(
    ("layer", "operator"),
    [
        (ChannelAttention(), "mean"),
        (nn.InstanceNorm2d(3), "view"),
        (nn.GroupNorm(1, 3), "native_group_norm"),
        (Shifted(), "roll"),
        (Attention(), "_softmax"),
    ],
)
def test_what_looks_at_the_whole_map_is_named(layer, operator):
    found = locality(Any(conv(), layer).eval())
    assert operator in found.operators


def test_the_grid_is_that_of_the_coarsest_map():
    down = nn.Conv2d(3, 3, 2, stride=2)
    network = Any(down, nn.Conv2d(3, 3, 3, stride=3, padding=1), nn.Upsample(scale_factor=6))
    network.multiple = 6
    assert locality(network.eval()).grid == 6


def test_the_packages_own_networks_look_as_far_as_they_say():
    network = create_model("edsr_baseline", scale=2, blocks=2, features=8)
    found = locality(network)
    assert (found.radius, found.operators, found.grid) == (network.receptive_field, (), 1)


def test_training_mode_is_kept():
    network = Any(conv(), nn.Dropout(0.5)).train()
    locality(network)
    assert network.training
    assert network.body[1].training
