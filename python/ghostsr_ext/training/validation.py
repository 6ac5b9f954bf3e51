"""Measuring a network while it is trained, each process on its share of the pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ghostsr_ext.datasets import PicturePair, PictureSet
from ghostsr_ext.evaluation import default_protocol, evaluate
from ghostsr_ext.models import SRModel
from ghostsr_ext.training.distributed import Processes


@dataclass(frozen=True)
class Measurement:
    """A network's quality on one set at one scale.

    Attributes:
        dataset: The set's name.
        scale: How many times the pictures were enlarged.
        psnr: Mean over the pictures, in dB.
        ssim: Mean over the pictures.
        protocol: How pictures were compared.
    """

    dataset: str
    scale: int
    psnr: float
    ssim: float
    protocol: dict[str, Any]


@dataclass(frozen=True)
class _Share(PictureSet):
    rank: int = 0
    world_size: int = 1

    def pairs(self, scale: int) -> tuple[PicturePair, ...]:
        return super().pairs(scale)[self.rank :: self.world_size]


def measure(model: SRModel, sets: list[PictureSet], processes: Processes) -> list[Measurement]:
    """Measure a network on sets, at each of its scales.

    Args:
        model: The network, equal in all processes.
        sets: The sets.
        processes: Who shares the work; all of them must call this.

    Returns:
        The same in every process, sets first, then scales.

    Raises:
        InputError: As :func:`ghostsr_ext.evaluation.evaluate`; of an output that is not finite too.
    """
    measured = []
    for pictures in sets:
        share = _Share(pictures.name, pictures.high_folder, processes.rank, processes.world_size)
        for scale in model.scales:
            protocol = default_protocol(model, scale)
            found: list[tuple[str, float, float]] = []
            if share.pairs(scale):
                result = evaluate(model, share, scale, protocol)
                found = [(image.name, image.psnr, image.ssim) for image in result.images]
            gathered = sorted(entry for part in processes.gather(found) for entry in part)
            measured.append(
                Measurement(
                    pictures.name,
                    scale,
                    float(np.mean([psnr for _, psnr, _ in gathered])),
                    float(np.mean([ssim for _, _, ssim in gathered])),
                    protocol.as_dict(),
                )
            )
    return measured


def score(measurements: list[Measurement]) -> float:
    """Return the PSNR that decides which network is the best: that of the first set over scales."""
    if not measurements:
        return -math.inf
    first = measurements[0].dataset
    return float(np.mean([entry.psnr for entry in measurements if entry.dataset == first]))
