"""Taking networks to other runtimes: ONNX, OpenVINO, ncnn, and torch without this package."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.export.lowering import GHOST_FORMS, GhostForm, lower
from ghostsr_ext.export.parity import Parity, own_rounding

SUFFIXES = (".onnx", ".xml", ".param", ".pt2")
"""Suffixes of what can be written: ONNX, OpenVINO, ncnn, and torch's exported program."""

__all__ = ["GHOST_FORMS", "SUFFIXES", "GhostForm", "Parity", "export_model", "lower"]


def export_model(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    example: Tensor | None = None,
    multiple: int | None = None,
    scale: int | None = None,
    ghost_as: GhostForm = "depthwise",
    half: bool = False,
    compiled: bool = False,
    tolerance: float | None = None,
    overwrite: bool = False,
) -> Parity:
    """Write a network for another runtime, and check there that it gives the same pictures.

    The suffix decides: ``.onnx`` for ONNX, ``.xml`` for OpenVINO (with a ``.bin`` beside it),
    ``.param`` for ncnn (with a ``.bin``), ``.pt2`` for a program that ``torch.export.load`` or, if
    compiled, ``torch._inductor.aoti_load_package`` reads. None needs an operator of this package.

    Input and output of the package's networks are float32 in 0..``value_range``, [N, C, height,
    width]; height and width are free (in ONNX and OpenVINO the batch, too), but multiples of
    ``multiple``. What a caller has to know stands in the file's metadata where the format has any:
    ``scale``, ``value_range``, ``color``, ``input_upscaled``, ``receptive_field``, ``multiple``.

    Args:
        model: A network of the package, or any module of one tensor in and one out, such as what
            ``convert`` returns; it is not changed.
        path: What to write.
        example: An input of a module that is no network of the package, [N, C, height, width].
            Runtimes are compared on it.
        multiple: What height and width must be multiples of, where they shall be free in the file
            of such a module; None for those of ``example`` alone.
        scale: One of the network's scales; None for its own.
        ghost_as: What ghost channels become: see :func:`lower`.
        half: Whether weights are stored in float16, for half the size (not in ``.pt2``). ONNX then
            computes in float16, too; OpenVINO and ncnn compute in what their caller tells them.
        compiled: Whether a ``.pt2`` holds machine code (AOTInductor) instead of a graph.
        tolerance: Largest difference from torch that is accepted, for values in 0..255 (in 0..255
            of the output's largest magnitude, where white is not known); None for 1 with ``half``,
            else 0.005, or four times torch's own rounding in float32 where that is more, as in deep
            networks that are converted and not yet trained.
        overwrite: Whether existing files may be replaced.

    Returns:
        The differences found.

    Raises:
        InputError: An argument is out of its domain or the file cannot be written.
        GhostsrError: A package is missing, torch cannot trace the module, or a difference is larger
            than ``tolerance``; nothing is written then.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"output {path}: suffix must be one of {', '.join(SUFFIXES)}")
    if half and path.suffix == ".pt2":
        raise InputError(f"output {path}: a program for torch is written in float32 only")
    if ghost_as == "slices" and path.suffix in (".xml", ".param"):
        raise InputError(f"output {path}: ghost channels can only be depthwise there")
    if compiled and path.suffix != ".pt2":
        raise InputError(f"output {path}: only .pt2 can be compiled")
    network = lower(model, scale=scale, ghost_as=ghost_as, example=example, multiple=multiple)
    if not network.has_examples:
        raise InputError(
            f"example: missing; {type(model).__name__} is no network of the package: pass one of "
            "its inputs, [N, C, height, width]"
        )
    if tolerance is None:
        tolerance = 1.0 if half else max(5e-3, 4 * own_rounding(network))
    # Each format's module loads a large package.
    if path.suffix == ".onnx":
        from ghostsr_ext.export.onnx import write_onnx

        return write_onnx(network, path, tolerance, half=half, overwrite=overwrite)
    if path.suffix == ".xml":
        from ghostsr_ext.export.openvino import write_openvino

        return write_openvino(network, path, tolerance, half=half, overwrite=overwrite)
    if path.suffix == ".param":
        from ghostsr_ext.export.ncnn import write_ncnn

        return write_ncnn(network, path, tolerance, half=half, overwrite=overwrite)
    from ghostsr_ext.export.program import write_program

    return write_program(network, path, tolerance, compiled=compiled, overwrite=overwrite)
