"""Choosing sources and shifts of ghosts again while a network trains.

The loss is a quadratic function of a ghost's map y as long as y changes little: with the gradient G
of the loss for y, and the curvature h, a change d of the map changes the loss by <G, d> + h |d|²/2.
The least value over all moved intrinsic maps c, with a gain a where ghosts have one, is a
least-squares fit of a c to y - G/h. The curvature is that of the squared difference to the wanted
picture, one number for each ghost, from one random direction (Hutchinson's estimate of a diagonal).
What this promises is tried out one ghost at a time, and kept where the loss falls.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.statistics import candidate_offsets, shifted
from ghostsr_ext.nn import GhostConv2d, ghost_layers
from ghostsr_ext.reference import activate

_TRIED = 16
"""Changes that are tried out in one re-selection: each costs a forward pass of half a batch."""

_TINY = 1e-30


@dataclass(frozen=True)
class Forward:
    """What one pass of a batch gave.

    Attributes:
        loss: What training makes small, a scalar that records its gradient.
        output: The picture that it was computed from.
        wanted: The picture that is wanted, of the same shape.
    """

    loss: Tensor
    output: Tensor
    wanted: Tensor


@dataclass(frozen=True)
class _Call:
    """One use of a layer in a pass."""

    input: Tensor
    residual: Tensor | None
    output: Tensor


@dataclass(frozen=True)
class _Change:
    """Another source and shift for a ghost, and by how much that should change the loss."""

    layer: str
    ghost: int
    source: int
    shift: Tensor
    gain: Tensor | None
    ghost_bias: Tensor | None
    promised: float


def reselect(
    model: nn.Module,
    forward: Callable[[], Forward],
    check: Callable[[], Tensor],
    *,
    mean: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    seed: int = 0,
) -> int:
    """Give ghosts other sources and shifts where that makes the loss fall.

    Args:
        model: A network with ghost layers whose shifts are tables. Tables of its ghosts, and gains
            and biases of those that have them, are changed in place.
        forward: Passes a batch through ``model`` and records gradients. Its loss may be scaled, as
            float16 needs it.
        check: Returns the loss of other pictures, by which a change is kept or taken back.
        mean: Gives the mean of a tensor over the processes that train together.
        seed: Seed of the random direction.

    Returns:
        How many ghosts were changed.
    """
    layers = {name: layer for name, layer in ghost_layers(model).items() if layer.ghost_channels}
    with _watched(layers) as calls:
        passed = forward()
    promised = _promised_changes(layers, calls, passed, mean, seed)
    changed = 0
    with torch.no_grad():
        best = mean(check())
        for change in sorted(promised, key=lambda change: change.promised)[:_TRIED]:
            layer = layers[change.layer]
            before = _exchange(layer, change)
            loss = mean(check())
            if bool(loss < best):
                best = loss
                changed += 1
            else:
                _exchange(layer, before)
    return changed


@contextmanager
def _watched(layers: dict[str, GhostConv2d]) -> Iterator[dict[str, list[_Call]]]:
    """Record the uses of layers inside the block."""
    calls: dict[str, list[_Call]] = {name: [] for name in layers}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            residual = inputs[1] if len(inputs) > 1 else None
            calls[name].append(
                _Call(inputs[0].detach(), None if residual is None else residual.detach(), output)
            )

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class _Sums(NamedTuple):
    """Sums over positions of candidates c, ghosts y, gradients g of y and of a random direction.

    All are float64: ``c``, ``cc`` [I, K]; ``y``, ``yy``, ``g``, ``gy``, ``probe`` [G]; ``cy``,
    ``cg`` [G, I, K]; ``positions`` is their number.
    """

    positions: Tensor
    c: Tensor
    cc: Tensor
    y: Tensor
    yy: Tensor
    g: Tensor
    gy: Tensor
    probe: Tensor
    cy: Tensor
    cg: Tensor


def _promised_changes(
    layers: Mapping[str, GhostConv2d],
    calls: Mapping[str, list[_Call]],
    passed: Forward,
    mean: Callable[[Tensor], Tensor],
    seed: int,
) -> list[_Change]:
    """Return for each ghost that another source or shift should suit better the best one."""
    used = [(name, call) for name, uses in calls.items() for call in uses]
    if not used:
        return []
    outputs = [call.output for _, call in used]
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, passed.output.shape, generator=generator) * 2 - 1
    probe = (passed.output * signs.to(passed.output)).sum()
    gradients = torch.autograd.grad(passed.loss, [passed.output, *outputs], retain_graph=True)
    directions = torch.autograd.grad(probe, outputs)
    # Of the parabola that has the slope of the loss where the output is now.
    missed = (passed.output.detach() - passed.wanted).abs().sum().clamp_min(_TINY)
    curvature = mean(gradients[0].abs().sum() / missed).double()
    sums: dict[str, _Sums] = {}
    for (name, call), gradient, direction in zip(used, gradients[1:], directions, strict=True):
        found = _sums(layers[name], call, gradient, direction)
        known = sums.get(name)
        sums[name] = found if known is None else _Sums(*map(operator.add, known, found))
    changes: list[_Change] = []
    for name, found in sums.items():
        averaged = _Sums(*(mean(tensor).cpu() for tensor in found))
        changes.extend(_best_changes(name, layers[name], averaged, curvature.cpu()))
    return changes


def _sums(layer: GhostConv2d, call: _Call, gradient: Tensor, direction: Tensor) -> _Sums:
    with torch.no_grad():
        # Autocast, under which the maps were made, has ended.
        linear = _without_activation(layer, call.input.to(layer.weight.dtype))
    linear.requires_grad_()
    finished = linear * layer.residual_scale
    if call.residual is not None:
        finished = finished + call.residual
    finished = activate(finished, layer.activation, layer.negative_slope, layer.prelu_weight)
    places = layer.order.argsort()
    ghosts = places[layer.intrinsic_channels :]
    g, probe = (
        _by_channel(
            torch.autograd.grad(finished, linear, given.to(finished.dtype), retain_graph=True)[0][
                :, ghosts
            ]
        )
        for given in (gradient, direction)
    )
    linear = linear.detach()
    y = _by_channel(linear[:, ghosts])
    intrinsic = linear[:, places[: layer.intrinsic_channels]]
    moved = [
        _by_channel(shifted(intrinsic, dy, dx)) for dy, dx in candidate_offsets(layer.max_shift)
    ]
    return _Sums(
        positions=y.new_tensor(y.shape[1], dtype=torch.float64),
        c=torch.stack([_sum(c) for c in moved], 1),
        cc=torch.stack([_sum(c * c) for c in moved], 1),
        y=_sum(y),
        yy=_sum(y * y),
        g=_sum(g),
        gy=_sum(g * y),
        probe=_sum(probe * probe),
        cy=torch.stack([(y @ c.T).double() for c in moved], 2),
        cg=torch.stack([(g @ c.T).double() for c in moved], 2),
    )


def _without_activation(layer: GhostConv2d, input: Tensor) -> Tensor:
    finish = layer.activation, layer.residual_scale
    layer.activation, layer.residual_scale = "none", 1.0
    try:
        linear: Tensor = layer(input)
    finally:
        layer.activation, layer.residual_scale = finish
    return linear


def _by_channel(maps: Tensor) -> Tensor:
    """Lay [N, C, H, W] out as [C, N H W]."""
    return maps.float().transpose(0, 1).flatten(1)


def _sum(rows: Tensor) -> Tensor:
    return rows.sum(1, dtype=torch.float64)


def _best_changes(
    name: str, layer: GhostConv2d, sums: _Sums, curvature: Tensor
) -> Iterator[_Change]:
    h = (curvature * sums.probe / sums.positions)[:, None, None]
    _, c, cc, y, yy, g, gy, _, cy, cg = sums
    gains = torch.ones_like(cy)
    if layer.affine:
        # A bias keeps the mean of the ghost.
        yy, gy = yy - y * y / sums.positions, gy - g * y / sums.positions
        cc = cc - c * c / sums.positions
        cy = cy - y[:, None, None] * c / sums.positions
        cg = cg - g[:, None, None] * c / sums.positions
        gains = (h * cy - cg) / (h * cc).clamp_min(_TINY)
    promised = gains * cg - gy[:, None, None]
    promised += h / 2 * (gains**2 * cc - 2 * gains * cy + yy[:, None, None])
    offsets = torch.tensor(candidate_offsets(layer.max_shift))
    now = (offsets == layer.shift.cpu()[:, None]).all(2).double().argmax(1)
    ghosts, sources = torch.arange(len(now)), layer.source.cpu()
    kept = promised[ghosts, sources, now]
    promised[ghosts, sources, now] = 0.0
    least, choice = promised.flatten(1).min(1)
    for ghost in torch.nonzero(least < kept.clamp_max(0.0)).flatten().tolist():
        source, shift = divmod(int(choice[ghost]), len(offsets))
        gain = gains[ghost, source, shift]
        yield _Change(
            name,
            ghost,
            source,
            offsets[shift],
            gain if layer.affine else None,
            (sums.y[ghost] - gain * sums.c[source, shift]) / sums.positions
            if layer.affine
            else None,
            float(least[ghost]),
        )


def _exchange(layer: GhostConv2d, change: _Change) -> _Change:
    """Make a change and return the one that takes it back."""
    ghost = change.ghost
    before = _Change(
        change.layer,
        ghost,
        int(layer.source[ghost]),
        layer.shift[ghost].clone(),
        None if layer.gain is None else layer.gain[ghost].clone(),
        None if layer.ghost_bias is None else layer.ghost_bias[ghost].clone(),
        0.0,
    )
    layer.source[ghost] = change.source
    layer.shift[ghost] = change.shift
    if layer.gain is not None and change.gain is not None:
        layer.gain[ghost] = change.gain
    if layer.ghost_bias is not None and change.ghost_bias is not None:
        layer.ghost_bias[ghost] = change.ghost_bias
    return before
