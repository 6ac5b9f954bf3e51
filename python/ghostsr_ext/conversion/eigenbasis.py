"""An optimiser for convolutions that knows their inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
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
        self._moments: dict[tuple[int, ...], JoinedMoments] = {}

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
            self._change_together(together, step, group)

    def _change_together(self, parameters: list[Tensor], step: int, group: dict[str, Any]) -> None:
        moments = self._moments_of(parameters)
        bases = [self.state[parameter].get("basis") for parameter in parameters]
        for parameter, basis, place in zip(parameters, bases, moments.gradients, strict=True):
            assert parameter.grad is not None
            if basis is None:
                place.copy_(parameter.grad)
            else:
                torch.bmm(parameter.grad.flatten(1).view_as(place), basis, out=place)
        moments.advance(step, group["betas"], group["eps"])
        changes: list[Tensor] = []
        turned = zip(parameters, bases, moments.directions, moments.gradients, strict=True)
        for parameter, basis, direction, room in turned:
            if basis is not None:
                direction = torch.bmm(direction, basis.transpose(1, 2), out=room)
            changes.append(direction.view_as(parameter))
        torch._foreach_sub_(parameters, changes, alpha=group["lr"])

    def _moments_of(self, parameters: list[Tensor]) -> JoinedMoments:
        states = [self.state[parameter] for parameter in parameters]
        reaches = [self._reach(parameter) for parameter in parameters]
        key = tuple(map(id, parameters))
        moments = self._moments.get(key)
        if moments is None or not moments.are_those_of(states, reaches):
            likes = [self.blank_moment(parameter) for parameter in parameters]
            moments = self._moments[key] = JoinedMoments(states, likes, reaches)
        return moments

    def _reach(self, parameter: Tensor) -> Tensor | None:
        """What a step along a direction of spread 1 is multiplied with."""
        place = self._places.get(id(parameter))
        reach: Tensor | None = None
        if place is not None and place.name == "weight":
            reach = self.state[parameter]["stretch"]
        elif place is not None and place.name in ("bias", "ghost_bias"):
            reach = self.state[place.layer.weight]["output"]
        return reach


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
