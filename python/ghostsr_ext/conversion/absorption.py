"""Gains of ghosts that the following convolution takes into its weights.

Where one convolution alone reads a layer, with at most an activation between that keeps positive
factors, a ghost may be any positive multiple of its source: the multiple is the following layer's
to make good. Such gains cost nothing, neither in the file nor at run time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.convolutions import Trace, TracedConvolution, forward_arguments
from ghostsr_ext.conversion.watching import Convolution
from ghostsr_ext.nn import GhostConv2d

_TOLERANCE = 1e-5
_SIDE = 24


@torch.no_grad()
def find_followers(
    model: nn.Module, network: Trace, layers: Sequence[TracedConvolution], example: Tensor
) -> dict[str, str]:
    """Return the convolutions that can take the gains of ``layers``, by the names of both.

    Args:
        model: The dense network, in evaluation mode. It is the same afterwards.
        network: The convolutions of the network.
        layers: The layers that shall have gains.
        example: An input of the network [N, C, H, W], whose size and range of values are used.
    """
    wanted = {entry.name for entry in layers}
    # In a dark or flat picture a network may stay the same that is another one elsewhere.
    noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    white = float(example.abs().amax()) or 1.0
    example, usual = _run_small(model, noise * white)
    found = {}
    for first, second in zip(network.called, network.called[1:], strict=False):
        fits = first.module.out_channels == second.module.in_channels
        if first.name in wanted and fits and first.uses == second.uses:
            layer, follower = (_convolution(model, entry.name) for entry in (first, second))
            if _takes_factors(model, layer, follower, example, usual):
                found[first.name] = second.name
    return found


@torch.no_grad()
def absorb_gains(model: nn.Module, layer: GhostConv2d, follower: str) -> None:
    """Multiply the weights of the convolution ``follower`` by the gains of the ghosts it reads.

    Args:
        model: The network. It is changed.
        layer: A ghost layer with gains.
        follower: The name of the convolution that reads its output.
    """
    assert layer.gain is not None
    gains = torch.cat([layer.gain.new_ones(layer.intrinsic_channels), layer.gain])[layer.order]
    _scale_inputs(_convolution(model, follower), gains)


def _takes_factors(
    model: nn.Module, first: Convolution, second: Convolution, example: Tensor, usual: list[Tensor]
) -> bool:
    """Whether the network stays the same when the one layer grows and the other makes it good."""
    parameters = [first.weight, second.weight, *([] if first.bias is None else [first.bias])]
    before = [parameter.clone() for parameter in parameters]
    # Powers of two change no digit.
    factors = torch.ones(first.out_channels).to(parameters[0])
    factors[::2], factors[1::2] = 2.0, 0.5
    try:
        first.weight.mul_(factors[:, None, None, None])
        if first.bias is not None:
            first.bias.mul_(factors)
        _scale_inputs(second, 1 / factors)
        return all(
            bool((now - then).abs().amax() <= _TOLERANCE * then.abs().amax() > 0)
            for now, then in zip(_run(model, example), usual, strict=True)
        )
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)


def _scale_inputs(layer: Convolution, factors: Tensor) -> None:
    rows = layer.weight.shape[0] // layer.groups
    columns = factors.view(layer.groups, 1, -1).expand(-1, rows, -1)
    layer.weight.mul_(columns.flatten(0, 1)[:, :, None, None])


def _run_small(model: nn.Module, example: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run the network on a corner of the example, or on all of it where the corner will not do."""
    corner = example[..., :_SIDE, :_SIDE]
    try:
        return corner, _run(model, corner)
    # A network refuses sizes as it likes.
    except Exception:
        return example, _run(model, example)


def _run(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    return [model(inputs, **arguments) for arguments in forward_arguments(model)]


def _convolution(model: nn.Module, name: str) -> Convolution:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Conv2d | GhostConv2d)
    return module
