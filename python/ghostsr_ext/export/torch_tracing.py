"""What the formats share in tracing a network by torch's own tools."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.export.lowering import LoweredNetwork


def free_dimensions(network: LoweredNetwork, axes: Collection[int] = (0, 2, 3)) -> dict[int, Any]:
    """Return the free sizes of the input for ``torch.export``, by axis.

    Args:
        network: The network.
        axes: Those to leave free, where the network lets them.
    """
    unit = network.multiple or 1
    return {
        axis: torch.export.Dim(name) if axis == 0 or unit == 1 else unit * torch.export.Dim(name)
        for axis, name in network.free_axes.items()
        if axis in axes
    }


@contextmanager
def explained(network: LoweredNetwork, path: str | Path) -> Iterator[None]:
    """Turn whatever torch raises while it traces a network into one error.

    Raises:
        GhostsrError: With the first line of torch's own words.
    """
    try:
        yield
    except (GhostsrError, OSError, ImportError):
        raise
    except Exception as error:
        # torch.export, torch.onnx and torch.jit raise each their own kinds, some of them private.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = ""
        if network.free_axes:
            advice = "; its sizes are free: a module may only be traceable at that of its example"
        raise GhostsrError(
            f"output {path}: torch cannot trace the network ({reason}){advice}"
        ) from error
