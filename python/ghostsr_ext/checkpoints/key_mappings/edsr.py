"""EDSR as published with EDSR-PyTorch, its five-block mobile form, and BasicSR."""

from __future__ import annotations

import math

from ghostsr_ext.checkpoints.key_mappings.draft import Draft
from ghostsr_ext.checkpoints.key_mappings.key_mapping import KeyMapping
from ghostsr_ext.models.base import scaled_div2k_mean


def _read_edsr_pytorch(draft: Draft) -> None:
    features = draft.filters("head.0")[0]
    blocks = draft.count("body.{}.body.0.weight")
    draft.conv("head", "head.0")
    for block in range(blocks):
        draft.conv(f"body.{block}.conv1", f"body.{block}.body.0")
        draft.conv(f"body.{block}.conv2", f"body.{block}.body.2")
    draft.conv("body_end", f"body.{blocks}")
    draft.config |= {"architecture": "edsr", "blocks": blocks, "features": features}
    if "tail.0.weight" in draft:
        draft.config |= {"tail": "direct", "scale": math.isqrt(draft.filters("tail.0")[0] // 3)}
        draft.evidence.append("tail of one convolution and a pixel shuffle: tail.0.weight")
        draft.conv("tail", "tail.0")
    else:
        # A pixel shuffle without tensors stands between two convolutions.
        stages = [f"tail.0.{i}" for i in (0, 2, 4)]
        draft.config |= {
            "tail": "pixel_shuffle",
            "scale": draft.pixel_shuffle_stages("upsampler.convs", stages, features),
        }
        draft.conv("tail", "tail.1")
    draft.mean_shift("sub_mean", "add_mean")
    if "value_range" not in draft.config:
        draft.choices["value_range"] = (255.0, 1.0)
    _choose_residual_scale(draft, features)


def _read_basicsr(draft: Draft) -> None:
    features = draft.filters("conv_first")[0]
    blocks = draft.count("body.{}.conv1.weight")
    draft.conv("head", "conv_first")
    for block in range(blocks):
        draft.conv(f"body.{block}.conv1", f"body.{block}.conv1")
        draft.conv(f"body.{block}.conv2", f"body.{block}.conv2")
    draft.conv("body_end", "conv_after_body")
    stages = [f"upsample.{i}" for i in (0, 2, 4)]
    scale = draft.pixel_shuffle_stages("upsampler.convs", stages, features)
    draft.conv("tail", "conv_last")
    mean = scaled_div2k_mean(255.0)
    draft.config |= {
        "architecture": "edsr",
        "blocks": blocks,
        "features": features,
        "scale": scale,
        "value_range": 255.0,
    }
    draft.evidence.append("value range 0..255 and the mean of DIV2K: constants of BasicSR's EDSR")
    draft.constant_mean(mean)
    _choose_residual_scale(draft, features)


def _choose_residual_scale(draft: Draft, features: int) -> None:
    draft.choices["residual_scale"] = (0.1, 1.0) if features >= 256 else (1.0, 0.1)


KEY_MAPPINGS = (
    KeyMapping(
        "EDSR-PyTorch's EDSR",
        ("head.0.weight", "body.0.body.0.weight", "body.0.body.2.weight"),
        _read_edsr_pytorch,
    ),
    KeyMapping(
        "BasicSR's EDSR",
        ("conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "conv_last.weight"),
        _read_basicsr,
    ),
)
