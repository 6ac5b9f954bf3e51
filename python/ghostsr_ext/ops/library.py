"""Finding and loading the native operator libraries."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any, NoReturn

import torch

_logger = logging.getLogger(__name__)

_cuda_obstacle: str | None = "the operators are not loaded yet"
_refusals: torch.library.Library | None = None


def library_path(name: str) -> str | None:
    """Return the file of the native library ``name`` (such as "_ops"), None where not built."""
    spec = importlib.util.find_spec(f"ghostsr_ext.{name}")
    return None if spec is None else spec.origin


def load() -> None:
    """Load the operators into ``torch.ops.ghostsr``: for the CPU, and for CUDA where they fit.

    Raises:
        ImportError: The package holds no native operators, so it was not installed but only copied.
    """
    global _cuda_obstacle, _refusals
    path = library_path("_ops")
    if path is None:
        raise ImportError(
            "ghostsr_ext has no native operators; install the package with `pip install .` "
            "(a source folder on PYTHONPATH is not enough)"
        )
    torch.ops.load_library(path)
    _cuda_obstacle = _load_cuda()
    if _cuda_obstacle is None:
        refusal = "it is for the CPU alone"
    else:
        _logger.info("CUDA operators not loaded: %s", _cuda_obstacle)
        refusal = f"the CUDA operators are not loaded: {_cuda_obstacle}"
    _refusals = torch.library.Library("ghostsr", "IMPL")
    for name in operator_names():
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"ghostsr::{name}", "CUDA"):
            _refusals.impl(name, _refusal(name, refusal), "CUDA")


def operator_names() -> list[str]:
    """Return the operators of ``torch.ops.ghostsr`` that are loaded."""
    names: list[str] = torch._C._dispatch_get_all_op_names()
    return sorted(name.removeprefix("ghostsr::") for name in names if name.startswith("ghostsr::"))


def cuda_status() -> str:
    """Return "loaded", or why the CUDA operators are not."""
    return "loaded" if _cuda_obstacle is None else f"not loaded: {_cuda_obstacle}"


def cuda_obstacle(built_for: str | None, torch_cuda: str | None) -> str | None:
    """Return why a build of the CUDA operators does not fit a torch, or None where it does.

    Args:
        built_for: CUDA version that the operators were built with, such as "13.0"; None where
            they were not built.
        torch_cuda: ``torch.version.cuda`` of the torch that is to load them.
    """
    if torch_cuda is None:
        return f"torch {torch.__version__} has no CUDA"
    if built_for is None:
        return (
            "this build of ghostsr has none; build it where nvcc and a CUDA torch are, "
            "with GHOSTSR_CUDA=ON"
        )
    if built_for.split(".")[0] != torch_cuda.split(".")[0]:
        return f"built for CUDA {built_for}, while torch {torch.__version__} uses CUDA {torch_cuda}"
    return None


def _load_cuda() -> str | None:
    """Load the CUDA operators; return why not where they do not fit or fail to load."""
    from ghostsr_ext._native import build_info

    path = library_path("_ops_cuda")
    obstacle = cuda_obstacle(
        None if path is None else build_info()["cuda_version"], torch.version.cuda
    )
    if obstacle is not None or path is None:
        return obstacle
    try:
        torch.ops.load_library(path)
    except OSError as error:
        _logger.warning("the CUDA operators failed to load: %s", error)
        return f"loading failed: {error}"
    return None


def _refusal(name: str, reason: str) -> Callable[..., Any]:
    """Return a CUDA kernel that says why there is none."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(f"ghostsr::{name}: found a tensor on cuda, but {reason}")

    return refuse
