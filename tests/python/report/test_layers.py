import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.reference import move
from ghostsr_ext.report.layers import Ghost, compare_layers, ghost_maps

IMAGE = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 255


@pytest.fixture
def pair():
    dense = EDSR(scale=2, blocks=2, features=8).eval()
    ghost, _ = convert(dense)
    return dense, ghost


def test_every_ghost_layer_is_compared_in_the_networks_order(pair):
    comparisons, features = compare_layers(*pair, IMAGE, 2)

    names = [f"body.{i}.conv{j}" for i in range(2) for j in (1, 2)]
    assert [entry.name for entry in comparisons] == names
    assert {name: tuple(maps.shape) for name, maps in features.items()} == dict.fromkeys(
        names, (8, 20, 24)
    )


def test_channels_are_told_by_their_place_in_the_output(pair):
    dense, ghost = pair
    layer = ghost.body[0].conv1
    layer.set_tables(
        torch.tensor([0, 3, 3, 1]),
        torch.tensor([[0, 1], [-1, 0], [0, 0], [1, 1]]),
        torch.tensor([4, 0, 1, 5, 2, 6, 3, 7]),
    )

    (entry, *_), _ = compare_layers(dense, ghost, IMAGE, 2)

    assert entry.intrinsic == (1, 2, 4, 6)
    assert entry.ghosts == (
        Ghost(0, 1, (0, 1)),
        Ghost(3, 6, (-1, 0)),
        Ghost(5, 6, (0, 0)),
        Ghost(7, 2, (1, 1)),
    )
    assert entry.shifts == {(0, 1): 1, (-1, 0): 1, (0, 0): 1, (1, 1): 1}


def test_the_error_is_relative_to_the_variance_of_the_dense_network_at_the_same_place(pair):
    dense, ghost = pair

    (_, entry, *_), _ = compare_layers(dense, ghost, IMAGE, 2)

    with torch.inference_mode():
        image = IMAGE - dense.mean
        body = {}
        for network in pair:
            head = network.head(image)
            body[network] = network.body[0].conv2(network.body[0].conv1(head), head)
        error = body[ghost] - body[dense]
    variance = body[dense].var(unbiased=False)
    assert entry.relative_error == pytest.approx(float(error.square().mean() / variance), rel=1e-4)


def test_a_layer_that_equals_its_parent_has_no_error(pair):
    dense, ghost = pair
    layer = ghost.body[0].conv1
    layer.set_tables(layer.source * 0, layer.shift * 0)
    with torch.no_grad():
        dense.body[0].conv1.weight.copy_(layer.weight[[0, 1, 2, 3, 0, 0, 0, 0]])
        dense.body[0].conv1.bias.copy_(layer.bias[[0, 1, 2, 3, 0, 0, 0, 0]])

    comparisons, _ = compare_layers(dense, ghost, IMAGE, 2)

    assert comparisons[0].relative_error < 1e-9
    assert comparisons[1].relative_error > 1e-5


def test_networks_that_do_not_belong_together_are_refused(pair):
    dense, ghost = pair
    with pytest.raises(InputError, match="has no ghost layers"):
        compare_layers(ghost, dense, IMAGE, 2)
    with pytest.raises(InputError, match=r"parent: has no layer body\.0\.conv1 of 8 channels"):
        compare_layers(EDSR(scale=2, blocks=2, features=4), ghost, IMAGE, 2)


def test_maps_of_the_dense_network_are_those_of_its_convolutions(pair):
    dense, ghost = pair

    _, features = compare_layers(dense, ghost, IMAGE, 2)

    with torch.inference_mode():
        head = dense.head(IMAGE if dense.mean is None else IMAGE - dense.mean)
        layer = dense.body[0].conv1
        expected = torch.nn.functional.conv2d(head, layer.weight, layer.bias, padding=1)[0]
    assert layer.activation == "relu"
    torch.testing.assert_close(features["body.0.conv1"], expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", ["body.0.conv1", "body.1.conv2"])
def test_every_ghost_map_is_its_source_moved_by_its_shift(pair, name):
    dense, ghost = pair
    layer = dict(ghost.named_modules())[name]
    generator = torch.Generator().manual_seed(3)
    layer.set_tables(
        torch.tensor([2, 0, 3, 3]), torch.tensor([[0, 1], [-1, 0], [1, 1], [0, -1]])
    ).order.copy_(torch.randperm(8, generator=generator))
    comparison = next(c for c in compare_layers(dense, ghost, IMAGE, 2)[0] if c.name == name)

    maps = ghost_maps(ghost, name, IMAGE, 2)

    assert len(comparison.ghosts) == 4
    for entry in comparison.ghosts:
        moved = move(maps[None, entry.source : entry.source + 1], torch.tensor([entry.shift]))
        torch.testing.assert_close(maps[entry.channel], moved[0, 0])
        assert not torch.equal(maps[entry.channel], maps[entry.source])
    assert len({float(maps[channel].sum()) for channel in comparison.intrinsic}) == 4
