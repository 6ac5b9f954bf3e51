"""Finding and loading the native operator libraries."""

from __future__ import annotations

import importlib.util

import torch


def library_path(name: str) -> str | None:
    """Return the file of the native library ``name`` (such as "_ops"), or None where it was not built."""
    spec = importlib.util.find_spec(f"ghostsr_ext.{name}")
    return None if spec is None else spec.origin


def load() -> None:
    """Load the operators into ``torch.ops.ghostsr``.

    Raises:
        ImportError: The package holds no native operators, so it was not installed but only copied.
    """
    path = library_path("_ops")
    if path is None:
        raise ImportError(
            "ghostsr_ext has no native operators; install the package with `pip install .` "
            "(a source folder on PYTHONPATH is not enough)"
        )
    torch.ops.load_library(path)
