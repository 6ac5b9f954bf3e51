"""Maps that a caller gives for the result of a layer, in place of a new one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ghostsr_ext.ops.registration import is_transformed


@dataclass
class OfferedMap:
    """A map that a layer may fill with its result while gradients are recorded.

    It then returns another tensor in the same memory, of which gradients may keep what they need;
    or it takes a new map, where something keeps it from filling this one. Whoever offers a map must
    not change what lies there before the gradients were computed: autograd would not notice.

    Attributes:
        map: Of the shape, dtype and device of the result; needs no gradient.
        filled: Whether a result was put there. The map is not filled again, even if whoever offers
            it got another one, for gradients may keep the first.
    """

    map: Tensor
    filled: bool = False

    def has(self, result: Tensor) -> bool:
        """Whether a result lies in this map."""
        return result.data_ptr() == self.map.data_ptr() and result.stride() == self.map.stride()


def check_given_map(out: Tensor) -> None:
    """Refuse a map that is not to be filled.

    Raises:
        RuntimeError: Gradients or operators are recorded, or elements of ``out`` share their place.
    """
    if torch.is_grad_enabled() or is_transformed() or torch.compiler.is_compiling():
        raise RuntimeError(
            "ghostsr: out: found a tensor where gradients or operators are recorded; None is "
            "needed there (torch.no_grad() and torch.inference_mode() record none)"
        )
    strides = out.stride()
    if any(step == 0 and size > 1 for size, step in zip(out.shape, strides, strict=True)):
        raise RuntimeError(
            f"ghostsr: out: found strides {tuple(strides)}, by which elements share their place; "
            "each needs one of its own"
        )


def fill_given_map(out: Tensor, result: Tensor) -> Tensor:
    """Copy a result into the map that was given for it, and return that.

    Raises:
        RuntimeError: The map has another shape, dtype or device.
    """
    found, needed = (f"{list(map.shape)} of {map.dtype} on {map.device}" for map in (out, result))
    if found != needed:
        raise RuntimeError(f"ghostsr: out: found {found}; {needed} is needed")
    return out.copy_(result)


def is_read_while_written(out: Tensor, source: Tensor) -> bool:
    """Whether a layer that reads ``source`` may meet there what it has written to ``out``.

    Maps that are different channels of one channels_last map do not meet, though their memory is
    interleaved.
    """
    if not (out.is_cpu and source.is_cpu and type(out) is type(source) is Tensor):
        return False
    if not out.numel() or not source.numel():
        return False
    (first, last), (begin, end) = _extent(out), _extent(source)
    if last <= begin or end <= first:
        return False
    strides = out.stride()
    if source.stride() != strides or out.dim() != 4 or strides[1] != 1:
        return True
    pixel = strides[3] * out.element_size()
    apart = (begin - first) % pixel
    return not (
        out.shape[1] * out.element_size() <= apart
        and apart + source.shape[1] * source.element_size() <= pixel
    )


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Return the addresses of the first byte of a tensor and of the one behind its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    elements = 1 + sum((size - 1) * step for size, step in steps)
    return tensor.data_ptr(), tensor.data_ptr() + elements * tensor.element_size()
