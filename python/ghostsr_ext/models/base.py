"""What every super-resolution network of the package declares and how it is called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.errors import InputError
from ghostsr_ext.models.layer_calls import influence_radius
from ghostsr_ext.ops.onnx_export import refuse_onnx_export
from ghostsr_ext.text import printable

Color = Literal["rgb", "y"]

# What a file or a user can say without harm; no network needs more.
_LARGEST_NUMBER = 1e6
_LARGEST_SCALE, _MOST_SCALES = 64, 16
MAX_MULTIPLE = 256
"""Largest ``SRModel.multiple``."""

DIV2K_MEAN: tuple[float, ...] = (0.4488, 0.4371, 0.4040)
"""Mean color of the DIV2K training pictures, red, green, blue, in 0..1."""


class SRModel(nn.Module):
    """Base class of the super-resolution networks.

    A subclass sets the class attribute ``architecture``, passes what it declares to ``__init__``
    and implements ``upscale``. One network may serve several scales: it then shares everything but
    its upsampling heads.

    Args:
        config: Keyword arguments that rebuild this network: ``type(self)(**config)``. JSON types
            only.
        scales: The scales that the network serves.
        value_range: The value of white in its input and output: 1.0 or 255.0.
        color: ``"rgb"``, or ``"y"`` for one channel of luma.
        mean: Color that is taken from the input and given back to the output, one number a channel
            in 0..``value_range``; None for none.
        input_upscaled: Whether the input must already have the size of the output (bicubically
            enlarged).
        multiple: What the height and the width that ``upscale`` gets must be multiples of.
            ``forward`` takes any size: it pads by mirroring at the bottom and on the right, and
            cuts the output.

    Attributes:
        capturable: Set by a subclass whose ``upscale`` does the same work on the device for every
            input of a shape, and never waits for it: ``Upscaler`` may then replay it as a CUDA
            graph.
        scale: The scale that ``forward`` uses unless it is told another one.
        scales: All scales that the network serves, ascending.
        value_range: The value of white in its input and output.
        color: ``"rgb"`` or ``"y"``.
        input_upscaled: Whether the input must already have the size of the output.
        multiple: What the height and the width that ``upscale`` gets must be multiples of.
        mean: Buffer [1, C, 1, 1], the color taken from the input and given back to the output, or
            None.
        config: A JSON-able dictionary that rebuilds the network through
            ``ghostsr_ext.models.model_from_config``: ``architecture`` and the hyperparameters.
        metadata: Free-form blocks, such as ``report`` and ``training``, that travel with the
            network into its file.
        origin: Where the network was read from and what the reader found; empty for a new network.

    Raises:
        InputError: A declaration is out of its domain.
    """

    architecture: ClassVar[str] = ""
    capturable: ClassVar[bool] = False
    mean: Tensor | None

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        scales: Sequence[int],
        value_range: float,
        color: Color = "rgb",
        mean: Sequence[float] | None = None,
        input_upscaled: bool = False,
        multiple: int = 1,
    ) -> None:
        super().__init__()
        if value_range not in (1.0, 255.0):
            raise InputError(f"value_range: got {value_range!r}, allowed are 1.0 and 255.0")
        if color not in ("rgb", "y"):
            raise InputError(f"color: got {color!r}, allowed are 'rgb' and 'y'")
        self.scales = tuple(sorted(set(checked_scales(scales))))
        self.scale = self.scales[0]
        self.value_range = float(value_range)
        self.color: Color = color
        self.input_upscaled = input_upscaled
        self.multiple = checked_count("multiple", multiple, MAX_MULTIPLE)
        self.config: dict[str, Any] = {"architecture": self.architecture, **config}
        self.metadata: dict[str, Any] = {}
        self.origin: dict[str, Any] = {}
        if mean is None:
            self.register_buffer("mean", None)
        else:
            color_mean = checked_mean(mean, self.channels, value_range)
            self.register_buffer("mean", torch.tensor(color_mean).view(1, -1, 1, 1))

    @property
    def channels(self) -> int:
        """Color channels of the input and the output."""
        return 3 if self.color == "rgb" else 1

    @property
    def receptive_field(self) -> int:
        """How far an output pixel looks, in pixels of the network's input.

        It is a radius: the output pixels of input pixel (y, x) depend on no input pixel farther
        from it than this in either direction, so tiles that overlap by it lose nothing. The shifts
        of ghost layers count with their ``max_shift``. For a network of several scales it is the
        largest of them. Input pixels are low-resolution pixels, except where ``input_upscaled`` is
        set.
        """
        radius = max(
            influence_radius(self, self.channels, {"scale": scale}, self.multiple)
            for scale in self.scales
        )
        # Where squares of pixels become one, a pixel that is read brings the others of its square.
        return math.ceil(radius) + self.multiple - 1

    def default_layers(self) -> list[str] | None:
        """Return the names of the convolutions that the paper's method turns into ghost layers.

        None, as long as a subclass does not say otherwise, leaves the choice to the converter.
        """
        return None

    def served_scale(self, scale: int | None, name: str = "scale") -> int:
        """Return ``scale``, or ``self.scale`` for None.

        Raises:
            InputError: The network does not serve it; the message calls it ``name``.
        """
        if scale is None:
            return self.scale
        if scale not in self.scales:
            raise InputError(
                f"{name}: found {_shown(scale)}; this network serves {self._scales_text()}"
            )
        return scale

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        """Map ``image`` [N, C, h, w], less the mean, to its upscaled form, less the mean."""
        raise NotImplementedError(f"{type(self).__name__} implements no upscale")

    def forward(self, image: Tensor, scale: int | None = None) -> Tensor:
        """Upscale a batch of pictures.

        Args:
            image: [N, C, h, w], floating point, in 0..``value_range``.
            scale: One of ``scales``; None for ``self.scale``.

        Returns:
            [N, C, scale * h, scale * w] (the size of ``image`` if ``input_upscaled``), in the same
            range, not clipped.

        Raises:
            InputError: ``image`` has the wrong shape or the network does not serve ``scale``.
        """
        scale = self.served_scale(scale)
        if image.dim() != 4 or image.shape[1] != self.channels:
            raise InputError(
                f"image: got shape {tuple(image.shape)}, allowed is [N, {self.channels}, h, w]"
            )
        if not torch.compiler.is_compiling():
            if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
                refuse_onnx_export()
            if image.device.type == "cpu":
                image = channels_last(image)
        height, width = image.shape[2:]
        image = padded_to_multiple(image, self.multiple)
        if self.mean is None:
            output = self.upscale(image, scale)
        else:
            output = self.upscale(image - self.mean, scale) + self.mean
        if image.shape[2:] == (height, width):
            return output
        growth = 1 if self.input_upscaled else scale
        return output[:, :, : height * growth, : width * growth]

    def extra_repr(self) -> str:
        """Name the scales and the value range."""
        return f"scale={self._scales_text()}, value_range={self.value_range:g}, color={self.color}"

    def _scales_text(self) -> str:
        return ", ".join(f"x{scale}" for scale in self.scales)


def channels_last(image: Tensor) -> Tensor:
    """Return ``image`` [N, C, H, W] in channels_last, the fast layout on the CPU.

    torch takes a map of one channel for contiguous; here its strides say channels_last, so that the
    layers after it keep to that layout.
    """
    image = image.contiguous(memory_format=torch.channels_last)
    height, width = image.shape[2:]
    if image.shape[1] != 1 or image.numel() == 0:
        return image
    return image.as_strided(image.shape, (height * width, 1, width, 1))


def padded_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Return ``image`` [N, C, H, W], mirrored at the bottom and on the right to a multiple size.

    A picture too small to be mirrored repeats its last pixels.
    """
    height, width = image.shape[2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return image
    mirrors = below < height and right < width
    return functional.pad(image, (0, right, 0, below), mode="reflect" if mirrors else "replicate")


def checked_count(name: str, value: int, most: int) -> int:
    """Return ``value``.

    Raises:
        InputError: It is no whole number in 1..``most``; the message calls it ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(f"{name}: got {_shown(value)}, allowed are whole numbers from 1 to {most}")
    return value


def checked_number(name: str, value: float) -> float:
    """Return ``value``.

    Raises:
        InputError: It is no finite number; the message calls it ``name``.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= _LARGEST_NUMBER:
        raise InputError(
            f"{name}: got {_shown(value)}, allowed are finite numbers up to {_LARGEST_NUMBER:g}"
        )
    return value


def checked_scales(scale: int | Sequence[int]) -> tuple[int, ...]:
    """Return one scale or several as a tuple.

    Raises:
        InputError: It is neither a whole number from 1 to 64 nor a sequence of at most 16 of them.
    """
    scales = (scale,) if isinstance(scale, int) else scale
    if (
        not isinstance(scales, list | tuple)
        or not 1 <= len(scales) <= _MOST_SCALES
        or any(
            isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= _LARGEST_SCALE
            for one in scales
        )
    ):
        raise InputError(
            f"scale: got {_shown(scale)}, allowed are whole numbers from 1 to {_LARGEST_SCALE}, or "
            f"up to {_MOST_SCALES} of them"
        )
    return tuple(scales)


def _shown(value: object) -> str:
    """Show a value in few characters, even a number of more digits than Python shows."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, list | tuple) and len(value) > _MOST_SCALES:
        return f"{len(value)} entries"
    return printable(repr(value), 80)


def checked_mean(mean: Sequence[float], channels: int, value_range: float) -> tuple[float, ...]:
    """Return ``mean`` as a tuple.

    Raises:
        InputError: It has not ``channels`` numbers in 0..``value_range``.
    """
    values = tuple(checked_number("mean", value) for value in mean)
    if len(values) != channels or any(not 0.0 <= value <= value_range for value in values):
        raise InputError(
            f"mean: got {values}, allowed are {channels} numbers in 0..{value_range:g}"
        )
    return values


def scaled_div2k_mean(value_range: float) -> list[float]:
    """Return the mean color of DIV2K in 0..``value_range``."""
    return [round(value * value_range, 4) for value in DIV2K_MEAN]
