"""Measuring a network on a benchmark set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ghostsr_ext.datasets import PictureSet
from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.imaging import imresize
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.metrics import Protocol, compare
from ghostsr_ext.models import SRModel
from ghostsr_ext.progress import ProgressCallback


@dataclass(frozen=True)
class ImageResult:
    """One picture's measurement.

    Attributes:
        name: The picture's file name without suffix.
        psnr: The PSNR in dB; infinite when the output equals the original.
        ssim: The SSIM, at most 1; NaN for a picture that is smaller than the window of SSIM.
    """

    name: str
    psnr: float
    ssim: float


@dataclass(frozen=True)
class EvaluationResult:
    """A network's measurement on one set.

    Attributes:
        dataset: The set's name.
        scale: How many times the pictures were enlarged.
        images: The pictures, in the order of their names.
        protocol: How they were compared.
        inputs: Where the small pictures came from: ``"files"``, or ``"imresize"`` of the
            originals.
        self_ensemble: Whether the output is the mean over the eight flips and quarter turns.
        tile: Side of the tiles in pixels of the small picture, ``"auto"``, or None for whole
            pictures.
        device: Where the network ran.
        dtype: The type that it computed in.
    """

    dataset: str
    scale: int
    images: tuple[ImageResult, ...]
    protocol: Protocol
    inputs: str
    self_ensemble: bool
    tile: int | Literal["auto"] | None
    device: str
    dtype: str

    @property
    def psnr(self) -> float:
        """Mean over the pictures, in dB."""
        return float(np.mean([image.psnr for image in self.images]))

    @property
    def ssim(self) -> float:
        """Mean over the pictures."""
        return float(np.mean([image.ssim for image in self.images]))

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values; what is infinite or NaN is None."""
        return {
            "dataset": self.dataset,
            "scale": self.scale,
            "psnr": _finite(self.psnr),
            "ssim": _finite(self.ssim),
            "images": [
                {"name": image.name, "psnr": _finite(image.psnr), "ssim": _finite(image.ssim)}
                for image in self.images
            ],
            "protocol": self.protocol.as_dict(),
            "inputs": self.inputs,
            "self_ensemble": self.self_ensemble,
            "tile": self.tile,
            "device": self.device,
            "dtype": self.dtype,
        }


def default_protocol(model: SRModel, scale: int) -> Protocol:
    """The protocol by which a network's own paper measures Set5, Set14, B100 and Urban100.

    Args:
        model: The network.
        scale: One of its scales.

    Returns:
        VDSR's for a network that sharpens enlarged luma, else that of EDSR and its successors.
    """
    if model.input_upscaled and model.color == "y":
        return Protocol.vdsr(scale)
    return Protocol.benchmark(scale)


def evaluate(
    model: SRModel,
    dataset: PictureSet,
    scale: int,
    protocol: Protocol | None = None,
    *,
    self_ensemble: bool = False,
    tile: int | Literal["auto"] | None = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: ProgressCallback | None = None,
) -> EvaluationResult:
    """Enlarge every small picture of a set and compare it with its original.

    Args:
        model: The network; it is copied, and not changed.
        dataset: The set.
        scale: One of the network's scales.
        protocol: How to compare; None for :func:`default_protocol`.
        self_ensemble: Whether to average over the eight flips and quarter turns (EDSR+).
        tile: Side of the tiles in pixels of the small picture, to bound memory; they overlap by the
            network's receptive field, so that the result is the same up to rounding. None for
            whole pictures, ``"auto"`` for whole pictures where memory allows.
        device: Where to run; None for where the network is.
        dtype: What to compute in; None for the network's own type.
        progress: Called after each picture.

    Returns:
        The measurement.

    Raises:
        InputError: The network does not serve the set's scale, ``tile`` is not positive, a picture
            cannot be read, or an output is not finite; the message names the picture.
        GhostsrError: The memory is too small for a picture.
    """
    upscaler = Upscaler(
        model, scale=scale, device=device, dtype=dtype, self_ensemble=self_ensemble, tile=tile
    )
    protocol = default_protocol(model, scale) if protocol is None else protocol
    pairs = dataset.pairs(scale)

    images = []
    for pair in pairs:
        high = pair.read_high()
        if protocol.low_resolution == "float":
            low = imresize(high.astype(np.float64), 1 / scale)
        else:
            low = pair.read_low()
        try:
            output = upscaler.values(low, luma_only=protocol.channel == "y")
            quality = compare(output, high, protocol)
        except GhostsrError as error:
            raise type(error)(f"{pair.high_path}: {error}") from error
        images.append(ImageResult(pair.name, quality.psnr, quality.ssim))
        if progress is not None:
            progress(len(images), len(pairs), pair.name)
    from_files = pairs[0].low_path is not None and protocol.low_resolution == "uint8"
    return EvaluationResult(
        dataset=dataset.name,
        scale=scale,
        images=tuple(images),
        protocol=protocol,
        inputs="files" if from_files else "imresize",
        self_ensemble=self_ensemble,
        tile=tile,
        device=str(upscaler.device),
        dtype=str(upscaler.dtype).removeprefix("torch."),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
