"""What became of a network, and whether it is as good as a conversion should be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.accounting import layer_macs
from ghostsr_ext.conversion.conversion_report import LayerReport
from ghostsr_ext.conversion.convolutions import forward_arguments
from ghostsr_ext.conversion.distillation import PolishReport
from ghostsr_ext.errors import InputError

_WORSE_THAN_NOTHING = 1.0

Reporter = Callable[[tuple[int, int]], LayerReport]
"""Makes a layer's report from its multiply-adds before and after."""


@dataclass
class Outcome:
    """What became of a network.

    Attributes:
        reporters: For each layer, by its name, in the order of execution.
        refitted: Dense layers that got new weights; None for methods that give none.
        polished: What the polish reached; None where there was none.
        error: See ``output_error``.
    """

    reporters: Mapping[str, Reporter]
    refitted: list[str] | None = None
    polished: PolishReport | None = None
    error: float | None = None

    def layers(
        self, macs_before: Mapping[str, int], macs_after: Mapping[str, int]
    ) -> tuple[LayerReport, ...]:
        """Return the reports of the layers, from the multiply-adds of all layers by their names."""
        return tuple(
            report((layer_macs(macs_before, name), layer_macs(macs_after, name)))
            for name, report in self.reporters.items()
        )

    def extra(self) -> dict[str, Any]:
        """Return what the method has to say besides."""
        extra: dict[str, Any] = {} if self.refitted is None else {"refitted": self.refitted}
        if self.polished is not None:
            extra["polish"] = asdict(self.polished)
        return extra

    def warnings(self) -> tuple[str, ...]:
        """Return what went wrong, in sentences."""
        found = []
        bad = []
        if self.refitted is not None:
            errors = {
                name: report((0, 0)).relative_error for name, report in self.reporters.items()
            }
            bad = [
                f"{name} ({error:.2g})"
                for name, error in errors.items()
                if error is not None and error > _WORSE_THAN_NOTHING
            ]
        if bad:
            found.append(
                "layers whose error is larger than the variance of what they give, before any "
                f"polish: {', '.join(bad)}; leave them dense, or lower the ratio"
            )
        if self.polished is not None and not self.polished.kept:
            found.append("the polish made nothing better and was undone")
        if self.error is not None and self.error > _WORSE_THAN_NOTHING:
            found.append(
                f"on the example the output's error is {self.error:.2g} times its variance"
            )
        return tuple(found)


@torch.no_grad()
def output_error(dense: nn.Module, converted: nn.Module, example: Tensor) -> float | None:
    """Run both networks and return the squared difference over the variance of the dense output.

    Args:
        dense: The network; its mode is kept.
        converted: What it became, in evaluation mode.
        example: An input of them.

    Returns:
        None where the output is no tensor, or has no variance.

    Raises:
        InputError: The converted network cannot be run, or gives values that are not finite.
    """
    was_training = {module: module.training for module in dense.modules()}
    dense.eval()
    missed = energy = 0.0
    try:
        for arguments in forward_arguments(dense):
            wanted = dense(example.clone(), **arguments)
            found = _run(converted, example, arguments)
            if not isinstance(wanted, Tensor):
                return None
            missed += float((found - wanted).double().square().sum())
            energy += float((wanted - wanted.mean()).double().square().sum())
    finally:
        for module, training in was_training.items():
            module.training = training
    if not math.isfinite(missed):
        raise InputError("model: gives values that are NaN or infinite once it is converted")
    return missed / energy if energy else None


def _run(converted: nn.Module, example: Tensor, arguments: Mapping[str, Any]) -> Any:
    try:
        return converted(example.clone(), **arguments)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model: cannot be run once it is converted ({reason}); name the layers that may be "
            "converted as layers"
        ) from error
