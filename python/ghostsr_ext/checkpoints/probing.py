"""Telling hyperparameters that leave no trace in the tensors, by trying a network with them.

Whatever an SR network learned, it keeps smooth pictures as they are: enlarged and averaged back,
such a picture must return. A network run with the wrong value range or residual scale misses it,
because its biases or its residuals have the wrong weight.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ghostsr_ext.models import SRModel

_SIDE = 16
_MARGIN = 3

# A usual value stays unless another one is clearly better. Where a wrong guess makes little
# difference the ratio is near 1; a wrong value range gives 1.5 and more, a residual scale ten times
# too large far more.
_CLEARLY_BETTER = 0.7
_HOPELESS = 0.05


def settle(
    choices: Mapping[str, tuple[Any, ...]],
    build: Callable[[Mapping[str, Any]], SRModel],
) -> tuple[SRModel, list[str]]:
    """Build a network with the values that keep a smooth picture best.

    Args:
        choices: Possible values of each undecided hyperparameter, the usual one first.
        build: Builds the network with given values for them.

    Returns:
        The network and one sentence for each decision.
    """
    usual = {name: values[0] for name, values in choices.items()}
    if not choices:
        return build(usual), []
    trials = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    errors = [reproduction_error(build(trial)) for trial in trials]
    best = min(range(len(trials)), key=errors.__getitem__)
    settled = usual
    if errors[best] <= _HOPELESS and errors[best] < _CLEARLY_BETTER * errors[0]:
        settled = trials[best]
    error = errors[trials.index(settled)]
    if min(errors) > _HOPELESS:
        reason = "the usual value; no trial kept a smooth picture"
    else:
        reason = f"keeps a smooth picture to {100 * error:.2g} % of white"
    evidence = [
        f"{name.replace('_', ' ')} {_shown(value)} (of {', '.join(map(_shown, choices[name]))}): "
        + reason
        for name, value in settled.items()
    ]
    return build(settled), evidence


def reproduction_error(model: SRModel) -> float:
    """Return how far the enlarged and averaged smooth picture is from itself, 1 being white."""
    return smooth_picture_error(model.eval(), model.channels, model.value_range)


@torch.no_grad()
def smooth_picture_error(
    run: Callable[[Tensor], Tensor], channels: int, value_range: float, like: Tensor | None = None
) -> float:
    """Return how far a smooth picture, enlarged by ``run`` and averaged, is from itself.

    Args:
        run: A network that keeps or enlarges the size.
        channels: Channels of its pictures, 1 to 3.
        value_range: The value of white that it is tried with.
        like: A tensor on its device, of its type; float32 on the CPU by default.

    Returns:
        The mean absolute difference, 1 being white; infinite where it is not finite.
    """
    picture = _smooth_picture(channels) * value_range
    enlarged = run(picture if like is None else picture.to(like.device, like.dtype))
    returned = functional.adaptive_avg_pool2d(enlarged.to(picture), (_SIDE, _SIDE))
    inner = slice(_MARGIN, -_MARGIN)
    error = (returned - picture)[..., inner, inner].abs().mean() / value_range
    return float(torch.nan_to_num(error, nan=torch.inf))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _smooth_picture(channels: int) -> Tensor:
    axis = torch.linspace(0, 1, _SIDE, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    planes = (
        0.5 + 0.4 * torch.sin(5 * x + 2 * y),
        0.2 + 0.6 * y,
        0.5 + 0.3 * torch.cos(6 * y - 3 * x),
    )
    return torch.stack(planes[:channels])[None]
