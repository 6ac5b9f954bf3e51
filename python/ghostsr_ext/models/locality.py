"""How far the pixels of an output look, found by running the network.

A network of convolutions, and of what works on each pixel alone, looks as far as its filters reach
together. Whether one that does more (pooling, attention, normalisation over the map) looks farther
is measured: a part of the input is changed, and what of the output changes with it is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ghostsr_ext.models.base import SRModel
from ghostsr_ext.models.carn import CARN
from ghostsr_ext.models.compact import SRVGGNetCompact
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.models.operator_observer import OperatorObserver
from ghostsr_ext.models.rdn import RDN
from ghostsr_ext.models.rrdbnet import RRDBNet
from ghostsr_ext.models.vdsr import VDSR

_KNOWN = (CARN, EDSR, RDN, RRDBNet, SRVGGNetCompact, VDSR)

_LEAST_SIDE, _LARGEST_SIDE = 32, 160
_CHANGED = 4

# Operators that take a pixel's value from where it lies in every map, or from near it.
_LOCAL_NAMES = """
abs add addcmul alias arange avg_pool2d bitwise_and cat celu clamp clamp_max clamp_min clone
constant_pad_nd convolution convolution_overrideable copy cos detach div elu empty empty_like
empty_strided eq erf exp expand fill full full_like ge gelu ghost_conv
ghost_conv_learned gt hardsigmoid hardswish
hardtanh leaky_relu lift_fresh linspace log lt max_pool2d_with_indices maximum minimum mish
mkldnn_convolution mul native_batch_norm ne neg new_empty new_full new_ones new_zeros
_native_batch_norm_legit_no_training ones ones_like pixel_shuffle pixel_unshuffle pow
_prelu_kernel reciprocal reflection_pad2d relu replication_pad2d resolve_conj resolve_neg rsqrt
rsub scalar_tensor select shift_concat sigmoid sign silu sin slice softplus split
split_with_sizes sqrt square squeeze sub t tanh threshold to_copy unbind unsqueeze
upsample_bicubic2d upsample_bilinear2d upsample_nearest2d where zeros zeros_like
"""
_LOCAL = frozenset(_LOCAL_NAMES.split())
# Radius of interpolation, in pixels of the map that is read.
_INTERPOLATIONS = {"upsample_bilinear2d": 1, "upsample_bicubic2d": 2}


@dataclass(frozen=True)
class Locality:
    """How far the pixels of an output look.

    Attributes:
        radius: Input pixels to either side of one that all filters of the network reach together.
        operators: What looks farther, over a whole map as it seems: torch's names of operators.
            Empty for a network that looks no farther than ``radius``.
        grid: What the first row and column of a tile must be a multiple of for the network to see
            the pixels of a tile as it sees those of the whole picture.
    """

    radius: int
    operators: tuple[str, ...]
    grid: int


def locality(model: SRModel) -> Locality:
    """Return how far the output pixels of a network look, in pixels of its input.

    The package's own networks are known; others are run on small inputs, in evaluation mode.
    """
    if type(model) in _KNOWN:
        return Locality(model.receptive_field, (), model.multiple)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        found = [_of_scale(model, scale) for scale in model.scales]
    finally:
        for module, training in modes.items():
            module.training = training
    return Locality(
        max(one.radius for one in found),
        tuple(sorted({name for one in found for name in one.operators})),
        math.lcm(*(one.grid for one in found)),
    )


@torch.no_grad()
def _of_scale(model: SRModel, scale: int) -> Locality:
    side = _side(model, _LEAST_SIDE)
    with _Watch(side) as watch:
        model(_noise(model, side), scale)
    radius = math.ceil(watch.radius) + model.multiple - 1
    grid = math.lcm(model.multiple, *watch.strides)
    if not watch.others:
        return Locality(radius, (), grid)
    # Far enough that a change at one end could be kept from the other.
    side = _side(model, 2 * radius + 2 * _CHANGED)
    is_far = side > _LARGEST_SIDE or _looks_far(model, scale, side, radius)
    return Locality(radius, tuple(sorted(watch.others)) if is_far else (), grid)


def _looks_far(model: SRModel, scale: int, side: int, radius: int) -> bool:
    before = _noise(model, side)
    # Layers take another path when they run for the first time.
    model(before, scale)
    growth = 1 if model.input_upscaled else scale
    expected = model(before, scale)
    for corner in (slice(0, _CHANGED), slice(side - _CHANGED, side)):
        image = before.clone()
        image[:, :, corner, corner] = model.value_range - image[:, :, corner, corner]
        changed = (model(image, scale) != expected).any(dim=1)[0]
        near = slice(0, (radius + _CHANGED) * growth)
        if corner.start:
            near = slice((side - _CHANGED - radius) * growth, side * growth)
        changed[near, near] = False
        if bool(changed.any()):
            return True
    return False


def _side(model: SRModel, least: int) -> int:
    return -(-least // model.multiple) * model.multiple


def _noise(model: SRModel, side: int) -> Tensor:
    like = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, model.channels, side, side, generator=generator)
    return noise.to(like.device, like.dtype) * model.value_range


class _Watch(OperatorObserver):
    """Adds up how far the operators of a network reach.

    Attributes:
        radius: How far the operators look together, in pixels of the input.
        strides: How many input pixels a pixel of each size of map stands for.
        others: Operators whose radius is not known.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.radius = Fraction(0)
        self.strides: set[int] = {1}
        self.others: set[str] = set()
        self._side = side

    def observe(
        self,
        operator: Callable[..., Any],
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        result: Any,
    ) -> None:
        name = str(getattr(operator, "overloadpacket", operator)).rpartition(".")[2]
        name = name.strip("_") if name.startswith("_to_copy") else name.rstrip("_")
        if name not in _LOCAL and any(map(_is_map, tree_leaves(args))):
            self.others.add(name)
        radius = _radius(name, args, named)
        if radius is not None:
            width = args[0].shape[3]
            self.radius += radius * Fraction(self._side, width)
            if 1 < width < self._side and self._side % width == 0:
                self.strides.add(self._side // width)


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1


def _radius(name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> Fraction | None:
    """Return how far an operator looks, in pixels of the map that it reads; None for most."""
    if name in ("convolution", "convolution_overrideable", "mkldnn_convolution"):
        return _filter_radius(args[1].shape[2:], args[5])
    if name == "ghost_conv":
        shift = args[4]
        moved = int(shift.abs().max()) if shift.numel() else 0
        return _filter_radius(args[1].shape[2:], named.get("dilation", (1, 1))) + moved
    if name == "ghost_conv_learned":
        moved = math.isqrt(args[4].shape[1]) // 2
        return _filter_radius(args[1].shape[2:], named.get("dilation", (1, 1))) + moved
    if name in ("avg_pool2d", "max_pool2d_with_indices"):
        return _filter_radius(args[1], (1, 1))
    radius = _INTERPOLATIONS.get(name)
    return None if radius is None else Fraction(radius)


def _filter_radius(size: Any, dilation: Any) -> Fraction:
    dilation = list(dilation) * (len(size) // len(dilation))
    return max(Fraction((s - 1) * d, 2) for s, d in zip(size, dilation, strict=True))
