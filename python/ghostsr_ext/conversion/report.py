"""What a conversion did, layer by layer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ghostsr_ext.files import atomic_write
from ghostsr_ext.text import printable


@dataclass(frozen=True)
class LayerReport:
    """One converted layer.

    Attributes:
        name: Its name in the network.
        uses: How often one forward pass calls it.
        out_channels: C_out.
        intrinsic: The channels that are computed.
        source: For each of the other channels, ascending, the channel that it is made from; empty
            where they are pruned away.
        shifts: How many ghosts have each shift, by its text "dy,dx".
        relative_error: Squared error of the layer's output on the calibration pictures over the
            variance of the dense one's; without pictures that of the filters; None if not measured.
        dead: Channels whose filter is zero.
        parameters_before: Weights and biases of the dense layer.
        parameters_after: Weights, biases, gains and ghost biases of the ghost layer.
        macs_before: Multiply-adds of the dense layer, see ``ConversionReport.macs_for``.
        macs_after: Multiply-adds of the ghost layer.
    """

    name: str
    uses: int
    out_channels: int
    intrinsic: list[int]
    source: list[int]
    shifts: dict[str, int]
    relative_error: float | None
    dead: list[int]
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int


@dataclass(frozen=True)
class SkippedLayer:
    """A layer that stayed dense.

    Attributes:
        name: Its name in the network.
        reason: Why.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class ConversionReport:
    """A conversion.

    Attributes:
        method: How channels were chosen.
        settings: The arguments of the conversion.
        layers: The converted layers in the order of their execution.
        skipped: The layers that were looked at and stayed dense.
        parameters_before: Of the whole network.
        parameters_after: Of the whole network.
        macs_before: Of all convolutions of the network.
        macs_after: Of all convolutions of the network.
        macs_for: What multiply-adds are counted for.
        seconds: Wall time of the conversion.
        extra: What else a method has to say, such as the loss of a distillation.
    """

    method: str
    settings: dict[str, Any]
    layers: tuple[LayerReport, ...]
    skipped: tuple[SkippedLayer, ...]
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    macs_for: str
    seconds: float
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; what is not finite is None."""
        values: dict[str, Any] = _json_value(asdict(self))
        return values

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the report as JSON.

        Raises:
            InputError: ``path`` exists or cannot be written.
        """
        with atomic_write(path, overwrite=overwrite) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    def __rich__(self) -> Any:
        """Return a table for ``rich.print``: one row a layer, the skipped ones, and the total."""
        from rich.table import Table
        from rich.text import Text

        stays = [
            printable(f"{skip.name}: stays dense, {skip.reason}", 1000) for skip in self.skipped
        ]
        table = Table(
            caption=Text("\n".join(stays)) if stays else None,
            caption_justify="left",
        )
        table.add_column("layer", overflow="fold")
        for heading in ("channels", "error", "shifted", "parameters", "MACs (M)"):
            table.add_column(heading, justify="right")
        for layer in self.layers:
            ghosts = len(layer.source)
            table.add_row(
                Text(printable(layer.name) + ("" if layer.uses == 1 else f" (x{layer.uses})")),
                f"{len(layer.intrinsic)} + {ghosts}",
                "" if layer.relative_error is None else f"{layer.relative_error:.1%}",
                f"{ghosts - layer.shifts.get('0,0', 0)} of {ghosts}",
                _change(layer.parameters_before, layer.parameters_after),
                _change(layer.macs_before, layer.macs_after, 1e6),
            )
        table.add_section()
        table.add_row(
            f"network, {self.macs_for}",
            "",
            "",
            "",
            _change(self.parameters_before, self.parameters_after),
            _change(self.macs_before, self.macs_after, 1e6),
        )
        return table

    def __str__(self) -> str:
        """Return the table as text."""
        from rich.console import Console

        console = Console(width=110, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def _change(before: int, after: int, unit: float = 1.0) -> str:
    digits = 0 if unit == 1 else 1
    return f"{before / unit:,.{digits}f} to {after / unit:,.{digits}f}"


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
