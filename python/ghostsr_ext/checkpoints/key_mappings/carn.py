"""CARN and CARN-M as published with CARN-pytorch (nmhkahn)."""

from __future__ import annotations

from ghostsr_ext.checkpoints.key_mappings.draft import Draft
from ghostsr_ext.checkpoints.key_mappings.key_mapping import KeyMapping
from ghostsr_ext.models.carn import UNITS


def _read_carn(draft: Draft) -> None:
    features = draft.filters("entry")[0]
    efficient = "b1.b1.body.4.weight" in draft
    recursive = "b1.b2.body.0.weight" not in draft
    groups = max(1, features // draft.filters("b1.b1.body.0")[1]) if efficient else 1
    draft.evidence.append(
        f"{'efficient' if efficient else 'plain'} residual blocks, {groups} groups: "
        f"b1.b1.body.4.weight is {'there' if efficient else 'absent'}, shape of b1.b1.body.0.weight"
    )
    draft.evidence.append(
        f"{'recursive' if recursive else 'not recursive'}: b1.b2.body.0.weight is "
        f"{'absent' if recursive else 'there'}"
    )
    draft.conv("entry", "entry")
    convs = {"conv1": 0, "conv2": 2, **({"pointwise": 4} if efficient else {})}
    for block in range(UNITS):
        for unit in range(1 if recursive else UNITS):
            for conv, index in convs.items():
                draft.conv(
                    f"cascade.units.{block}.units.{unit}.{conv}",
                    f"b{block + 1}.b{unit + 1}.body.{index}",
                )
        for step in range(UNITS):
            draft.conv(f"cascade.units.{block}.fusions.{step}", f"b{block + 1}.c{step + 1}.body.0")
    for step in range(UNITS):
        draft.conv(f"cascade.fusions.{step}", f"c{step + 1}.body.0")
    draft.conv("exit", "exit")
    draft.config |= {
        "architecture": "carn",
        "scale": _read_upsamplers(draft, features),
        "features": features,
        "groups": groups,
        "recursive": recursive,
    }
    if efficient and groups == 1:
        draft.refuse("efficient residual blocks without groups (b1.b1.body.0.weight)")
    if draft.mean_shift("sub_mean.shifter", "add_mean.shifter") is None:
        draft.choices["value_range"] = (1.0, 255.0)


def _read_upsamplers(draft: Draft, features: int) -> int | list[int]:
    scales = []
    for head in ("up2", "up3", "up4", "up"):
        # A ReLU and a pixel shuffle without tensors stand between two convolutions.
        stages = [f"upsample.{head}.body.{index}" for index in (0, 3, 6)]
        if not any(f"{stage}.weight" in draft for stage in stages):
            continue
        scale = draft.pixel_shuffle_stages("upsamplers.x{}.convs", stages, features)
        if scale in scales or head not in ("up", f"up{scale}"):
            draft.refuse(f"a head upsample.{head} that enlarges by {scale}")
        scales.append(scale)
    if not scales:
        draft.refuse("no head upsample.up2, up3, up4 or up with pixel shuffles")
    return scales[0] if len(scales) == 1 else scales


KEY_MAPPINGS = (
    KeyMapping(
        "CARN-pytorch's CARN",
        ("entry.weight", "b1.b1.body.0.weight", "b1.c1.body.0.weight", "exit.weight"),
        _read_carn,
    ),
)
