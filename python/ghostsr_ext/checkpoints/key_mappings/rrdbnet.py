"""RRDBNet as published with Real-ESRGAN and traiNNer, with BSRGAN, and with the first ESRGAN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ghostsr_ext.checkpoints.key_mappings.draft import Draft
from ghostsr_ext.checkpoints.key_mappings.key_mapping import KeyMapping


@dataclass(frozen=True)
class _Names:
    """How a key mapping names the convolutions of a network.

    Attributes:
        first: The first one.
        dense: Pattern of those of the dense blocks: block, dense block and convolution.
        body_end: Pattern of the one behind the blocks, given their number.
        enlarged: Those behind each enlargement.
        before_last: The last but one.
        last: The last one.
    """

    first: str
    dense: str
    body_end: str
    enlarged: Sequence[str]
    before_last: str
    last: str


def _read(draft: Draft, names: _Names) -> None:
    features, channels = draft.filters(names.first)[:2]
    unshuffle = math.isqrt(channels // 3)
    if unshuffle not in (1, 2, 4) or channels != 3 * unshuffle**2:
        draft.refuse(f"{channels} channels into {names.first} instead of 3, 12 or 48")
    draft.evidence.append(
        f"{channels} channels into {names.first}: "
        + (f"pixel unshuffle by {unshuffle}" if unshuffle > 1 else "no pixel unshuffle")
    )
    enlargement = 2 ** len(names.enlarged)
    if enlargement % unshuffle:
        draft.refuse(f"a pixel unshuffle by {unshuffle} before an enlargement by {enlargement}")
    scale = enlargement // unshuffle
    enlarging = ", ".join(names.enlarged) or "no convolution behind an enlargement"
    draft.evidence.append(f"x{scale}: {enlarging}")
    blocks = 0
    while f"{names.dense.format(blocks, 1, 1)}.weight" in draft:
        blocks += 1
    draft.conv("first", names.first)
    for block in range(blocks):
        for dense in range(3):
            name = f"body.{block}.blocks.{dense}"
            for layer in range(4):
                file_name = names.dense.format(block, dense + 1, layer + 1)
                draft.conv(f"{name}.layers.{layer}", file_name)
            draft.conv(f"{name}.fusion", names.dense.format(block, dense + 1, 5))
    draft.conv("body_end", names.body_end.format(blocks))
    for step, file_name in enumerate(names.enlarged):
        draft.conv(f"enlarged.{step}", file_name)
    draft.conv("before_last", names.before_last)
    draft.conv("last", names.last)
    draft.config |= {
        "architecture": "rrdbnet",
        "scale": scale,
        "blocks": blocks,
        "features": features,
        "growth": draft.filters(names.dense.format(0, 1, 1))[0],
        "unshuffle": unshuffle,
    }


def _numbered(draft: Draft, pattern: str) -> list[str]:
    names: list[str] = []
    while f"{pattern.format(len(names) + 1)}.weight" in draft:
        names.append(pattern.format(len(names) + 1))
    return names


def _read_real_esrgan(draft: Draft) -> None:
    enlarged = _numbered(draft, "conv_up{}")
    _read(
        draft,
        _Names(
            "conv_first",
            "body.{}.rdb{}.conv{}",
            "conv_body",
            enlarged,
            "conv_hr",
            "conv_last",
        ),
    )


def _read_bsrgan(draft: Draft) -> None:
    enlarged = _numbered(draft, "upconv{}")
    _read(
        draft,
        _Names(
            "conv_first",
            "RRDB_trunk.{}.RDB{}.conv{}",
            "trunk_conv",
            enlarged,
            "HRconv",
            "conv_last",
        ),
    )


def _read_first_esrgan(draft: Draft) -> None:
    # A row of layers by number: the first convolution, the blocks, for each step an enlargement, a
    # convolution and its activation, then a convolution, its activation and the last convolution.
    numbers = [number for number in range(2, 32) if f"{number}.weight" in draft]
    steps = len(numbers) - 2
    expected = [*(3 * step for step in range(1, steps + 1)), 3 * steps + 2, 3 * steps + 4]
    if numbers != expected:
        found = ", ".join(f"{number}.weight" for number in numbers) or "no more"
        draft.refuse(f"convolutions 0.weight and {found} (3.weight, 6.weight, 8.weight at x4)")
    *enlarged, before_last, last = map(str, numbers)
    _read(
        draft,
        _Names("0", "1.sub.{}.RDB{}.conv{}.0", "1.sub.{}", enlarged, before_last, last),
    )


KEY_MAPPINGS = (
    KeyMapping(
        "Real-ESRGAN's RRDBNet",
        ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_body.weight", "conv_last.weight"),
        _read_real_esrgan,
    ),
    KeyMapping(
        "BSRGAN's RRDBNet",
        ("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight", "trunk_conv.weight"),
        _read_bsrgan,
    ),
    KeyMapping(
        "the first ESRGAN's RRDBNet",
        ("0.weight", "1.sub.0.RDB1.conv1.0.weight", "1.sub.0.RDB3.conv5.0.weight"),
        _read_first_esrgan,
    ),
)
