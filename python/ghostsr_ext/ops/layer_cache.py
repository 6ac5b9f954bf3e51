"""Where layers keep what the operators make of their constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from ghostsr_ext.ops.registration import operators, register_fake

ConvolutionPath = Literal["auto", "aten", "winograd", "pointwise", "direct"]

_layer_cache = operators.layer_cache.default
_cached_bytes = operators.cached_bytes.default
_packed_weight_bytes = operators.packed_weight_bytes.default
_choose_convolution_path = operators.choose_convolution_path.default


def layer_cache() -> Tensor:
    """Return the handle of a new cache, to be given to one layer's calls as ``cache``.

    On a CPU the operators keep the weight there in the form that their kernels want, which takes as
    much memory as a weight that is 1x1 or in bfloat16, or four times as much as a 3x3 one in
    float32, and what they read from the layer's tables. A cache never changes a result: with it
    lies a fingerprint of the constants, which every call compares with those that it is given, so
    that a weight edited by whatever way counts at once. The memory is freed with the handle. Caches
    are safe to use from several threads; a handle restored from a file names a new, empty cache.

    Returns:
        uint8 [16], opaque.
    """
    # A model may be built under a mode that lets nothing real be made.
    with torch._C._DisableTorchDispatch():
        handle: Tensor = _layer_cache()
    return handle


def cached_bytes(cache: Tensor) -> int:
    """Return the memory of the packed weight that a cache holds now, in bytes.

    Args:
        cache: What :func:`layer_cache` returned.

    Raises:
        RuntimeError: It is no such handle.
    """
    found: int = _cached_bytes(cache)
    return found


def packed_weight_bytes(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    ghosts: int,
) -> int:
    """Return what a layer on one of the package's own kernels keeps of its weight, in bytes.

    Nothing is computed: shapes, dtypes and layouts are read, so the tensors may be uninitialised.

    Args:
        input: [N, C_in, H, W].
        weight: [I, C_in / groups, kH, kW].
        stride: Two integers of at least 1.
        padding: Two integers of at least 0.
        dilation: Two integers of at least 1.
        groups: A divisor of C_in and I.
        ghosts: G, made from the I channels that are convolved.

    Returns:
        The size of the packed weight; 0 where torch computes the convolution.

    Raises:
        RuntimeError: An argument is outside the allowed values; the message names it.
    """
    found: int = _packed_weight_bytes(input, weight, stride, padding, dilation, groups, ghosts)
    return found


@contextmanager
def convolution_path(path: ConvolutionPath) -> Iterator[None]:
    """Force how the CPU computes convolutions, in this process and within the context.

    Args:
        path: "winograd", "pointwise" or "direct" (3x3 and 1x1 layers in bfloat16) for that kernel
            wherever it is possible and torch elsewhere, "aten" for torch everywhere, "auto" for the
            faster one. Without this context the environment variable ``GHOSTSR_CONVOLUTION``
            decides, as it is on the first call.

    Raises:
        RuntimeError: The path, or that of the environment, has another name.
    """
    before = _choose_convolution_path(path)
    try:
        yield
    finally:
        _choose_convolution_path(before)


class LayerCache:
    """The cache of one layer, never copied, pickled or saved with it.

    Attributes:
        handle: What :func:`layer_cache` returned.
    """

    def __init__(self) -> None:
        self.handle = layer_cache()

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerCache:
        return LayerCache()

    def __reduce__(self) -> tuple[type[LayerCache], tuple[()]]:
        return LayerCache, ()

    @property
    def nbytes(self) -> int:
        """Memory of the packed weight that the layer holds now."""
        return cached_bytes(self.handle)


def _fake_packed_weight_bytes(input: Tensor, *_: Any) -> int:
    raise RuntimeError("ghostsr::packed_weight_bytes: tensors on a CPU are needed")


register_fake("packed_weight_bytes", _fake_packed_weight_bytes)
torch.library.register_fake("ghostsr::layer_cache", lambda: torch.empty(16, dtype=torch.uint8))
