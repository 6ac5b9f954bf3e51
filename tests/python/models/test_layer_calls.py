from fractions import Fraction

import pytest
import torch
from ghostsr_ext.models.layer_calls import influence_radius, layer_calls, trace_calls
from torch import Tensor, nn


class Twice(nn.Module):
    """Uses one convolution at two sizes, and a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.offset = torch.ones(1, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.interpolate(self.conv(x - self.offset), scale_factor=3, mode="nearest")
        return self.conv(x)


@pytest.mark.parametrize("reduced", [False, True])
def test_every_call_is_listed_with_its_sizes(reduced: bool) -> None:
    model = Twice()
    calls = trace_calls(model, (1, 2, 5, 4), reduced=reduced)
    assert [(call.name, call.input_shape, call.output_shape) for call in calls] == [
        ("conv", (1, 2, 5, 4), (1, 2, 5, 4)),
        ("conv", (1, 2, 15, 12), (1, 2, 15, 12)),
    ]
    assert all(call.module is model.conv for call in calls)


@pytest.mark.parametrize("reduced", [False, True])
def test_the_network_is_left_as_it_is(reduced: bool) -> None:
    model = Twice().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace_calls(model, (1, 2, 5, 4), reduced=reduced)
    assert model.training
    assert not model.conv._forward_hooks
    assert model.offset.device.type == "cpu"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_sizes_beyond_all_memory_can_be_traced() -> None:
    side = 2**20
    calls = trace_calls(nn.Conv2d(3, 4096, 3, padding=1), (1, 3, side, side))
    assert calls[0].output_shape == (1, 4096, side, side)


class Chooses(nn.Module):
    """Calls the layer that a value in the picture asks for, as mixtures of experts do."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Conv2d(2, 2, size, padding=size // 2) for size in (1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.experts[int(x.mean() >= 0)](x)


def test_networks_that_read_values_are_followed() -> None:
    (call,) = layer_calls(Chooses(), (1, 2, 5, 4))
    assert (call.name, call.output_shape) == ("experts.1", (1, 2, 5, 4))


def test_radius_counts_a_convolution_in_pixels_of_the_input() -> None:
    assert influence_radius(Twice(), 2) == Fraction(4, 3)


def test_radius_counts_dilation_and_the_wider_side_of_a_kernel() -> None:
    conv = nn.Conv2d(1, 1, (3, 5), padding=(2, 4), dilation=2)
    assert influence_radius(conv, 1) == 4
