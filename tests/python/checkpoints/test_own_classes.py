"""Networks of a user's own class, in torch's own modules, come back from a file as they were."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.models import SRModel, registry
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch import nn
from user_package import NETWORKS, write_module


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> SRModel:
    monkeypatch.setattr(registry, "_presets", dict(registry._presets))
    monkeypatch.setattr(registry, "_architectures", dict(registry._architectures))
    names: dict = {}
    exec(NETWORKS.replace("register_key_mapping(", "str("), names)
    network = names["Tiny"]().eval()
    nn.init.uniform_(network.body[1].weight, -0.5, 0.5)
    return network


@pytest.mark.parametrize("kind", ["dense", "ghost"])
def test_a_saved_network_is_the_same_when_it_is_read_and_fused(
    tiny: SRModel, tmp_path: Path, kind: str
) -> None:
    network = tiny if kind == "dense" else convert(tiny, 0.5)[0]

    save_model(network, tmp_path / "net.safetensors")
    found = load_model(tmp_path / "net.safetensors")

    image = torch.rand(1, 3, 11, 14)
    with torch.no_grad():
        torch.testing.assert_close(found(image), network(image))
    assert found.state_dict().keys() == network.state_dict().keys()
    convolutions = [m for m in found.modules() if isinstance(m, nn.Conv2d | GhostConv2d)]
    assert all(isinstance(layer, FusedConv2d | GhostConv2d) for layer in convolutions)
    assert [layer.activation for layer in convolutions[1:3]] == ["prelu", "leaky_relu"]


def test_what_was_read_can_be_saved_again(tiny: SRModel, tmp_path: Path) -> None:
    save_model(convert(tiny, 0.5)[0], tmp_path / "first.safetensors")
    save_model(load_model(tmp_path / "first.safetensors"), tmp_path / "second.safetensors")

    first, second = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("first", "second"))
    assert first == second


def test_a_fresh_process_computes_the_same(tiny: SRModel, tmp_path: Path) -> None:
    write_module(tmp_path)
    network, _ = convert(tiny, 0.5)
    image = torch.rand(1, 3, 9, 8)
    save_model(network, tmp_path / "net.safetensors")
    torch.save(image, tmp_path / "image.pt")
    code = (
        "import torch, tiny_networks\n"
        "from ghostsr_ext.checkpoints import load_model\n"
        "with torch.no_grad():\n"
        "    output = load_model('net.safetensors')(torch.load('image.pt'))\n"
        "torch.save(output, 'output.pt')\n"
    )

    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "output.pt"), network(image))
