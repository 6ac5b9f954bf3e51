"""Writing OpenVINO models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.export.lowering import LoweredNetwork
from ghostsr_ext.export.onnx import save_onnx
from ghostsr_ext.export.parity import Parity, check_parity
from ghostsr_ext.files import atomic_write


def write_openvino(
    network: LoweredNetwork,
    path: Path,
    tolerance: float,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> Parity:
    """Write a network for OpenVINO, ``.xml`` and ``.bin``, and check it there.

    Args:
        network: The network.
        path: The ``.xml``; the weights go beside it.
        tolerance: Largest difference to accept, for values in 0..255.
        half: Whether weights are stored in float16.
        overwrite: Whether existing files may be replaced.

    Raises:
        InputError: A file cannot be written.
        GhostsrError: A package is missing, or a difference is larger than ``tolerance``.
    """
    try:
        import openvino
    except ImportError as error:
        raise GhostsrError("OpenVINO needs packages: pip install 'ghostsr[openvino]'") from error
    with (
        tempfile.TemporaryDirectory() as folder,
        atomic_write(path.with_suffix(".bin"), overwrite=overwrite) as weights,
        atomic_write(path, overwrite=overwrite) as graph,
    ):
        save_onnx(network, Path(folder, "network.onnx"))
        converted = openvino.convert_model(Path(folder, "network.onnx"))
        for key, value in network.description().items():
            converted.set_rt_info(value, ["ghostsr", key])
        openvino.save_model(converted, Path(folder, "network.xml"), compress_to_fp16=half)
        runtime = f"OpenVINO {openvino.__version__.split('-')[0]}"
        parity = check_parity(
            network, load_openvino(Path(folder, "network.xml")), runtime, tolerance, path
        )
        weights.write_bytes(Path(folder, "network.bin").read_bytes())
        graph.write_bytes(Path(folder, "network.xml").read_bytes())
        return parity


def load_openvino(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs an OpenVINO model on the CPU."""
    import openvino

    # On CPUs with bfloat16 it would compute in that unless told otherwise.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(path, "CPU", options)

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(compiled([image.numpy()])[0].copy())

    return run
