"""Inference engines that a super-resolution network can run in on a CPU.

Each engine has an export, which runs in a process of its own and leaves files, and a loader, which
reads them and returns a function from picture to picture. All compute in float32 on a given number
of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from plain_networks import PlainNetwork, make_network

Picture = NDArray[np.float32]
Enlarge = Callable[[Picture], Picture]


@dataclass(frozen=True)
class Task:
    """A network at one size.

    Attributes:
        preset: A name for ``ghostsr_ext.models.create_model``.
        ghost: Whether it is converted.
        size: Height and width of the small picture.
        threads: To compute on.
        folder: Where exported files are.
    """

    preset: str
    ghost: bool
    size: int
    threads: int
    folder: Path

    @property
    def form(self) -> str:
        """``"ghost"`` or ``"dense"``."""
        return "ghost" if self.ghost else "dense"

    @property
    def stem(self) -> Path:
        """Exported files begin so."""
        return self.folder / f"{self.preset}_{self.form}_{self.size}"

    def picture(self) -> Picture:
        """Return the picture [1, 3, size, size] that every engine enlarges."""
        white = make_network(self.preset, ghost=False).value_range
        shape = (1, 3, self.size, self.size)
        values = np.random.default_rng(0).random(shape, dtype=np.float32)
        return values * np.float32(white)


@dataclass(frozen=True)
class Engine:
    """One way to run a network.

    Attributes:
        package: The distribution on PyPI whose version is reported.
        load: Returns the function that runs a task's network.
        export: Writes what ``load`` reads, or None.
        libraries: Imported before memory is measured.
    """

    package: str
    load: Callable[[Task], Enlarge]
    export: Callable[[Task], None] | None = None
    libraries: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The installed version; empty where there is none."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return ""


def _run_torch(module: Any, layout: torch.memory_format, picture: Picture) -> Picture:
    with torch.inference_mode():
        image = torch.from_numpy(picture).to(memory_format=layout)
        output: Picture = module(image).numpy()
        return output


def _load_torch(
    task: Task, *, layout: torch.memory_format, plain: bool = True, compiled: bool = False
) -> Enlarge:
    torch.set_num_threads(task.threads)
    network: Any = make_network(task.preset, ghost=task.ghost)
    if plain:
        network = PlainNetwork(network)
    network = network.to(memory_format=layout)
    return partial(_run_torch, torch.compile(network) if compiled else network, layout)


def _export_onnx(task: Task) -> None:
    path = task.stem.with_suffix(".onnx")
    if not path.exists():
        network = PlainNetwork(make_network(task.preset, ghost=task.ghost)).eval()
        image = torch.from_numpy(task.picture())
        program = torch.onnx.export(network, (image,), dynamo=True, optimize=True, verbose=False)
        assert program is not None
        program.save(path)


def _load_onnxruntime(task: Task) -> Enlarge:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        task.stem.with_suffix(".onnx"), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def enlarge(picture: Picture) -> Picture:
        output: Picture = session.run(None, {name: picture})[0]
        return output

    return enlarge


def _load_openvino(task: Task) -> Enlarge:
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": task.threads,
        "ENABLE_CPU_PINNING": False,
    }
    model = openvino.Core().compile_model(task.stem.with_suffix(".onnx"), "CPU", options)

    def enlarge(picture: Picture) -> Picture:
        output: Picture = model(picture)[0]
        return output

    return enlarge


def _export_ncnn(task: Task) -> None:
    import pnnx

    if not _ncnn_file(task, "bin").exists():
        network = PlainNetwork(make_network(task.preset, ghost=task.ghost)).eval()
        pnnx.export(
            network,
            str(task.stem.with_suffix(".pt")),
            torch.from_numpy(task.picture()),
            ncnnparam=str(_ncnn_file(task, "param")),
            ncnnbin=str(_ncnn_file(task, "bin")),
            fp16=False,
        )
        if not _ncnn_file(task, "bin").exists():
            raise RuntimeError("pnnx wrote no network")


def _ncnn_file(task: Task, kind: str) -> Path:
    return task.stem.with_name(f"{task.stem.name}.ncnn.{kind}")


def _load_ncnn(task: Task) -> Enlarge:
    import ncnn

    network = ncnn.Net()
    network.opt.num_threads = task.threads
    network.opt.use_vulkan_compute = False
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(network.opt, option, False)
    network.opt.use_bf16_storage = False
    for load, kind in ((network.load_param, "param"), (network.load_model, "bin")):
        path = _ncnn_file(task, kind)
        if load(str(path)) != 0:
            raise RuntimeError(f"ncnn does not read {path.name}")

    def enlarge(picture: Picture) -> Picture:
        with network.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(picture[0]))
            status, output = extractor.extract("out0")
            if status != 0:
                raise RuntimeError(f"ncnn stopped with {status}")
            return np.array(output)[None]

    return enlarge


ENGINES: dict[str, Engine] = {
    "torch, channels last": Engine(
        "torch", partial(_load_torch, layout=torch.channels_last), libraries=("torch",)
    ),
    "torch, contiguous": Engine(
        "torch", partial(_load_torch, layout=torch.contiguous_format), libraries=("torch",)
    ),
    "torch, compiled": Engine(
        "torch",
        partial(_load_torch, layout=torch.channels_last, compiled=True),
        libraries=("torch",),
    ),
    "ONNX Runtime": Engine(
        "onnxruntime", _load_onnxruntime, _export_onnx, libraries=("onnxruntime",)
    ),
    "OpenVINO": Engine("openvino", _load_openvino, _export_onnx, libraries=("openvino",)),
    "ncnn": Engine("ncnn", _load_ncnn, _export_ncnn, libraries=("ncnn",)),
    "ghostsr": Engine(
        "ghostsr",
        partial(_load_torch, layout=torch.contiguous_format, plain=False),
        libraries=("torch", "ghostsr_ext.ops"),
    ),
}
"""By the name in tables. All but "ghostsr" run ``plain_networks.PlainNetwork``."""

REFERENCE = "torch, channels last"
