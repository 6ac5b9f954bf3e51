"""Random ghost layers in every memory layout, and the comparison with their twins in float64."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


def _sliced(tensor: Tensor) -> Tensor:
    batch, channels, height, width = tensor.shape
    whole = tensor.new_full((batch, channels + 2, height + 1, 2 * width + 1), torch.nan)
    view = whole[:, 1 : channels + 1, 1:, 1::2]
    return view.copy_(tensor)


def _channel_slice(tensor: Tensor) -> Tensor:
    batch, channels, height, width = tensor.shape
    whole = tensor.new_full((batch, channels + 3, height, width), torch.nan)
    return whole.contiguous(memory_format=torch.channels_last)[:, 2 : channels + 2].copy_(tensor)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda tensor: tensor.contiguous(),
    "channels_last": lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
    "sliced": _sliced,
    "channel_slice": _channel_slice,
    "transposed": lambda tensor: tensor.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": lambda tensor: tensor[:1, :, :1].expand_as(tensor),
}
DENSE_LAYOUTS = ("contiguous", "channels_last")

EVERYTHING = {
    "affine": True,
    "ordered": True,
    "residual": True,
    "activation": "relu",
    "residual_scale": 0.5,
}
"""Options of ``make_layer`` that use all of the epilogue."""

ACTIVATIONS = {
    "relu": {"activation": "relu"},
    "leaky relu": {"activation": "leaky_relu", "negative_slope": 0.2},
    "negative slope": {"activation": "leaky_relu", "negative_slope": -0.7},
    "prelu": {"activation": "prelu"},
    "prelu of each channel": {"activation": "prelu", "prelu_parameters": None},
}
"""Options of ``make_layer``, one for each way to end."""

# Relative to the largest expected value. Layers of integers leave two-byte types one rounding.
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2**-11,
    torch.bfloat16: 2**-8,
}


@dataclass
class GhostLayer:
    """Arguments of the operators by name, in float64: maps, parameters, tables and options."""

    tensors: dict[str, Tensor]
    tables: dict[str, Tensor]
    options: dict[str, Any]
    geometry: dict[str, Any]
    selection: dict[str, Any] = field(default_factory=dict)

    def cast(self, dtype: torch.dtype = torch.float64, **layouts: str) -> dict[str, Any]:
        """Return the tensors in ``dtype``, the maps named in ``layouts`` laid out so."""
        cast = {name: tensor.to(dtype, copy=True) for name, tensor in self.tensors.items()}
        return cast | {
            name: LAYOUTS[layout](cast[name]) for name, layout in layouts.items() if name in cast
        }

    def fixed(self, dtype: torch.dtype = torch.float64, **layouts: str) -> dict[str, Any]:
        """Return the arguments of ``ghost_conv``."""
        return (
            {"bias": None}
            | _without(self.cast(dtype, **layouts), "intrinsic")
            | {
                **self.tables,
                **self.options,
                **self.geometry,
            }
        )

    def learned(self, dtype: torch.dtype = torch.float64, **layouts: str) -> dict[str, Any]:
        """Return the arguments of ``ghost_conv_learned``."""
        selection = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in self.selection.items()
        }
        return _without(self.fixed(dtype, **layouts), "shift") | selection

    def epilogue(self, dtype: torch.dtype = torch.float64, **layouts: str) -> dict[str, Any]:
        """Return the arguments of ``shift_concat``."""
        tensors = _without(self.cast(dtype, **layouts), "input", "weight", "bias")
        return tensors | self.tables | self.options


def make_layer(
    *,
    batch: int = 2,
    in_channels: int = 4,
    size: tuple[int, int] = (7, 9),
    intrinsic: int = 5,
    ghosts: int = 4,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    bias: bool = True,
    max_shift: int = 1,
    affine: bool = False,
    ordered: bool = False,
    residual: bool = False,
    activation: str = "none",
    negative_slope: float = 0.01,
    prelu_parameters: int | None = 1,
    residual_scale: float = 1.0,
    tau: float = 0.7,
    noise: bool = True,
    layer_scope: bool = False,
    table_dtype: torch.dtype = torch.int64,
    integers: bool = False,
    seed: int = 0,
) -> GhostLayer:
    """Draw a layer; ``prelu_parameters`` of None are one a channel.

    ``integers`` keeps every value of the forward exact in a two-byte type.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        if integers:
            return torch.randint(-1, 2, shape, generator=generator).double()
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def table(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator).to(table_dtype)

    height, width = (
        (size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis]
        + 1
        for axis in range(2)
    )
    channels = intrinsic + ghosts
    tensors = {
        "input": draw(batch, in_channels, *size),
        "weight": draw(intrinsic, in_channels // groups, *kernel),
        "intrinsic": draw(batch, intrinsic, height, width),
    }
    tables = {
        "source": table(0, intrinsic, ghosts),
        "shift": table(-max_shift, max_shift + 1, ghosts, 2),
    }
    if bias:
        tensors["bias"] = draw(intrinsic)
    if affine:
        tensors |= {"gain": draw(ghosts), "ghost_bias": draw(ghosts)}
    if activation == "prelu":
        tensors["prelu_weight"] = draw(prelu_parameters or channels)
    if residual:
        tensors["residual"] = draw(batch, channels, height, width)
    if ordered:
        tables["order"] = torch.randperm(channels, generator=generator).to(table_dtype)
    rows = 1 if layer_scope else ghosts
    logits_shape = (rows, (2 * max_shift + 1) ** 2)
    selection = {
        "logits": torch.randn(logits_shape, generator=generator, dtype=torch.float64),
        "noise": torch.randn(logits_shape, generator=generator, dtype=torch.float64)
        if noise
        else None,
        "tau": tau,
    }
    return GhostLayer(
        tensors,
        tables,
        {
            "activation": activation,
            "negative_slope": negative_slope,
            "residual_scale": residual_scale,
        },
        {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        selection,
    )


def _without(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in names}


def in_float64(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as the oracle takes them: the same values, contiguous, in float64."""
    return {
        name: value.detach().double().contiguous()
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in arguments.items()
    }


def values_and_gradients(
    operator: Callable[..., Tensor], arguments: Mapping[str, Any], grad_layout: str = "contiguous"
) -> dict[str, Tensor]:
    """Return the output and the gradients of all floating-point arguments, by name."""
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in arguments.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    output = operator(**{**arguments, **leaves})
    generator = torch.Generator().manual_seed(1)
    grad_output = torch.randint(-2, 3, output.shape, generator=generator).to(output.dtype)
    gradients = torch.autograd.grad(
        output, list(leaves.values()), LAYOUTS[grad_layout](grad_output)
    )
    return {"output": output.detach()} | dict(zip(leaves, gradients, strict=True))


def assert_close(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float | None = None
) -> None:
    """Compare named tensors by their largest error over the largest expected value."""
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        allowed = TOLERANCE[tensor.dtype] if tolerance is None else tolerance
        assert tensor.shape == expected[name].shape, name
        if tensor.numel():
            error = (tensor.double() - expected[name]).abs().max().item()
            scale = max(expected[name].abs().max().item(), 1e-3)
            assert error <= allowed * scale, (
                f"{name}: off by {error:.3g}, largest value {scale:.3g}"
            )
