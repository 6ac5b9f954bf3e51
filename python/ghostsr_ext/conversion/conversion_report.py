"""What a conversion did, layer by layer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ghostsr_ext.files import atomic_write
from ghostsr_ext.text import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


_MOST_TEXT = 4000


@dataclass(frozen=True)
class LayerReport:
    """One converted layer.

    Attributes:
        name: Its name in the network.
        uses: How often one forward pass calls it.
        out_channels: Number of output channels, C_out.
        intrinsic: The channels that are computed.
        source: For each of the other channels, ascending, the channel that it is made from; empty
            where they are pruned away.
        shifts: How many ghosts have each shift, by its text "dy,dx".
        relative_error: Squared error of the layer's output on the calibration pictures over the
            variance of the dense one's; without pictures that of the filters; None if not measured.
        error_if_dense: What it would be with the dense layer in its place, behind the converted
            layers before it; None if not measured.
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
    error_if_dense: float | None
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
        reason: Why the layer stays dense.
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
        parameters_before: Parameters of the whole network.
        parameters_after: Parameters of the whole network.
        macs_before: Multiply-adds of all convolutions and linear layers of the network.
        macs_after: Multiply-adds of all convolutions and linear layers of the network.
        macs_for: What multiply-adds are counted for.
        seconds: Wall time of the conversion.
        needs_training: Whether the method gives no more than a start for training.
        output_error: Mean squared difference of the two networks' outputs on one example over the
            variance of the dense one's.
        warnings: What went wrong, in sentences.
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
    needs_training: bool = False
    output_error: float | None = None
    warnings: tuple[str, ...] = ()
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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a table for ``rich.print``, what stayed dense, and warnings.

        The table has one row a layer and the total; a narrow terminal gets fewer columns.
        """
        from rich.table import Table
        from rich.text import Text

        columns = [
            column for column in _COLUMNS if options.max_width >= _WIDTHS.get(column.heading, 0)
        ]
        table = Table()
        table.add_column("layer", no_wrap=True, overflow="ellipsis")
        for column in columns:
            table.add_column(column.heading, justify="right", no_wrap=True)
        for layer in self.layers:
            uses = "" if layer.uses == 1 else f" (x{layer.uses})"
            table.add_row(
                Text(printable(layer.name) + uses), *(column.of_layer(layer) for column in columns)
            )
        table.add_section()
        totals = (column.of_network(self) for column in columns)
        table.add_row(Text(f"network, {self.macs_for}"), *totals)
        yield table
        for reason, names in self._stay_dense().items():
            yield Text(printable(f"stays dense, {reason}: {', '.join(names)}", _MOST_TEXT))
        for warning in self.warnings:
            yield Text(printable(f"warning: {warning}", _MOST_TEXT), style="bold")

    def _stay_dense(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for skip in self.skipped:
            names.setdefault(skip.reason, []).append(skip.name)
        return names

    def __str__(self) -> str:
        """Return the table as text."""
        from rich.console import Console

        console = Console(width=110, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


@dataclass(frozen=True)
class _Column:
    heading: str
    of_layer: Callable[[LayerReport], str]
    of_network: Callable[[ConversionReport], str] = lambda _: ""


def _shifted(layer: LayerReport) -> str:
    ghosts = len(layer.source)
    return f"{ghosts - layer.shifts.get('0,0', 0)} of {ghosts}"


def _change(before: int, after: int, unit: float = 1.0) -> str:
    digits = 0 if unit == 1 else 1
    return f"{before / unit:,.{digits}f} to {after / unit:,.{digits}f}"


_COLUMNS = (
    _Column("channels", lambda layer: f"{len(layer.intrinsic)} + {len(layer.source)}"),
    _Column(
        "error",
        lambda layer: "" if layer.relative_error is None else f"{layer.relative_error:.1%}",
    ),
    _Column("shifted", _shifted),
    _Column(
        "parameters",
        lambda layer: _change(layer.parameters_before, layer.parameters_after),
        lambda report: _change(report.parameters_before, report.parameters_after),
    ),
    _Column(
        "MACs (M)",
        lambda layer: _change(layer.macs_before, layer.macs_after, 1e6),
        lambda report: _change(report.macs_before, report.macs_after, 1e6),
    ),
)
_WIDTHS = {"parameters": 110, "shifted": 96, "MACs (M)": 60}
"""Columns of the terminal that there must be for a column of the table."""


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
