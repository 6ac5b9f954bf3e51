"""GhostSR: convert, fuse, train, run and measure super-resolution networks on native operators.

``import ghostsr_ext`` registers the operators as ``torch.ops.ghostsr.*``; :mod:`ghostsr_ext.ops`
has them under typed names. The names below are loaded when they are first used.

A first session::

    import ghostsr_ext

    enlarged = ghostsr_ext.Upscaler("x2")(picture)  # a NumPy array or a Pillow image

    dense = ghostsr_ext.load_model("edsr.pth")
    ghost, report = ghostsr_ext.convert(dense, calibration="BSD200")
    ghostsr_ext.save_model(ghost, "ghost.safetensors")
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ghostsr_ext import ops

if TYPE_CHECKING:
    from ghostsr_ext.checkpoints import load_model, save_model
    from ghostsr_ext.conversion import convert
    from ghostsr_ext.errors import GhostsrError, InputError
    from ghostsr_ext.fusion import fuse
    from ghostsr_ext.inference import Upscaler
    from ghostsr_ext.installation import build_info
    from ghostsr_ext.models import create_model
    from ghostsr_ext.nn import FusedConv2d, GhostConv2d, freeze_shifts, learn_shifts

__version__ = version("ghostsr")

__all__ = [
    "FusedConv2d",
    "GhostConv2d",
    "GhostsrError",
    "InputError",
    "Upscaler",
    "__version__",
    "build_info",
    "convert",
    "create_model",
    "freeze_shifts",
    "fuse",
    "learn_shifts",
    "load_model",
    "ops",
    "save_model",
]

# Loading these takes seconds (scikit-learn, Pillow), which a program that needs the operators
# alone should not wait for.
_LAZY = {
    "FusedConv2d": "ghostsr_ext.nn",
    "GhostConv2d": "ghostsr_ext.nn",
    "GhostsrError": "ghostsr_ext.errors",
    "InputError": "ghostsr_ext.errors",
    "Upscaler": "ghostsr_ext.inference",
    "build_info": "ghostsr_ext.installation",
    "convert": "ghostsr_ext.conversion",
    "create_model": "ghostsr_ext.models",
    "freeze_shifts": "ghostsr_ext.nn",
    "fuse": "ghostsr_ext.fusion",
    "learn_shifts": "ghostsr_ext.nn",
    "load_model": "ghostsr_ext.checkpoints",
    "save_model": "ghostsr_ext.checkpoints",
}


if not TYPE_CHECKING:  # Type checkers would take any name for one of the package.

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'ghostsr_ext' has no attribute {name!r}")
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
