"""Time ghost layers and networks on a GPU beside their dense forms and beside plain torch.

Forms: "dense" is the unconverted network in plain torch; "depthwise" and "slices" are the ghost
network in plain torch, its ghosts made by a one-hot depthwise convolution or cut from a padded map;
"compiled" is "depthwise" under ``torch.compile``; "ours" is the ghost network on this library's
operators. Forms run in turns, so that a drifting clock meets all of them; each figure is the median
of its runs, timed by CUDA events.

    python benchmarks/gpu.py --output results      everything, about an hour
    python benchmarks/gpu.py --quick               one size of everything, minutes
    python benchmarks/gpu.py --network edsr --arithmetic float16 --without compiled --scale 2
    python benchmarks/gpu.py --device cpu --quick  the same code without a GPU, to try it
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import FusedConv2d
from ghostsr_ext.ops import library
from measuring import markdown_table, write_json
from plain_networks import NETWORKS, SCALES, PlainNetwork, ghost_layer, make_network, plain_layer
from torch import Tensor, nn

FORMS = ("dense", "depthwise", "slices", "compiled", "ours")
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
LAYERS = [(64, 1, 360, 640), (64, 16, 48, 48), (128, 1, 360, 640), (256, 1, 360, 640)]
HR_SIZE = (720, 1280)

# Part of the dense latency that the paper saves at a ghost ratio of 0.5. Its published text has
# the figure for EDSR x2 alone: 41 % in the first version, 42 % in the last.
PAPER_SAVES = {"edsr x2": "41-42 %"}


@dataclass
class Measurement:
    """Milliseconds of each form of one layer or network; a form that failed has its reason."""

    subject: str
    kind: str
    layout: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def saves(self, form: str) -> float | None:
        """Return the part of the dense form's time that ``form`` saves."""
        if form not in self.milliseconds or "dense" not in self.milliseconds:
            return None
        return 1 - self.milliseconds[form] / self.milliseconds["dense"]


class Stopwatch:
    """Times one call on a device.

    Args:
        device: "cuda" or "cpu".
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def milliseconds(self, work: Callable[[], object]) -> float:
        """Run ``work`` and return how long the device took."""
        if self.device == "cpu":
            begin = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - begin)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last))


@contextmanager
def arithmetic_of(kind: str) -> Iterator[None]:
    """Allow the tensor cores to round float32 to TF32 for "tf32", and only then."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32 = kind == "tf32"
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


def measure(
    subject: str,
    forms: dict[str, Callable[[], nn.Module]],
    input: Tensor,
    kind: str,
    layout: str,
    device: str,
    rounds: int,
) -> Measurement:
    """Time every form of a layer or network on the same input.

    Args:
        subject: What is measured, for the report.
        forms: Makers of modules by form, so that only those that run take memory.
        input: The input, on the CPU, in float32.
        kind: A key of ``DTYPES``.
        layout: A key of ``LAYOUTS``.
        device: "cuda" or "cpu".
        rounds: Runs of each form that count.
    """
    result = Measurement(subject, kind, layout)
    stopwatch = Stopwatch(device)
    placed = input.to(device, DTYPES[kind], memory_format=LAYOUTS[layout])
    ready: dict[str, nn.Module] = {}
    with torch.inference_mode(), arithmetic_of(kind):
        for form, make in forms.items():
            try:
                module = make().to(device, DTYPES[kind], memory_format=LAYOUTS[layout])
                module = torch.compile(module) if form == "compiled" else module
                for _ in range(3):
                    stopwatch.milliseconds(lambda module=module: module(placed))
                ready[form] = module
            except (RuntimeError, torch.OutOfMemoryError) as error:
                result.failures[form] = str(error).splitlines()[0]
        times: dict[str, list[float]] = {form: [] for form in ready}
        for _ in range(rounds):
            for form, module in ready.items():
                times[form].append(stopwatch.milliseconds(lambda module=module: module(placed)))
    result.milliseconds = {form: statistics.median(values) for form, values in times.items()}
    return result


def layer_forms(channels: int) -> dict[str, Callable[[], nn.Module]]:
    """Return the forms of a 3x3 layer with bias and ReLU."""
    dense = FusedConv2d(channels, channels, 3, padding=1, activation="relu").eval()
    ghost = ghost_layer(dense, shuffled=True).eval()
    return {
        "dense": lambda: plain_layer(dense),
        "depthwise": lambda: plain_layer(ghost),
        "slices": lambda: plain_layer(ghost, "slices"),
        "compiled": lambda: plain_layer(ghost),
        "ours": lambda: ghost,
    }


def network_forms(name: str, scale: int) -> dict[str, Callable[[], nn.Module]]:
    """Return the forms of a network."""

    def ghost() -> SRModel:
        return make_network(name, ghost=True, scale=scale, shuffled=True)

    return {
        "dense": lambda: PlainNetwork(make_network(name, ghost=False, scale=scale)),
        "depthwise": lambda: PlainNetwork(ghost()),
        "slices": lambda: PlainNetwork(ghost(), "slices"),
        "compiled": lambda: PlainNetwork(ghost()),
        "ours": ghost,
    }


@dataclass(frozen=True)
class Selection:
    """What is measured.

    Attributes:
        layers: Channels, batch, height and width of layers.
        networks: Names of networks.
        scales: How many times they enlarge.
        kinds: Keys of ``DTYPES``.
        layouts: Keys of ``LAYOUTS``.
        without: Forms that are left out.
    """

    layers: Sequence[tuple[int, int, int, int]]
    networks: Sequence[str]
    scales: Sequence[int]
    kinds: Sequence[str]
    layouts: Sequence[str]
    without: Sequence[str]

    def chosen(self, forms: dict[str, Callable[[], nn.Module]]) -> dict[str, Any]:
        """Return the forms that are not left out."""
        return {form: make for form, make in forms.items() if form not in self.without}


def sweep(device: str, selection: Selection, rounds: int) -> Iterator[Measurement]:
    """Yield the measurements of all that is selected; on the CPU of smaller maps."""
    small = device == "cpu"
    settings = list(itertools.product(selection.kinds, selection.layouts))
    for channels, batch, height, width in selection.layers:
        if small:
            height, width = height // 8, width // 8
        forms = selection.chosen(layer_forms(channels))
        input = torch.randn(batch, channels, height, width)
        for kind, layout in settings:
            subject = f"layer {channels} -> {channels}, {batch}x{height}x{width}"
            yield measure(subject, forms, input, kind, layout, device, rounds)
    for name, scale in itertools.product(selection.networks, selection.scales):
        forms = selection.chosen(network_forms(name, scale))
        height, width = (math.ceil(size / scale / (16 if small else 1)) for size in HR_SIZE)
        input = torch.rand(1, 3, height, width)
        for kind, layout in settings:
            yield measure(f"{name} x{scale}", forms, input, kind, layout, device, rounds)


def select(
    device: str,
    quick: bool,
    networks: Sequence[str],
    scales: Sequence[int],
    kinds: Sequence[str],
    layouts: Sequence[str],
    without: Sequence[str],
) -> Selection:
    """Return what the options ask for; empty ones leave the choice to the rest.

    Raises:
        SystemExit: A name is not known.
    """
    asked = {
        "network": (networks, NETWORKS),
        "arithmetic": (kinds, DTYPES),
        "layout": (layouts, LAYOUTS),
        "without": (without, FORMS),
    }
    for option, (names, known) in asked.items():
        for name in names:
            if name not in known:
                allowed = ", ".join(known)
                raise SystemExit(f"gpu.py: --{option}: found {name!r}; allowed are {allowed}")
    all_kinds = ["float32"] if device == "cpu" else list(DTYPES)
    narrow = bool(networks or scales or kinds or layouts)
    return Selection(
        layers=() if networks or scales else LAYERS[: 1 if quick else None],
        networks=networks or NETWORKS[-1 if quick else 0 :],
        scales=scales or SCALES[: 1 if quick else None],
        kinds=kinds or all_kinds[: 2 if quick and not narrow else None],
        layouts=layouts or list(LAYOUTS),
        without=(*without, *(("compiled",) if device == "cpu" else ())),
    )


def report(measurements: list[Measurement]) -> str:
    """Return the measurements as a Markdown table."""
    rows = []
    for one in measurements:
        row = {"": one.subject, "arithmetic": one.kind, "layout": one.layout}
        for form in FORMS:
            cell = f"{one.milliseconds[form]:.3f}" if form in one.milliseconds else "-"
            row[f"{form} ms"] = cell
        saves = one.saves("ours")
        row["ours saves"] = "-" if saves is None else f"{saves:.0%}"
        row["paper saves"] = PAPER_SAVES.get(one.subject, "-")
        rows.append(row)
    return markdown_table(rows)


def draw(measurements: list[Measurement], path: Path) -> None:
    """Draw, for every network, the time of each form next to the dense one's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    best: dict[str, Measurement] = {}
    for one in measurements:
        known = best.get(one.subject)
        if "ours" in one.milliseconds and (
            known is None or one.milliseconds["ours"] < known.milliseconds["ours"]
        ):
            best[one.subject] = one
    figure, axes = pyplot.subplots(figsize=(8, 0.7 * len(best) + 1.5))
    width = 0.8 / len(FORMS)
    for number, form in enumerate(FORMS):
        places, values = [], []
        for row, one in enumerate(best.values()):
            if form in one.milliseconds and "dense" in one.milliseconds:
                places.append(row + number * width)
                values.append(one.milliseconds[form] / one.milliseconds["dense"])
        axes.barh(places, values, width, label=form)
    axes.set_yticks(
        [row + 0.4 for row in range(len(best))],
        [f"{one.subject}\n{one.kind}, {one.layout}" for one in best.values()],
        fontsize=7,
    )
    axes.invert_yaxis()
    axes.set_xlabel("time, dense = 1")
    axes.legend(frameon=False, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def environment(device: str) -> dict[str, Any]:
    """Return what the figures hold for."""
    conditions: dict[str, Any] = {"torch": torch.__version__, "device": device}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        conditions |= {
            "device": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return conditions


def main(
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    quick: Annotated[bool, typer.Option("--quick", help="One layer and one network.")] = False,
    network: Annotated[list[str] | None, typer.Option(help="edsr, rdn or carn.")] = None,
    scale: Annotated[list[int] | None, typer.Option(help="2, 3 or 4.")] = None,
    arithmetic: Annotated[list[str] | None, typer.Option(help=", ".join(DTYPES))] = None,
    layout: Annotated[list[str] | None, typer.Option(help=", ".join(LAYOUTS))] = None,
    without: Annotated[list[str] | None, typer.Option(help="A form to leave out.")] = None,
    rounds: Annotated[int, typer.Option(help="Runs of each form that count.")] = 30,
    output: Annotated[
        Path | None, typer.Option(help="Folder for gpu.json, gpu.md and gpu.png.")
    ] = None,
) -> None:
    """Measure, print a table, and write what is asked for."""
    if device == "cuda":
        if not torch.cuda.is_available():
            print("gpu.py: skipped, no GPU")
            return
        if library.cuda_status() != "loaded":
            raise SystemExit(f"gpu.py: the CUDA operators are {library.cuda_status()}")
    selection = select(
        device,
        quick,
        network or (),
        scale or (),
        arithmetic or (),
        layout or (),
        without or (),
    )
    measurements = []
    for one in sweep(device, selection, rounds):
        measurements.append(one)
        print(report([one]).splitlines()[-1], flush=True)
        for form, reason in one.failures.items():
            print(f"  {form}: {reason}", flush=True)
    text = report(measurements)
    print(f"\n{text}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        content = {
            "environment": environment(device),
            "rounds": rounds,
            "measurements": [asdict(one) for one in measurements],
        }
        write_json(output / "gpu.json", content)
        (output / "gpu.md").write_text(text, encoding="utf-8")
        draw(measurements, output / "gpu.png")


if __name__ == "__main__":
    typer.run(main)
