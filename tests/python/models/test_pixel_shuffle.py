"""Upsamplers shuffle pixels in the convolution's own pass, and nobody can tell."""

import functools

import pytest
import torch
from ghostsr_ext.models import create_model
from ghostsr_ext.models.layers import PixelShuffleUpsampler
from ghostsr_ext.nn import FusedConv2d
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def _upsampler(scale=2, **arguments):
    torch.manual_seed(0)
    return PixelShuffleUpsampler(16, scale, **arguments).requires_grad_(False)


def _features():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 16, 12, 13, generator=generator).to(memory_format=torch.channels_last)


def _in_two_steps(upsampler, features):
    for conv, shuffle in zip(upsampler.convs, upsampler.shuffles, strict=True):
        features = shuffle(conv(features))
    return features


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_values_are_those_of_two_steps(scale, groups, activation):
    upsampler, features = _upsampler(scale, groups=groups, activation=activation), _features()

    with torch.inference_mode(), Operators() as operators:
        actual = upsampler(features)

    assert "pixel_shuffle" not in operators.names
    torch.testing.assert_close(actual, _in_two_steps(upsampler, features))


def _direct_edsr(scale):
    arguments = {"blocks": 1, "features": 8, "tail": "direct", "value_range": 1.0}
    return create_model("edsr", scale=scale, **arguments)


def _compact(scale):
    return create_model("realesr_animevideov3", scale=scale, layers=1, features=8)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 3, 1, 5), (0, 3, 4, 4)])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("network", [_direct_edsr, _compact])
def test_networks_that_end_in_a_shuffle_give_what_they_give_while_gradients_are_recorded(
    network, scale, shape, layout
):
    torch.manual_seed(0)
    model = network(scale).eval()
    picture = torch.rand(shape).to(memory_format=layout)
    before = picture.clone()

    with torch.no_grad(), Operators() as operators:
        actual = model(picture)

    assert not {"pixel_shuffle", "upsample_nearest2d"} & operators.names
    torch.testing.assert_close(actual, model(picture))
    assert torch.equal(picture, before)


@pytest.mark.parametrize("watched", ["last", "shuffle", "enlarge"])
def test_who_watches_the_end_of_a_compact_network_sees_its_maps(watched):
    model, picture, seen = _compact(4).eval(), torch.rand(1, 3, 8, 9), []
    expected = model.get_submodule("enlarge")(picture)
    model.get_submodule(watched).register_forward_hook(
        lambda _, inputs, output: seen.append(output.clone())
    )

    with torch.no_grad():
        output = model(picture)

    shapes = {"last": (1, 48, 8, 9), "shuffle": (1, 3, 32, 36), "enlarge": (1, 3, 32, 36)}
    assert [map.shape for map in seen] == [shapes[watched]]
    if watched == "shuffle":
        torch.testing.assert_close(seen[0] + expected, output)


def test_gradients_are_recorded_through_the_one_pass():
    upsampler, features = _upsampler().requires_grad_(True), _features()
    expected = _in_two_steps(upsampler, features)
    gradient = torch.randn_like(expected)
    parameters = list(upsampler.parameters())

    with Operators() as operators:
        actual = upsampler(features)

    assert "pixel_shuffle" not in operators.names
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, parameters, gradient),
        torch.autograd.grad(expected, parameters, gradient),
    )


@pytest.mark.parametrize("watched", ["convs.0", "shuffles.0"])
def test_who_watches_a_step_sees_its_maps(watched):
    upsampler, seen = _upsampler(), []
    upsampler.get_submodule(watched).register_forward_hook(
        lambda _, inputs, output: seen.append((tuple(inputs[0].shape), tuple(output.shape)))
    )

    with torch.no_grad():
        upsampler(_features())

    shapes = [(1, 16, 12, 13), (1, 64, 12, 13), (1, 16, 24, 26)]
    assert seen == [tuple(shapes[:2] if watched == "convs.0" else shapes[1:])]


def test_a_layer_that_cannot_shuffle_is_shuffled_by_torch():
    class Doubling(FusedConv2d):
        def forward(self, input, residual=None):
            return 2 * super().forward(input, residual)

    upsampler, features = _upsampler(), _features()
    expected = 2 * upsampler(features)
    conv = Doubling(16, 64, 3, padding=1)
    conv.load_state_dict(upsampler.convs[0].state_dict())
    upsampler.convs[0] = conv

    with torch.no_grad():
        torch.testing.assert_close(upsampler(features), expected)
        upsampler.convs[0] = nn.Conv2d(16, 64, 3, padding=1)
        assert upsampler(features).shape == (1, 16, 24, 26)


def test_a_hook_of_all_modules_sees_what_the_convolution_gives():
    upsampler, features = _upsampler(), _features()
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _, output: seen.append((type(module), output.shape[1]))
    )
    try:
        with torch.inference_mode():
            upsampler(features)
    finally:
        handle.remove()

    assert (FusedConv2d, 64) in seen
    assert (nn.PixelShuffle, 16) in seen


def test_a_wrapper_around_a_forward_sees_what_the_convolution_gives():
    upsampler, features = _upsampler(), _features()
    conv = upsampler.convs[0]
    seen = []
    forward = conv.forward

    @functools.wraps(forward)
    def watched(*args, **kwargs):
        output = forward(*args, **kwargs)
        seen.append(output.shape[1])
        return output

    conv.forward = watched
    with torch.inference_mode():
        upsampler(features)

    assert seen == [64]
