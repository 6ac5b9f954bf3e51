"""The super-resolution networks, by class and by name."""

from __future__ import annotations

from ghostsr_ext.models.base import SRModel
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.models.registry import (
    create_model,
    model_from_config,
    preset_names,
    register_model,
)

__all__ = [
    "EDSR",
    "SRModel",
    "create_model",
    "model_from_config",
    "preset_names",
    "register_model",
]

register_model("edsr", EDSR, blocks=32, features=256, residual_scale=0.1)
register_model("edsr_baseline", EDSR, blocks=16, features=64, residual_scale=1.0)
