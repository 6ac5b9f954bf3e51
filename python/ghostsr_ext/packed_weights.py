"""The memory of weights that layers keep in the form that the CPU kernels want."""

from __future__ import annotations

from torch import nn

from ghostsr_ext.ops import LayerCache


def packed_weight_bytes(model: nn.Module) -> int:
    """Return the memory that packed copies of the weights of ``model`` take now, in bytes."""
    caches = (getattr(module, "cache", None) for module in model.modules())
    return sum(cache.nbytes for cache in caches if isinstance(cache, LayerCache))
