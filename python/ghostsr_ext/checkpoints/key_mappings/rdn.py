"""RDN as published by yjn870, with EDSR-PyTorch, and by idealo."""

from __future__ import annotations

import math

from ghostsr_ext.checkpoints.key_mappings.draft import Draft
from ghostsr_ext.checkpoints.key_mappings.key_mapping import KeyMapping


def _read_yjn870(draft: Draft) -> None:
    _read_trunk(draft, ("sfe1", "sfe2"), "rdbs.{}.layers.{}.conv", "rdbs.{}.lff", "gff.{}")
    _read_pixel_shuffle_tail(draft, [f"upscale.{index}" for index in (0, 2, 4)], "output")
    draft.choices["value_range"] = (1.0, 255.0)


def _read_edsr_pytorch(draft: Draft) -> None:
    heads = "SFENet1", "SFENet2"
    _read_trunk(draft, heads, "RDBs.{}.convs.{}.conv.0", "RDBs.{}.LFF", "GFF.{}")
    output = 4 if "UPNet.4.weight" in draft else 2
    stages = [f"UPNet.{index}" for index in range(0, output, 2)]
    _read_pixel_shuffle_tail(draft, stages, f"UPNet.{output}")
    draft.choices["value_range"] = (255.0, 1.0)


def _read_idealo(draft: Draft) -> None:
    _read_trunk(draft, ("F_m1", "F_0"), "F_{}_{}", "LFF_{}", "GFF_{}", first=1)
    for name, prefix in (("conv1", "UPN1"), ("conv2", "UPN2"), ("conv3", "UPN3"), ("output", "SR")):
        draft.conv(f"tail.{name}", prefix)
    if draft.filters("SR")[1] != draft.filters("UPN3")[0]:
        draft.refuse("a tail with a pixel shuffle (SR.weight reads fewer channels than UPN3 has)")
    draft.config |= {"scale": math.isqrt(draft.filters("UPN3")[0] // 3), "tail": "nearest"}
    draft.evidence.append("tail of idealo's RDN with nearest-neighbour enlargement: UPN3, SR")
    draft.choices["value_range"] = (1.0, 255.0)


def _read_trunk(
    draft: Draft,
    heads: tuple[str, str],
    layer: str,
    local_fusion: str,
    global_fusion: str,
    *,
    first: int = 0,
) -> None:
    """Read all but the tail; in the file's names blocks and layers are counted from ``first``."""
    blocks = draft.count(f"{local_fusion}.weight", first)
    layers = draft.count(f"{layer.format(first, '{}')}.weight", first)
    draft.conv("shallow1", heads[0])
    draft.conv("shallow2", heads[1])
    for block in range(blocks):
        for index in range(layers):
            prefix = layer.format(block + first, index + first)
            draft.conv(f"blocks.{block}.layers.{index}", prefix)
        draft.conv(f"blocks.{block}.local_fusion", local_fusion.format(block + first))
    draft.conv("global_fusion1", global_fusion.format(first))
    draft.conv("global_fusion2", global_fusion.format(first + 1))
    draft.config |= {
        "architecture": "rdn",
        "blocks": blocks,
        "layers": layers,
        "growth": draft.filters(layer.format(first, first))[0],
        "features": draft.filters(heads[0])[0],
        "mean": None,
    }


def _read_pixel_shuffle_tail(draft: Draft, stages: list[str], output: str) -> None:
    # A pixel shuffle without tensors stands between two convolutions.
    features = draft.config["features"]
    scale = draft.pixel_shuffle_stages("tail.upsampler.convs", stages, features)
    draft.conv("tail.output", output)
    draft.config |= {"scale": scale, "tail": "pixel_shuffle"}


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
