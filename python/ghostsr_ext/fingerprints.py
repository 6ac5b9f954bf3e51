"""Short digests that tell networks, files and tensors apart that are not forged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ghostsr_ext.models import SRModel

DIGEST_BYTES = 8
"""The length of a digest."""


def network_fingerprint(network: nn.Module) -> str:
    """Return a digest of a network's values, and of its hyperparameters where it tells them.

    Args:
        network: The network, on any device.
    """
    config = network.config if isinstance(network, SRModel) else None
    hyperparameters = json.dumps(config, sort_keys=True, default=str)
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(f"{type(network).__name__} {hyperparameters}".encode())
    for name, value in sorted(network.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            _update(digest, value)
    return digest.hexdigest()


def tensor_digest(tensor: Tensor) -> str:
    """Return a digest of a tensor's type, shape and values."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    _update(digest, tensor)
    return digest.hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return a digest of a file's content.

    Raises:
        OSError: It cannot be read.
    """
    with Path(path).open("rb") as file:
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _update(digest: hashlib.blake2b, tensor: Tensor) -> None:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
