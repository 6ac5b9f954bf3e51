"""VDSR as published by twtygqyy and by huangzehao (from Caffe)."""

from __future__ import annotations

from ghostsr_ext.checkpoints.key_mappings.draft import Draft
from ghostsr_ext.checkpoints.key_mappings.key_mapping import KeyMapping


def _read_twtygqyy(draft: Draft) -> None:
    middle = draft.count("residual_layer.{}.conv.weight")
    _read_chain(draft, ["input", *(f"residual_layer.{i}.conv" for i in range(middle)), "output"])


def _read_numbered(draft: Draft) -> None:
    layers = 0
    while f"conv{layers + 1}.weight" in draft:
        layers += 1
    _read_chain(draft, [f"conv{layer + 1}" for layer in range(layers)])


def _read_chain(draft: Draft, prefixes: list[str]) -> None:
    bias = f"{prefixes[0]}.bias" in draft
    for layer, prefix in enumerate(prefixes):
        draft.conv(f"convs.{layer}", prefix, bias=bias)
    features, channels, _, _ = draft.filters(prefixes[0])
    if channels not in (1, 3):
        draft.refuse(f"{channels} input channels in {prefixes[0]}.weight (1 or 3 are read)")
    draft.config |= {
        "architecture": "vdsr",
        "scale": [2, 3, 4],
        "layers": len(prefixes),
        "features": features,
        "bias": bias,
        "color": "y" if channels == 1 else "rgb",
        "value_range": 1.0,
    }
    draft.evidence.append(f"{'with' if bias else 'without'} biases: {prefixes[0]}.bias")
    draft.evidence.append(
        f"{'luma' if channels == 1 else 'RGB'}: {channels} input channels in {prefixes[0]}.weight"
    )
    draft.evidence.append("value range 0..1, one network for x2, x3 and x4: as VDSR is published")


KEY_MAPPINGS = (
    KeyMapping(
        "twtygqyy's VDSR",
        ("input.weight", "residual_layer.0.conv.weight", "output.weight"),
        _read_twtygqyy,
    ),
    KeyMapping(
        "huangzehao's VDSR",
        ("conv1.weight", "conv2.weight", "conv3.weight", "conv4.weight"),
        _read_numbered,
    ),
)
