"""Conversion on pictures: every layer is fitted to what the dense network computes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.absorption import absorb_gains
from ghostsr_ext.conversion.activations import Activation, own_activation, passed_on
from ghostsr_ext.conversion.convolutions import TracedConvolution, forward_arguments
from ghostsr_ext.conversion.fitting import fit_statistics
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.conversion.statistics import (
    Statistics,
    gather_statistics,
    margin,
    run_surrounded,
    surround,
)
from ghostsr_ext.conversion.tables import GhostFit, build_ghost_layer
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.progress import ProgressCallback


@torch.no_grad()
def calibrate(
    model: nn.Module,
    layers: Sequence[TracedConvolution],
    ratios: Mapping[str, float],
    inputs: Tensor,
    settings: GhostSettings,
    progress: ProgressCallback | None = None,
    between: Sequence[TracedConvolution] = (),
    followers: Mapping[str, str] | None = None,
) -> tuple[dict[str, tuple[GhostConv2d, GhostFit]], list[str]]:
    """Replace ``layers`` of ``model`` by ghost layers fitted on ``inputs``.

    The dense and the converted network run side by side as the two halves of one batch. When they
    reach a layer, it is fitted: from its inputs in the converted network to its outputs in the
    dense one. Where the layer adds a residual, the difference of the two residuals is part of what
    is wanted from it, so that errors do not pile up.

    A layer that is followed by an activation is fitted twice, the second time to what the first fit
    gives plus the part of its error that the activation passes on: see ``passed_on``.

    Dense layers between converted ones are fitted in the same way and stay dense. They take up what
    a block has lost, above all where nothing that is converted adds the residual.

    A layer that is used several times is fitted to all its uses at once. Those that are still to
    come are known from the dense network at first, and from the converted one in a second pass.

    Args:
        model: The network, in evaluation mode; it is changed.
        layers: Dense convolutions of it.
        ratios: Ghost ratio of each, by name.
        inputs: Its inputs [N, C, H, W].
        settings: Settings of the ghost layers.
        progress: Called after each layer.
        between: Convolutions that stay dense; their weights and biases are changed.
        followers: Convolutions that take up gains of ghosts, by the names of the layers before
            them: see ``find_followers``. Not for layers with gains of their own.

    Returns:
        The ghost layers and what they were made of, by name; and the names of those ``between``
        that got new weights, because the old ones did worse.
    """
    followers = followers or {}
    stages = [
        _Stage(entry, ratios[entry.name], settings, entry.name in followers) for entry in layers
    ]
    stages.extend(_Stage(entry, 0.0, settings) for entry in between)
    for stage in stages:
        replace_module(model, stage.dense, stage)
    passes = 1
    if any(stage.uses > 1 for stage in stages):
        passes = 2
        _run(model, inputs, stages, _Stage.record)
    done = 0

    def fitted(name: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, passes * len(stages), name)

    for stage in stages:
        stage.fitted = fitted
    for _ in range(passes):
        _run(model, torch.cat([inputs, inputs]), stages, _Stage.fit)
    results: dict[str, tuple[GhostConv2d, GhostFit]] = {}
    refitted = []
    for number, stage in enumerate(stages):
        assert stage.ghost is not None
        assert stage.found is not None
        if number < len(layers):
            replace_module(model, stage, stage.ghost)
            found = replace(
                stage.found, relative_error=stage.error, error_if_dense=stage.error_if_dense
            )
            results[stage.name] = (stage.ghost, found)
        else:
            if stage.refit_dense():
                refitted.append(stage.name)
            replace_module(model, stage, stage.dense)
    for stage in stages:
        if stage.name in followers:
            layer, fit = results[stage.name]
            absorb_gains(model, layer, followers[stage.name])
            fit = replace(fit, weight=layer.weight, bias=layer.bias, gain=None, ghost_bias=None)
            plain = build_ghost_layer(stage.dense, fit, ratios[stage.name], settings)
            replace_module(model, layer, plain)
            results[stage.name] = (plain, fit)
    return results, refitted


class _Finished(Exception):  # noqa: N818
    """Ends a forward pass behind the last layer that is looked at."""


def _run(
    model: nn.Module,
    inputs: Tensor,
    stages: Sequence[_Stage],
    action: Callable[[_Stage, Tensor, Tensor | None], Tensor],
) -> None:
    remaining = {stage.name: stage.uses for stage in stages}

    def called(name: str) -> None:
        remaining[name] -= 1
        if not any(remaining.values()):
            raise _Finished

    for stage in stages:
        stage.begin(action, called)
    for arguments in forward_arguments(model):
        try:
            model(inputs, **arguments)
        except _Finished:
            return


class _Stage(nn.Module):
    """Stands in for a layer while the network is calibrated."""

    def __init__(
        self,
        entry: TracedConvolution,
        ratio: float,
        settings: GhostSettings,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        assert isinstance(entry.module, nn.Conv2d)
        self.dense = entry.module
        self.name = entry.name
        self.uses = entry.uses
        self.ghost: GhostConv2d | None = None
        self.found: GhostFit | None = None
        self.fitted: Callable[[str], None] = lambda _: None
        self._activations = entry.activations
        self._own_activation = own_activation(entry.module)
        self._ratio = ratio
        self._settings = settings
        self._scaled = scaled
        self._statistics: dict[int, list[Statistics]] = {}
        self._missed = self._missed_if_dense = self._energy = 0.0

    def __getattr__(self, name: str) -> Any:
        # A network may ask a layer for its sizes or its type of numbers.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("dense"), name)

    @property
    def error(self) -> float:
        """Squared error of the output in the latest pass over the dense output's variance."""
        return self._missed / self._energy if self._energy else 0.0

    @property
    def error_if_dense(self) -> float:
        """The same for the output that the dense layer would have given in its place."""
        return self._missed_if_dense / self._energy if self._energy else 0.0

    def refit_dense(self) -> bool:
        """Give the dense layer the weights that were fitted, if that is for the better."""
        assert self.ghost is not None
        if self._missed >= self._missed_if_dense:
            return False
        self.dense.weight.copy_(self.ghost.weight)
        if self.dense.bias is not None and self.ghost.bias is not None:
            self.dense.bias.copy_(self.ghost.bias)
        return True

    def begin(
        self,
        action: Callable[[_Stage, Tensor, Tensor | None], Tensor],
        called: Callable[[str], None],
    ) -> None:
        """Start a pass in which ``action`` is the forward and ``called`` hears of every use."""
        self._action = action
        self._called = called
        self._use = 0
        self._missed = self._missed_if_dense = self._energy = 0.0

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        output = self._action(self, input, residual)
        self._use += 1
        if self._use <= self.uses:
            self._called(self.name)
        return output

    def record(self, input: Tensor, residual: Tensor | None) -> Tensor:
        """Run the dense layer; keep the statistics of a layer with several uses."""
        if self.uses > 1 and self._use < self.uses:
            self._statistics[self._use] = self._gather(input, input, None, None)
        return self._run(self.dense, input, residual)

    def fit(self, input: Tensor, residual: Tensor | None) -> Tensor:
        """Run the dense layer on one half and the ghost layer, fitted first, on the other."""
        dense_input, input = input.chunk(2)
        dense_residual = None
        if residual is not None:
            dense_residual, residual = residual.chunk(2)
        if self._use < self.uses:
            self._add_statistics(dense_input, input, dense_residual, residual)
        if self._use == 0:
            self._build()
            if self.uses == 1:
                if self._activation is not None:
                    self._add_statistics(dense_input, input, dense_residual, residual)
                    self._build()
                # A layer of 256 channels has 100 MB of them.
                self._statistics.clear()
            self.fitted(self.name)
        assert self.ghost is not None
        wanted = self._run(self.dense, dense_input, dense_residual)
        output = self._run(self.ghost, input, residual)
        if_dense = self._run(self.dense, input, residual)
        centred = wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)
        self._missed += float((output - wanted).double().square().sum())
        self._missed_if_dense += float((if_dense - wanted).double().square().sum())
        self._energy += float(centred.double().square().sum())
        if not self.ghost.ghost_channels and self._missed >= self._missed_if_dense:
            output = if_dense
        return torch.cat([wanted, output])

    @property
    def _activation(self) -> Activation | None:
        """What follows the present use."""
        if self._own_activation is not None:
            return self._own_activation
        return self._activations[self._use] if self._use < self.uses else None

    def _add_statistics(
        self,
        dense_input: Tensor,
        input: Tensor,
        dense_residual: Tensor | None,
        residual: Tensor | None,
    ) -> None:
        debt = added = None
        if residual is not None and dense_residual is not None:
            scale = getattr(self.dense, "residual_scale", 1.0)
            debt, added = (dense_residual - residual) / scale, residual / scale
        self._statistics[self._use] = self._gather(dense_input, input, debt, added)

    def _gather(
        self, dense_input: Tensor, input: Tensor, debt: Tensor | None, added: Tensor | None
    ) -> list[Statistics]:
        edges = margin(self.dense, self._settings.max_shift)
        targets = self._surrounded(partial(nn.Conv2d.forward, self.dense), dense_input)
        if debt is not None:
            targets = targets + surround(debt, edges)
        if self.ghost is not None and self._activation is not None:
            found = self._surrounded(self._convolved, input)
            base = 0.0 if added is None else surround(added, edges)
            scale = getattr(self.dense, "residual_scale", 1.0)
            part = passed_on(self._activation, scale * (targets + base), scale * (found + base))
            targets = found + part * (targets - found)
        return gather_statistics(
            self.dense, input.float(), targets.float(), self._settings.max_shift
        )

    def _surrounded(self, run: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
        return run_surrounded(self.dense, self._settings.max_shift, run, input)

    def _convolved(self, input: Tensor) -> Tensor:
        assert self.ghost is not None
        activation, self.ghost.activation = self.ghost.activation, "none"
        output: Tensor = self.ghost(input)
        self.ghost.activation = activation
        # The factor holds without a residual too.
        return output / self.ghost.residual_scale

    def _build(self) -> None:
        statistics = [reduce(add, uses) for uses in zip(*self._statistics.values(), strict=True)]
        self.found = fit_statistics(
            self.dense, statistics, self._ratio, self._settings, scaled=self._scaled
        )
        self.ghost = build_ghost_layer(self.dense, self.found, self._ratio, self._settings)

    @staticmethod
    def _run(layer: nn.Module, input: Tensor, residual: Tensor | None) -> Tensor:
        output: Tensor = layer(input) if residual is None else layer(input, residual)
        return output
