"""Building blocks that several networks share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext import ops
from ghostsr_ext.activations import Activation
from ghostsr_ext.errors import InputError
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from ghostsr_ext.ops.given_maps import OfferedMap
from ghostsr_ext.ops.registration import is_transformed

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody watches or changes what goes into or comes out of ``module``."""
    return any(getattr(module, name, None) for name in _HOOKS)


def _all_modules_have_hooks() -> bool:
    everywhere = nn.modules.module
    return bool(everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks)


def same_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    groups: int = 1,
    bias: bool = True,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    prelu_parameters: int = 1,
    residual_scale: float = 1.0,
) -> FusedConv2d:
    """Return a stride-1 convolution of an odd kernel that keeps the height and width."""
    return FusedConv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        groups=groups,
        bias=bias,
        activation=activation,
        negative_slope=negative_slope,
        prelu_parameters=prelu_parameters,
        residual_scale=residual_scale,
    )


class PixelShuffleUpsampler(nn.Module):
    """Enlarges feature maps by convolutions and pixel shuffles (sub-pixel convolution).

    Scales 2, 4 and 8 take one, two and three steps of 2; scale 3 takes one step of 3.

    Args:
        features: Channels in and out.
        scale: 2, 3, 4 or 8.
        groups: Groups of the convolutions.
        activation: Applied between each convolution and its shuffle.
    """

    def __init__(
        self, features: int, scale: int, *, groups: int = 1, activation: Activation = "none"
    ) -> None:
        super().__init__()
        steps = upsampling_steps(scale)
        self.convs = nn.ModuleList(
            same_conv(features, features * step**2, 3, groups=groups, activation=activation)
            for step in steps
        )
        self.shuffles = nn.ModuleList(nn.PixelShuffle(step) for step in steps)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, C, scale * h, scale * w]."""
        for conv, shuffle in zip(self.convs, self.shuffles, strict=True):
            features = convolve_and_shuffle(conv, shuffle, features)
        return features


def convolve_and_shuffle(conv: nn.Module, shuffle: nn.Module, features: Tensor) -> Tensor:
    """Return ``shuffle(conv(features))``, by one pass where that is the same up to rounding.

    On the CPU, where nothing records operators and nobody watches the map between the two, a layer
    of the package writes to the enlarged map.

    Args:
        conv: A convolution to a number of channels that ``shuffle`` takes.
        shuffle: An ``nn.PixelShuffle``.
        features: What ``conv`` reads.
    """
    output: Tensor
    if _goes_in_one_pass(conv, shuffle, features):
        output = conv(features, shuffle=shuffle.upscale_factor)
    else:
        output = shuffle(conv(features))
    return output


def add_shuffled_to_nearest(
    conv: nn.Module, shuffle: nn.Module, features: Tensor, enlarge: nn.Module, picture: Tensor
) -> Tensor:
    """Return ``shuffle(conv(features)) + enlarge(picture)``.

    Where :func:`convolve_and_shuffle` takes one pass and nothing records gradients, the picture is
    not enlarged but added to the block of each of its pixels, which gives the same.

    Args:
        conv: As for :func:`convolve_and_shuffle`.
        shuffle: As for :func:`convolve_and_shuffle`.
        features: As for :func:`convolve_and_shuffle`.
        enlarge: An ``nn.Upsample`` that repeats pixels, by the factor of ``shuffle``.
        picture: [N, C, h, w], where ``features`` are [N, K, h, w].
    """
    output: Tensor
    if (
        not torch.is_grad_enabled()
        and _goes_in_one_pass(conv, shuffle, features)
        and type(enlarge) is nn.Upsample
        and not has_hooks(enlarge)
    ):
        output = conv(features, shuffle=shuffle.upscale_factor)
        if output.dtype == picture.dtype:
            blocks = output.unflatten(3, (picture.shape[3], -1))
            blocks = blocks.unflatten(2, (picture.shape[2], -1))
            blocks += picture[:, :, :, None, :, None]
        else:
            output = output + enlarge(picture)
    else:
        output = shuffle(conv(features)) + enlarge(picture)
    return output


def _goes_in_one_pass(conv: nn.Module, shuffle: nn.Module, features: Tensor) -> bool:
    return (
        type(shuffle) is nn.PixelShuffle
        and _may_be_written(features)
        and not (has_hooks(conv) or has_hooks(shuffle) or _all_modules_have_hooks())
        and _takes("shuffle", conv)
    )


class ChannelStack:
    """Maps of one size, put one behind the other along the channels and read after each.

    On the CPU, where nothing records operators, one map with room for all of them is filled step by
    step: each map is copied once, not again with every map that follows, or not at all if a layer
    of the package makes it. Such layers read the filled channels where they lie. While gradients
    are recorded what ``joined`` gives must not be changed in place: it shares its memory with what
    is saved for them, and autograd is not told.

    Args:
        first: The first map, [N, C, h, w].
        last_reader: The layer that reads all the maps, or how many channels they have together.
    """

    def __init__(self, first: Tensor, last_reader: nn.Module | int) -> None:
        self.joined = first
        """What is stacked so far, [N, C, h, w]."""
        self._room: Tensor | None = None
        channels = 0
        if isinstance(last_reader, int):
            channels = last_reader
        elif isinstance(last_reader, FusedConv2d | GhostConv2d):
            channels = last_reader.in_channels
        if channels and _may_be_written(first):
            self._room = ops.empty_map(first.detach(), channels)
            self.joined = self._so_far = self._room[:, :0]
            self.append(first)

    def append(self, features: Tensor) -> None:
        """Put a map [N, C, h, w] behind the others."""
        if self._room is None:
            self.joined = torch.cat([self.joined, features], dim=1)
            return
        begin = self.joined.shape[1]
        end = begin + features.shape[1]
        if torch.is_grad_enabled():
            self.joined, self._so_far = _Extended.apply(  # type: ignore[no-untyped-call]
                self._room, self._so_far, features
            )
            return
        self._room[:, begin:end] = features
        self.joined = self._room[:, :end]

    def append_output(self, layer: nn.Module, *inputs: Tensor) -> None:
        """Put behind the maps what ``layer`` makes, of them all or of ``inputs``: [N, C, h, w]."""
        given = inputs or (self.joined,)
        if self._room is None or not _knows_out(layer):
            self.append(layer(*given))
            return
        begin = self.joined.shape[1]
        end = begin + layer.out_channels  # type: ignore[operator]
        if torch.is_grad_enabled():
            # Saved maps of one version each: none of them changes when others are filled.
            offered = OfferedMap(self._room.data[:, begin:end])
            features = layer(*given, out=offered)
            if offered.filled and not offered.has(features):
                # A hook has put another one in its place, but gradients may need what lies there.
                self._room = None
            self.append(features)
            return
        place = self._room[:, begin:end]
        output = layer(*given, out=place)
        if output is not place:  # A hook has put another one in its place.
            place.copy_(output)
        self.joined = self._room[:, :end]


class _Extended(torch.autograd.Function):
    """Maps with another one behind them, in a map with room for it that has the others already.

    There are two of the result, one for who reads it and one to be extended, so that the sum of
    their gradients goes into kept memory.
    """

    @staticmethod
    def forward(ctx: Any, room: Tensor, joined: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.begin = joined.shape[1]
        end = ctx.begin + features.shape[1]
        # What is saved of the filled channels stays valid while others are filled, though autograd,
        # which knows tensors and no parts of them, would have it that it changed.
        place = OfferedMap(room.data[:, ctx.begin : end])
        if not place.has(features):
            place.map.copy_(features)
        return room[:, :end].data, room[:, :end].data

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [gradient for gradient in grad_outputs if gradient is not None]
        if not given:
            return None, None, None
        total = given[0]
        if len(given) == 2:
            room = None if torch.is_grad_enabled() else ops.empty_map(total, total.shape[1])
            total = torch.add(*given, out=room)
        return None, total[:, : ctx.begin], total[:, ctx.begin :]


def compute_into(place: Tensor | OfferedMap | None, layer: nn.Module, *inputs: Tensor) -> Tensor:
    """Return what ``layer`` makes, in the map ``place`` if one is given and it can write there."""
    if place is None or not _knows_out(layer):
        output: Tensor = layer(*inputs)
    else:
        output = layer(*inputs, out=place)
    return output


def _knows_out(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "out_channels", None), int) and _takes("out", layer)


def _takes(argument: str, layer: nn.Module) -> bool:
    # Another forward, of a derived class or put in its place, may not know the argument.
    return argument in _parameters(getattr(layer.forward, "__func__", layer.forward))


@functools.lru_cache(maxsize=64)
def _parameters(forward: Callable[..., Any]) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(forward, follow_wrapped=False).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _may_be_written(features: Tensor) -> bool:
    return (
        type(features) is Tensor
        and features.device.type == "cpu"
        and (not torch.is_grad_enabled() or features.stride(1) == 1)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not is_transformed()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    )


def upsampling_steps(scale: int) -> tuple[int, ...]:
    """Return the factors of the shuffles that make up ``scale``.

    Raises:
        InputError: ``scale`` is not one of 2, 3, 4 and 8.
    """
    steps = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
    if not isinstance(scale, int) or scale not in steps:
        raise InputError(f"scale: got {scale!r}, allowed are 2, 3, 4 and 8")
    return steps[scale]
