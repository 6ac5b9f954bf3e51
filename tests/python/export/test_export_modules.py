"""Any module with the package's layers in it can be lowered, traced and exported."""

import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.export import export_model, lower
from ghostsr_ext.models import EDSR
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch import Tensor, nn


class Mine(nn.Module):
    """A network of a user's own, of torch's modules alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(
            *(
                layer
                for activation in (nn.ReLU(), nn.LeakyReLU(0.2), nn.PReLU(8))
                for layer in (nn.Conv2d(8, 8, 3, padding=1), activation)
            )
        )
        self.last = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features = torch.relu(self.first(image))
        return nn.functional.pixel_shuffle(self.last(self.body(features) + features), 2)


@pytest.fixture
def example() -> Tensor:
    return torch.rand(1, 3, 14, 10)


@pytest.fixture
def ghost(example: Tensor) -> nn.Module:
    network, _ = convert(Mine().eval(), 0.5, example=example)
    return network.eval()


def _layers_of_the_package(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, FusedConv2d | GhostConv2d)]


@pytest.mark.parametrize("ghost_as", ["depthwise", "slices"])
def test_a_converted_module_is_lowered(ghost: nn.Module, example: Tensor, ghost_as: str) -> None:
    lowered = lower(ghost, ghost_as=ghost_as)

    assert _layers_of_the_package(ghost)
    assert not _layers_of_the_package(lowered)
    with torch.no_grad():
        torch.testing.assert_close(lowered(example), ghost(example))


def test_a_lowered_module_is_traced_by_torch_jit(ghost: nn.Module, example: Tensor) -> None:
    traced = torch.jit.trace(lower(ghost), example)

    other = torch.rand(2, 3, 9, 11)
    with torch.no_grad():
        torch.testing.assert_close(traced(other), ghost(other))


def test_a_lowered_module_is_taken_by_torch_onnx(ghost: nn.Module, example: Tensor) -> None:
    pytest.importorskip("onnxscript", reason="needs onnxscript (extra: onnx)")

    program = torch.onnx.export(lower(ghost), (example,), dynamo=True, verbose=False)

    assert {node.domain for node in program.model.graph} == {""}


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("net.pt2", ()),
        ("net.onnx", ("onnxscript", "onnxruntime")),
        pytest.param("net.xml", ("onnxscript", "openvino"), marks=pytest.mark.slow),
        ("net.param", ("ncnn", "pnnx")),
    ],
)
@pytest.mark.parametrize(("multiple", "sizes"), [(None, 1), (2, 3)])
def test_a_converted_module_is_exported(
    ghost, example, tmp_path, name, needs, multiple, sizes
) -> None:
    for package in needs:
        pytest.importorskip(package)

    parity = export_model(ghost, tmp_path / name, example=example, multiple=multiple)

    assert len(parity.differences) == sizes
    assert parity.largest < 1e-3
    assert (tmp_path / name).exists()


def test_an_output_in_another_range_is_compared_in_that_range(example, tmp_path) -> None:
    class Loud(Mine):
        def forward(self, image: Tensor) -> Tensor:
            return 1e6 * super().forward(image)

    parity = export_model(Loud(), tmp_path / "net.pt2", example=example)

    assert parity.largest < 1e-3


def test_a_network_that_rounds_more_itself_is_allowed_more(tmp_path) -> None:
    network = EDSR(scale=2, blocks=1, features=8).eval()
    with torch.no_grad():
        # Two features of 10^5 whose difference is what counts.
        network.head.bias += 1e5
        network.tail.weight -= network.tail.weight.mean(dim=1, keepdim=True)

    parity = export_model(network, tmp_path / "net.pt2")

    assert parity.largest > 0.005
    with pytest.raises(GhostsrError, match=r"0\.005 is accepted"):
        export_model(network, tmp_path / "other.pt2", tolerance=0.005)


class Pair(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image, image


class Branching(nn.Module):
    """What it does depends on the values of its input, which no trace can follow."""

    def forward(self, image: Tensor) -> Tensor:
        return image + 1 if float(image.sum()) > 0 else image


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (
            Mine(),
            {},
            r"example: missing; Mine is no network of the package: pass one of its inputs",
        ),
        (Mine(), {"example": torch.rand(1, 4, 8, 8)}, r"cannot compute shape \(1, 4, 8, 8\)"),
        (Mine(), {"example": torch.rand(3, 8, 8)}, r"shape \(3, 8, 8\); must be floating point"),
        (Mine(), {"example": torch.ones(1, 3, 8, 8, dtype=torch.uint8)}, "example: torch.uint8"),
        (Mine(), {"example": "noise"}, "example: str; must be a tensor"),
        (
            Mine(),
            {"example": torch.rand(1, 3, 8, 9), "multiple": 2},
            "8 x 9; must be multiples of 2",
        ),
        (Mine(), {"example": torch.rand(1, 3, 8, 8), "multiple": 0}, "multiple: got 0"),
        (Mine(), {"scale": 2}, "scale: 2; only networks of the package"),
        (Pair(), {"example": torch.rand(1, 3, 8, 8)}, "model: returns a tuple"),
        (EDSR(blocks=1, features=4), {"example": torch.rand(1, 3, 8, 8)}, "EDSR needs none"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, module, options, message) -> None:
    with pytest.raises(InputError, match=message):
        export_model(module, tmp_path / "net.pt2", **options)

    assert list(tmp_path.iterdir()) == []


def test_a_module_that_cannot_be_traced_is_one_clear_error(tmp_path) -> None:
    with pytest.raises(GhostsrError, match=r"net\.pt2: torch cannot trace the network \("):
        export_model(Branching(), tmp_path / "net.pt2", example=torch.rand(1, 3, 8, 8))

    assert list(tmp_path.iterdir()) == []
