"""Autocast rules: the operators cast down, as convolution does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Selecting a shift compares logits that may differ by less than a half-precision step.
_KEPT = frozenset({"logits", "noise"})

# Not the gradients: they run in the dtypes of their forward, wherever backward is called.
_CAST_OPERATORS = ("convolution", "ghost_conv", "ghost_conv_learned", "shift_concat")


def _kernel(name: str, device: str) -> Callable[..., Any]:
    operator = getattr(torch.ops.ghostsr, name).default
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
            and argument not in _KEPT
        )
        return value.to(dtype) if eligible else value

    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(device)
        with torch._C._ExcludeDispatchKeyGuard(key_set):
            return operator(
                *(
                    cast(key, value, dtype)
                    for key, value in zip(argument_names, args, strict=False)
                ),
                **{key: cast(key, value, dtype) for key, value in kwargs.items()},
            )

    return kernel


def register(library: torch.library.Library) -> None:
    """Register the autocast rules of the forward operators on ``library``."""
    for name in _CAST_OPERATORS:
        library.impl(name, _kernel(name, "cpu"), "AutocastCPU")
        library.impl(name, _kernel(name, "cuda"), "AutocastCUDA")
