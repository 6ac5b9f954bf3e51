"""Networks that end their layers by LeakyReLU or PReLU agree in every runtime."""

import pytest
from ghostsr_ext.conversion import convert
from ghostsr_ext.export import export_model
from ghostsr_ext.models import RRDBNet, SRVGGNetCompact

NETWORKS = {
    "rrdbnet_x4": lambda: RRDBNet(scale=4, blocks=1, features=8, growth=4),
    "rrdbnet_x2": lambda: RRDBNet(scale=2, blocks=1, features=8, growth=4),
    "rrdbnet_x1": lambda: RRDBNet(scale=1, blocks=1, features=8, growth=4),
    "compact": lambda: SRVGGNetCompact(scale=4, layers=2, features=8),
    "compact_leaky_relu": lambda: SRVGGNetCompact(layers=2, features=8, activation="leaky_relu"),
}
FORMATS = {
    "net.pt2": (),
    "net.onnx": ("onnxscript", "onnxruntime"),
    "net.xml": ("onnxscript", "openvino"),
    "net.param": ("ncnn", "pnnx"),
}
ONNX = ("net.onnx", "net.xml")


@pytest.mark.parametrize(
    "network",
    [pytest.param(n, marks=pytest.mark.slow if n != "rrdbnet_x2" else ()) for n in NETWORKS],
)
@pytest.mark.parametrize(
    "name", ["net.pt2", "net.param", *(pytest.param(n, marks=pytest.mark.slow) for n in ONNX)]
)
@pytest.mark.parametrize("kind", ["dense", pytest.param("ghost", marks=pytest.mark.slow)])
def test_every_runtime_agrees(tmp_path, network, name, kind):
    for package in FORMATS[name]:
        pytest.importorskip(package)
    model = NETWORKS[network]().eval()
    if kind == "ghost":
        model, _ = convert(model, 0.5)

    parity = export_model(model, tmp_path / name)

    assert len(parity.differences) == 3
    assert parity.largest < 1e-3
