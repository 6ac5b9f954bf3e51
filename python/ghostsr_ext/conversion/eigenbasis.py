"""An optimiser for convolutions that knows their inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.conversion.joined_moments import JoinedMoments
from ghostsr_ext.nn import GhostConv2d

Convolution = nn.Conv2d | GhostConv2d

_DAMPING = 1e-3
_KEPT_MOMENT = 0.5
_LARGEST_STACKED = 1024
"""Inputs of a filter from which on bases are not put together: a copy of all would be large."""


@dataclass(frozen=True)
class _Place:
    """What a parameter is to its convolution."""

    name: str
    layer: Convolution


class EigenbasisAdam(torch.optim.Optimizer):
    """Adam on convolution weights in the eigenbasis of their input patches.

    A step changes every output channel by about the learning rate times the layer's output,
    whatever the scale of weights and maps: a network whose value range is folded into its first and
    last layers is trained like any other. Within a filter, directions that its inputs hardly excite
    take longer steps, because the output changes the same; feature maps are so alike that without
    this most directions never move. Biases move by the same part of the output, gains by the
    learning rate itself, and parameters that belong to no convolution as Adam moves them.

    :meth:`renew` must have seen the inputs of a convolution before its first step; while features
    change it is called again from time to time.

    Source: Adam is Kingma and Ba, 2015; in the eigenbasis of a Kronecker factor, George et al.,
    "Fast approximate natural gradient descent in a Kronecker-factored eigenbasis", 2018.

    Args:
        model: The network that the parameters belong to.
        groups: Parameters in groups, as optimisers take them.
        lr: Learning rate: relative change of a layer's output in a step.
        betas: Decays of Adam's moments.
        eps: Added to the root of the second moment.
        weight_decay: Parameters shrink by this times the learning rate in a step.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-12,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, defaults)
        trained = {id(p) for group in self.param_groups for p in group["params"]}
        self._model = model
        self._layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | GhostConv2d) and id(module.weight) in trained
        }
        self._places = {
            id(parameter): _Place(name, layer)
            for layer in self._layers.values()
            for name, parameter in layer.named_parameters(recurse=False)
        }
        self._together: dict[tuple[int, ...], _Together] = {}

    @property
    def ready(self) -> bool:
        """Whether the inputs of all convolutions that have gradients now have been seen."""
        return all(
            "basis" in self.state.get(layer.weight, {})
            for layer in self._layers.values()
            if layer.weight.grad is not None
        )

    def blank_moment(self, parameter: Tensor) -> Tensor:
        """Return zeros of the shape that the moments of a parameter's gradient have."""
        place = self._places.get(id(parameter))
        if place is None or place.name != "weight":
            return torch.zeros_like(parameter)
        flat = parameter.detach().flatten(1)
        return torch.zeros_like(flat).view(place.layer.groups, -1, flat.shape[1])

    @torch.no_grad()
    def renew(
        self,
        run: Callable[[], object],
        *,
        positions: int | None = None,
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Look at the inputs of the convolutions, and turn what is known to their eigenbasis.

        Args:
            run: Runs the network on typical inputs.
            positions: How many positions of a layer's input to look at; None for all of them.
            mean: Gives the mean of a tensor over the processes that train together.
        """
        for name, moment in _input_moments(self._layers, run, positions).items():
            self._renew(self._layers[name], moment if mean is None else mean(moment))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters along their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._change([p for p in group["params"] if p.grad is not None], group)
        return loss

    def _renew(self, layer: Convolution, moment: Tensor) -> None:
        # A network that computes infinities learns nothing in this step, but goes on.
        if not bool(torch.isfinite(moment).all()):
            return
        state = self.state[layer.weight]
        if "moment" in state:
            moment = torch.lerp(moment, state["moment"], _KEPT_MOMENT)
        weight = layer.weight.detach().flatten(1).view(layer.groups, -1, moment.shape[-1])
        power = torch.einsum("god,gde,goe->", weight, moment, weight) / layer.weight.shape[0]
        output = power.clamp_min(0).sqrt()
        values, basis = torch.linalg.eigh(moment)
        # Its order in memory would be lost in a file, and with it the bits of products.
        basis = basis.contiguous()
        values = values.clamp_min(0)
        damped = values + _DAMPING * values.amax(1, keepdim=True) + torch.finfo(values.dtype).tiny
        if "mean" in state:
            turn = state["basis"].transpose(1, 2) @ basis
            state["mean"] = state["mean"] @ turn
            # The spread is known along the old axes alone.
            state["square"] = state["square"] @ turn.square()
        state.update(moment=moment, basis=basis, output=output)
        # Sums over D directions of equal output change to the whole change.
        state["stretch"] = (output / math.sqrt(values.shape[1])) / damped.sqrt()[:, None]

    def _change(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        alike: dict[Any, list[Tensor]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            state["step"] = state.get("step", 0) + 1
            kind = (state["step"], parameter.dtype, parameter.device)
            alike.setdefault(kind, []).append(parameter)
        for (step, *_), together in alike.items():
            self._stepping(together).step(step, group)

    def _stepping(self, parameters: list[Tensor]) -> _Together:
        key = tuple(map(id, parameters))
        together = self._together.get(key)
        if together is None or not together.is_current(self.state, self._reach):
            states = {parameter: self.state[parameter] for parameter in parameters}
            together = _Together(states, self.blank_moment, self._reach)
            # Any other of these parameters has lost their moments to it.
            self._together = {
                others: kept
                for others, kept in self._together.items()
                if set(others).isdisjoint(key)
            }
            self._together[key] = together
        return together

    def _reach(self, parameter: Tensor) -> Tensor | None:
        """What a step along a direction of spread 1 is multiplied with."""
        place = self._places.get(id(parameter))
        reach: Tensor | None = None
        if place is not None and place.name == "weight":
            reach = self.state[parameter]["stretch"]
        elif place is not None and place.name in ("bias", "ghost_bias"):
            reach = self.state[place.layer.weight]["output"]
        return reach


class _Together:
    """Parameters that have taken equally many steps, and all that a step of them needs.

    Weights of one shape lie one behind the other, and so do their bases: one product turns them
    all.
    """

    def __init__(
        self,
        states: dict[Tensor, dict[str, Any]],
        blank_moment: Callable[[Tensor], Tensor],
        reach: Callable[[Tensor], Tensor | None],
    ) -> None:
        runs: dict[Any, list[Tensor]] = {}
        for parameter, state in states.items():
            basis = state.get("basis")
            kind: Any = None
            if basis is not None:
                kind = (parameter.shape[0] // len(basis), basis.shape[1])
                kind = kind if basis.shape[1] <= _LARGEST_STACKED else parameter
            runs.setdefault(kind, []).append(parameter)
        self._parameters = [parameter for run in runs.values() for parameter in run]
        self._states = [states[parameter] for parameter in self._parameters]
        moments = JoinedMoments(
            self._states,
            [blank_moment(parameter) for parameter in self._parameters],
            [reach(parameter) for parameter in self._parameters],
        )
        self._moments = moments
        given, changes = list(moments.gradients), list(moments.directions)
        self._turns: list[tuple[Tensor, Tensor, Tensor]] = []
        first = 0
        for kind, run in runs.items():
            end = first + len(run)
            if kind is not None:
                bases = [state["basis"] for state in self._states[first:end]]
                basis = bases[0] if len(bases) == 1 else torch.cat(bases)
                parts = basis.split([len(basis) for basis in bases])
                for state, part in zip(self._states[first:end], parts, strict=True):
                    state["basis"] = part
                self._turns.append((basis, *moments.of_equal_shapes(first, end)))
                # Gradients are turned from where directions come, and directions the other way.
                given[first:end] = moments.directions[first:end]
                changes[first:end] = moments.gradients[first:end]
            first = end
        self._bases = [state.get("basis") for state in self._states]
        self._given, self._changes = (
            [part.view(p.shape) for part, p in zip(parts, self._parameters, strict=True)]
            for parts in (given, changes)
        )

    def is_current(
        self,
        states: Mapping[Tensor, dict[str, Any]],
        reach: Callable[[Tensor], Tensor | None],
    ) -> bool:
        """Whether nothing has changed the states of the parameters but steps."""
        mine = zip(self._parameters, self._states, self._bases, strict=True)
        return all(
            states[parameter] is state and state.get("basis") is basis
            for parameter, state, basis in mine
        ) and self._moments.are_current([reach(parameter) for parameter in self._parameters])

    def step(self, number: int, group: dict[str, Any]) -> None:
        """Change the parameters along their gradients."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        torch._foreach_copy_(self._given, gradients)
        for basis, turned, given in self._turns:
            torch.bmm(given, basis, out=turned)
        self._moments.advance(number, group["betas"], group["eps"])
        for basis, change, direction in self._turns:
            torch.bmm(direction, basis.transpose(1, 2), out=change)
        torch._foreach_sub_(self._parameters, self._changes, alpha=group["lr"])


def _input_moments(
    layers: dict[str, Convolution], run: Callable[[], object], positions: int | None
) -> dict[str, Tensor]:
    """Return the mean of patch times patch' for each group of each convolution, [groups, D, D]."""
    moments: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def watch(name: str, layer: Convolution) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
            if name in moments:
                return
            # Near enough to the layer's own padding and stride for a scale.
            axes = zip(layer.kernel_size, layer.dilation, strict=True)
            padding = tuple(dilation * (size - 1) // 2 for size, dilation in axes)
            patches = functional.unfold(inputs[0], layer.kernel_size, layer.dilation, padding)
            flat = patches.transpose(1, 2).flatten(0, 1)
            if positions is not None:
                some = torch.randperm(len(flat), generator=generator)[:positions]
                flat = flat[some.to(flat.device)]
            grouped = flat.view(len(flat), layer.groups, -1).transpose(0, 1)
            moments[name] = grouped.transpose(1, 2) @ grouped / len(flat)

        return hook

    handles = [layer.register_forward_hook(watch(name, layer)) for name, layer in layers.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return moments
