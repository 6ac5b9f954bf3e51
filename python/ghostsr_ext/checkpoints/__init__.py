"""Files of networks: the package's own format, and readers of published weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ghostsr_ext.checkpoints.key_mappings import Draft, KeyMapping, register_key_mapping
from ghostsr_ext.checkpoints.native import build_native, is_native, save_model
from ghostsr_ext.checkpoints.recognition import build_recognized
from ghostsr_ext.checkpoints.spandrel_files import build_by_spandrel
from ghostsr_ext.checkpoints.tensors import read_tensors
from ghostsr_ext.default_models import resolve_model
from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.devices import usable_device
from ghostsr_ext.errors import InputError
from ghostsr_ext.fusion import fuse_in_place
from ghostsr_ext.models import SRModel
from ghostsr_ext.models.foreign import SpandrelNetwork

__all__ = ["Draft", "KeyMapping", "load_model", "register_key_mapping", "save_model"]


def load_model(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    overrides: Mapping[str, Any] | None = None,
) -> SRModel:
    """Read a network from a file: the package's own, or published weights.

    Published weights are recognised by their keys and shapes: EDSR (EDSR-PyTorch, its mobile form,
    BasicSR), CARN and CARN-M (CARN-pytorch), RDN (yjn870, EDSR-PyTorch, idealo), VDSR (twtygqyy,
    huangzehao), RRDBNet (Real-ESRGAN and traiNNer, BSRGAN, the first ESRGAN) and SRVGGNetCompact
    (Real-ESRGAN and traiNNer), in ``.pth``, ``.pt`` or ``.safetensors`` files. What was found and
    why is in ``SRModel.origin``. Value ranges are told from the mean color where the file has one,
    else from the key mapping and by trying both on a smooth picture.

    What none of these readers knows is read by spandrel, where it is installed: networks of some 40
    more architectures. They and networks of other packages (see
    :mod:`ghostsr_ext.models.extensions`) become fused: see :func:`ghostsr_ext.fusion.fuse`.

    State dicts are found in whatever a training program puts around them: the state of an
    optimiser, a discriminator beside the generator, prefixes of wrapped modules. Of several
    networks in a file the averaged one (EMA) is taken; ``origin["evidence"]`` says which.

    Args:
        path: The file, of which nothing is executed; or the name of a network in the package:
            ``"x2"``, ``"x3"`` or ``"x4"``.
        device: Where the network shall live; ``"auto"`` for a GPU if there is one.
        overrides: Hyperparameters, such as ``value_range`` or ``residual_scale``, to use instead of
            what is found in published weights.

    Returns:
        The network in evaluation mode, in float32.

    Raises:
        InputError: There is no such file or device, or the file is unreadable, damaged, hostile,
            unknown or ambiguous; the message names it and says what decided.
    """
    target = usable_device(device)
    path = resolve_model(path)
    # Whatever device torch gives to new tensors.
    with torch.device("cpu"):
        stored = read_tensors(path)
        if not is_native(stored):
            try:
                model = build_recognized(stored, overrides or {})
            except InputError as refused:
                if overrides:
                    raise
                model = build_by_spandrel(stored, refused)
        elif overrides:
            raise InputError(f"{path}: states its hyperparameters, which cannot be overridden")
        else:
            model = build_native(stored)
        if _is_written_in_plain_torch(model):
            fuse_in_place(model)
        return model.to(target).eval()


def _is_written_in_plain_torch(model: SRModel) -> bool:
    """Whether a class of another package has convolutions that fused layers can replace."""
    modules = list(model.modules())
    if isinstance(model, SpandrelNetwork) or any(
        isinstance(module, DepthwiseGhostConv2d) for module in modules
    ):
        return False
    return any(type(module) is nn.Conv2d for module in modules)
