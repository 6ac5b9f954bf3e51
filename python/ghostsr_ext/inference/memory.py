"""How much memory a network takes, and how large its tiles may be for that."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ghostsr_ext.models import SRModel
from ghostsr_ext.models.operator_observer import OperatorObserver

SMALLEST_TILE = 32
"""Side below which tiles are not cut: their margins would be most of the work."""

_DEFAULT_BUDGET = 512 << 20
# Beside the feature maps that a network hands on, its operators take workspace of their own: the
# intrinsic half of a ghost layer, blocks that oneDNN or cuDNN reorder.
_WORKSPACE = 1.5
_PROBE_SIDE = 16
# Values in and out are kept three times over in float64 while they change their form.
_VALUE_BYTES = 3 * 3 * 8
# torch raises a plain RuntimeError for the host's memory, and the native operators one with torch's
# words or their own; before 2.13 torch keeps its words to itself.
_OUT_OF_MEMORY_MESSAGES = (
    "DefaultCPUAllocator",
    "out of memory",
    "a computation inside torch failed",
)


class _LiveBytes(OperatorObserver):
    """Counts the bytes of the tensors made inside it that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def observe(
        self,
        operator: Callable[..., Any],
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        result: Any,
    ) -> None:
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size


def activation_bytes(
    model: nn.Module,
    input_shape: tuple[int, ...],
    arguments: Mapping[str, Any] | None = None,
    *,
    compute: bool = False,
) -> int:
    """Return the most bytes of feature maps that are alive at once in a forward pass.

    The workspace that operators take for themselves is not in it.

    Args:
        model: Any network, in evaluation mode.
        input_shape: Shape of its input, which is counted too.
        arguments: Keyword arguments of its ``forward``.
        compute: Whether to run the network on its device. Else a copy of it runs on shapes alone
            (torch's meta device), which takes no memory; torch loads its compiler for that, which
            takes longer than to compute a small picture. A network that reads values runs on its
            device in any case.
    """
    if not compute:
        try:
            return _peak_bytes(copy.deepcopy(model).to("meta"), input_shape, arguments)
        # Torch says it as RuntimeError, NotImplementedError, or by an error of the network's own.
        except Exception:
            pass
    return _peak_bytes(model, input_shape, arguments)


def _peak_bytes(
    model: nn.Module, input_shape: tuple[int, ...], arguments: Mapping[str, Any] | None
) -> int:
    parameter = next(model.parameters())
    options: dict[str, Any] = {"dtype": parameter.dtype, "device": parameter.device}
    # Under inference_mode views of a tensor are not dispatched to the counter.
    with torch.inference_mode(False), torch.no_grad():
        if not parameter.is_meta:
            # Layers keep transformed weights from the first pass on: they are no feature maps.
            model(torch.zeros(input_shape, **options), **(arguments or {}))
        with _LiveBytes() as counter:
            model(torch.zeros(input_shape, **options), **(arguments or {}))
    peak: int = counter.peak
    return peak


def default_budget(device: torch.device) -> int:
    """Return the bytes that feature maps may take where nobody said otherwise.

    Args:
        device: The device. The budget is four fifths of what is free on CUDA; elsewhere it is
            512 MiB, or half of what is free if that is less.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free * 4 // 5
    return min(_DEFAULT_BUDGET, _available_bytes() // 2)


def bytes_per_pixel(model: SRModel, scale: int) -> float:
    """Return the bytes that a network takes for each pixel of a small picture that it enlarges.

    Feature maps, workspace of the operators, and the values going in and out are in it.

    Args:
        model: The network, which is run on a small input.
        scale: One of its scales.
    """
    enlarged = scale if model.input_upscaled else 1
    side = _PROBE_SIDE * enlarged
    shape = (1, model.channels, side, side)
    probe = activation_bytes(model, shape, {"scale": scale}, compute=True)
    return _WORKSPACE * probe / _PROBE_SIDE**2 + _VALUE_BYTES * (1 + scale**2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is exhausted, on a device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        part in str(error) for part in _OUT_OF_MEMORY_MESSAGES
    )


def _available_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 2 * _DEFAULT_BUDGET
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) << 10
