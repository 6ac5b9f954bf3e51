"""Networks are traced by torch's own tools, or these say to lower the network first."""

import warnings

import pytest
import torch
from exported_networks import ghost_network
from ghostsr_ext.models import EDSR, RRDBNet, SRVGGNetCompact
from torch import nn

NETWORKS = {
    "dense": lambda: EDSR(scale=2, blocks=1, features=8).eval(),
    "ghost": ghost_network,
    "rrdbnet": lambda: RRDBNet(scale=4, blocks=1, features=8, growth=4).eval(),
    "compact": lambda: SRVGGNetCompact(scale=2, layers=2, features=8).eval(),
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        # torch.jit is deprecated, and reports every size that a network looks at.
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_torch_jit_traces_a_network_as_it_is(network: str, mode: type) -> None:
    model = NETWORKS[network]()
    with mode():
        traced = torch.jit.trace(model, torch.rand(1, 3, 16, 12), check_trace=False)

        other = torch.rand(2, 3, 10, 14)
        torch.testing.assert_close(traced(other), model(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_tensorboard_draws_a_network_as_it_is(network: str, tmp_path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs tensorboard")
    model = NETWORKS[network]()

    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        writer.add_graph(model, torch.rand(1, 3, 16, 12))

    (events,) = tmp_path.iterdir()
    assert b"ghost_conv" in events.read_bytes()


@pytest.mark.parametrize("dynamo", [True, False], ids=["torch.export", "TorchScript"])
def test_torch_onnx_says_to_lower_a_network_first(dynamo: bool, tmp_path) -> None:
    pytest.importorskip("onnxscript", reason="needs onnxscript (extra: onnx)")

    with pytest.raises(Exception, match=r"export\.lower\(module\)"):
        torch.onnx.export(
            ghost_network(),
            (torch.rand(1, 3, 16, 12),),
            str(tmp_path / "net.onnx"),
            dynamo=dynamo,
            verbose=False,
        )


def test_a_module_with_the_packages_layers_is_told_so_too() -> None:
    pytest.importorskip("onnxscript", reason="needs onnxscript (extra: onnx)")
    module = nn.Sequential(ghost_network().body[0].conv1).float()

    with pytest.raises(Exception, match=r"export\.lower\(module\)"):
        torch.onnx.export(module, (torch.rand(1, 8, 9, 9),), dynamo=True, verbose=False)
