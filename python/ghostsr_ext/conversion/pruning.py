"""Filter pruning at the multiply-adds of a ghost network, for comparison with it.

Channels that only the following convolution reads are removed from both. The following convolution
is then refitted, on pictures, to what it computed before.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ghostsr_ext import ops
from ghostsr_ext.conversion.clustering import factorize
from ghostsr_ext.conversion.convolutions import Trace, TracedConvolution, forward_arguments
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.conversion.statistics import (
    Statistics,
    gather_statistics,
    margin,
    run_surrounded,
    surround,
)
from ghostsr_ext.errors import InputError
from ghostsr_ext.nn import FusedConv2d, convolution_arguments, epilogue_arguments

_SEARCH_STEPS = 24


@dataclass(frozen=True)
class Pair:
    """A convolution and the only one that reads its output.

    Attributes:
        first: The convolution whose filters are removed.
        second: The convolution that follows it.
    """

    first: TracedConvolution
    second: TracedConvolution

    @property
    def units(self) -> int:
        """The number of runs of channels that must keep equally many, for both layers' groups."""
        return math.lcm(self.first.module.groups, self.second.module.groups)


@torch.no_grad()
def prune(
    model: nn.Module,
    network: Trace,
    layers: Sequence[TracedConvolution],
    ghost_ratio: float,
    macs: Mapping[str, int],
    example: Tensor,
    inputs: Tensor | None,
) -> dict[str, tuple[nn.Conv2d, list[int]]]:
    """Remove the filters of ``layers`` with the least L1 norm.

    Every layer loses the same part of its filters, as much as brings the network down to the
    multiply-adds that it would have with ghost layers.

    Source: Li et al., "Pruning filters for efficient ConvNets", ICLR 2017.

    Args:
        model: The network, in evaluation mode. It is changed.
        network: The convolutions of the network.
        layers: The layers whose filters may be removed.
        ghost_ratio: The ghost ratio of the ghost network to compare with, in [0, 1).
        macs: The multiply-adds of each layer of the network, by its name.
        example: An input of the network [N, C, H, W].
        inputs: Calibration inputs [N, C, H, W] that the following layers are refitted on. With None
            these layers keep their weights.

    Returns:
        The narrower layers and the output channels that they keep, by name.

    Raises:
        InputError: No layer has an output that one convolution alone reads, or the layers that have
            one cannot save so many multiply-adds.
    """
    dense = copy.deepcopy(model)
    pairs = _find_pairs(model, network, layers, example)
    if not pairs:
        raise InputError("prune: no layer's output is read by the following convolution alone")
    to_save = sum(macs.get(entry.name, 0) * ghost_ratio for entry in layers)
    kept = _kept_counts(pairs, macs, to_save)
    current: dict[str, nn.Conv2d] = {}
    outputs: dict[str, list[int]] = {}
    for pair in pairs:
        first, second = (_current(current, entry) for entry in (pair.first, pair.second))
        keep = _strongest(first, pair.units, kept[pair.first.name])
        narrower = _narrowed(first, outputs=keep)
        follower = _narrowed(second, inputs=keep)
        replace_module(model, first, narrower)
        replace_module(model, second, follower)
        if inputs is not None:
            _refit(model, follower, dense, pair.second.name, inputs)
        current[pair.first.name], current[pair.second.name] = narrower, follower
        outputs[pair.first.name] = keep
    return {
        name: (layer, outputs.get(name, list(range(layer.out_channels))))
        for name, layer in current.items()
    }


def _current(current: dict[str, nn.Conv2d], entry: TracedConvolution) -> nn.Conv2d:
    module = current.get(entry.name, entry.module)
    assert isinstance(module, nn.Conv2d)
    return module


def _find_pairs(
    model: nn.Module, network: Trace, layers: Sequence[TracedConvolution], example: Tensor
) -> list[Pair]:
    wanted = {entry.name for entry in layers}
    pairs = []
    for first, second in zip(network.called, network.called[1:], strict=False):
        plain = type(second.module) in (nn.Conv2d, FusedConv2d)
        fits = first.module.out_channels == second.module.in_channels
        if first.name in wanted and plain and fits and first.uses == second.uses:
            pair = Pair(first, second)
            # By one kernel, whatever is prepared by then: outputs are compared to the bit.
            with ops.convolution_path("aten"):
                alone = _reads_alone(model, pair, example)
            if alone:
                pairs.append(pair)
    return pairs


def _reads_alone(model: nn.Module, pair: Pair, example: Tensor) -> bool:
    """Whether each output of the first layer becomes one input of the second and nothing else."""
    first, second = pair.first.module, pair.second.module
    assert isinstance(second, nn.Conv2d)
    before = first.weight.detach().clone(), second.weight.detach().clone()
    bias = None if first.bias is None else first.bias.detach().clone()
    noise = torch.rand(before[0].shape, generator=torch.Generator().manual_seed(0))
    last = first.out_channels - 1
    per_group = second.in_channels // second.groups
    try:
        for channel in (0, last):
            group, index = divmod(channel, per_group)
            filters = second.out_channels // second.groups
            second.weight[group * filters : (group + 1) * filters, index] = 0
            silent = _run(model, example)
            first.weight[channel] += noise[channel].to(first.weight) * before[0].abs().amax()
            if not torch.equal(_run(model, example), silent):
                return False
            first.weight.copy_(before[0])
            second.weight.copy_(before[1])
        # A sum with a skip outlives its silenced addend, so it cannot lose the channel.
        first.weight[[0, last]] = 0
        if first.bias is not None:
            first.bias[[0, last]] = 0
        return not any(read[:, [0, last]].any() for read, _ in _calls(model, second, example))
    finally:
        first.weight.copy_(before[0])
        second.weight.copy_(before[1])
        if first.bias is not None and bias is not None:
            first.bias.copy_(bias)


def _run(model: nn.Module, inputs: Tensor) -> Tensor:
    outputs = [model(inputs, **arguments).flatten() for arguments in forward_arguments(model)]
    return torch.cat(outputs)


def _kept_counts(pairs: Sequence[Pair], macs: Mapping[str, int], to_save: float) -> dict[str, int]:
    """Return how many channels of each unit every first layer keeps."""

    def counts(part: float) -> dict[str, int]:
        return {
            pair.first.name: max(1, round(part * pair.first.module.out_channels / pair.units))
            for pair in pairs
        }

    def saved(kept: dict[str, int]) -> float:
        parts = {
            pair.first.name: kept[pair.first.name] * pair.units / pair.first.module.out_channels
            for pair in pairs
        }
        read = {pair.second.name: parts[pair.first.name] for pair in pairs}
        return sum(
            count * (1 - parts.get(name, 1.0) * read.get(name, 1.0)) for name, count in macs.items()
        )

    low, high = 0.0, 1.0
    if saved(counts(low)) < to_save:
        raise InputError("prune: the layers that can be pruned do not save so many multiply-adds")
    for _ in range(_SEARCH_STEPS):
        middle = (low + high) / 2
        if saved(counts(middle)) >= to_save:
            low = middle
        else:
            high = middle
    return counts(low)


def _strongest(layer: nn.Conv2d, units: int, count: int) -> list[int]:
    norms = layer.weight.abs().flatten(1).sum(1).view(units, -1)
    chosen = norms.topk(count, dim=1).indices + torch.arange(units)[:, None] * norms.shape[1]
    return sorted(chosen.flatten().tolist())


def _narrowed(
    layer: nn.Conv2d, *, outputs: list[int] | None = None, inputs: list[int] | None = None
) -> nn.Conv2d:
    weight = layer.weight
    if outputs is not None:
        weight = weight[outputs]
    if inputs is not None:
        per_in = layer.in_channels // layer.groups
        per_out = weight.shape[0] // layer.groups
        columns = torch.tensor(inputs).view(layer.groups, -1) % per_in
        weight = torch.cat(
            [
                weight[group * per_out : (group + 1) * per_out][:, columns[group]]
                for group in range(layer.groups)
            ]
        )
    in_channels, out_channels = weight.shape[1] * layer.groups, weight.shape[0]
    arguments = convolution_arguments(layer)
    result: nn.Conv2d
    if isinstance(layer, FusedConv2d):
        epilogue = epilogue_arguments(layer)
        if epilogue.get("prelu_parameters", 1) > 1:
            epilogue["prelu_parameters"] = out_channels
        result = FusedConv2d(in_channels, out_channels, **arguments, **epilogue)
        if result.prelu_weight is not None and layer.prelu_weight is not None:
            slopes = layer.prelu_weight
            every = outputs is None or len(slopes) == 1
            result.prelu_weight.data = (slopes if every else slopes[outputs]).detach().clone()
    else:
        result = nn.Conv2d(in_channels, out_channels, **arguments)
    result.to(weight.device, weight.dtype)
    result.weight.copy_(weight)
    if layer.bias is not None and result.bias is not None:
        result.bias.copy_(layer.bias if outputs is None else layer.bias[outputs])
    result.requires_grad_(layer.weight.requires_grad)
    return result.train(layer.training)


def _refit(model: nn.Module, layer: nn.Conv2d, dense: nn.Module, name: str, inputs: Tensor) -> None:
    """Fit ``layer`` by least squares to what the dense network's layer ``name`` adds up to."""
    original = dense.get_submodule(name)
    assert isinstance(original, nn.Conv2d)
    convolve = partial(nn.Conv2d.forward, original)
    wanted = _calls(dense, original, inputs)
    total: list[Statistics] = []
    for (read, residual), (dense_read, dense_residual) in zip(
        _calls(model, layer, inputs), wanted, strict=True
    ):
        targets = run_surrounded(original, 0, convolve, dense_read)
        if residual is not None and dense_residual is not None:
            debt = (dense_residual - residual) / getattr(layer, "residual_scale", 1.0)
            targets = targets + surround(debt, margin(original, 0))
        found = gather_statistics(layer, read.float(), targets.float(), 0)
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    weights, biases = [], []
    for group in total:
        weights.append(torch.cholesky_solve(group.cross[0].T, factorize(group.gram)).T)
        biases.append(group.mean - weights[-1] @ group.patch_mean)
    layer.weight.copy_(torch.cat(weights).view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.copy_(torch.cat(biases))


def _calls(
    model: nn.Module, layer: nn.Module, inputs: Tensor
) -> list[tuple[Tensor, Tensor | None]]:
    """Return the inputs and residuals of ``layer`` at its uses at the default scale."""
    calls: list[tuple[Tensor, Tensor | None]] = []

    def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        calls.append((arguments[0], arguments[1] if len(arguments) > 1 else None))

    handle = layer.register_forward_pre_hook(hook)
    try:
        model(inputs, **forward_arguments(model)[0])
    finally:
        handle.remove()
    return calls
