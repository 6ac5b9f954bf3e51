"""RDN as published by yjn870, with EDSR-PyTorch, and by idealo."""

from __future__ import annotations

import math

from ghostsr_ext.checkpoints.key_mappings.draft import Draft
from ghostsr_ext.checkpoints.key_mappings.key_mapping import KeyMapping


def _read_yjn870(draft: Draft) -> None:
    blocks = draft.count("rdbs.{}.lff.weight")
    layers = draft.count("rdbs.0.layers.{}.conv.weight")
    draft.conv("shallow1", "sfe1")
    draft.conv("shallow2", "sfe2")
    for block in range(blocks):
        for layer in range(layers):
            draft.conv(f"blocks.{block}.layers.{layer}", f"rdbs.{block}.layers.{layer}.conv")
        draft.conv(f"blocks.{block}.local_fusion", f"rdbs.{block}.lff")
    draft.conv("global_fusion1", "gff.0")
    draft.conv("global_fusion2", "gff.1")
    _read_pixel_shuffle_tail(draft, "sfe1", "rdbs.0.layers.0.conv", "upscale.{}", "output")
    draft.config |= {"blocks": blocks, "layers": layers}
    draft.choices["value_range"] = (1.0, 255.0)


def _read_edsr_pytorch(draft: Draft) -> None:
    blocks = draft.count("RDBs.{}.LFF.weight")
    layers = draft.count("RDBs.0.convs.{}.conv.0.weight")
    draft.conv("shallow1", "SFENet1")
    draft.conv("shallow2", "SFENet2")
    for block in range(blocks):
        for layer in range(layers):
            draft.conv(f"blocks.{block}.layers.{layer}", f"RDBs.{block}.convs.{layer}.conv.0")
        draft.conv(f"blocks.{block}.local_fusion", f"RDBs.{block}.LFF")
    draft.conv("global_fusion1", "GFF.0")
    draft.conv("global_fusion2", "GFF.1")
    last = max((i for i in (2, 4) if f"UPNet.{i}.weight" in draft), default=2)
    stages = "UPNet.{}"
    _read_pixel_shuffle_tail(
        draft, "SFENet1", "RDBs.0.convs.0.conv.0", stages, f"UPNet.{last}", before=last
    )
    draft.config |= {"blocks": blocks, "layers": layers}
    draft.choices["value_range"] = (255.0, 1.0)


def _read_pixel_shuffle_tail(
    draft: Draft, head: str, first_layer: str, stage: str, output: str, *, before: int = 6
) -> None:
    features = draft.filters(head)[0]
    # A pixel shuffle without tensors stands between two convolutions.
    stages = [
        stage.format(index)
        for index in range(0, before, 2)
        if f"{stage.format(index)}.weight" in draft
    ]
    for number, prefix in enumerate(stages):
        draft.conv(f"tail.upsampler.convs.{number}", prefix)
    draft.conv("tail.output", output)
    draft.config |= {
        "architecture": "rdn",
        "scale": draft.pixel_shuffle_scale(stages, features),
        "growth": draft.filters(first_layer)[0],
        "features": features,
        "tail": "pixel_shuffle",
        "mean": None,
    }


def _read_idealo(draft: Draft) -> None:
    blocks = layers = 0
    while f"LFF_{blocks + 1}.weight" in draft:
        blocks += 1
    while f"F_1_{layers + 1}.weight" in draft:
        layers += 1
    draft.conv("shallow1", "F_m1")
    draft.conv("shallow2", "F_0")
    for block in range(blocks):
        for layer in range(layers):
            draft.conv(f"blocks.{block}.layers.{layer}", f"F_{block + 1}_{layer + 1}")
        draft.conv(f"blocks.{block}.local_fusion", f"LFF_{block + 1}")
    draft.conv("global_fusion1", "GFF_1")
    draft.conv("global_fusion2", "GFF_2")
    for name, prefix in (("conv1", "UPN1"), ("conv2", "UPN2"), ("conv3", "UPN3"), ("output", "SR")):
        draft.conv(f"tail.{name}", prefix)
    if draft.filters("SR")[1] != draft.filters("UPN3")[0]:
        draft.refuse("a tail with a pixel shuffle (SR.weight reads fewer channels than UPN3 has)")
    draft.config |= {
        "architecture": "rdn",
        "scale": math.isqrt(draft.filters("UPN3")[0] // 3),
        "blocks": blocks,
        "layers": layers,
        "growth": draft.filters("F_1_1")[0],
        "features": draft.filters("F_m1")[0],
        "tail": "nearest",
        "mean": None,
    }
    draft.evidence.append("tail of idealo's RDN with nearest-neighbour enlargement: UPN3, SR")
    draft.choices["value_range"] = (1.0, 255.0)


KEY_MAPPINGS = (
    KeyMapping(
        "yjn870's RDN",
        ("sfe1.weight", "rdbs.0.layers.0.conv.weight", "rdbs.0.lff.weight", "gff.0.weight"),
        _read_yjn870,
    ),
    KeyMapping(
        "EDSR-PyTorch's RDN",
        ("SFENet1.weight", "RDBs.0.convs.0.conv.0.weight", "RDBs.0.LFF.weight", "GFF.0.weight"),
        _read_edsr_pytorch,
    ),
    KeyMapping(
        "idealo's RDN",
        ("F_m1.weight", "F_1_1.weight", "LFF_1.weight", "UPN1.weight", "SR.weight"),
        _read_idealo,
    ),
)
