"""Learning the shifts of ghost layers: how they start, how sure they are, and when they end."""

from __future__ import annotations

import math

import torch
from torch import nn

from ghostsr_ext.nn import GhostConv2d, freeze_shifts, ghost_layers
from ghostsr_ext.training.config import ShiftConfig


@torch.no_grad()
def start_shifts(model: nn.Module, config: ShiftConfig, seed: int = 0) -> None:
    """Make the shifts of the ghost layers trainable, or tables, as configured.

    With one shift a layer, a converted layer starts from the shift that most of its ghosts have.

    Args:
        model: A network with ghost layers; changed in place.
        config: Mode, scope, start and confidence.
        seed: Seed of random logits.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in ghost_layers(model).values():
        if config.scope == "layer" and layer.ghost_channels:
            shifts, counts = torch.unique(layer.selected_shift(), dim=0, return_counts=True)
            layer.freeze_shifts()
            layer.shift.copy_(shifts[counts.argmax()].expand_as(layer.shift))
        layer.freeze_shifts()
        layer.shift_scope = config.scope
        layer.exploration_rate = config.exploration_rate
        layer.estimator = config.estimator
        if config.mode == "learned":
            layer.learn_shifts()
            _start_logits(layer, config, generator)


def set_selection(model: nn.Module, tau: float, noise: bool) -> None:
    """Set the temperature of every ghost layer, and whether noise is added to its logits."""
    for layer in ghost_layers(model).values():
        layer.tau = tau
        layer.noise = noise


def learned(model: nn.Module) -> bool:
    """Whether any ghost layer still learns its shifts."""
    return any(layer.logits is not None for layer in ghost_layers(model).values())


def logits_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the logits of the layers that still learn their shifts, by layer."""
    return {
        name: layer.logits
        for name, layer in ghost_layers(model).items()
        if layer.logits is not None
    }


@torch.no_grad()
def freeze_as(model: nn.Module, chosen: nn.Module) -> None:
    """Freeze the shifts of ``model`` to those that ``chosen``, of the same layers, selects."""
    tables = {name: layer.selected_shift() for name, layer in ghost_layers(chosen).items()}
    freeze_shifts(model)
    for name, layer in ghost_layers(model).items():
        layer.shift.copy_(tables[name])


@torch.no_grad()
def entropy(logits: torch.Tensor) -> float:
    """Mean entropy of the choice at tau = 1, over its largest possible value: 1 for no choice.

    Args:
        logits: [G, K].
    """
    if logits.numel() == 0 or logits.shape[1] == 1:
        return 0.0
    log_p = logits.float().log_softmax(dim=1)
    return float(-(log_p.exp() * log_p).sum(dim=1).mean()) / math.log(logits.shape[1])


def _start_logits(layer: GhostConv2d, config: ShiftConfig, generator: torch.Generator) -> None:
    assert layer.logits is not None
    if config.init == "random":
        nn.init.uniform_(layer.logits, -1 / 3, 1 / 3, generator)
    else:
        chosen = layer.logits.argmax(dim=1, keepdim=True)
        layer.logits.zero_().scatter_(1, chosen, config.confidence)
