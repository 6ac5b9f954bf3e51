"""The package's own file format: safetensors with a JSON description of the network.

The tensors of a file are the state dict of the network. Its safetensors metadata has one entry,
``ghostsr``, a JSON object:

- ``format_version``: 1. A reader refuses a later version.
- ``ghostsr_version``: the version of the package that wrote the file.
- ``model``: ``SRModel.config``, that is ``architecture`` and the hyperparameters of the dense
  network. For ``"spandrel"`` that is the ``name`` of spandrel's architecture; the rest follows from
  the shapes of the tensors, where a ghost layer counts as the dense one that it replaces.
- ``ghost_layers``: an object with one entry for each ghost layer, by its name in the network:
  ``ghost_ratio``, ``intrinsic_channels``, ``max_shift``, ``shift_scope`` ("channel" or "layer"),
  ``affine`` and ``frozen`` (whether the shifts are a table rather than logits). Kernel, stride,
  padding, groups, activation and residual scale are those of the dense layer that the ghost layer
  replaces.
- ``narrowed_layers``, ``depthwise_layers``: where needed, see ``comparison_layers``.
- ``metadata``: free-form; by convention ``report`` (how the network was converted and what it
  reaches) and ``training`` (data, schedule, seed).

Floating-point tensors may be stored as float16 or bfloat16; they are read as float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import ghostsr_ext
from ghostsr_ext.checkpoints.assembly import load_strictly, skeleton
from ghostsr_ext.checkpoints.comparison_layers import (
    check_comparison_layers,
    describe_comparison_layers,
    replace_by_comparison_layers,
)
from ghostsr_ext.checkpoints.description import (
    FORMAT_VERSION,
    METADATA_KEY,
    read_description,
)
from ghostsr_ext.checkpoints.spandrel_files import fuse_network, rebuild_by_spandrel
from ghostsr_ext.checkpoints.tensors import StoredTensors
from ghostsr_ext.errors import InputError
from ghostsr_ext.files import atomic_write
from ghostsr_ext.models import SRModel, model_from_config
from ghostsr_ext.models.foreign import SpandrelNetwork
from ghostsr_ext.nn import (
    GhostConv2d,
    convolution_arguments,
    epilogue_arguments,
    ghost_layers,
)

# Hyperparameters as files of earlier versions call them, by architecture.
_FORMER_NAMES = {"vdsr": {"colour": "color"}}


def save_model(
    model: SRModel,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> None:
    """Write a network, dense or converted, to a safetensors file that ``load_model`` reads.

    Args:
        model: The network; on any device, in any memory format.
        path: The file, by convention ``*.safetensors``. It appears whole or not at all.
        metadata: JSON-able blocks to store, such as ``report`` and ``training``; None for
            ``model.metadata``.
        dtype: Type to store floating-point tensors in, such as ``torch.float16`` for half the size;
            None keeps theirs.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: ``path`` exists or cannot be written, ``metadata`` is not JSON-able, or the
            architecture is not registered.
    """
    if not isinstance(model, SRModel):
        raise InputError(f"model: found {type(model).__name__}; an SRModel is allowed")
    check_output_name(path)
    description = {
        "format_version": FORMAT_VERSION,
        "ghostsr_version": ghostsr_ext.__version__,
        "model": model.config,
        "ghost_layers": {
            name: _ghost_settings(layer) for name, layer in ghost_layers(model).items()
        },
        **describe_comparison_layers(model),
        "metadata": dict(model.metadata if metadata is None else metadata),
    }
    try:
        text = json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata: cannot be written as JSON ({error})") from error
    tensors = {name: _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    with atomic_write(path, overwrite=overwrite) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: text})


def check_output_name(path: str | os.PathLike[str]) -> None:
    """Check that a network can be written to a file of this name.

    Raises:
        InputError: It does not end in ``.safetensors``.
    """
    if not os.fspath(path).endswith(".safetensors"):
        raise InputError(f"output {path}: the name must end in .safetensors")


def is_native(stored: StoredTensors) -> bool:
    """Whether a file is in the package's own format."""
    return METADATA_KEY in stored.metadata


def build_native(stored: StoredTensors) -> SRModel:
    """Build the network of a file in the package's own format.

    Raises:
        InputError: The description is damaged, of a later version or does not fit the tensors.
    """
    description = read_description(stored)
    candidate = stored.candidates[0]
    try:
        with skeleton(len(candidate.tensors)):
            model = _dense_model(description, candidate.tensors)
            for name, settings in description["ghost_layers"].items():
                _replace_by_ghost_layer(model, name, settings)
            replace_by_comparison_layers(model, description)
    except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{stored.path}: {error}") from error
    # Whatever type torch gives to new tensors.
    model.float()
    load_strictly(model, stored.checked(candidate), stored.path)
    try:
        check_comparison_layers(model)
    except InputError as error:
        raise InputError(f"{stored.path}: {error}") from error
    if isinstance(model, SpandrelNetwork):
        fuse_network(model)
    model.metadata = description["metadata"]
    model.origin = {
        "file": str(stored.path),
        "read_as": f"ghostsr format {description['format_version']}",
        "evidence": [f"written by ghostsr {description.get('ghostsr_version', '(unknown)')}"],
    }
    return model


def _dense_model(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SRModel:
    config, ghosts = description["model"], description["ghost_layers"]
    if config.get("architecture") == SpandrelNetwork.architecture:
        return rebuild_by_spandrel(config, ghosts, tensors)
    former = _FORMER_NAMES.get(config.get("architecture"), {})
    return model_from_config({former.get(key, key): value for key, value in config.items()})


def _ghost_settings(layer: GhostConv2d) -> dict[str, Any]:
    return {
        "ghost_ratio": layer.ghost_ratio,
        "intrinsic_channels": layer.intrinsic_channels,
        "max_shift": layer.max_shift,
        "shift_scope": layer.shift_scope,
        "affine": layer.affine,
        "frozen": layer.logits is None,
    }


def _replace_by_ghost_layer(model: nn.Module, name: str, settings: Mapping[str, Any]) -> None:
    dense = model.get_submodule(name)
    if not isinstance(dense, nn.Conv2d):
        raise InputError(f"ghost layer {name}: {type(dense).__name__} is no convolution")
    layer = GhostConv2d(
        dense.in_channels,
        dense.out_channels,
        **convolution_arguments(dense),
        ghost_ratio=settings["ghost_ratio"],
        max_shift=settings["max_shift"],
        shift_scope=settings["shift_scope"],
        affine=settings["affine"],
        **epilogue_arguments(dense),
    )
    if layer.intrinsic_channels != settings["intrinsic_channels"]:
        raise InputError(
            f"ghost layer {name}: {settings['intrinsic_channels']} intrinsic channels do not fit "
            f"ghost_ratio {settings['ghost_ratio']} of {dense.out_channels} channels"
        )
    if settings["frozen"]:
        # As frozen layers are; their table is read from the file.
        layer.logits = None
    model.set_submodule(name, layer)


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach()
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.cpu().contiguous()
