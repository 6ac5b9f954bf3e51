"""Distances that training makes small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.training.config import LossConfig

PixelLoss = Callable[[Tensor, Tensor], Tensor]


def charbonnier_loss(output: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference² + epsilon²), a smooth L1.

    Source: Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution",
    CVPR 2017.
    """
    return torch.sqrt(torch.square(output - target) + epsilon**2).mean()


def pixel_loss(config: LossConfig) -> PixelLoss:
    """Return the distance between two batches of pictures in 0..1."""
    if config.kind == "charbonnier":
        return partial(charbonnier_loss, epsilon=config.charbonnier_epsilon)
    if config.kind == "l2":
        return functional.mse_loss
    return functional.l1_loss


class FeatureTap:
    """Records the outputs of layers of a network, call by call.

    Args:
        model: The network.
        names: Its layers. A layer that one forward pass calls several times is recorded each time.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._outputs: dict[str, list[Tensor]] = {name: [] for name in names}
        self._recording = False
        for name in names:
            model.get_submodule(name).register_forward_hook(self._recorder(name))

    @contextmanager
    def recording(self) -> Iterator[dict[str, list[Tensor]]]:
        """Record what is called inside the block into the dictionary that is yielded."""
        self._outputs = {name: [] for name in self._outputs}
        self._recording = True
        try:
            yield self._outputs
        finally:
            self._recording = False
            self._outputs = {name: [] for name in self._outputs}

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self._recording:
                self._outputs[name].append(output)

        return record


def feature_loss(
    student: Mapping[str, Sequence[Tensor]], teacher: Mapping[str, Sequence[Tensor]]
) -> Tensor:
    """Mean over layers of the squared distance between features over the teacher's mean square.

    The division makes layers of different magnitude count alike.

    Args:
        student: Outputs of layers by name, as :meth:`FeatureTap.recording` yields them.
        teacher: The same layers of the teacher, of the same shapes.

    Returns:
        A scalar; 1 for a student of zeros.
    """
    distances = []
    for name, outputs in student.items():
        for output, wanted in zip(outputs, teacher[name], strict=True):
            power = wanted.float().square().mean().clamp_min(1e-12)
            distances.append(functional.mse_loss(output.float(), wanted.float()) / power)
    return torch.stack(distances).mean()
