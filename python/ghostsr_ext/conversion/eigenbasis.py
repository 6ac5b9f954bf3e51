"""An optimiser for fine-tuning convolutions whose inputs are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.nn import GhostConv2d

Convolution = nn.Conv2d | GhostConv2d

_SAMPLED_PATCHES = 8192
_DAMPING = 1e-3
_FIRST_DECAY, _SECOND_DECAY = 0.9, 0.99
_EPSILON = 1e-12


class EigenbasisAdam:
    """Adam on convolution weights in the eigenbasis of their input patches.

    A step changes every output channel by about ``rate`` of the layer's output, whatever the scale
    of weights and maps: a network whose value range is folded into its first and last layers is
    trained like any other. Within a filter, directions that its inputs hardly excite take longer
    steps, because the output changes the same; feature maps are so alike that without this most
    directions never move.

    Source: Adam is Kingma and Ba, 2015; in the eigenbasis of a Kronecker factor, George et al.,
    "Fast approximate natural gradient descent in a Kronecker-factored eigenbasis", 2018.

    Args:
        model: The network; its convolutions that require gradients are trained.
        run: Runs ``model`` on typical inputs.
    """

    def __init__(self, model: nn.Module, run: Callable[[], object]) -> None:
        moments = _input_moments(model, run)
        self._layers = [
            _Layer(module, moments.pop(name))
            for name, module in model.named_modules()
            if name in moments and module.weight.requires_grad
        ]
        self._steps = 0

    def zero_grad(self) -> None:
        """Forget gradients."""
        for layer in self._layers:
            for parameter in layer.module.parameters(recurse=False):
                parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the parameters along their gradients.

        Args:
            rate: Relative change of a layer's output.
        """
        self._steps += 1
        for layer in self._layers:
            layer.step(rate, self._steps)


class _Layer:
    def __init__(self, module: Convolution, moment: Tensor) -> None:
        self.module = module
        weight = module.weight.detach().flatten(1).view(module.groups, -1, moment.shape[-1])
        power = torch.einsum("god,gde,goe->", weight, moment, weight) / module.weight.shape[0]
        self._output = float(power.clamp_min(0).sqrt())
        values, self._basis = torch.linalg.eigh(moment)
        values = values.clamp_min(0)
        damped = values + _DAMPING * values.amax(1, keepdim=True) + torch.finfo(values.dtype).tiny
        # Sums over D directions of equal output change to the whole change.
        self._stretch = (self._output / math.sqrt(values.shape[1])) / damped.sqrt()[:, None]
        self._averages: dict[str, tuple[Tensor, Tensor]] = {}

    def step(self, rate: float, number: int) -> None:
        module = self.module
        if module.weight.grad is not None:
            flat = module.weight.grad.flatten(1).view(module.groups, -1, self._basis.shape[1])
            turned = self._direction("weight", flat @ self._basis, number) * self._stretch
            change = turned @ self._basis.transpose(1, 2)
            module.weight.sub_(rate * change.view_as(module.weight))
        scales = {"bias": self._output, "ghost_bias": self._output, "gain": 1.0}
        for name, scale in scales.items():
            parameter = getattr(module, name, None)
            if parameter is not None and parameter.grad is not None:
                direction = self._direction(name, parameter.grad, number)
                parameter.sub_(rate * scale * direction)

    def _direction(self, name: str, gradient: Tensor, number: int) -> Tensor:
        if name not in self._averages:
            self._averages[name] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        first, second = self._averages[name]
        first.lerp_(gradient, 1 - _FIRST_DECAY)
        second.lerp_(gradient.square(), 1 - _SECOND_DECAY)
        mean = first / (1 - _FIRST_DECAY**number)
        spread = (second / (1 - _SECOND_DECAY**number)).sqrt()
        return mean / (spread + _EPSILON)


@torch.no_grad()
def _input_moments(model: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
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
            some = torch.randperm(len(flat), generator=generator)[:_SAMPLED_PATCHES]
            grouped = flat[some.to(flat.device)].view(len(some), layer.groups, -1).transpose(0, 1)
            moments[name] = grouped.transpose(1, 2) @ grouped / len(some)

        return hook

    handles = [
        module.register_forward_hook(watch(name, module))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | GhostConv2d)
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return moments
