"""Saying what a network does in torch's ordinary operators alone."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.export.lowered_layers import DenseLayer, DepthwiseGhostLayer, SlicedGhostLayer
from ghostsr_ext.models import SRModel
from ghostsr_ext.models.base import MAX_MULTIPLE, checked_count
from ghostsr_ext.nn import FusedConv2d, GhostConv2d

GhostForm = Literal["depthwise", "slices"]
GHOST_FORMS: tuple[str, ...] = get_args(GhostForm)
SIZES = ((32, 48), (37, 23), (8, 61))
"""Rows and columns of the pictures that runtimes are compared on."""


def lower(
    model: nn.Module,
    *,
    scale: int | None = None,
    ghost_as: GhostForm = "depthwise",
    example: Tensor | None = None,
    multiple: int | None = None,
) -> LoweredNetwork:
    """Return a copy of a module that uses no operator of this package.

    ``torch.onnx.export``, ``torch.jit.trace`` and other tools that know torch's operators alone
    take the result.

    Args:
        model: A network of the package, or any module of one tensor in and one out that has the
            package's layers in it, such as what ``convert`` returns; it is not changed.
        scale: One of the network's scales; None for its own. Only for networks of the package.
        ghost_as: What ghost channels become. ``"depthwise"``: a 1x1 convolution that copies each
            ghost's source, then a depthwise convolution that moves it; both have filters of one 1
            and zeros elsewhere. Fastest where convolutions are fast: in all runtimes measured.
            ``"slices"``: a padded map, of which each shift is a slice, and a concatenation.
        example: An input of ``model``, [N, C, H, W], floating point. Only for other modules, and
            only ``export_model`` needs it: its values are compared in the other runtime.
        multiple: What the height and width of ``model``'s input must be multiples of, where they
            shall be free in an exported file; None for those of ``example`` alone. Only for other
            modules: those of the package know theirs.

    Raises:
        InputError: An argument is out of its domain, or ``model`` cannot compute ``example``.
    """
    if ghost_as not in GHOST_FORMS:
        raise InputError(f"ghost_as: {ghost_as!r}; must be one of {', '.join(GHOST_FORMS)}")
    if isinstance(model, SRModel):
        scale = model.served_scale(scale)
        if example is not None or multiple is not None:
            name = "example" if example is not None else "multiple"
            raise InputError(f"{name}: {type(model).__name__} needs none; it is for other modules")
    elif scale is not None:
        raise InputError(f"scale: {scale}; only networks of the package have scales to choose from")
    network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    original = copy.deepcopy(network)
    _replace_layers(network, ghost_as)
    if isinstance(network, SRModel):
        assert isinstance(original, SRModel)
        assert scale is not None
        return LoweredSRModel(network, original, ghost_as, scale)
    if example is not None:
        example = _checked_example(original, example, multiple)
    return LoweredNetwork(network, original, ghost_as, example, multiple)


class LoweredNetwork(nn.Module):
    """A module in torch's ordinary operators.

    Attributes:
        network: The module.
        original: The module that it must agree with, in float64.
        ghost_as: What ghost channels have become.
        white: The value of white in the output; where it is not known, the largest magnitude in the
            output for the example.
        multiple: What height and width must be multiples of; None where they are those of the
            example.
        metadata: Free-form blocks that travel with the network.
    """

    def __init__(
        self,
        network: nn.Module,
        original: nn.Module,
        ghost_as: GhostForm,
        example: Tensor | None = None,
        multiple: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        # In a list, so that its weights are no part of this module.
        self._original = [original.double()]
        self._example = example
        self.ghost_as = ghost_as
        self.multiple = multiple
        self.metadata: dict[str, Any] = {}
        self.white = 1.0
        if example is not None:
            self.white = float(self.expected(example).abs().max()) or 1.0
        self.eval()

    @property
    def original(self) -> nn.Module:
        """The module that it must agree with, in float64."""
        return self._original[0]

    def forward(self, image: Tensor) -> Tensor:
        """Compute the module's output for [N, C, h, w].

        Both are float32, whatever the weights are.
        """
        output: Tensor = self.network(image.to(self._dtype))
        return output.float()

    @property
    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    def expected(self, image: Tensor) -> Tensor:
        """Return what the original computes for a float32 input, in float64."""
        with torch.inference_mode():
            output: Tensor = self.original(image.double())
        return output

    @property
    def has_examples(self) -> bool:
        """Whether it knows inputs to be compared on."""
        return self._example is not None

    @property
    def free_axes(self) -> dict[int, str]:
        """Axes of the input whose sizes are free, with their names."""
        return {} if self.multiple is None else {2: "height", 3: "width"}

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the inputs that a runtime is compared on.

        Raises:
            InputError: No example was given.
        """
        rows, columns = self._given_example().shape[2:]
        step = self.multiple
        if step is None:
            return ((rows, columns),)
        return ((rows, columns), (rows + step, columns), (rows, columns + 2 * step))

    def example(self, rows: int, columns: int) -> Tensor:
        """Return an input of this size, the same at each call.

        Raises:
            InputError: No example was given.
        """
        example = self._given_example()
        copies = (-(-rows // example.shape[2]), -(-columns // example.shape[3]))
        return example.repeat(1, 1, *copies)[:, :, :rows, :columns].contiguous()

    def _given_example(self) -> Tensor:
        if self._example is None:
            raise InputError("example: missing; pass an input of the module, [N, C, H, W]")
        return self._example

    def description(self) -> dict[str, str]:
        """What a caller has to know, as texts."""
        return {
            "architecture": type(self.original).__name__,
            "input": "x".join(map(str, self._given_example().shape)),
            "layout": "NCHW",
        }


class LoweredSRModel(LoweredNetwork):
    """A network of the package at one scale, in torch's ordinary operators.

    Attributes:
        scale: How many times it enlarges.
    """

    def __init__(
        self, network: SRModel, original: SRModel, ghost_as: GhostForm, scale: int
    ) -> None:
        super().__init__(network, original, ghost_as, multiple=original.multiple)
        self.scale = scale
        self.white = original.value_range
        self.metadata = original.metadata

    @property
    def model(self) -> SRModel:
        """The network that it must agree with, in float64."""
        assert isinstance(self.original, SRModel)
        return self.original

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, C, h, w] in 0..``value_range`` to the enlarged picture.

        Both are float32, whatever the weights are; h and w are multiples of ``multiple``.
        """
        network = self.network
        assert isinstance(network, SRModel)
        image = image.to(self._dtype)
        # As SRModel.forward, less its checks, its padding and its choice of a memory layout: other
        # runtimes make their own.
        if network.mean is None:
            return network.upscale(image, self.scale).float()
        return (network.upscale(image - network.mean, self.scale) + network.mean).float()

    def expected(self, image: Tensor) -> Tensor:
        """Return what the original computes for a float32 picture, in float64."""
        with torch.inference_mode():
            output: Tensor = self.original(image.double(), self.scale)
        return output

    @property
    def has_examples(self) -> bool:
        """Whether it knows inputs to be compared on: it makes them."""
        return True

    @property
    def free_axes(self) -> dict[int, str]:
        """Axes of the input whose sizes are free, with their names."""
        return {0: "batch", 2: "height", 3: "width"}

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the pictures that a runtime is compared on."""
        unit = self.model.multiple
        return tuple(
            (-(-rows // unit) * unit, -(-columns // unit) * unit) for rows, columns in SIZES
        )

    def example(self, rows: int, columns: int) -> Tensor:
        """Return a picture of this size, smooth with some noise, the same at each call."""
        generator = torch.Generator().manual_seed(rows * 1000 + columns)
        shape = (1, self.model.channels, rows, columns)
        noise = torch.rand(shape, generator=generator)
        ramp = torch.linspace(0, 1, columns).expand(shape)
        return (0.2 * noise + 0.8 * ramp) * self.white

    def description(self) -> dict[str, str]:
        """What a caller has to know, as texts."""
        network = self.model
        return {
            "architecture": network.architecture,
            "scale": str(self.scale),
            "value_range": f"{network.value_range:g}",
            "color": network.color,
            "input_upscaled": str(network.input_upscaled).lower(),
            "receptive_field": str(network.receptive_field),
            "multiple": str(network.multiple),
            "layout": "NCHW",
        }


def _checked_example(model: nn.Module, example: Tensor, multiple: int | None) -> Tensor:
    if not isinstance(example, Tensor):
        raise InputError(f"example: {type(example).__name__}; must be a tensor [N, C, H, W]")
    if example.dim() != 4 or not example.is_floating_point() or example.numel() == 0:
        raise InputError(
            f"example: {example.dtype} of shape {tuple(example.shape)}; must be floating point, "
            "[N, C, H, W]"
        )
    if multiple is not None:
        checked_count("multiple", multiple, MAX_MULTIPLE)
        if example.shape[2] % multiple or example.shape[3] % multiple:
            raise InputError(
                f"example: {example.shape[2]} x {example.shape[3]}; must be multiples of {multiple}"
            )
    example = example.detach().cpu().float()
    try:
        with torch.inference_mode():
            output = model(example)
    except Exception as error:
        # A module of anyone's may raise anything for an input that is not its own.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"example: the module cannot compute shape {tuple(example.shape)} ({reason})"
        ) from error
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise InputError(
            f"model: returns a {type(output).__name__}; a module that returns one tensor of "
            "floating point is needed"
        )
    return example


def _replace_layers(network: nn.Module, ghost_as: GhostForm) -> None:
    ghost_layer = DepthwiseGhostLayer if ghost_as == "depthwise" else SlicedGhostLayer
    # A layer that is used under several names stays one layer.
    lowered: dict[nn.Module, nn.Module] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, GhostConv2d):
            lowered.setdefault(module, ghost_layer(module))
        elif isinstance(module, FusedConv2d):
            lowered.setdefault(module, DenseLayer(module))
        else:
            continue
        network.set_submodule(name, lowered[module])
