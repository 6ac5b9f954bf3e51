"""Calibration pictures as inputs of a network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ghostsr_ext.conversion.picture_format import PictureFormat, picture_format
from ghostsr_ext.errors import InputError
from ghostsr_ext.fingerprints import DIGEST_BYTES, file_digest, tensor_digest
from ghostsr_ext.imaging import imresize, luma, picture_files, read_image, read_size
from ghostsr_ext.metrics import psnr
from ghostsr_ext.sample_pictures import picture_folder

Calibration = Tensor | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""Inputs of the network [N, C, H, W], or pictures: a folder, or files."""

CROPS = 48
SIDE = 48

_PEAK = 255


def calibration_inputs(
    model: nn.Module,
    calibration: Calibration,
    *,
    crops: int = CROPS,
    side: int = SIDE,
    seed: int = 0,
    form: PictureFormat | None = None,
) -> Tensor:
    """Return inputs of ``model`` to calibrate it on.

    Pictures are reduced by the network's scale as the inputs of benchmarks are, and crops are cut
    from them at random places; a network of several scales gets crops of each. Pictures that are
    too small for a crop are passed over.

    Args:
        model: The network.
        calibration: Inputs, or pictures.
        crops: How many crops to cut.
        side: Rows and columns of a crop.
        seed: Seed of the choice of pictures and places.
        form: What pictures the network takes; found out by default.

    Returns:
        [N, C, H, W] on the network's device, in its type.

    Raises:
        InputError: There are no pictures, one cannot be read, all are too small, or inputs have the
            wrong shape or are not finite.
    """
    if isinstance(calibration, Tensor):
        parameter = next(p for p in model.parameters() if p.is_floating_point())
        if calibration.dim() != 4 or not calibration.numel():
            raise InputError(
                f"calibration: found shape {list(calibration.shape)}; [N, C, H, W] is allowed"
            )
        if not bool(torch.isfinite(calibration).all()):
            raise InputError("calibration: has entries that are NaN or infinite")
        return calibration.to(parameter.device, parameter.dtype)
    form = form or picture_format(model)
    files = _files(calibration)
    generator = np.random.default_rng(seed)
    cut = [
        _cut(form, files, form.scales[number % len(form.scales)], side, generator)[0]
        for number in range(crops)
    ]
    return _as_input(model, form, cut)


def calibration_digest(calibration: Calibration) -> str:
    """Return a digest of inputs, or of the contents of pictures in their order.

    Raises:
        InputError: There are no pictures, or one cannot be read.
    """
    if isinstance(calibration, Tensor):
        return tensor_digest(calibration)
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for path in _files(calibration):
        try:
            digest.update(file_digest(path).encode())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def mean_psnr(
    model: nn.Module,
    calibration: Calibration,
    *,
    seed: int = 0,
    form: PictureFormat | None = None,
) -> float:
    """Return the mean PSNR on luma, in dB, of ``model`` on reduced crops of pictures.

    Args:
        model: The network, at its default scale.
        calibration: Pictures, as for ``calibration_inputs``.
        seed: Seed of the choice of pictures and places.
        form: What pictures the network takes; found out by default.

    Raises:
        InputError: As for ``calibration_inputs``; or there are no pictures but inputs.
    """
    if isinstance(calibration, Tensor):
        raise InputError("calibration: inputs have no originals to compare with; pass pictures")
    form = form or picture_format(model)
    files, generator = _files(calibration), np.random.default_rng(seed)
    inside = slice(form.scale, -form.scale)
    qualities = []
    for _ in range(CROPS):
        crop, original = _cut(form, files, form.scale, SIDE, generator)
        with torch.no_grad():
            output = model(_as_input(model, form, [crop])).double() * (_PEAK / form.value_range)
        picture = output[0].permute(1, 2, 0).cpu().numpy().clip(0, _PEAK)
        y = picture[..., 0] if form.color == "y" else luma(picture)
        qualities.append(psnr(y[inside, inside], luma(original)[inside, inside]))
    return float(np.mean(qualities))


def _as_input(model: nn.Module, form: PictureFormat, crops: list[NDArray[np.float64]]) -> Tensor:
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    return (batch * (form.value_range / _PEAK)).to(parameter.device, parameter.dtype)


def _files(calibration: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    if isinstance(calibration, str | os.PathLike):
        files = picture_files(picture_folder(calibration))
        if not files:
            raise InputError(f"calibration {os.fspath(calibration)}: has no pictures")
        return files
    files = [Path(path) for path in calibration]
    if not files:
        raise InputError("calibration: the list of pictures is empty")
    return files


def _cut(
    form: PictureFormat, files: list[Path], scale: int, side: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Cut a crop from a random picture, as the network takes it in 0..255, and its original."""
    for index in generator.permutation(len(files)):
        path = files[index]
        low = [length // scale for length in read_size(path)]
        if min(low) < side:
            continue
        picture = read_image(path)[: low[0] * scale, : low[1] * scale]
        top, left = (int(generator.integers(0, length - side + 1)) for length in low)
        reduced = imresize(picture, 1 / scale)[top : top + side, left : left + side]
        crop = reduced.astype(np.float64)
        if form.color == "y":
            crop = luma(crop)[..., None]
        rows, columns = (
            slice(top * scale, (top + side) * scale),
            slice(left * scale, (left + side) * scale),
        )
        original = picture[rows, columns]
        if form.input_upscaled:
            return imresize(crop, scale)[:side, :side], original[:side, :side]
        return crop, original
    raise InputError(f"calibration: no picture has {side * scale} rows and columns")
