"""The networks that a run leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.training.config import Config
from ghostsr_ext.training.distributed import Processes
from ghostsr_ext.training.network import exported
from ghostsr_ext.training.validation import Measurement
from ghostsr_ext.training.value_range import OriginalRange


def save_product(
    network: SRModel,
    original: OriginalRange,
    path: Path,
    *,
    config: Config,
    group: Processes,
    step: int,
    measurements: Sequence[Measurement],
) -> None:
    """Write a network with how it was trained and what it reaches.

    Args:
        network: A network for values in 0..1; it is not changed.
        original: The value range of the network that it came from, which the file's gets again.
        path: Where to; an older one is replaced.
        config: Configuration of the run.
        group: The processes that shared the work.
        step: Number of the step that the network was saved after.
        measurements: Measurements of the network.

    Raises:
        GhostsrError: The file cannot be written.
    """
    network = exported(network, original)
    settings = config.model_dump(
        mode="json", include={"conversion", "shifts", "loss", "training", "schedule"}
    )
    if config.conversion.calibration is not None:
        # Where it lies is nobody's business.
        settings["conversion"]["calibration"] = config.conversion.calibration.name
    training = {
        "step": step,
        "steps": config.training.steps,
        "data": [open_picture_set(folder).name for folder in config.data.train],
        "patch": config.data.patch,
        "seed": config.training.seed,
        "processes": group.world_size,
        "settings": settings,
        "measurements": [_as_json(entry) for entry in measurements],
    }
    metadata = {**network.metadata, "training": training}
    dtype = torch.float16 if config.checkpoints.network_dtype == "fp16" else None
    try:
        save_model(network, path, metadata=metadata, dtype=dtype, overwrite=True)
    except (OSError, InputError, SafetensorError) as error:
        raise GhostsrError(
            f"network {path}: cannot be written ({error}); checkpoints are kept, go on with "
            "--resume"
        ) from error


def _as_json(entry: Measurement) -> dict[str, Any]:
    ssim = entry.ssim if entry.ssim == entry.ssim else None
    return {
        "dataset": entry.dataset,
        "scale": entry.scale,
        "psnr": entry.psnr,
        "ssim": ssim,
        "protocol": entry.protocol,
    }
