"""The last convolution of a network, fitted to all the others at once in place of being trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.models.layer_calls import trace_calls
from ghostsr_ext.training.data import PatchBatches

_PATCHES = 1024
_RIDGE = 1e-7


@torch.no_grad()
def fit_last_convolution(model: SRModel, batches: PatchBatches) -> None:
    """Give the convolution before the last pixel shuffle the weights of least squares.

    What such a network puts out is linear in these weights, so that they follow from the other
    layers and from pictures: a network whose body was trained for another scale needs no more to
    begin near to what training gives it.

    Args:
        model: A network of one scale that ends in a convolution and a pixel shuffle, as an EDSR
            with the tail "direct" does. Only that convolution is changed.
        batches: Where inputs and originals come from; 1024 patches are looked at.

    Raises:
        InputError: The network ends in something else, or in a grouped or rectified convolution;
            or its other layers give values that are not finite.
    """
    convolution = _end(model)
    features: list[Tensor] = []
    handle = convolution.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    taps = convolution.weight[0].numel()
    gram = torch.zeros(taps + 1, taps + 1, dtype=torch.float64)
    cross = torch.zeros(taps + 1, convolution.out_channels, dtype=torch.float64)
    convolution.weight.zero_()
    assert convolution.bias is not None
    convolution.bias.zero_()
    seen = number = 0
    try:
        while seen < _PATCHES:
            batch = batches[number]
            rest = batch.targets - model(batch.inputs)
            patches, wanted = _inside(convolution, features.pop(), rest, model.scale)
            gram += patches.T @ patches
            cross += patches.T @ wanted
            seen, number = seen + len(batch.inputs), number + 1
    finally:
        handle.remove()
    if not bool(torch.isfinite(gram).all()):
        raise InputError(
            f"model.fit_last: {model.architecture} makes maps that are not finite of the pictures"
        )
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, cross).T
    convolution.weight.copy_(solution[:, :-1].reshape(convolution.weight.shape))
    convolution.bias.copy_(solution[:, -1])


def _end(model: SRModel) -> nn.Conv2d:
    side = 8
    call = trace_calls(model, (1, model.channels, side, side), reduced=True)[-1]
    layer = call.module
    shuffles = [module for module in model.modules() if isinstance(module, nn.PixelShuffle)]
    if (
        len(model.scales) > 1
        or [shuffle.upscale_factor for shuffle in shuffles] != [model.scale]
        or not isinstance(layer, nn.Conv2d)
        or layer.out_channels != model.channels * model.scale**2
        or call.input_shape[2:] != (side, side)
        or layer.groups > 1
        or layer.bias is None
        or getattr(layer, "activation", "none") != "none"
    ):
        raise InputError(
            f"model.fit_last: {model.architecture} as configured does not end in a convolution and "
            "a pixel shuffle"
        )
    return layer


def _inside(
    convolution: nn.Conv2d, features: Tensor, rest: Tensor, scale: int
) -> tuple[Tensor, Tensor]:
    """Return what the convolution reads where no padding is read, and what it should give there."""
    height, width = (size // 2 for size in convolution.kernel_size)
    patches = functional.unfold(features, convolution.kernel_size).transpose(1, 2).flatten(0, 1)
    wanted = functional.pixel_unshuffle(rest, scale)
    wanted = wanted[..., height : wanted.shape[2] - height, width : wanted.shape[3] - width]
    ones = patches.new_ones(len(patches), 1)
    return torch.cat((patches, ones), 1).double(), wanted.permute(0, 2, 3, 1).flatten(0, 2).double()
