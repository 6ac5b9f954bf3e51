"""The super-resolution networks, by class and by name."""

from __future__ import annotations

from ghostsr_ext.models.base import SRModel
from ghostsr_ext.models.carn import CARN
from ghostsr_ext.models.compact import SRVGGNetCompact
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.models.extensions import import_modules
from ghostsr_ext.models.rdn import RDN
from ghostsr_ext.models.registry import (
    create_model,
    load_extensions,
    model_from_config,
    preset_names,
    register_model,
)
from ghostsr_ext.models.rrdbnet import RRDBNet
from ghostsr_ext.models.vdsr import VDSR

__all__ = [
    "CARN",
    "EDSR",
    "RDN",
    "VDSR",
    "RRDBNet",
    "SRModel",
    "SRVGGNetCompact",
    "create_model",
    "import_modules",
    "load_extensions",
    "model_from_config",
    "preset_names",
    "register_model",
]

register_model("edsr", EDSR, blocks=32, features=256, residual_scale=0.1)
register_model("edsr_baseline", EDSR, blocks=16, features=64, residual_scale=1.0)
register_model("rdn", RDN, blocks=16, layers=8, growth=64, features=64)
register_model("rdn_d20c6g32", RDN, blocks=20, layers=6, growth=32, features=64)
register_model("carn", CARN, groups=1, recursive=False)
register_model("carn_m", CARN, groups=4, recursive=True)
register_model("vdsr", VDSR, layers=20, features=64)
register_model("realesrgan_x4plus", RRDBNet, scale=4, blocks=23)
register_model("realesrgan_x2plus", RRDBNet, scale=2, blocks=23)
register_model("realesrgan_x4plus_anime_6b", RRDBNet, scale=4, blocks=6)
register_model("realesr_animevideov3", SRVGGNetCompact, scale=4, layers=16)
register_model("realesr_general_x4v3", SRVGGNetCompact, scale=4, layers=32)
