"""SRVGGNetCompact as published with Real-ESRGAN and traiNNer."""

from __future__ import annotations

import math

from ghostsr_ext.checkpoints.key_mappings.draft import Draft
from ghostsr_ext.checkpoints.key_mappings.key_mapping import KeyMapping


def _read(draft: Draft) -> None:
    # Convolutions have even numbers, the activations behind them odd ones.
    convolutions = 0
    while f"body.{2 * convolutions}.weight" in draft:
        convolutions += 1
    inner = convolutions - 1
    outputs = draft.filters(f"body.{2 * inner}")[0]
    scale = math.isqrt(outputs // 3)
    if scale < 1 or outputs != 3 * scale**2:
        draft.refuse(f"{outputs} channels out of body.{2 * inner} instead of 3 times a square")
    draft.evidence.append(f"x{scale}: body.{2 * inner}.weight has {outputs} outputs")
    has_slopes = "body.1.weight" in draft
    for layer in range(inner):
        draft.conv(f"convs.{layer}", f"body.{2 * layer}")
        if has_slopes:
            draft.parameter(f"convs.{layer}.prelu_weight", f"body.{2 * layer + 1}.weight")
    draft.conv("last", f"body.{2 * inner}")
    draft.config |= {
        "architecture": "compact",
        "scale": scale,
        "layers": inner - 1,
        "features": draft.filters("body.0")[0],
    }
    if has_slopes:
        draft.config["activation"] = "prelu"
        draft.evidence.append("PReLU: body.1.weight")
    else:
        draft.choices["activation"] = ("relu", "leaky_relu")


KEY_MAPPINGS = (
    KeyMapping("Real-ESRGAN's SRVGGNetCompact", ("body.0.weight", "body.2.weight"), _read, "body."),
)
