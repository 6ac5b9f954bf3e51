"""Writing programs that torch runs without the source of the network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghostsr_ext.export.lowering import LoweredNetwork
from ghostsr_ext.export.parity import Parity, check_parity
from ghostsr_ext.export.torch_tracing import explained, free_dimensions
from ghostsr_ext.files import atomic_write


def write_program(
    network: LoweredNetwork,
    path: Path,
    tolerance: float,
    *,
    compiled: bool = False,
    overwrite: bool = False,
) -> Parity:
    """Write a network as a ``.pt2`` and check what is read back from it.

    Args:
        network: The network.
        path: What to write.
        tolerance: Largest difference to accept, for values in 0..255.
        compiled: Whether it holds machine code for this kind of processor (AOTInductor).
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The file cannot be written.
        GhostsrError: torch cannot trace the network, or a difference is larger than ``tolerance``.
    """
    with torch.no_grad(), atomic_write(path, overwrite=overwrite) as temporary:
        example = network.example(*network.sizes()[0])
        with explained(network, path):
            program = torch.export.export(
                network, (example,), dynamic_shapes=(free_dimensions(network, (2, 3)),)
            )
        if compiled:
            with tempfile.TemporaryDirectory() as folder:
                package = Path(folder, "network.pt2")
                torch._inductor.aoti_compile_and_package(program, package_path=str(package))
                temporary.write_bytes(package.read_bytes())
            runtime = f"AOTInductor of torch {torch.__version__}"
        else:
            torch.export.save(program, temporary, extra_files=_extra_files(network))
            runtime = f"torch {torch.__version__}"
        return check_parity(network, load_program(temporary, compiled), runtime, tolerance, path)


def load_program(path: Path, compiled: bool) -> Callable[[Tensor], Tensor]:
    """Return a function that runs a ``.pt2``."""
    module: Any
    if compiled:
        module = torch._inductor.aoti_load_package(str(path))
    else:
        module = torch.export.load(path).module()

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = module(image)
        return output

    return run


def _extra_files(network: LoweredNetwork) -> dict[str, Any]:
    return {f"ghostsr/{key}": value for key, value in network.description().items()}
