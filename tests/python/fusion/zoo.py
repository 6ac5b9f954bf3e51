"""Small networks of spandrel's architectures, and what the package does with each.

As a program it prints the table of ``docs/networks.md``::

    python tests/python/fusion/zoo.py
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# Keyword arguments of the architecture's class, whose name is spandrel's.
_WINDOWED: Mapping[str, Any] = {
    "img_size": 16,
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 2),
    "window_size": 8,
    "mlp_ratio": 2,
    "upscale": 2,
    "upsampler": "pixelshuffle",
}

ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ATD": (
        "ATD",
        {**_WINDOWED, "category_size": 64, "num_tokens": 8, "reducted_dim": 4},
    ),
    "Compact": ("SRVGGNetCompact", {"num_feat": 16, "num_conv": 4, "upscale": 2}),
    "CRAFT": (
        "CRAFT",
        {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2], "upscale": 2},
    ),
    "DAT": (
        "DAT",
        {
            "embed_dim": 16,
            "split_size": [4, 8],
            "depth": [2, 2],
            "num_heads": [2, 2],
            "expansion_factor": 2.0,
        },
    ),
    "DCTLSA": ("DCTLSA", {"nf": 20, "upscale": 2}),
    "DITN": (
        "DITN_Real",
        {"dim": 16, "ITL_blocks": 1, "SAL_blocks": 1, "UFONE_blocks": 1, "upscale": 2},
    ),
    "DnCNN": ("DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 16, "nb": 9, "act_mode": "R"}),
    "DRCT": ("DRCT", {**_WINDOWED, "embed_dim": 20, "gc": 8}),
    "DRUNet": ("DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [8, 16, 24, 32], "nb": 2}),
    "ESRGAN": ("RRDBNet", {"num_filters": 16, "num_blocks": 2, "scale": 2}),
    "FBCNN": ("FBCNN", {"nc": [8, 16, 24, 32], "nb": 2}),
    "FDAT": (
        "FDAT",
        {
            "scale": 2,
            "embed_dim": 24,
            "num_groups": 1,
            "depth_per_group": 2,
            "num_heads": 2,
            "mid_dim": 16,
        },
    ),
    "FFTformer": ("FFTformer", {"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1}),
    "GRL": (
        "GRL",
        {
            "img_size": 16,
            "embed_dim": 16,
            "upscale": 2,
            "upsampler": "pixelshuffle",
            "depths": [2, 2],
            "num_heads_window": [1, 1],
            "num_heads_stripe": [1, 1],
            "mlp_ratio": 2.0,
        },
    ),
    "HAT": ("HAT", {**_WINDOWED, "num_feat": 16, "compress_ratio": 2, "squeeze_factor": 4}),
    "HVICIDNet": ("CIDNet", {"channels": [8, 8, 16, 32], "heads": [1, 2, 4, 8]}),
    "IPT": ("IPT", {"patch_size": 12, "n_feats": 8, "num_layers": 1, "scale": [2]}),
    "KBNet": (
        "KBNet_s",
        {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    ),
    "MixDehazeNet": ("MixDehazeNet", {"embed_dims": [8, 16, 24, 16, 8]}),
    "MMRealSR": (
        "MMRRDBNet_test",
        {
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 64,
            "num_block": 1,
            "num_grow_ch": 8,
            "num_feats": [16, 16, 16, 16],
            "num_blocks": [1, 1, 1, 1],
        },
    ),
    "MoESR": ("MoESR", {"scale": 2, "dim": 16, "n_blocks": 2, "n_block": 1}),
    "MoSR": ("MoSR", {"upscale": 2, "n_block": 2, "dim": 16}),
    "NAFNet": ("NAFNet", {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    "OmniSR": ("OmniSR", {"num_feat": 16, "res_num": 1, "up_scale": 2}),
    "PLKSR": ("PLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "RealPLKSR": ("RealPLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "RCAN": (
        "RCAN",
        {"scale": 2, "n_resgroups": 2, "n_resblocks": 2, "n_feats": 16, "reduction": 4},
    ),
    "RealCUGAN": ("UpCunet2x", {}),
    "RetinexFormer": ("RetinexFormer", {"n_feat": 8, "stage": 1}),
    "RGT": (
        "RGT",
        {
            "img_size": 16,
            "embed_dim": 16,
            "depth": [2, 2],
            "num_heads": [2, 2],
            "mlp_ratio": 2.0,
        },
    ),
    "SAFMN": ("SAFMN", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "SAFMNBCIE": ("SAFMN_BCIE", {"dim": 16, "n_blocks": 2, "num_layers": 2}),
    "SCUNet": ("SCUNet", {"config": [1, 1, 1, 1, 1, 1, 1], "dim": 64}),
    "SeemoRe": ("SeemoRe", {"scale": 2, "num_experts": 3, "num_layers": 2, "embedding_dim": 24}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 16, "upscale": 2}),
    "SwiftSRGAN": ("Generator", {"num_channels": 16, "num_blocks": 2, "upscale_factor": 2}),
    "Swin2SR": ("Swin2SR", _WINDOWED),
    "SwinIR": ("SwinIR", _WINDOWED),
    "Uformer": (
        "Uformer",
        {"embed_dim": 8, "depths": [1] * 9, "num_heads": [1, 1, 2, 2, 2, 2, 2, 1, 1]},
    ),
    "LaMa": ("LaMa", {}),
}
"""Class and arguments of each network, by spandrel's name of the architecture or of a variant."""

_VARIANTS = {"RealPLKSR": "PLKSR"}


def build(name: str) -> nn.Module:
    """Return the small network, with weights from a seed."""
    package = f"spandrel.architectures.{_VARIANTS.get(name, name)}"
    importlib.import_module(package)
    class_name, arguments = ARCHITECTURES[name]
    (found,) = {
        vars(module)[class_name]
        for place, module in list(sys.modules.items())
        if place.startswith(f"{package}.") and isinstance(vars(module).get(class_name), type)
    }
    torch.manual_seed(sum(map(ord, name)))
    network: nn.Module = found(**arguments)
    return network.eval()
