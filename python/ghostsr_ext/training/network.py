"""The network that a run starts from, and what it becomes when it leaves the run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import Calibration, Method, convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel, create_model, model_from_config
from ghostsr_ext.nn import GhostConv2d, freeze_shifts, ghost_layers
from ghostsr_ext.training.config import Config
from ghostsr_ext.training.data import PatchBatches
from ghostsr_ext.training.value_range import OriginalRange, set_value_range, to_unit_range

_SAME_MEAN = 1e-4


def load_unit_range(path: str) -> tuple[SRModel, OriginalRange]:
    """Read a network and rewrite it for values in 0..1; also return where it came from."""
    model = load_model(path)
    original = to_unit_range(model)
    return model, original


def build_dense(config: Config) -> tuple[SRModel, OriginalRange]:
    """Return the network of ``config.model`` for values in 0..1, and where it came from.

    Raises:
        InputError: The preset, its arguments or the file is wrong.
    """
    if config.model.init is not None:
        return load_unit_range(str(config.model.init))
    assert config.model.preset is not None
    torch.manual_seed(config.training.seed)
    model = create_model(config.model.preset, **config.model.arguments)
    value_range = model.value_range
    if value_range != 1.0:
        # New weights suit values in 0..1 as they are: they are not rescaled.
        changed: dict[str, Any] = {"value_range": 1.0}
        if model.mean is not None:
            changed["mean"] = [value / value_range for value in model.config["mean"]]
        torch.manual_seed(config.training.seed)
        model = model_from_config({**model.config, **changed})
    if config.model.pretrained is not None:
        _take_tensors(model, config.model.pretrained)
    return model, OriginalRange(value_range, "ends")


def _take_tensors(model: SRModel, path: Path) -> None:
    """Copy what fits from a dense network, as EDSR begins x3 and x4 with x2 (section 3.2)."""
    source, _ = load_unit_range(str(path))
    if ghost_layers(source):
        raise InputError(f"model.pretrained: {path} is a GhostSR network, allowed are dense ones")
    target = dict(model.named_parameters())
    fitting = {
        name: tensor
        for name, tensor in source.named_parameters()
        if name in target and target[name].shape == tensor.shape
    }
    if not fitting:
        raise InputError(
            f"model.pretrained: {path} ({source.architecture}) has no tensor that fits "
            f"{model.architecture} as configured"
        )
    means = _mean(source), _mean(model)
    if float((means[0] - means[1]).abs().max()) > _SAME_MEAN:
        found, configured = ([round(value, 4) for value in mean.tolist()] for mean in means)
        raise InputError(
            f"model.pretrained: {path} subtracts the mean {found} of 1 and the network as "
            f"configured {configured}; give the arguments of preset the same"
        )
    model.load_state_dict(fitting, strict=False)


def _mean(model: SRModel) -> Tensor:
    mean = torch.zeros(1) if model.mean is None else model.mean.flatten()
    return mean / model.value_range


class ConversionListener(Protocol):
    """Is told how a conversion goes."""

    def converting(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` parts of ``what`` are done."""

    def noted(self, line: str) -> None:
        """A polish goes on from where it was, or is stopped."""


def convert_network(
    dense: SRModel,
    config: Config,
    batches: PatchBatches,
    device: torch.device,
    checkpoint: Path,
    told: ConversionListener,
) -> SRModel:
    """Return the GhostSR network that ``config.conversion`` makes of a dense one.

    Args:
        dense: A network for values in 0..1, on the CPU; it is not changed.
        config: Configuration of the run.
        batches: Where the calibration takes its pictures from, unless it has a folder.
        device: Where a polish of more than a few steps is computed.
        checkpoint: The file that keeps how far such a polish is, and from which it goes on.
        told: Is told how it goes.

    Returns:
        The converted network, on the CPU.

    Raises:
        InputError: The network is converted already, or the conversion refuses it or a picture.
    """
    settings = config.conversion
    if ghost_layers(dense):
        raise InputError("conversion.method: the network is converted already; use none")
    calibration: Calibration | None = settings.calibration
    if calibration is None and settings.method in ("calibrated", "prune"):
        calibration = _calibration_pictures(batches, settings.pictures)
    polished = bool(settings.polish_steps)
    assert settings.method != "none"
    # Which channels are ghosts is all that "scratch" keeps of a conversion.
    method: Method = "kmeans" if settings.method == "scratch" else settings.method
    converted, _ = convert(
        copy.deepcopy(dense).to(device) if polished else dense,
        settings.ghost_ratio,
        method=method,
        calibration=calibration,
        layers=settings.layers,
        max_shift=settings.max_shift,
        shift_scope=config.shifts.scope,
        affine=settings.affine,
        ghost_op=settings.ghost_op,
        seed=config.training.seed,
        polish_steps=settings.polish_steps,
        progress=told.converting,
        checkpoint=checkpoint if polished else None,
        notify=told.noted,
    )
    if settings.method == "scratch":
        torch.manual_seed(config.training.seed)
        for layer in ghost_layers(converted).values():
            _forget(layer)
        converted.metadata.pop("report", None)
    return converted.cpu()


def _calibration_pictures(batches: PatchBatches, count: int) -> Tensor:
    pictures = list(batches[0].inputs)
    number = 1
    while len(pictures) < count:
        inputs = batches[number].inputs
        # Enlarged inputs have the size of their scale.
        if inputs.shape[2:] == pictures[0].shape[1:]:
            pictures.extend(inputs)
        number += 1
    return torch.stack(pictures[:count])


def _forget(layer: GhostConv2d) -> None:
    """Give a converted layer new weights, and ghosts of the first channels in their order."""
    fresh = nn.Conv2d(
        layer.in_channels,
        layer.intrinsic_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        groups=layer.groups,
        bias=layer.bias is not None,
    )
    with torch.no_grad():
        layer.weight.copy_(fresh.weight)
        if layer.bias is not None and fresh.bias is not None:
            layer.bias.copy_(fresh.bias)
    source = torch.arange(layer.ghost_channels) % layer.intrinsic_channels
    layer.set_tables(source, torch.zeros(layer.ghost_channels, 2, dtype=torch.int64))


def exported(model: SRModel, original: OriginalRange) -> SRModel:
    """Return a copy with its shifts as tables and its value range restored."""
    copied = copy.deepcopy(model)
    freeze_shifts(copied)
    return set_value_range(copied, original.white, original.carrier).eval()
