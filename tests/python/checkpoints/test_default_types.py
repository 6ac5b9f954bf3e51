"""What torch gives to new tensors by default makes no difference to what is read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.models import EDSR
from published_networks import BasicsrEdsr, CarnPytorch, EdsrPytorch, TwtygqyyVdsr
from torch import nn


@pytest.fixture(params=["float64", "device"])
def other_default(request: pytest.FixtureRequest) -> Iterator[None]:
    """A default type or device that is none of the file's; meta stands for any device."""
    if request.param == "float64":
        torch.set_default_dtype(torch.float64)
    else:
        torch.set_default_device("meta")
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


def saved(network: nn.Module, folder: Path) -> Path:
    path = folder / "model.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(
    params=["edsr", "basicsr", "carn", "vdsr", "dense", "kmeans", "filters", "depthwise", "prune"]
)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    published = {
        "edsr": lambda: EdsrPytorch(2, mean=(114.0, 111.0, 103.0)),
        "basicsr": lambda: BasicsrEdsr(2),
        "carn": lambda: CarnPytorch([2], features=4),
        "vdsr": lambda: TwtygqyyVdsr(),
    }
    if request.param in published:
        return saved(published[request.param](), tmp_path)
    network = EDSR(scale=2, blocks=1, features=8, residual_scale=0.5)
    if request.param == "depthwise":
        network = convert(network, ghost_op="depthwise")[0]
    elif request.param == "prune":
        network = convert(network, method="prune", calibration=torch.rand(4, 3, 12, 12) * 255)[0]
    elif request.param != "dense":
        network = convert(network, method=request.param)[0]
    path = tmp_path / "model.safetensors"
    save_model(network, path)
    return path


@pytest.fixture
def expected(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    model = load_model(file)
    image = torch.rand(1, model.channels, 9, 8) * model.value_range
    with torch.no_grad():
        return image, model(image)


def test_networks_are_read_alike(
    file: Path, expected: tuple[torch.Tensor, torch.Tensor], other_default: None
) -> None:
    image, wanted = expected
    model = load_model(file)
    assert {tensor.dtype for tensor in model.state_dict().values()} <= {torch.float32, torch.int64}
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())
    with torch.no_grad():
        assert torch.equal(model(image), wanted)
