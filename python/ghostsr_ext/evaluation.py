"""Measuring a network on a benchmark set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ghostsr_ext.datasets import PictureSet
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.imaging import imresize, luma, rgb_to_ycbcr, ycbcr_to_rgb
from ghostsr_ext.metrics import PEAK, Protocol, compare
from ghostsr_ext.models import SRModel

Progress = Callable[[int, int, str], None]
"""Called after each picture with the pictures done, the pictures in all, and the picture's name."""


@dataclass(frozen=True)
class ImageResult:
    """One picture's measurement.

    Attributes:
        name: The picture's file name without suffix.
        psnr: In dB; infinite when the output equals the original.
        ssim: At most 1; NaN for a picture that is smaller than the window of SSIM.
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
        tile: Side of the tiles in pixels of the small picture, or None for whole pictures.
        device: Where the network ran.
        dtype: The type that it computed in.
    """

    dataset: str
    scale: int
    images: tuple[ImageResult, ...]
    protocol: Protocol
    inputs: str
    self_ensemble: bool
    tile: int | None
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
    if model.input_upscaled and model.colour == "y":
        return Protocol.vdsr(scale)
    return Protocol.benchmark(scale)


def evaluate(
    model: SRModel,
    dataset: PictureSet,
    scale: int,
    protocol: Protocol | None = None,
    *,
    self_ensemble: bool = False,
    tile: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Enlarge every small picture of a set and compare it with its original.

    Args:
        model: The network. It is moved to ``device`` and ``dtype``; its training mode is restored.
        dataset: The set.
        scale: One of the network's scales.
        protocol: How to compare; None for :func:`default_protocol`.
        self_ensemble: Whether to average over the eight flips and quarter turns (EDSR+).
        tile: Side of the tiles in pixels of the small picture, to bound memory; they overlap by the
            network's receptive field, so that the result is the same up to rounding. None for
            whole pictures.
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
    if scale not in model.scales:
        served = ", ".join(f"x{served}" for served in model.scales)
        raise InputError(f"scale: {scale}; this network serves {served}")
    if tile is not None and tile < 1:
        raise InputError(f"tile: {tile}; must be 1 or more, or None for whole pictures")
    protocol = default_protocol(model, scale) if protocol is None else protocol
    pairs = dataset.pairs(scale)
    model.to(device=device, dtype=dtype)
    upscaler = _Upscaler(model, scale, protocol, self_ensemble, tile)

    images = []
    with _evaluating(model):
        for pair in pairs:
            high = pair.read_high()
            if protocol.low_resolution == "float":
                low = imresize(high.astype(np.float64), 1 / scale)
            else:
                low = pair.read_low()
            try:
                quality = compare(upscaler(low), high, protocol)
            except InputError as error:
                raise InputError(f"{pair.high_path}: {error}") from error
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise GhostsrError(
                    f"{pair.high_path}: not enough memory on {upscaler.device}; "
                    f"pass a {'smaller ' if tile else ''}tile"
                ) from error
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


class _Upscaler:
    """One network at one scale, from pictures in 0..255 to pictures in 0..255."""

    def __init__(
        self,
        model: SRModel,
        scale: int,
        protocol: Protocol,
        self_ensemble: bool,
        tile: int | None,
    ) -> None:
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._model, self._scale, self._self_ensemble = model, scale, self_ensemble
        self._wants_colour = protocol.channel == "rgb"
        self._growth = 1 if model.input_upscaled else scale
        # Tiles are cut from the network's input, which may be enlarged already.
        enlarged = scale if model.input_upscaled else 1
        self._tile = None if tile is None else tile * enlarged
        self._margin = 0 if tile is None else model.receptive_field

    def __call__(self, low: NDArray[Any]) -> NDArray[np.float64]:
        """Enlarge ``[h, w, 3]`` to ``[H, W, 3]``, or to luma ``[H, W]`` where that is enough."""
        if self._model.colour == "rgb":
            return self._run(low)
        y = self._run(luma(low)[..., None])[..., 0]
        if not self._wants_colour:
            return y
        chroma = imresize(rgb_to_ycbcr(low)[..., 1:], self._scale)
        return ycbcr_to_rgb(np.concatenate([y[..., None], chroma], axis=2))

    def _run(self, image: NDArray[Any]) -> NDArray[np.float64]:
        if self._model.input_upscaled:
            image = imresize(image.astype(np.float64), self._scale)
        unit = image.astype(np.float64) * (self._model.value_range / PEAK)
        tensor = torch.from_numpy(unit).permute(2, 0, 1)[None]
        tensor = tensor.to(self.device, self.dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            if self._self_ensemble:
                turned = [_turn(self._tiled(_turn(tensor, t)), t, back=True) for t in range(8)]
                output = torch.stack([result.double() for result in turned]).mean(0)
            else:
                output = self._tiled(tensor).double()
            output = output * (PEAK / self._model.value_range)
        result: NDArray[np.float64] = output[0].permute(1, 2, 0).cpu().numpy()
        return result

    def _tiled(self, image: Tensor) -> Tensor:
        rows, columns = image.shape[2:]
        side, margin, growth = self._tile, self._margin, self._growth
        if side is None or max(rows, columns) <= side:
            output: Tensor = self._model(image, self._scale)
            return output
        out = image.new_empty(*image.shape[:2], rows * growth, columns * growth)
        for top in range(0, rows, side):
            for left in range(0, columns, side):
                bottom, right = min(rows, top + side), min(columns, left + side)
                above, before = max(0, top - margin), max(0, left - margin)
                crop = image[:, :, above : bottom + margin, before : right + margin]
                enlarged = self._model(crop, self._scale)
                out[:, :, top * growth : bottom * growth, left * growth : right * growth] = (
                    enlarged[
                        :,
                        :,
                        (top - above) * growth : (bottom - above) * growth,
                        (left - before) * growth : (right - before) * growth,
                    ]
                )
        return out


def _turn(image: Tensor, turn: int, *, back: bool = False) -> Tensor:
    """Apply one of the eight symmetries of the square, or undo it."""
    quarter_turns, mirrored = turn % 4, turn >= 4
    if back:
        image = torch.rot90(image, -quarter_turns, (2, 3))
        return image.flip(3) if mirrored else image
    return torch.rot90(image.flip(3) if mirrored else image, quarter_turns, (2, 3))


@contextmanager
def _evaluating(model: SRModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
