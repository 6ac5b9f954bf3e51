"""Files of networks that the package spandrel knows and this one does not.

spandrel is given tensors that were read here; its own reader of files is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ghostsr_ext.checkpoints.assembly import skeleton
from ghostsr_ext.checkpoints.recognition import UnknownNetworkError
from ghostsr_ext.checkpoints.tensors import StoredTensors
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.fusion import FusedModule, agree, fuse_in_place, prefer_channels_last
from ghostsr_ext.models.foreign import (
    INSTALLATION,
    SpandrelNetwork,
    foreign_architecture,
    spandrel_is_installed,
)
from ghostsr_ext.text import printable

_SECOND_REASON = 160
"""Characters of what spandrel says about a file that the package's own readers know."""


def build_by_spandrel(stored: StoredTensors, refused: InputError) -> SpandrelNetwork:
    """Build the network of a file by the architecture that spandrel takes it for.

    Args:
        stored: The content of the file.
        refused: What the package's own readers say about it.

    Raises:
        InputError: spandrel is not installed or does not know the file either, its tensors do not
            fit, or the network is none that makes one picture of one picture. What ``refused`` says
            comes first where a reader of the package had recognised the file.
    """
    is_unknown = isinstance(refused, UnknownNetworkError)
    if not spandrel_is_installed():
        if not is_unknown:
            raise refused
        raise InputError(
            f"{refused}; {INSTALLATION} reads networks of some 40 more architectures"
        ) from refused
    try:
        model = _build(stored)
    except GhostsrError as error:
        if not is_unknown:
            raise InputError(f"{refused}; {printable(error, _SECOND_REASON)}") from error
        if isinstance(error, InputError):
            raise InputError(f"{stored.path}: {error}") from error
        raise
    if model is not None:
        return model
    if not is_unknown:
        raise refused
    raise InputError(f"{refused}; spandrel does not know it either") from refused


def _build(stored: StoredTensors) -> SpandrelNetwork | None:
    for candidate in stored.candidates:
        name = foreign_architecture(candidate.tensors)
        if name is None:
            continue
        with skeleton(len(candidate.tensors)):
            model = SpandrelNetwork(name=name, tensors=stored.checked(candidate))
        fuse_network(model)
        model.origin = {
            "file": str(stored.path),
            "read_as": f"{name} (spandrel)",
            "evidence": [*candidate.notes, f"spandrel takes it for {name}", *model.tags],
        }
        return model
    return None


def rebuild_by_spandrel(
    config: Mapping[str, Any], ghost_layers: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> SpandrelNetwork:
    """Build the dense network of a file in the package's own format.

    Args:
        config: ``SRModel.config``.
        ghost_layers: The ghost layers of the file, by name.
        tensors: What the file holds. Dense layers in the place of ghost layers are zero.

    Raises:
        InputError: The description does not fit the tensors.
    """
    dense = dict(tensors)
    for layer in ghost_layers:
        order = dense.pop(f"{layer}.order", None)
        if order is None or order.dim() != 1:
            raise InputError(f"lacks {layer}.order")
        for key in ("source", "shift", "logits", "gain", "ghost_bias"):
            dense.pop(f"{layer}.{key}", None)
        for key in ("weight", "bias"):
            part = dense.get(f"{layer}.{key}")
            if part is not None:
                zero = torch.zeros(1, device=part.device)
                dense[f"{layer}.{key}"] = zero.expand(order.numel(), *part.shape[1:])
    prefix = "network."
    if not all(key.startswith(prefix) for key in dense):
        raise InputError(f"has tensors outside {prefix}")
    return SpandrelNetwork(
        name=str(config.get("name")),
        tensors={key.removeprefix(prefix): value for key, value in dense.items()},
    )


@torch.no_grad()
def fuse_network(model: SpandrelNetwork) -> None:
    """Let a network of spandrel's run on the package's layers."""
    model.eval()
    example = model.example()
    expected = model(example)
    fuse_in_place(model, example)
    if not isinstance(model.network, FusedModule):
        prefer_channels_last(model.network, lambda: agree(model(example), expected))
