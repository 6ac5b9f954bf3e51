import subprocess
import sys

import numpy as np
import pytest
import torch
from exported_networks import ghost_network
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.export import export_model
from ghostsr_ext.export.ncnn import load_ncnn
from ghostsr_ext.export.onnx import load_onnx
from ghostsr_ext.export.openvino import load_openvino
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.models.vdsr import VDSR


@pytest.fixture
def onnx():
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra: onnx)")
    pytest.importorskip("onnxscript", reason="needs onnxscript (extra: onnx)")
    return pytest.importorskip("onnx", reason="needs onnx (extra: onnx)")


@pytest.fixture
def openvino(onnx):
    return pytest.importorskip("openvino", reason="needs OpenVINO (extra: openvino)")


@pytest.fixture
def ncnn():
    pytest.importorskip("pnnx", reason="needs pnnx (extra: ncnn)")
    return pytest.importorskip("ncnn", reason="needs ncnn (extra: ncnn)")


@pytest.mark.parametrize("ghost_as", ["depthwise", pytest.param("slices", marks=pytest.mark.slow)])
def test_onnx_runtime_gives_the_same_picture_at_any_size_and_batch(tmp_path, onnx, ghost_as):
    network = ghost_network()

    parity = export_model(network, tmp_path / "net.onnx", ghost_as=ghost_as)

    assert parity.runtime.startswith("ONNX Runtime")
    assert parity.largest < 1e-3
    image = torch.rand(3, 3, 21, 14) * 255
    found = load_onnx(tmp_path / "net.onnx")(image)
    with torch.inference_mode():
        torch.testing.assert_close(found, network(image), rtol=0, atol=1e-3)


def test_an_onnx_file_says_what_its_caller_has_to_know(tmp_path, onnx):
    export_model(VDSR(layers=3, features=4), tmp_path / "net.onnx", scale=3)

    file = onnx.load(tmp_path / "net.onnx")
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert metadata["scale"] == "3"
    assert metadata["value_range"] == "1"
    assert metadata["color"] == "y"
    assert metadata["input_upscaled"] == "true"
    assert file.producer_name == "ghostsr"
    assert file.graph.input[0].name == "image"
    names = [dim.dim_param for dim in file.graph.input[0].type.tensor_type.shape.dim]
    assert names[2:] == ["height", "width"]


@pytest.mark.slow
def test_an_onnx_file_names_no_folder_of_this_machine(tmp_path, onnx):
    export_model(ghost_network(), tmp_path / "net.onnx")

    content = (tmp_path / "net.onnx").read_bytes()
    assert b"site-packages" not in content
    assert str(tmp_path).encode() not in content
    assert b"ghostsr_ext" not in content


@pytest.mark.slow
def test_onnx_files_hold_only_standard_operators(tmp_path, onnx):
    for ghost_as, expected in (("depthwise", {"Conv"}), ("slices", {"Pad", "Slice", "Concat"})):
        export_model(ghost_network(), tmp_path / f"{ghost_as}.onnx", ghost_as=ghost_as)
        file = onnx.load(tmp_path / f"{ghost_as}.onnx")
        assert {node.domain for node in file.graph.node} == {""}
        assert expected <= {node.op_type for node in file.graph.node}


@pytest.mark.slow
def test_half_precision_halves_the_file_and_stays_close(tmp_path, onnx):
    network = EDSR(scale=2, blocks=2, features=32, value_range=1.0, mean=None).eval()

    whole = export_model(network, tmp_path / "whole.onnx")
    half = export_model(network, tmp_path / "half.onnx", half=True)

    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert whole.largest < half.largest < 1


@pytest.mark.slow
def test_openvino_gives_the_same_picture(tmp_path, openvino):
    network = ghost_network()

    parity = export_model(network, tmp_path / "net.xml")

    assert parity.largest < 1e-3
    image = torch.rand(1, 3, 21, 14) * 255
    found = load_openvino(tmp_path / "net.xml")(image)
    with torch.inference_mode():
        torch.testing.assert_close(found, network(image), rtol=0, atol=1e-3)


def test_ncnn_gives_the_same_picture(tmp_path, ncnn):
    parity = export_model(ghost_network(), tmp_path / "net.param")

    assert parity.runtime.startswith("ncnn")
    assert parity.largest < 1e-3
    assert (tmp_path / "net.bin").stat().st_size > 1000


def test_ncnn_takes_a_luma_network(tmp_path, ncnn):
    parity = export_model(VDSR(layers=3, features=4), tmp_path / "net.param", scale=2)

    assert parity.largest < 1e-3


def test_a_file_that_ncnn_cannot_load_is_an_error(tmp_path, ncnn):
    (tmp_path / "net.param").write_text(
        "7767517\n2 2\nInput in0 0 1 in0\nNoSuchLayer x 1 1 in0 out0\n"
    )
    (tmp_path / "net.bin").write_bytes(b"")

    with pytest.raises(GhostsrError, match=r"net\.param: ncnn cannot load it"):
        load_ncnn(tmp_path / "net.param", tmp_path / "net.bin")


RUN_WITHOUT_THE_PACKAGE = """
import sys
class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("ghostsr_ext"):
            raise ImportError(name)
sys.meta_path.insert(0, Refusal())
import numpy, torch
path, kind = sys.argv[1:3]
if kind == "graph":
    run = torch.export.load(path).module()
else:
    run = torch._inductor.aoti_load_package(path)
image = torch.from_numpy(numpy.load(sys.argv[3]))
with torch.inference_mode():
    numpy.save(sys.argv[4], run(image).numpy())
"""


@pytest.mark.parametrize("kind", ["graph", pytest.param("machine code", marks=pytest.mark.slow)])
def test_a_program_runs_where_the_package_is_not_installed(tmp_path, kind):
    network = ghost_network()
    image = torch.rand(1, 3, 21, 14) * 255
    np.save(tmp_path / "image.npy", image.numpy())

    export_model(network, tmp_path / "net.pt2", compiled=kind == "machine code")

    arguments = [tmp_path / "net.pt2", kind, tmp_path / "image.npy", tmp_path / "found.npy"]
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_THE_PACKAGE, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        expected = network(image).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=0, atol=1e-3)


def test_a_difference_above_the_tolerance_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(
        GhostsrError, match=r"net.pt2: torch .* differs from torch by .* is accepted"
    ):
        export_model(ghost_network(), tmp_path / "net.pt2", tolerance=0)

    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "net.pt2").write_bytes(b"mine")

    with pytest.raises(InputError, match="exists already"):
        export_model(ghost_network(), tmp_path / "net.pt2")

    assert (tmp_path / "net.pt2").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("net.engine", {}, "suffix must be one of .onnx, .xml"),
        ("net.pt2", {"half": True}, "in float32 only"),
        ("net.onnx", {"compiled": True}, "only .pt2 can be compiled"),
        ("net.param", {"ghost_as": "slices"}, "can only be depthwise"),
        ("net.pt2", {"scale": 3}, "scale: found 3; this network serves x2"),
        ("gone/net.pt2", {}, "cannot be written"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        export_model(ghost_network(), tmp_path / name, **options)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(GhostsrError, match=r"pip install 'ghostsr\[onnx\]'"):
        export_model(ghost_network(), tmp_path / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "ghost"])
@pytest.mark.parametrize(
    "name",
    [
        "edsr_mobile_f32b5_x2",
        "edsr_r8f64_x2",
        "carn_x2",
        "carn_m_x234",
        "rdn_c3d10g64_x2_idealo",
        "vdsr_twtygqyy",
        "vdsr_caffe_huangzehao",
    ],
)
def test_published_networks_agree_in_onnx_runtime(tmp_path, data_dir, onnx, name, kind):
    network = load_model(data_dir / f"weights/{name}.pth")
    if kind == "ghost":
        network, _ = convert(network)

    parity = export_model(network, tmp_path / "net.onnx")

    assert len(parity.differences) == 3
    assert parity.largest <= 1e-3
