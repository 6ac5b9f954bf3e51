"""Files of networks: the package's own format, and readers of published weights."""

from __future__ import annotations

import os

import torch

from ghostsr_ext.checkpoints.native import build_native, is_native, save_model
from ghostsr_ext.checkpoints.tensors import read_tensors
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel

__all__ = ["load_model", "save_model"]


def load_model(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> SRModel:
    """Read a network from a file."""
    stored = read_tensors(path)
    if is_native(stored):
        return build_native(stored).to(device).eval()
    raise InputError(f"{path}: unknown layout")
