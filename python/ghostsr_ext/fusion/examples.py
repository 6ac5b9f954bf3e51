"""Inputs to try a network with, before and after it is fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d

# The first that a network can be run on is taken.
_SIDES = (16, 32, 64)

# Of the output's range: kernels may round differently, a wrong graph is far off.
_TOLERANCE = 1e-3
_TOLERANCE_OF_HALF = 5e-2


@dataclass(frozen=True)
class Call:
    """Arguments of one call of a network."""

    positional: tuple[Any, ...]
    named: Mapping[str, Any] = field(default_factory=dict)

    def run(self, module: nn.Module) -> Any:
        """Call ``module`` with copies of the tensors, which it may overwrite."""
        return module(*copied(self.positional), **copied(dict(self.named)))


def copied(values: Any) -> Any:
    """Return nested containers with a copy of each tensor."""
    return torch.utils._pytree.tree_map(
        lambda value: value.clone() if isinstance(value, Tensor) else value, values
    )


def example_calls(model: nn.Module, example: Any) -> list[list[Call]]:
    """Return calls that use all of a network: one list of them for each example to try.

    Args:
        model: The network.
        example: An input, or a tuple of positional arguments; None for noise that fits its first
            convolution.

    Raises:
        InputError: ``example`` is neither a tensor nor a tuple.
    """
    if example is None:
        inputs = _noise(model)
    elif isinstance(example, Tensor):
        inputs = [(example,)]
    elif isinstance(example, tuple):
        inputs = [example]
    else:
        raise InputError(
            f"example: found {type(example).__name__}; a tensor, or a tuple of the arguments of "
            "forward, is needed"
        )
    named = [{"scale": scale} for scale in model.scales] if isinstance(model, SRModel) else [{}]
    return [[Call(arguments, scale) for scale in named] for arguments in inputs]


def _noise(model: nn.Module) -> list[tuple[Any, ...]]:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | GhostConv2d)), None)
    if first is None:
        return []
    channels = model.channels if isinstance(model, SRModel) else first.in_channels
    white = model.value_range if isinstance(model, SRModel) else 1.0
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(1, channels, side, side, generator=generator) for side in _SIDES)
    return [((one * white).to(first.weight.device, first.weight.dtype),) for one in noise]


def of_another_size(call: Call) -> Call | None:
    """Return the call with two pictures of twice the width in the place of each.

    What a trace took for constant, though it depends on the input, shows there. None where the
    arguments are more than pictures.
    """
    if not all(isinstance(value, Tensor) and value.dim() == 4 for value in call.positional):
        return None
    wide = [torch.cat([value, value.flip(3)], dim=3) for value in call.positional]
    return Call(tuple(torch.cat([value, value.flip(2)]) for value in wide), call.named)


def agree(found: Any, expected: Any) -> bool:
    """Whether two results, tensors or containers of them, are equal but for rounding."""
    left, left_form = torch.utils._pytree.tree_flatten(found)
    right, right_form = torch.utils._pytree.tree_flatten(expected)
    return left_form == right_form and all(map(_leaves_agree, left, right))


def _leaves_agree(found: Any, expected: Any) -> bool:
    if not isinstance(expected, Tensor) or not isinstance(found, Tensor):
        return bool(found == expected)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not expected.numel():
        return True
    half = expected.dtype in (torch.float16, torch.bfloat16)
    found, expected = found.double(), expected.double()
    extent = float(expected.max() - expected.min()) or float(expected.abs().max()) or 1.0
    tolerance = (_TOLERANCE_OF_HALF if half else _TOLERANCE) * extent
    return torch.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True)
