"""What decides the bits of a converted network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

import ghostsr_ext
from ghostsr_ext.conversion.options import Options
from ghostsr_ext.conversion.picture_format import PictureFormat
from ghostsr_ext.conversion.pictures import Calibration, calibration_digest
from ghostsr_ext.conversion.selection import LayerPredicate
from ghostsr_ext.fingerprints import network_fingerprint, tensor_digest
from ghostsr_ext.nn import GhostConv2d


def conversion_recipe(
    model: nn.Module,
    options: Options,
    calibration: Calibration | None,
    layers: Sequence[str] | LayerPredicate | None,
    form: PictureFormat | None,
    example: Tensor | None,
) -> dict[str, Any]:
    """Return what decides the bits of a conversion, by names; see ``convert`` for the arguments.

    Machine, threads and the release of torch are not in it.

    Args:
        model: The dense network.
        options: What shall be done.
        calibration: The pictures, of which the contents count, and not the names.
        layers: The layers to convert, or a predicate.
        form: What pictures the network takes.
        example: An input of the network.

    Raises:
        InputError: A picture cannot be read.
    """
    if callable(layers):
        layers = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | GhostConv2d) and layers(name, module)
        ]
    return {
        "ghostsr": ghostsr_ext.__version__,
        "network": network_fingerprint(model),
        "pictures": None if calibration is None else calibration_digest(calibration),
        "layers": None if layers is None else sorted(layers),
        "picture_format": None if form is None else asdict(form),
        "example": None if example is None else tensor_digest(example),
        "method": options.method,
        **options.described(),
        "polish_minutes": options.polish_minutes,
        "polish_steps": options.polish_steps,
    }
