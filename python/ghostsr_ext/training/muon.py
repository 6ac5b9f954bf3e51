"""Muon for the weights of convolutions, Adam for everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.nn import GhostConv2d


class MuonAdam(torch.optim.Adam):
    """Adam whose steps of convolution weights are orthogonal matrices.

    A weight [C_out, C_in / groups, kH, kW] is a matrix of C_out / groups rows for each group. Its
    step is the nearest semi-orthogonal matrix to the mean gradient, of the size of a step of Adam,
    so that one learning rate suits both. Biases, gains, logits of shifts and filters of a single
    row are Adam's.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the
    size of the step, Liu et al., "Muon is scalable for LLM training", 2025.

    Args:
        model: The network; the memory format of its weights must not change afterwards.
        groups: Its parameters in groups, as optimisers take them. The learning rate of the first
            group is that of the convolutions too.
        lr: Learning rate.
        betas: Decays of Adam's moments; the first is Muon's momentum, too.
        eps: The number that Adam adds to its denominators.
        weight_decay: The weight decay of both kinds of steps.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        trained = {id(parameter) for group in groups for parameter in group["params"]}
        self._matrices = [
            (layer.weight, layer.groups, matrices)
            for layer in model.modules()
            if isinstance(layer, nn.Conv2d | GhostConv2d) and id(layer.weight) in trained
            if (matrices := _matrices(layer.weight, layer.groups))
        ]
        self._muon = torch.optim.Muon(
            [matrix for _, _, matrices in self._matrices for matrix in matrices] or [_nothing()],
            lr=lr,
            weight_decay=weight_decay,
            momentum=betas[0],
            adjust_lr_fn="match_rms_adamw",
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step along the gradients; those of the convolutions are used up by it."""
        for weight, groups, matrices in self._matrices:
            parts: Sequence[Tensor | None] = [None] * groups
            if weight.grad is not None:
                parts = _rows(weight.grad, groups, _is_channels_last(weight))
            for matrix, part in zip(matrices, parts, strict=True):
                matrix.grad = part
            # What has no gradient is left alone by Adam.
            weight.grad = None
        for group in self._muon.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        self._muon.step()
        return super().step(closure)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {**super().state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to a state of both."""
        own = dict(state_dict)
        self._muon.load_state_dict(own.pop("muon"))
        super().load_state_dict(own)


def _matrices(weight: Tensor, groups: int) -> list[nn.Parameter]:
    """Views of a weight that torch's Muon can change in place; none where it makes no matrices."""
    rows = weight.shape[0] // groups
    if rows < 2 or not weight.is_floating_point():
        return []
    parts = _rows(weight.detach(), groups, _is_channels_last(weight))
    matrices = [nn.Parameter(part) for part in parts]
    shares = weight.untyped_storage().data_ptr()
    return matrices if all(m.untyped_storage().data_ptr() == shares for m in matrices) else []


def _is_channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def _rows(tensor: Tensor, groups: int, channels_last: bool) -> Sequence[Tensor]:
    """The matrices of a weight or of its gradient, one a group.

    The order of columns makes no difference to Muon; it is the one that makes views of weights.
    """
    ordered = tensor.permute(0, 2, 3, 1) if channels_last else tensor
    return ordered.flatten(1).chunk(groups)


def _nothing() -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, 1))
