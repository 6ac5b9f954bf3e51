"""Comparing networks on the user's machine: what they cost and how long they take."""

from __future__ import annotations

import copy
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

import ghostsr_ext
from ghostsr_ext.devices import floating_dtype, usable_device
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.export.lowering import lower
from ghostsr_ext.inference.cuda_graphs import device_recorder
from ghostsr_ext.inference.graphs import Recording
from ghostsr_ext.inference.memory import activation_bytes, is_out_of_memory
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import freeze_shifts, ghost_layers
from ghostsr_ext.profiling import cost

Name = TypeVar("Name")


@dataclass(frozen=True)
class Timing:
    """How long repeated runs took.

    Attributes:
        seconds: Seconds of each run, in their order.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median run, in seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """The interquartile range of the runs, in seconds."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(high - low)

    def as_dict(self) -> dict[str, Any]:
        """The times as JSON values."""
        return {"median": self.median, "spread": self.spread, "seconds": list(self.seconds)}


@dataclass(frozen=True)
class NetworkMeasurement:
    """One network's row in a comparison.

    Attributes:
        name: What the user calls it.
        ghost_layers: Layers that make part of their channels by shifting; 0 for a dense network.
        parameters: Number of parameters, biases included.
        macs: Multiply-adds for a picture of 1280 x 720, whatever size was timed.
        timing: Time of a forward pass.
        throughput: Output pixels a second at the median.
        peak_memory: Most bytes of feature maps alive at once: measured on CUDA, elsewhere counted
            from shapes.
        psnr: Its PSNR on the data set, in dB; None without a data set.
        replayed: Time of a forward pass that is replayed as a CUDA graph, the copies of its input
            and output included; None where it is not recorded: on other devices, and where the
            network is not ``capturable``.
    """

    name: str
    ghost_layers: int
    parameters: int
    macs: int
    timing: Timing
    throughput: float
    peak_memory: int
    psnr: float | None = None
    replayed: Timing | None = None


@dataclass(frozen=True)
class Comparison:
    """Several networks measured side by side.

    Attributes:
        networks: The networks in the order given; the others are compared with the first.
        scale: How many times they enlarge.
        size: Rows and columns of the small picture.
        batch: Pictures at a time.
        repeats: Runs that were timed.
        device: The name that torch has for the device.
        dtype: What was computed in.
        threads: Threads of torch, on the CPU.
        environment: ``ghostsr``, ``torch``, ``processor`` and ``system``.
        dataset: What PSNR was measured on, or None.
    """

    networks: tuple[NetworkMeasurement, ...]
    scale: int
    size: tuple[int, int]
    batch: int
    repeats: int
    device: str
    dtype: str
    threads: int
    environment: Mapping[str, str]
    dataset: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON values, every run's time included."""
        networks = [
            {
                **asdict(network),
                "timing": network.timing.as_dict(),
                "replayed": None if network.replayed is None else network.replayed.as_dict(),
                "psnr": network.psnr if _is_finite(network.psnr) else None,
            }
            for network in self.networks
        ]
        return {
            **asdict(self),
            "size": list(self.size),
            "environment": dict(self.environment),
            "networks": networks,
        }

    def rows(self) -> list[dict[str, str]]:
        """The comparison as a table of texts, one dictionary a network, by heading."""
        first = self.networks[0]
        rows = []
        for network in self.networks:
            row = {
                "network": network.name,
                "parameters": f"{network.parameters / 1e3:,.0f} K",
                "MACs": f"{network.macs / 1e9:,.1f} G",
                "latency": f"{network.timing.median * 1e3:.1f} ms",
                "spread": f"{network.timing.spread * 1e3:.1f} ms",
                "speed": f"{first.timing.median / network.timing.median:.2f}x",
                **self._replayed(network),
                "MPix/s": f"{network.throughput / 1e6:.2f}",
                "memory": f"{network.peak_memory / (1 << 20):.0f} MiB",
            }
            if self.dataset is not None:
                row[f"PSNR {self.dataset}"] = (
                    "-" if network.psnr is None else f"{network.psnr:.2f} dB"
                )
            rows.append(row)
        return rows

    def _replayed(self, network: NetworkMeasurement) -> dict[str, str]:
        """Cells for the CUDA graph; none where no network of the comparison is recorded."""
        if not self._has_replays():
            return {}
        replayed, first = network.replayed, self.networks[0].replayed
        return {
            "replayed": "-" if replayed is None else f"{replayed.median * 1e3:.2f} ms",
            "replayed speed": (
                "-"
                if replayed is None or first is None
                else f"{first.median / replayed.median:.2f}x"
            ),
        }

    def _has_replays(self) -> bool:
        return any(network.replayed is not None for network in self.networks)

    def conditions(self) -> str:
        """What the numbers hold for, in one line."""
        rows, columns = self.size
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        device = f"{self.device}, {threads}" if self.device == "cpu" else self.device
        return (
            f"x{self.scale} from {columns}x{rows}, batch {self.batch}, {self.dtype}, {device} "
            f"({self.environment['processor']}), torch {self.environment['torch']}; "
            f"median and interquartile range of {self.repeats} interleaved runs; "
            + "replayed: the same as a CUDA graph; " * self._has_replays()
            + "MACs for an output of 1280x720"
        )

    def markdown(self) -> str:
        """The table in Markdown, with the conditions below it."""
        rows = self.rows()
        lines = [
            "| " + " | ".join(rows[0]) + " |",
            "|" + "|".join(["---"] + ["---:"] * (len(rows[0]) - 1)) + "|",
            *("| " + " | ".join(row.values()) + " |" for row in rows),
        ]
        return "\n".join(lines) + f"\n\n{self.conditions()}\n"


def compare_networks(
    models: Mapping[str, SRModel],
    *,
    scale: int | None = None,
    size: tuple[int, int] = (180, 320),
    batch: int = 1,
    repeats: int = 10,
    warmup: int = 2,
    plain_torch: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    psnr: Mapping[str, float] | None = None,
    dataset: str | None = None,
) -> Comparison:
    """Measure networks side by side.

    The runs of the networks are interleaved, so that whatever else the machine does meets all of
    them alike. Networks run as in deployment: shifts frozen, channels last, in inference mode. On
    CUDA those that are ``capturable`` are timed a second time as CUDA graphs, in the same turns:
    so ``Upscaler`` runs them for sizes that come again.

    Args:
        models: The networks by name, the dense one first, since the others are compared with it.
            They are copied.
        scale: A scale that all of them serve; None for the first one's.
        size: Rows and columns of the small picture.
        batch: Pictures at a time.
        repeats: Runs to time, from 1.
        warmup: Runs before those, which are not timed.
        plain_torch: Whether the first row is the first network once more, with the same weights, in
            torch's own operators alone: what it costs without this package. Its name is followed by
            ``", plain torch"``.
        device: Where to run, ``"auto"`` for a GPU if there is one.
        dtype: What to compute in, a floating-point type of torch.
        psnr: PSNR of the networks by name, to show beside the rest.
        dataset: What ``psnr`` was measured on.

    Returns:
        The measurements, in the order of ``models``, after that of plain torch.

    Raises:
        InputError: An argument is out of its domain, or a network does not serve the scale.
        GhostsrError: The memory is too small.
    """
    if not models:
        raise InputError("models: found none; at least one network is needed")
    counts = {"batch": batch, "repeats": repeats, "rows": size[0], "columns": size[1]}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name}: found {count}; 1 or more is allowed")
    target = usable_device(device)
    floating_dtype(dtype)
    scale = next(iter(models.values())).scale if scale is None else scale
    candidates = _candidates(models, scale, size, batch, target, dtype, plain_torch)
    try:
        with torch.inference_mode():
            works: dict[tuple[str, str], Callable[[], object]] = {
                (name, "launched"): candidate.run for name, candidate in candidates.items()
            }
            for name, recording in _recordings(candidates, models).items():
                works[name, "replayed"] = partial(recording, candidates[name].image)
            timings = time_interleaved(works, repeats, warmup, target)
            memory = {name: _peak_memory(candidate) for name, candidate in candidates.items()}
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise GhostsrError(
                f"not enough memory on {target} for {size[1]}x{size[0]}, batch {batch}"
            ) from error
        raise

    pixels = batch * size[0] * size[1] * scale**2
    measured = []
    for name, candidate in candidates.items():
        model = models[candidate.network]
        total = cost(model, scale=scale)
        measured.append(
            NetworkMeasurement(
                name=name,
                ghost_layers=len(ghost_layers(model)),
                parameters=total.parameters,
                macs=total.macs,
                timing=timings[name, "launched"],
                throughput=pixels / timings[name, "launched"].median,
                peak_memory=memory[name],
                psnr=None if psnr is None else psnr.get(candidate.network),
                replayed=timings.get((name, "replayed")),
            )
        )
    return Comparison(
        networks=tuple(measured),
        scale=scale,
        size=(size[0], size[1]),
        batch=batch,
        repeats=repeats,
        device=str(target),
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        environment=_environment(target),
        dataset=dataset,
    )


def time_interleaved(
    functions: Mapping[Name, Callable[[], object]],
    repeats: int,
    warmup: int,
    device: torch.device,
) -> dict[Name, Timing]:
    """Time functions in turns: one run of each, then the next round in the opposite order.

    Args:
        functions: The functions by name.
        repeats: Rounds that are timed.
        warmup: Rounds before them, which are not.
        device: What to wait for at the end of each run.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in functions}
    order: Sequence[Name] = list(functions)
    for round_ in range(warmup + repeats):
        for name in order:
            _wait(device)
            start = time.perf_counter()
            functions[name]()
            _wait(device)
            if round_ >= warmup:
                seconds[name].append(time.perf_counter() - start)
        order = list(reversed(order))
    return {name: Timing(tuple(runs)) for name, runs in seconds.items()}


@dataclass(frozen=True)
class _Candidate:
    """What is timed in one row.

    Attributes:
        network: Whose weights it has, by the name in ``models``.
        module: The network or layer that is run.
        image: The input that it is run on.
        arguments: Keyword arguments of its forward pass.
    """

    network: str
    module: nn.Module
    image: Tensor
    arguments: Mapping[str, Any]

    def run(self) -> Tensor:
        """Compute once."""
        output: Tensor = self.module(self.image, **self.arguments)
        return output


def _recordings(
    candidates: Mapping[str, _Candidate], models: Mapping[str, SRModel]
) -> dict[str, Recording]:
    """Return the recordings by name, of the candidates whose work can be recorded here."""
    recorder = device_recorder(next(iter(candidates.values())).image.device)
    if recorder is None or not recorder.is_free():
        return {}
    recordings = {}
    for name, candidate in candidates.items():
        if models[candidate.network].capturable:
            # What a first run loads and chooses cannot be recorded.
            candidate.run()
            work = partial(candidate.module, **candidate.arguments)
            try:
                recordings[name] = recorder.record(work, candidate.image)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
    return recordings


def _candidates(
    models: Mapping[str, SRModel],
    scale: int,
    size: tuple[int, int],
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
    plain_torch: bool,
) -> dict[str, _Candidate]:
    candidates: dict[str, _Candidate] = {}
    for name, model in models.items():
        model.served_scale(scale, f"{name}, scale")
        image = _input(model, scale, size, batch).to(device, dtype)
        image = image.contiguous(memory_format=torch.channels_last)
        if plain_torch and not candidates:
            lowered = _ready(lower(model, scale=scale), device, dtype)
            candidates[f"{name}, plain torch"] = _Candidate(name, lowered, image, {})
        network = copy.deepcopy(model).eval().requires_grad_(False)
        freeze_shifts(network)
        candidates[name] = _Candidate(name, _ready(network, device, dtype), image, {"scale": scale})
    return candidates


def _ready(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    result: nn.Module = module.to(  # type: ignore[call-overload]
        device, dtype, memory_format=torch.channels_last
    )
    return result


def _input(network: SRModel, scale: int, size: tuple[int, int], batch: int) -> Tensor:
    enlarged = scale if network.input_upscaled else 1
    shape = (batch, network.channels, size[0] * enlarged, size[1] * enlarged)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * network.value_range


def _peak_memory(candidate: _Candidate) -> int:
    image = candidate.image
    if image.device.type != "cuda":
        return activation_bytes(candidate.module, tuple(image.shape), candidate.arguments)
    before = torch.cuda.memory_allocated(image.device)
    torch.cuda.reset_peak_memory_stats(image.device)
    candidate.run()
    return torch.cuda.max_memory_allocated(image.device) - before


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _environment(device: torch.device) -> dict[str, str]:
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = processor_name()
    return {
        "ghostsr": ghostsr_ext.__version__,
        "torch": torch.__version__,
        "processor": processor,
        "system": platform.platform(),
    }


def processor_name() -> str:
    """Return the model of the processor, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
