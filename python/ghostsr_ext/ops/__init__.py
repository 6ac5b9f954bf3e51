"""The native operators ``torch.ops.ghostsr.*`` with gradients, fake kernels and autocast rules.

The functions here are the operators themselves under typed names; ``ghostsr_ext.reference``
documents each one's arguments and holds its twin in plain torch.
"""

from __future__ import annotations

import torch

from ghostsr_ext.ops import library as _library

_library.load()

from ghostsr_ext.ops import autocast as _autocast  # noqa: E402
from ghostsr_ext.ops import autograd as _autograd  # noqa: E402
from ghostsr_ext.ops import fake as _fake  # noqa: E402

_fake.register()
_implementation = torch.library.Library("ghostsr", "IMPL")
_autograd.register(_implementation)
_autocast.register(_implementation)

ghost_conv = torch.ops.ghostsr.ghost_conv.default
ghost_conv_learned = torch.ops.ghostsr.ghost_conv_learned.default
pack_weight = torch.ops.ghostsr.pack_weight.default
shift_concat = torch.ops.ghostsr.shift_concat.default
shift_concat_backward = torch.ops.ghostsr.shift_concat_backward.default
select_shift = torch.ops.ghostsr.select_shift.default
shift_selection_backward = torch.ops.ghostsr.shift_selection_backward.default
takes_packed_weight = torch.ops.ghostsr.takes_packed_weight.default

__all__ = [
    "ghost_conv",
    "ghost_conv_learned",
    "pack_weight",
    "select_shift",
    "shift_concat",
    "shift_concat_backward",
    "shift_selection_backward",
    "takes_packed_weight",
]
