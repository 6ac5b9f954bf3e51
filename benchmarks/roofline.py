"""What a GPU should take for each network, by its data sheet: a prediction to measure against.

Every operator takes the longer of its arithmetic at the device's peak and its bytes at the memory's
peak, each peak times an efficiency; launches are free. Three forms are counted: the dense network
and the ghost network in plain torch, where bias, ghosts, concatenation, order, residual scale,
residual and activation are passes of their own, and the ghost network with one fused pass after
each convolution.

    python benchmarks/roofline.py [--layers edsr] [--json roofline.json]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from measuring import JsonOutput, MarkdownOutput, markdown_table, write_json, write_section
from plain_networks import NETWORKS, SCALES, make_network
from torch import nn

HR_SIZE = (720, 1280)
BLOCK_BYTES = 16 * 1024
RESIDENT_BLOCKS = 5


@dataclass(frozen=True)
class Gpu:
    """Data-sheet rates: dense arithmetic in operations a second, memory in bytes a second."""

    name: str
    arithmetic: dict[str, float]
    memory: float
    cache_bytes: float
    multiprocessors: int


GPUS = (
    # NVIDIA V100 (SXM2 32 GB), A100 (SXM 80 GB) and H100 (SXM) data sheets; Ada architecture paper.
    Gpu("V100", {"float32": 15.7e12, "float16": 125e12}, 900e9, 6e6, 80),
    Gpu("A100", {"float32": 19.5e12, "tf32": 156e12, "float16": 312e12}, 2039e9, 40e6, 108),
    Gpu("H100", {"float32": 67e12, "tf32": 494e12, "float16": 989e12}, 3350e9, 50e6, 132),
    Gpu("RTX 4090", {"float32": 82.6e12, "tf32": 82.6e12, "float16": 165e12}, 1008e9, 72e6, 128),
)
ELEMENT_BYTES = {"float32": 4, "tf32": 4, "float16": 2}


@dataclass(frozen=True)
class LayerShape:
    """One call of one layer, batch 1."""

    name: str
    macs: int
    weights: int
    input: int  # elements
    intrinsic: int
    output: int
    channels: int
    ghosts: bool
    bias: bool
    scaled: bool
    residual: bool
    relu: bool


@dataclass(frozen=True)
class Step:
    """One operator: arithmetic operations and elements moved."""

    operations: float
    elements: float

    def seconds(self, gpu: Gpu, kind: str, efficiency: Efficiency) -> float:
        """Return the time that the slower of the two takes."""
        arithmetic = self.operations / (gpu.arithmetic[kind] * efficiency.arithmetic)
        return max(
            arithmetic, self.elements * ELEMENT_BYTES[kind] / (gpu.memory * efficiency.memory)
        )


@dataclass(frozen=True)
class Efficiency:
    """The part of the data sheet's rates that operators reach."""

    arithmetic: float
    memory: float


@functools.cache
def layer_shapes(name: str, scale: int, *, ghost: bool) -> list[LayerShape]:
    """Return the convolutions of a network for a 1280 x 720 picture, in the order of calls."""
    network = make_network(name, ghost=ghost, scale=scale, shuffled=True).to("meta")
    shapes: list[LayerShape] = []

    def record(layer: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], kwargs: Any, output: Any) -> None:
            residual = kwargs.get("residual", inputs[1] if len(inputs) > 1 else None)
            shapes.append(_layer_shape(layer, module, inputs[0], residual is not None, output))

        return hook

    for layer, module in network.named_modules():
        if isinstance(module, nn.Conv2d | GhostConv2d):
            module.register_forward_hook(record(layer), with_kwargs=True)
    height, width = (math.ceil(size / scale) for size in HR_SIZE)
    with torch.no_grad():
        network(torch.empty(1, 3, height, width, device="meta"), scale)
    return shapes


def _layer_shape(
    name: str, module: nn.Module, input: torch.Tensor, residual: bool, output: torch.Tensor
) -> LayerShape:
    assert isinstance(module, nn.Conv2d | GhostConv2d)
    pixels = output.shape[2] * output.shape[3]
    intrinsic = module.weight.shape[0]
    fused = isinstance(module, FusedConv2d | GhostConv2d)
    return LayerShape(
        name=name,
        macs=pixels * module.weight.numel(),
        weights=module.weight.numel(),
        input=input.numel(),
        intrinsic=pixels * intrinsic,
        output=output.numel(),
        channels=output.shape[1],
        ghosts=isinstance(module, GhostConv2d) and module.ghost_channels > 0,
        bias=module.bias is not None,
        scaled=fused and module.residual_scale != 1,
        residual=residual,
        relu=fused and module.activation == "relu",
    )


def plain_steps(layer: LayerShape) -> Iterator[Step]:
    """Yield the operators of a layer in plain torch."""
    yield Step(2 * layer.macs, layer.input + layer.weights + layer.intrinsic)
    if layer.bias:
        yield Step(0, 2 * layer.intrinsic)
    if layer.ghosts:
        ghost = layer.output - layer.intrinsic
        yield Step(0, 2 * ghost)  # gather
        yield Step(0, 2 * ghost)  # depthwise convolution
        yield Step(0, 2 * layer.output)  # concatenation
        yield Step(0, 2 * layer.output)  # order
    if layer.scaled:
        yield Step(0, 2 * layer.output)
    if layer.residual:
        yield Step(0, 3 * layer.output)
    if layer.relu:
        yield Step(0, 2 * layer.output)


def fused_floor(layer: LayerShape) -> int:
    """Return the elements that any pass after the convolution must move: each map once."""
    return layer.intrinsic + layer.output + (layer.output if layer.residual else 0)


def fused_elements(layer: LayerShape, gpu: Gpu) -> int:
    """Return the elements that the fused pass moves to and from memory.

    A ghost reads its intrinsic channel a second time. Blocks that run next to each other take the
    same rows of all channels, so the cache still holds them where all those blocks run at once, or
    where what they touch fits half of it.
    """
    touched = layer.channels * BLOCK_BYTES * (3 if layer.residual else 2)
    held = layer.channels <= gpu.multiprocessors * RESIDENT_BLOCKS or touched <= gpu.cache_bytes / 2
    return fused_floor(layer) + (0 if held else layer.output - layer.intrinsic)


def fused_steps(layer: LayerShape, gpu: Gpu) -> Iterator[Step]:
    """Yield the operators of a layer with the fused pass."""
    yield Step(2 * layer.macs, layer.input + layer.weights + layer.intrinsic)
    if layer.ghosts or layer.scaled or layer.residual or layer.relu:
        yield Step(0, fused_elements(layer, gpu))
    elif layer.bias:
        yield Step(0, 2 * layer.intrinsic)


@dataclass(frozen=True)
class Prediction:
    """Milliseconds of the three forms of a network on one GPU, and what the fused passes move."""

    gpu: str
    kind: str
    network: str
    scale: int
    dense_ms: float
    naive_ms: float
    ours_ms: float
    fused_bytes_to_floor: float

    @property
    def cut(self) -> float:
        """Part of the dense latency that the ghost network saves."""
        return 1 - self.ours_ms / self.dense_ms

    @property
    def naive_cut(self) -> float:
        """The same in plain torch."""
        return 1 - self.naive_ms / self.dense_ms


def predict(gpu: Gpu, kind: str, name: str, scale: int, efficiency: Efficiency) -> Prediction:
    """Return what the three forms of a network should take."""
    dense, ghost = layer_shapes(name, scale, ghost=False), layer_shapes(name, scale, ghost=True)

    def total(steps: list[Step]) -> float:
        return 1e3 * sum(step.seconds(gpu, kind, efficiency) for step in steps)

    floor = sum(fused_floor(layer) for layer in ghost)
    return Prediction(
        gpu=gpu.name,
        kind=kind,
        network=name,
        scale=scale,
        dense_ms=total([step for layer in dense for step in plain_steps(layer)]),
        naive_ms=total([step for layer in ghost for step in plain_steps(layer)]),
        ours_ms=total([step for layer in ghost for step in fused_steps(layer, gpu)]),
        fused_bytes_to_floor=sum(fused_elements(layer, gpu) for layer in ghost) / floor,
    )


def network_table(predictions: list[Prediction]) -> str:
    """Return one row a network as Markdown."""
    return markdown_table(
        [
            {
                "network": f"{one.network} x{one.scale}",
                "GPU": f"{one.gpu}, {one.kind}",
                "dense ms": f"{one.dense_ms:.1f}",
                "naive ghost ms": f"{one.naive_ms:.1f}",
                "naive saves": f"{one.naive_cut:.0%}",
                "ours ms": f"{one.ours_ms:.1f}",
                "ours saves": f"{one.cut:.0%}",
                "fused bytes / floor": f"{one.fused_bytes_to_floor:.2f}",
            }
            for one in predictions
        ]
    )


def layer_table(name: str, gpu: Gpu, kind: str, efficiency: Efficiency) -> str:
    """Return one row a layer of a network, in microseconds, as Markdown."""
    rows = []
    dense = layer_shapes(name, 2, ghost=False)
    for before, layer in zip(dense, layer_shapes(name, 2, ghost=True), strict=True):
        forms = {
            "dense": plain_steps(before),
            "naive ghost": plain_steps(layer),
            "ours": fused_steps(layer, gpu),
        }
        row = {f"{name} x2, {gpu.name}, {kind}": layer.name, "GMACs": f"{layer.macs / 1e9:.2f}"}
        for form, steps in forms.items():
            seconds = sum(step.seconds(gpu, kind, efficiency) for step in steps)
            row[f"{form}, microseconds"] = f"{1e6 * seconds:.0f}"
        rows.append(row)
    return markdown_table(rows)


def main(
    arithmetic: Annotated[float, typer.Option(help="Efficiency of convolutions.")] = 0.6,
    memory: Annotated[float, typer.Option(help="Efficiency of the memory.")] = 0.85,
    layers: Annotated[
        str | None, typer.Option(help="Also print each layer of this network, on the H100.")
    ] = None,
    json: JsonOutput = None,
    markdown: MarkdownOutput = None,
) -> None:
    """Predict, print the table, and write what is asked for."""
    efficiency = Efficiency(arithmetic, memory)
    predictions = [
        predict(gpu, kind, name, scale, efficiency)
        for gpu in GPUS
        for kind in gpu.arithmetic
        for name in NETWORKS
        for scale in SCALES
    ]
    print(network_table(predictions))
    if layers is not None:
        print(layer_table(layers, GPUS[2], "float16", efficiency))
    if markdown is not None:
        chosen = [one for one in predictions if one.scale == SCALES[0]]
        write_section(markdown, "predictions", network_table(chosen))
    if json is not None:
        content = {
            "efficiency": asdict(efficiency),
            "predictions": [asdict(one) for one in predictions],
        }
        write_json(json, content)
    worst = max(one.fused_bytes_to_floor for one in predictions)
    print(f"\nbytes of the fused passes: at most {worst:.2f} times the floor")
    if worst > 1.1:
        raise SystemExit("the fused passes move more than 1.1 times the floor")


if __name__ == "__main__":
    typer.run(main)
