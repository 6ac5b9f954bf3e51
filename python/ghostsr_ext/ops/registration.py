"""What every operator registers with torch: fake kernel, gradient, autocast rule.

``torch.library.register_autograd`` takes no keyword-only tensors, which the operators' schemas
have, so each gradient is a ``torch.autograd.Function`` behind the operator's Autograd key.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ghostsr_ext.activations import Activation
from ghostsr_ext.ops.onnx_export import refuse_onnx_export

operators = torch.ops.ghostsr

# Selecting a shift compares logits that may differ by less than a half-precision step.
_KEPT_BY_AUTOCAST = frozenset({"logits", "noise"})

_implementation = torch.library.Library("ghostsr", "IMPL")


def call(operator: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call an operator, past its Autograd key where no gradient can be asked for."""
    if (
        torch.is_grad_enabled()
        or forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        # What torch.compiler.is_compiling() says, in one step less.
        or torch.compiler.is_dynamo_compiling()
        or torch.compiler._is_compiling_flag
    ):
        return operator(*args, **kwargs)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*args, **kwargs)


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is at work.

    The operators have a gradient of first order alone; under a transform they are computed by their
    twins in plain torch, which every transform knows.
    """
    return (
        forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
    )


def said(
    gain: Tensor | None,
    ghost_bias: Tensor | None,
    order: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    activation: Activation,
    negative_slope: float,
    prelu_weight: Tensor | None,
    residual: Tensor | None,
    residual_scale: float,
    cache: Tensor | None,
) -> dict[str, Any]:
    """Return what differs from the defaults of a layer's operator: torch reads no others."""
    arguments: dict[str, Any] = {}
    if gain is not None:
        arguments["gain"] = gain
    if ghost_bias is not None:
        arguments["ghost_bias"] = ghost_bias
    if order is not None:
        arguments["order"] = order
    if stride not in (1, (1, 1)):
        arguments["stride"] = stride
    if padding not in (0, (0, 0)):
        if isinstance(padding, str):
            raise ValueError(
                f"padding: found {padding!r}; integers are allowed (FusedConv2d and GhostConv2d "
                'take "same" and "valid")'
            )
        arguments["padding"] = padding
    if dilation not in (1, (1, 1)):
        arguments["dilation"] = dilation
    if groups != 1:
        arguments["groups"] = groups
    if activation != "none":
        arguments["activation"] = activation
    if negative_slope != 0.01:
        arguments["negative_slope"] = negative_slope
    if prelu_weight is not None:
        arguments["prelu_weight"] = prelu_weight
    if residual is not None:
        arguments["residual"] = residual
    if residual_scale != 1:
        arguments["residual_scale"] = residual_scale
    if cache is not None:
        arguments["cache"] = cache
    return arguments


def records_gradient(*values: Any) -> bool:
    """Whether autograd wants to know how a result came from these values."""
    return torch.is_grad_enabled() and any(
        isinstance(value, Tensor) and value.requires_grad for value in values
    )


def below_autograd(name: str) -> Callable[..., Any]:
    """Return a call of the operator's backend kernel that skips its Autograd key."""
    operator = getattr(operators, name).default

    def redispatch(keyset: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *args, **kwargs)

    return redispatch


def register_gradient(name: str, kernel: Callable[..., Any]) -> None:
    """Register what the operator does where gradients are recorded; it gets the key set first."""
    _implementation.impl(name, kernel, "Autograd", with_keyset=True)


def register_fake(name: str, kernel: Callable[..., Any]) -> None:
    """Register the shapes, dtypes and layouts of the operator's results."""

    @functools.wraps(kernel)
    def checked(first: Tensor, *args: Any, cache: Tensor | None = None, **kwargs: Any) -> Any:
        refuse_onnx_export()
        # A meta tensor among others ends up here.
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.device != first.device:
                raise RuntimeError(
                    f"ghostsr: found tensors on {first.device} and on {value.device}; "
                    "one device is needed"
                )
        return kernel(first, *args, **kwargs)

    torch.library.register_fake(f"ghostsr::{name}", checked)


def register_autocast(name: str) -> None:
    """Let the operator cast down under autocast, as convolution does.

    Gradients are not cast: they run in the dtypes of their forward, wherever backward is called.
    """
    for device in ("cpu", "cuda"):
        _implementation.impl(name, _casting_kernel(name, device), f"Autocast{device.upper()}")


def _casting_kernel(name: str, device: str) -> Callable[..., Any]:
    operator = getattr(operators, name).default
    argument_names = [argument.name for argument in operator._schema.arguments]
    key_set = torch._C.DispatchKeySet(
        torch._C.DispatchKey.AutocastCPU if device == "cpu" else torch._C.DispatchKey.AutocastCUDA
    )

    def cast(argument: str, value: Any, dtype: torch.dtype) -> Any:
        eligible = (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.device.type == device
            and value.dtype != torch.float64
            and argument not in _KEPT_BY_AUTOCAST
        )
        return value.to(dtype) if eligible else value

    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(device)
        given = dict(zip(argument_names, args, strict=False)) | kwargs
        values = {key: cast(key, value, dtype) for key, value in given.items()}
        with torch._C._ExcludeDispatchKeyGuard(key_set):
            return _promoting(operator, values, given)

    return kernel


def _promoting(operator: Callable[..., Any], values: dict[str, Any], given: dict[str, Any]) -> Any:
    """Call the operator on cast values; a float64 residual is added as torch adds it."""
    from ghostsr_ext.reference import activate, pixel_shuffle

    residual = values.get("residual")
    first = next(iter(values.values()))
    if residual is None or residual.dtype == first.dtype or residual.dtype != torch.float64:
        return operator(**values)
    ending = {
        name: values.pop(name)
        for name in ("activation", "negative_slope", "prelu_weight")
        if name in values
    }
    if isinstance(weight := given.get("prelu_weight"), Tensor):
        ending["prelu_weight"] = weight.double()
    shuffle = values.pop("shuffle", 1)
    del values["residual"]
    output = activate(residual + operator(**values), **{"activation": "none", **ending})
    return pixel_shuffle(output, shuffle)


class _NoDoubleBackward(torch.autograd.Function):
    """Passes gradients through; asking for their own gradient is an error that names the operator.

    Takes the tensors that the gradients came from, so that every way back to them meets the error.
    """

    @staticmethod
    def forward(
        ctx: Any, name: str, count: int, *gradients_and_origins: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.name = name
        return tuple(gradient.view_as(gradient) for gradient in gradients_and_origins[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            f"ghostsr::{ctx.name}: double backward is not supported; differentiate once, or use "
            "ghostsr_ext.reference, whose functions are plain torch"
        )


def refuse_double_backward(name: str) -> None:
    """Make the gradient of the operator, itself a gradient, an error."""
    redispatch = below_autograd(name)

    def kernel(keyset: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        gradients = redispatch(keyset, *args, **kwargs)
        values = (*args, *kwargs.values())
        if not records_gradient(*values):
            return gradients
        origins = [value for value in values if isinstance(value, Tensor) and value.requires_grad]
        return _NoDoubleBackward.apply(name, len(gradients), *gradients, *origins)  # type: ignore[no-untyped-call]

    register_gradient(name, kernel)
