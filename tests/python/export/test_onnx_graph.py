"""What is exported is exact: computed in float64, it is the network itself.

ONNX Runtime has no convolution in float64 on a CPU; the evaluator that comes with ONNX has.
"""

import pytest
import torch
from exported_networks import ghost_network
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.export import lower
from ghostsr_ext.export.onnx import INPUT, save_onnx
from ghostsr_ext.export.parity import check_parity

# Of 0..255. The output is rounded to float32, which alone is up to 1.5e-5 between 256 and 512.
TOLERANCE = 2e-5
NETWORKS = (
    ("edsr_mobile_f64b5_x2", 2),
    ("edsr_r8f64_x2", 2),
    ("carn_x2", 2),
    ("carn_m_x234", 2),
    ("carn_m_x234", 3),
    ("carn_m_x234", 4),
    ("rdn_c3d10g64_x2_idealo", 2),
    ("vdsr_twtygqyy", 2),
    ("vdsr_caffe_huangzehao", 2),
)


def check(network, path, scale=None, ghost_as="depthwise"):
    pytest.importorskip("onnxscript", reason="needs onnxscript (extra: onnx)")
    reference = pytest.importorskip("onnx.reference", reason="needs onnx (extra: onnx)")
    lowered = lower(network, scale=scale, ghost_as=ghost_as).double()

    save_onnx(lowered, path)

    evaluator = reference.ReferenceEvaluator(str(path))

    def run(image):
        (output,) = evaluator.run(None, {INPUT: image.numpy()})
        return torch.from_numpy(output)

    parity = check_parity(lowered, run, "ONNX's evaluator", TOLERANCE, path)
    assert len(parity.differences) == len(lowered.sizes()) == 3


@pytest.mark.parametrize("ghost_as", ["depthwise", pytest.param("slices", marks=pytest.mark.slow)])
def test_the_graph_of_every_kind_of_ghost_layer_is_exact(tmp_path, ghost_as):
    check(ghost_network(), tmp_path / "net.onnx", ghost_as=ghost_as)


def test_the_graph_of_a_small_published_network_is_exact(tmp_path, data_dir):
    network, _ = convert(load_model(data_dir / "weights/edsr_mobile_f32b5_x2.pth"))

    check(network, tmp_path / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "ghost"])
@pytest.mark.parametrize(("name", "scale"), NETWORKS)
def test_the_graph_of_every_published_network_is_exact(tmp_path, data_dir, name, scale, kind):
    network = load_model(data_dir / f"weights/{name}.pth")
    if kind == "ghost":
        network, _ = convert(network)

    check(network, tmp_path / "net.onnx", scale)
