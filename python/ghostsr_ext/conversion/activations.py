"""What an activation passes on of the errors before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ghostsr_ext.nn import FusedConv2d
from ghostsr_ext.reference import activate

Activation = Callable[[Tensor], Tensor]
"""Maps what is before an activation, [N, C, H, W], to what is behind it, element by element."""

_LEAST_STEP = 1e-12


def own_activation(layer: nn.Module) -> Activation | None:
    """Return the activation that ``layer`` itself ends with, if any."""
    if not isinstance(layer, FusedConv2d) or layer.activation == "none":
        return None
    fused = layer

    def apply(maps: Tensor) -> Tensor:
        return activate(maps, fused.activation, fused.negative_slope, fused.prelu_weight)

    return apply


@torch.no_grad()
def passed_on(activation: Activation, wanted: Tensor, found: Tensor) -> Tensor:
    """Return which part of the difference of two maps an activation passes on, squared, 0 to 1.

    Fitting again to ``found`` plus this part of ``wanted - found`` brings the outputs behind the
    activation nearer, while all positions still count the same. For a rectifier the part is 1
    where something positive is wanted, and 0 where both are negative, since what is cut off may be
    anything. The part is that of the slope at ``wanted`` or of the step from one map to the other,
    whichever is larger, relative to the largest slope anywhere.

    Args:
        activation: The activation behind the layer.
        wanted: Before the activation, [N, C, H, W].
        found: The same.

    Returns:
        [N, C, H, W].
    """
    slope, behind_wanted = _slope(activation, wanted)
    slope_found, behind_found = _slope(activation, found)
    difference = wanted - found
    step = torch.where(
        difference.abs() > _LEAST_STEP, (behind_wanted - behind_found) / difference, slope
    )
    part = torch.maximum(slope.square(), slope_found * step)
    largest = torch.maximum(slope.abs().amax(), slope_found.abs().amax()).square()
    return (part / largest.clamp_min(_LEAST_STEP)).clamp(0, 1)


def _slope(activation: Activation, maps: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        before = maps.detach().requires_grad_()
        # Cloned, because an activation may work in place.
        behind = activation(before.clone())
        (slope,) = torch.autograd.grad(behind.sum(), before)
    return slope, behind.detach()
