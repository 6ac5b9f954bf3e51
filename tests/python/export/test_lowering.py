import pytest
import torch
from exported_networks import ghost_network
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.export import lower
from ghostsr_ext.models import CARN, RDN, RRDBNet, SRVGGNetCompact
from ghostsr_ext.models.vdsr import VDSR
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, freeze_shifts
from torch.fx.experimental.proxy_tensor import make_fx


@pytest.mark.parametrize("ghost_as", ["depthwise", "slices"])
@pytest.mark.parametrize("max_shift", [0, 1, 3])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("size", [(9, 12), (1, 1), (2, 7)])
def test_a_ghost_network_computes_the_same(ghost_as, max_shift, affine, size):
    network = ghost_network(max_shift, affine).double()
    image = torch.rand(2, 3, *size, dtype=torch.float64) * 255

    lowered = lower(network, ghost_as=ghost_as).network.double()

    torch.testing.assert_close(lowered(image), network(image), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("ghost_as", ["depthwise", "slices"])
def test_shifts_that_are_still_learned_are_taken_as_evaluation_takes_them(ghost_as):
    network = CARN(scale=2, features=8)
    for block in network.cascade.units[0].units:
        block.conv1 = GhostConv2d(8, 8, 3, padding=1, activation="relu")
    network.eval()
    image = torch.rand(1, 3, 10, 11)

    torch.testing.assert_close(lower(network, ghost_as=ghost_as)(image), network(image))


@pytest.mark.parametrize("ghost_as", ["depthwise", "slices"])
def test_grouped_and_strided_and_reflecting_ghost_layers_compute_the_same(ghost_as):
    network = VDSR(layers=3, features=8)
    network.convs[1] = GhostConv2d(
        8, 8, (5, 3), padding=(2, 1), groups=2, padding_mode="reflect", ghost_ratio=0.5, max_shift=2
    )
    freeze_shifts(network.eval())
    image = torch.rand(1, 1, 12, 9)

    torch.testing.assert_close(lower(network, ghost_as=ghost_as)(image), network(image))


def test_a_layer_that_is_used_several_times_stays_one():
    network = CARN(scale=2, features=8, groups=4, recursive=True).eval()

    lowered = lower(network).network

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(lowered) == count(network)


@pytest.mark.parametrize("ghost_as", ["depthwise", "slices"])
def test_no_operator_of_the_package_is_left(ghost_as):
    lowered = lower(ghost_network(), ghost_as=ghost_as)

    assert not any(isinstance(m, FusedConv2d | GhostConv2d) for m in lowered.modules())
    graph = make_fx(lowered)(lowered.example(8, 9)).graph
    assert not any("ghostsr" in str(node.target) for node in graph.nodes)


def test_the_network_given_is_not_changed():
    network = ghost_network().train().half()

    lower(network)

    assert network.training
    assert next(network.parameters()).dtype == torch.float16
    assert isinstance(network.body[0].conv1, GhostConv2d)


def test_the_scale_can_be_chosen():
    lowered = lower(CARN(scale=(2, 3), features=4), scale=3)

    assert lowered(lowered.example(5, 6)).shape == (1, 3, 15, 18)
    assert lowered.description()["scale"] == "3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 4}, "scale: found 4; this network serves x2"),
        ({"ghost_as": "roll"}, "ghost_as: 'roll'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        lower(ghost_network(), **options)


@pytest.mark.parametrize("ghost_as", ["depthwise", "slices"])
@pytest.mark.parametrize(
    "network",
    [
        RRDBNet(scale=2, blocks=1, features=8, growth=4),
        SRVGGNetCompact(scale=2, layers=3, features=8),
        SRVGGNetCompact(scale=2, layers=3, features=8, activation="leaky_relu"),
    ],
    ids=["rrdbnet", "compact", "compact_leaky_relu"],
)
def test_leaky_relu_and_prelu_are_lowered(network, ghost_as):
    ghost, _ = convert(network.eval(), 0.5)
    image = torch.rand(1, 3, 10, 12)

    with torch.no_grad():
        torch.testing.assert_close(lower(ghost, ghost_as=ghost_as)(image), ghost(image))


def test_dense_maps_are_joined_not_written_in_place_while_a_network_is_traced():
    network = RDN(scale=2, blocks=1, layers=2, growth=4, features=4).eval()
    with torch.no_grad():
        traced = torch.jit.trace(lower(network), torch.rand(1, 3, 8, 9), check_trace=False)

    assert "aten::copy_" not in str(traced.inlined_graph)
    other = torch.rand(1, 3, 5, 12)
    torch.testing.assert_close(traced(other), network(other))
