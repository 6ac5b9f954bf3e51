"""Writing ONNX files."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ghostsr_ext
from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.export.lowering import LoweredNetwork
from ghostsr_ext.export.parity import Parity, check_parity
from ghostsr_ext.export.torch_tracing import explained, free_dimensions
from ghostsr_ext.files import atomic_write

_OPSET = 18
INPUT, OUTPUT = "image", "enlarged"


def write_onnx(
    network: LoweredNetwork,
    path: Path,
    tolerance: float,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> Parity:
    """Write a network as ONNX and check it in ONNX Runtime.

    Args:
        network: The network.
        path: What to write.
        tolerance: Largest difference to accept, for values in 0..255.
        half: Whether it computes in float16.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The file cannot be written.
        GhostsrError: A package is missing, or a difference is larger than ``tolerance``.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise GhostsrError("ONNX needs packages: pip install 'ghostsr[onnx]'") from error
    with atomic_write(path, overwrite=overwrite) as temporary:
        save_onnx(copy.deepcopy(network).half() if half else network, temporary)
        runtime = f"ONNX Runtime {onnxruntime.__version__}"
        return check_parity(network, load_onnx(temporary), runtime, tolerance, path)


def save_onnx(network: LoweredNetwork, path: Path) -> None:
    """Write a network as ONNX, unchecked.

    Raises:
        GhostsrError: A package is missing, or torch cannot trace the network.
    """
    example = network.example(*network.sizes()[0])
    if 0 in network.free_axes:
        # More than one picture: a batch of one would be taken for a constant.
        example = example.repeat(2, 1, 1, 1)
    try:
        with _quiet(), explained(network, path):
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=(free_dimensions(network),),
                verbose=False,
            )
    except ImportError as error:
        raise GhostsrError("ONNX needs packages: pip install 'ghostsr[onnx]'") from error
    assert program is not None
    for node in program.model.graph:
        # The exporter notes the line of Python behind each node, with paths of this machine.
        node.metadata_props.clear()
    program.model.producer_name = "ghostsr"
    program.model.producer_version = ghostsr_ext.__version__
    program.model.metadata_props.update(network.description())
    if network.metadata:
        program.model.metadata_props["ghostsr"] = json.dumps(network.metadata)
    program.save(str(path), external_data=False)


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs an ONNX file in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        (output,) = session.run(None, {INPUT: image.numpy()})
        return torch.from_numpy(output)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the exporter's remarks on itself."""
    loggers: list[Any] = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
