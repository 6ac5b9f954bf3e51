"""The native operators ``torch.ops.ghostsr.*`` under typed names, one file each.

``ghostsr_ext.reference`` holds their twins in plain torch.
"""

from __future__ import annotations

from ghostsr_ext.ops import library as _library

_library.load()

from ghostsr_ext.ops.convolution import convolution, convolution_backward  # noqa: E402
from ghostsr_ext.ops.ghost_conv import ghost_conv  # noqa: E402
from ghostsr_ext.ops.ghost_conv_learned import ghost_conv_learned  # noqa: E402
from ghostsr_ext.ops.layer_cache import (  # noqa: E402
    ConvolutionPath,
    LayerCache,
    cached_bytes,
    convolution_path,
    layer_cache,
    packed_weight_bytes,
)
from ghostsr_ext.ops.memory import empty_map, release_memory  # noqa: E402
from ghostsr_ext.ops.shift_concat import shift_concat, shift_concat_backward  # noqa: E402
from ghostsr_ext.ops.shift_selection import (  # noqa: E402
    select_shift,
    shift_selection_backward,
)

__all__ = [
    "ConvolutionPath",
    "LayerCache",
    "cached_bytes",
    "convolution",
    "convolution_backward",
    "convolution_path",
    "empty_map",
    "ghost_conv",
    "ghost_conv_learned",
    "layer_cache",
    "packed_weight_bytes",
    "release_memory",
    "select_shift",
    "shift_concat",
    "shift_concat_backward",
    "shift_selection_backward",
]
