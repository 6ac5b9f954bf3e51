"""A layer may write into a map that there is, such as some channels of a wider one."""

import pytest
import torch
from ghostsr_ext import ops
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from ghostsr_ext.ops.given_maps import OfferedMap

CHANNELS = 24


def _layer(layer_type, kernel_size, **arguments):
    torch.manual_seed(0)
    layer = layer_type(16, CHANNELS, kernel_size, padding=kernel_size // 2, **arguments).eval()
    return layer.requires_grad_(False)


def _map(layout, *size):
    values = torch.randn(*size, generator=torch.Generator().manual_seed(1))
    return values.to(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("room_layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("path", ["auto", "aten"])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("layer_type", [FusedConv2d, GhostConv2d])
def test_the_result_goes_into_a_wider_map(layer_type, kernel_size, path, layout, room_layout):
    layer = _layer(layer_type, kernel_size, activation="leaky_relu", negative_slope=0.2)
    input = _map(layout, 2, 16, 22, 19)
    residual = _map(layout, 2, CHANNELS, 22, 19)
    wide = torch.full((2, 40, 22, 19), 7.0).to(memory_format=room_layout)
    room = wide[:, 9 : 9 + CHANNELS]

    with torch.no_grad(), ops.convolution_path(path):
        expected = layer(input, residual)
        returned = layer(input, residual, out=room)

    assert returned is room
    assert torch.equal(room, expected)
    assert bool((wide[:, :9] == 7).all())
    assert bool((wide[:, 9 + CHANNELS :] == 7).all())


def test_the_input_may_be_other_channels_of_the_same_map():
    layer = _layer(FusedConv2d, 3, activation="relu")
    wide = _map(torch.channels_last, 1, 16 + CHANNELS, 12, 12)
    expected = layer(wide[:, :16].clone(memory_format=torch.channels_last))

    with torch.inference_mode():
        layer(wide[:, :16], out=wide[:, 16:])

    assert torch.equal(wide[:, 16:], expected)


def test_one_map_without_a_batch():
    layer = _layer(GhostConv2d, 3)
    input = torch.randn(16, 9, 8, generator=torch.Generator().manual_seed(1))
    room = torch.empty(CHANNELS, 9, 8)

    with torch.no_grad():
        returned = layer(input, out=room)

        assert returned is room
        assert torch.equal(room, layer(input))


def test_shifts_that_are_still_learned():
    layer = _layer(GhostConv2d, 3)
    layer.learn_shifts()
    room = torch.empty(1, CHANNELS, 9, 8)
    input = _map(torch.channels_last, 1, 16, 9, 8)

    with torch.no_grad():
        layer(input, out=room)

        assert torch.equal(room, layer(input))


@pytest.mark.parametrize(
    "room",
    [torch.empty(1, CHANNELS + 1, 8, 8), torch.empty(1, CHANNELS, 8, 8, dtype=torch.float64)],
    ids=["shape", "dtype"],
)
def test_a_map_that_does_not_fit_is_refused(room):
    layer = _layer(FusedConv2d, 3)
    with torch.no_grad(), pytest.raises(RuntimeError, match="out: found"):
        layer(torch.zeros(1, 16, 8, 8), out=room)


def test_it_is_refused_where_gradients_are_recorded():
    layer = _layer(FusedConv2d, 3)
    with pytest.raises(RuntimeError, match="out: found a tensor where gradients"):
        layer(torch.zeros(1, 16, 8, 8), out=torch.empty(1, CHANNELS, 8, 8))


@pytest.mark.parametrize("layer_type", [FusedConv2d, GhostConv2d])
def test_a_map_that_the_layer_reads_may_be_the_one_it_writes(layer_type):
    torch.manual_seed(0)
    layer = layer_type(16, 16, 3, padding=1).eval().requires_grad_(False)
    # Large enough for the writing to overtake the reading.
    image = _map(torch.channels_last, 1, 16, 200, 200)
    expected = layer(image)

    with torch.no_grad():
        layer(image, out=image)

    assert torch.equal(image, expected)


def test_a_residual_may_be_the_map_that_is_written():
    layer = _layer(FusedConv2d, 3)
    image = _map(torch.channels_last, 1, 16, 40, 40)
    sums = _map(torch.channels_last, 1, CHANNELS, 40, 40)
    expected = layer(image, sums)

    with torch.no_grad():
        layer(image, sums, out=sums)

    assert torch.equal(sums, expected)


def test_a_residual_of_overlapping_rows_is_read_before_they_are_written():
    layer = _layer(FusedConv2d, 3)
    image = _map(torch.channels_last, 1, 16, 40, 40)
    tall = _map(torch.channels_last, 1, CHANNELS, 41, 40)
    residual, room = tall[:, :, :40], tall[:, :, 1:]
    expected = layer(image, residual.clone(memory_format=torch.channels_last))

    with torch.no_grad():
        layer(image, residual, out=room)

    assert torch.equal(room, expected)


@pytest.mark.parametrize("learned", [False, True])
def test_elements_that_share_their_place_are_refused(learned):
    layer = _layer(GhostConv2d, 3)
    if learned:
        layer.learn_shifts()
    room = torch.empty(1, CHANNELS, 1, 1).expand(1, CHANNELS, 8, 8)
    with torch.no_grad(), pytest.raises(RuntimeError, match="out: found strides"):
        layer(torch.zeros(1, 16, 8, 8), out=room)


@pytest.mark.parametrize(
    "room",
    [torch.empty(4, CHANNELS, 8, 8), torch.empty(1, CHANNELS, 8, 8, dtype=torch.int8)],
    ids=["shape", "dtype"],
)
def test_a_map_that_does_not_fit_learned_shifts_is_refused(room):
    layer = _layer(GhostConv2d, 3)
    layer.learn_shifts()
    with torch.no_grad(), pytest.raises(RuntimeError, match="out: found"):
        layer(torch.zeros(1, 16, 8, 8), out=room)


def test_learned_shifts_refuse_it_where_gradients_are_recorded():
    layer = GhostConv2d(16, CHANNELS, 3, padding=1)
    with pytest.raises(RuntimeError, match="out: found a tensor where gradients"):
        layer(torch.zeros(1, 16, 8, 8), out=torch.empty(1, CHANNELS, 8, 8))


def test_a_gradient_that_needs_the_values_before_notices():
    layer = _layer(FusedConv2d, 3)
    # Contiguous maps are filled by torch's copy, which tells autograd itself.
    factor = torch.ones(1, CHANNELS, 20, 20).to(memory_format=torch.channels_last)
    weight = torch.ones(1, CHANNELS, 20, 20, requires_grad=True)
    total = (weight * factor).sum()

    with torch.no_grad():
        layer(_map(torch.channels_last, 1, 16, 20, 20), out=factor)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def _recording(layer_type, **arguments):
    layer = _layer(layer_type, 3, **arguments).requires_grad_(True)
    if layer_type is GhostConv2d:
        layer.freeze_shifts()
    return layer.to(memory_format=torch.channels_last)


def _offered_and_new(layer, offered, input, residual):
    """The result in a map that is offered and in a new one, and the gradients of both."""
    found = []
    for out in (offered, None):
        layer.zero_grad()
        output = layer(input, residual, out=out)
        output.square().sum().backward()
        found.append((output, [parameter.grad.clone() for parameter in layer.parameters()]))
    return found


@pytest.mark.parametrize("residual", [None, _map(torch.channels_last, 2, CHANNELS, 22, 19)])
@pytest.mark.parametrize("layer_type", [FusedConv2d, GhostConv2d])
def test_a_map_that_is_offered_is_filled_while_gradients_are_recorded(layer_type, residual):
    layer = _recording(layer_type, activation="relu")
    wide = torch.full((2, 40, 22, 19), 7.0).to(memory_format=torch.channels_last)
    offered = OfferedMap(wide[:, 9 : 9 + CHANNELS])
    input = _map(torch.channels_last, 2, 16, 22, 19)

    (filled, gradients), (new, expected) = _offered_and_new(layer, offered, input, residual)

    assert offered.has(filled)
    assert not offered.has(new)
    assert torch.equal(filled, new)
    assert all(torch.equal(*pair) for pair in zip(gradients, expected, strict=True))
    assert bool((wide[:, :9] == 7).all())
    assert bool((wide[:, 9 + CHANNELS :] == 7).all())


@pytest.mark.parametrize(
    "layer",
    [
        _recording(GhostConv2d, affine=True),
        _recording(FusedConv2d, activation="prelu"),
        GhostConv2d(16, CHANNELS, 3, padding=1).eval(),
    ],
    ids=["gains", "prelu", "learned"],
)
def test_a_map_is_offered_in_vain_where_gradients_need_more_than_the_output(layer):
    offered = OfferedMap(torch.full((2, CHANNELS, 22, 19), 7.0))
    input = _map(torch.channels_last, 2, 16, 22, 19)

    (output, gradients), (new, expected) = _offered_and_new(layer, offered, input, None)

    assert torch.equal(output, new)
    assert all(torch.equal(*pair) for pair in zip(gradients, expected, strict=True))
    assert bool((offered.map == 7).all())


def test_a_map_that_is_offered_is_filled_once():
    layer = _recording(FusedConv2d, activation="relu")
    offered = OfferedMap(torch.empty(2, CHANNELS, 22, 19).to(memory_format=torch.channels_last))
    input = _map(torch.channels_last, 2, 16, 22, 19)

    first = layer(input, out=offered)
    again = layer(-input, out=offered)

    assert offered.has(first)
    assert not offered.has(again)
    assert torch.equal(first, layer(input))
