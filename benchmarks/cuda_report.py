"""What the compiler made of the CUDA kernels: registers, shared memory, occupancy, and two gates.

No kernel may spill registers or use a stack, and the kernels of the vector paths must move sixteen
bytes at a time. Needs no GPU: it reads the machine code in the built library with ``cuobjdump`` and
``nvdisasm`` (packages ``nvidia-cuda-cuobjdump`` and ``nvidia-cuda-nvdisasm``), and computes the
occupancy by the CUDA toolkit's own calculator.

    python benchmarks/cuda_report.py [LIBRARY] [--markdown docs/cuda.md]
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from measuring import MarkdownOutput, markdown_table, publish

THREADS = 256
RESERVED_BYTES = 1024

# The kernels of the vector paths.
VECTOR_KERNELS = {
    "shift_concat_rows",
    "shift_concat_pixels",
    "shift_concat_backward_rows",
    "shift_concat_backward_pixels",
}


@dataclass
class Kernel:
    """One kernel for one architecture."""

    name: str
    architecture: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    local_bytes: int
    wide_loads: int = 0
    wide_stores: int = 0
    local_accesses: int = 0

    @property
    def template(self) -> str:
        """Its name without template arguments."""
        return self.name.split("<")[0]


def find_tool(name: str) -> str:
    """Return the path of a CUDA binary utility, from PATH or from its Python package."""
    found = shutil.which(name)
    if found is not None:
        return found
    spec = importlib.util.find_spec("nvidia")
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        for candidate in sorted(Path(folder).glob(f"*/bin/{name}")):
            return str(candidate)
    raise SystemExit(f"{name}: not found; install the Python package nvidia-cuda-{name}")


def run(command: list[str], text: str | None = None) -> str:
    environment = dict(os.environ)
    # cuobjdump calls nvdisasm by name.
    environment["PATH"] = f"{Path(find_tool('nvdisasm')).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        command, input=text, capture_output=True, text=True, check=True, env=environment
    )
    return result.stdout


def architectures(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield each line of cuobjdump with the architecture that it speaks of."""
    architecture = 0
    for line in lines:
        match = re.match(r"arch = sm_(\d+)", line)
        if match:
            architecture = int(match[1])
        yield architecture, line


def read_usage(library: Path) -> dict[tuple[str, int], Kernel]:
    """Return the kernels in ``library`` by mangled name and architecture."""
    kernels = {}
    name = ""
    for architecture, line in architectures(
        run([find_tool("cuobjdump"), "-res-usage", str(library)]).splitlines()
    ):
        match = re.match(r"\s*Function (\S+):", line)
        if match:
            name = match[1]
        if "REG:" in line:
            usage = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            # From 8.0 on the figure holds what the driver adds to every block that uses any.
            reserved = RESERVED_BYTES if architecture >= 80 and usage["SHARED"] else 0
            kernels[name, architecture] = Kernel(
                name,
                architecture,
                usage["REG"],
                usage["SHARED"] - reserved,
                usage["STACK"],
                usage["LOCAL"],
            )
    return kernels


def count_accesses(library: Path, kernels: dict[tuple[str, int], Kernel]) -> None:
    """Count the wide and the local accesses in the machine code of ``kernels``."""
    kernel: Kernel | None = None
    for architecture, line in architectures(
        run([find_tool("cuobjdump"), "-sass", str(library)]).splitlines()
    ):
        match = re.match(r"\s*Function : (\S+)", line)
        if match:
            kernel = kernels[match[1], architecture]
        match = re.search(r"\*/\s+(?:@\S+ )?(LDG|STG|LDL|STL)(\S*)", line)
        if match and kernel is not None:
            wide = ".128" in match[2]
            kernel.wide_loads += match[1] == "LDG" and wide
            kernel.wide_stores += match[1] == "STG" and wide
            kernel.local_accesses += match[1] in ("LDL", "STL")


def plain_names(kernels: Iterable[Kernel]) -> None:
    """Replace mangled names by those in the source, such as ``shift_concat_rows<float>``."""
    kernels = list(kernels)
    names = run(["c++filt"], "\n".join(kernel.name for kernel in kernels)).splitlines()
    for kernel, name in zip(kernels, names, strict=True):
        signature = re.sub(r"ghostsr::(cuda::)?", "", name.removeprefix("void "))
        kernel.name = re.sub(r"\(int\)", "", signature.split("(ShiftConcat")[0])
        kernel.name = re.match(r"[\w:]+<[^(]*>", kernel.name)[0]  # type: ignore[index]


def failures(kernels: Iterable[Kernel]) -> list[str]:
    """Return what breaks the gates."""
    broken = []
    for kernel in kernels:
        place = f"{kernel.name} for sm_{kernel.architecture}"
        if kernel.stack_bytes or kernel.local_bytes or kernel.local_accesses:
            broken.append(
                f"{place}: {kernel.stack_bytes} bytes of stack, {kernel.local_bytes} of local "
                f"memory, {kernel.local_accesses} accesses to it; none is allowed"
            )
        if kernel.template in VECTOR_KERNELS:
            if not kernel.wide_stores:
                broken.append(f"{place}: no store of sixteen bytes")
            if not kernel.wide_loads:
                broken.append(f"{place}: no load of sixteen bytes")
    return broken


def toolkit_include() -> Path:
    """Return the include folder of the CUDA toolkit that nvcc belongs to."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit("nvcc: not found; the CUDA toolkit holds the occupancy calculator")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.cu"
        source.touch()
        dry_run = subprocess.run(
            [nvcc, "--dryrun", str(source)], capture_output=True, text=True, check=True
        )
    top = re.search(r"^#\$ TOP=(.*)$", dry_run.stderr, re.MULTILINE)
    assert top is not None
    return Path(top[1].strip()) / "include"


def occupancies(kernels: list[Kernel]) -> list[float]:
    """Return the share of a multiprocessor's threads that each kernel can keep busy."""
    source = Path(__file__).parent / "native" / "cuda_occupancy.cpp"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "cuda_occupancy"
        run(["c++", "-std=c++20", f"-I{toolkit_include()}", str(source), "-o", str(program)])
        lines = [
            f"{kernel.architecture // 10} {kernel.architecture % 10} {THREADS} "
            f"{kernel.registers} {kernel.shared_bytes}"
            for kernel in kernels
        ]
        return [float(line) for line in run([str(program)], "\n".join(lines)).splitlines()]


def table(kernels: list[Kernel]) -> str:
    """Return the registers and the occupancy of every kernel as a Markdown table."""
    rows: dict[str, dict[str, str]] = {}
    pairs = zip(kernels, occupancies(kernels), strict=True)
    for kernel, occupancy in sorted(pairs, key=lambda pair: (pair[0].name, pair[0].architecture)):
        row = rows.setdefault(kernel.name, {"kernel": f"`{kernel.name}`", "shared bytes": "0"})
        row["shared bytes"] = str(max(int(row["shared bytes"]), kernel.shared_bytes))
        row[f"sm_{kernel.architecture}"] = f"{kernel.registers} ({occupancy:.0%})"
    return markdown_table(list(rows.values()))


def built_library() -> Path:
    """Return the CUDA operators of the installed package."""
    spec = importlib.util.find_spec("ghostsr_ext._ops_cuda")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "ghostsr_ext has no CUDA operators; build with GHOSTSR_CUDA=ON or name a library"
        )
    return Path(spec.origin)


def main(
    library: Annotated[
        Path | None, typer.Argument(help="By default that of the installed package.")
    ] = None,
    markdown: MarkdownOutput = None,
) -> None:
    """Print the table, write what is asked for, and fail where a gate does."""
    library = library or built_library()
    usage = read_usage(library)
    count_accesses(library, usage)
    kernels = list(usage.values())
    if not kernels:
        raise SystemExit(f"{library}: holds no kernels")
    plain_names(kernels)
    text = table(kernels)
    publish(text, "kernels", markdown)
    broken = failures(kernels)
    for line in broken:
        print(line, file=sys.stderr)
    if broken:
        raise SystemExit(1)
    chosen = sorted({kernel.architecture for kernel in kernels})
    print(
        f"\n{len(kernels)} kernels for {', '.join(f'sm_{number}' for number in chosen)}: "
        "no spills, no stack, sixteen-byte accesses on the vector paths"
    )


if __name__ == "__main__":
    typer.run(main)
