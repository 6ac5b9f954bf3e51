"""Weights kept in the form that the CPU kernels want.

The kernels read the filters of a 1x1 layer in another order and transform those of a 3x3 layer. A
layer keeps this packed copy, which takes as much memory as its weight, or four times as much for a
3x3 layer, and makes a new one when the parameter changes. The operator itself compares a
fingerprint of the weight with the copy's, so that a copy made stale behind the parameter's back
(through ``.data``, or by another thread) costs time and never a wrong result. While another thread
writes to a weight, a layer computes with what it reads: each value of the weight once, the old one
or the new one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.ops import pack_weight, takes_packed_weight


class PackedWeightCache:
    """The packed copy of one layer's weight, never copied, pickled or saved with it."""

    def __init__(self) -> None:
        # One tuple, replaced as a whole, so that threads see a matching key and copy.
        self._entry: tuple[tuple[int, int], Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedWeightCache:
        return PackedWeightCache()

    def __reduce__(self) -> tuple[type[PackedWeightCache], tuple[()]]:
        return PackedWeightCache, ()

    @property
    def nbytes(self) -> int:
        """Memory that the copy takes now."""
        return 0 if self._entry is None else self._entry[1].nbytes

    def get(
        self, layer: nn.Conv2d | nn.Module, input: Tensor, padding: tuple[int, int]
    ) -> Tensor | None:
        """Return the packed weight of ``layer``, or None where the layer will not use it.

        Args:
            layer: A dense or ghost convolution.
            input: What the layer gives to the operator.
            padding: What is left of the layer's padding to the operator.
        """
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if not _is_usable(layer, weight, input, padding):
            return None
        key = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        entry = self._entry
        if entry is None or entry[0] != key:
            entry = (key, pack_weight(weight.detach(), layer.groups))
            self._entry = entry
        return entry[1]


def _is_usable(layer: Any, weight: Tensor, input: Tensor, padding: tuple[int, int]) -> bool:
    return (
        not (torch.is_grad_enabled() and (weight.requires_grad or input.requires_grad))
        and not torch.compiler.is_compiling()
        and type(input) is Tensor
        and type(weight) in (nn.Parameter, Tensor)
        and input.device.type == weight.device.type == "cpu"
        and input.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and takes_packed_weight(
            input,
            weight,
            layer.stride,
            padding,
            layer.dilation,
            layer.groups,
            getattr(layer, "ghost_channels", 0),
        )
    )


def packed_weight_bytes(model: nn.Module) -> int:
    """Return the memory that packed copies of the weights of ``model`` take now, in bytes."""
    caches = (getattr(module, "packed_weight", None) for module in model.modules())
    return sum(cache.nbytes for cache in caches if isinstance(cache, PackedWeightCache))
