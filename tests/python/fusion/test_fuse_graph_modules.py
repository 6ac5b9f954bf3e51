"""Networks that ``torch.fx`` has traced are fused as others are, and so are their copies."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from ghostsr_ext import convert
from ghostsr_ext.fusion import fuse
from ghostsr_ext.nn import GhostConv2d
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel
from torch_networks import PlainCompact, PlainRRDBNet


def saved_and_loaded(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "deepcopy of a deepcopy": lambda network: copy.deepcopy(copy.deepcopy(network)),
    "pickle": lambda network: pickle.loads(pickle.dumps(network)),
    "pickle of a pickle": lambda network: pickle.loads(
        pickle.dumps(pickle.loads(pickle.dumps(network)))
    ),
    "torch.save": saved_and_loaded,
    "averaged": lambda network: AveragedModel(network).module,
    "copy": copy.copy,
    "fused again": fuse,
}


class OwnGraphModule(fx.GraphModule):
    """A class of somebody's own, as ``torch.export`` has them."""


class WritesInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x)
        before = maps
        maps += 1
        return self.last(maps * before)


def gate(x: Tensor) -> Tensor:
    return x if float(x.sum()) < 1e9 else -x


fx.wrap("gate")


class ChoosesByValue(WritesInPlace):
    """Its graph cannot be traced again, so its own forward stays, but for the layout."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(gate(self.first(x)))


def untraceable() -> fx.GraphModule:
    traced = fx.symbolic_trace(ChoosesByValue())
    for node in traced.graph.nodes:
        node.meta.pop("is_wrapped", None)
    traced.recompile()
    return traced


def own_class(network: nn.Module) -> fx.GraphModule:
    return OwnGraphModule(network, fx.Tracer().trace(network))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "moved parameters": lambda: fx.symbolic_trace(PlainCompact(8, 2, 2)),
    "stacks": lambda: fx.symbolic_trace(PlainRRDBNet(features=8, blocks=1, growth=4)),
    "own class": lambda: own_class(PlainCompact(8, 2, 2)),
    "in place": lambda: fx.symbolic_trace(WritesInPlace()),
    "part of another": lambda: nn.Sequential(
        fx.symbolic_trace(PlainCompact(8, 2, 2)), nn.Upsample(scale_factor=2)
    ),
}


def picture() -> Tensor:
    return torch.randn(1, 3, 13, 18, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def fused_networks() -> dict[str, tuple[nn.Module, nn.Module]]:
    torch.manual_seed(0)
    networks = {name: make().eval() for name, make in NETWORKS.items()}
    return {name: (network, fuse(network)) for name, network in networks.items()}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_copies_compute_the_same(
    fused_networks: dict[str, tuple[nn.Module, nn.Module]], name: str, how: str
) -> None:
    network, fused = fused_networks[name]
    x = picture()
    expected = fused(x)
    torch.testing.assert_close(expected, network(x), rtol=0, atol=1e-4)

    twin = COPIES[how](fused)

    torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)
    assert isinstance(twin, type(network).__mro__[1])
    assert twin.state_dict().keys() == network.state_dict().keys()
    if how not in ("copy", "fused again"):
        assert str(twin.fusion_report) == str(fused.fusion_report)
    if how != "copy":
        other = copy.deepcopy(network)
        for parameter in other.parameters():
            parameter.mul_(0.5)
        twin.load_state_dict(other.state_dict())
        torch.testing.assert_close(twin(x), other(x), rtol=0, atol=1e-4)
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "part of another"])
def test_the_graph_is_that_of_what_is_computed(
    fused_networks: dict[str, tuple[nn.Module, nn.Module]], name: str
) -> None:
    fused = fused_networks[name][1]
    x = picture()
    expected = fused(x)
    fused.graph.lint()
    fused.recompile()
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(fx.Interpreter(fused).run(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_other_types_are_those_of_the_original(
    fused_networks: dict[str, tuple[nn.Module, nn.Module]], name: str, dtype: torch.dtype
) -> None:
    network, fused = fused_networks[name]
    x = picture()
    result = copy.deepcopy(fused).to(dtype)(x.to(dtype))
    assert result.dtype == dtype
    expected = network(x)
    tolerance = 100 * torch.finfo(dtype).eps + 1e-6
    torch.testing.assert_close(result.float(), expected, rtol=0, atol=tolerance)


@torch.no_grad()
def test_a_graph_that_cannot_be_traced_again_is_copied() -> None:
    network = untraceable().eval()
    fused = fuse(network)
    assert fused.fusion_report.layers == 2
    assert fused.fusion_report.rewritten == ()
    for twin in (copy.deepcopy(fused), AveragedModel(fused), copy.copy(fused)):
        torch.testing.assert_close(twin(picture()), network(picture()), rtol=0, atol=1e-5)


@torch.no_grad()
def test_maps_come_back_as_they_were_given() -> None:
    for make in (NETWORKS["moved parameters"], untraceable):
        fused = fuse(make().eval())
        inside: list[Tensor] = []
        layer = next(m for m in fused.modules() if isinstance(m, nn.Conv2d))
        layer.register_forward_hook(lambda _, given, result, inside=inside: inside.append(result))
        assert fused(picture()).is_contiguous()
        assert inside[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("how", COPIES)
@torch.no_grad()
def test_converted_networks_are_copied(how: str) -> None:
    traced = fx.symbolic_trace(PlainCompact(16, 2, 2).eval())
    converted, _ = convert(traced, example=picture())
    assert any(isinstance(layer, GhostConv2d) for layer in converted.modules())
    twin = COPIES[how](converted)
    torch.testing.assert_close(twin(picture()), converted(picture()), rtol=0, atol=0)
    assert twin.state_dict().keys() == converted.state_dict().keys()
