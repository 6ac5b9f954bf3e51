"""Compare this package with the engines that a network could be exported to instead.

Dense and ghost networks for x2, Real-ESRGAN's for x4, with the same random weights run in torch,
ONNX Runtime, OpenVINO, ncnn and here, on the same number of threads. Every engine has a process of
its own, which computes only when it is its turn: one run of each, then the next round in the
opposite order. Outputs are compared with those of torch. Peak memory is that of an engine's process
beyond its imported libraries. An engine that fails has its reason in the table.

    pip install '.[engines]'
    python benchmarks/engines.py --markdown docs/speed.md --picture docs/speed/engines.svg
    python benchmarks/engines.py --models edsr_baseline --engines ncnn,ghostsr --rounds 3 --size 48
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from engine_adapters import ENGINES, REFERENCE, Picture, Task
from measuring import (
    Clock,
    ClockOption,
    JsonOutput,
    MarkdownOutput,
    Rounds,
    Threads,
    conditions,
    conditions_text,
    markdown_table,
    ratio,
    write_json,
    write_section,
)
from plain_networks import usual_scale, usual_size

MEBIBYTE = 1 << 20
# Threads of an engine may wait in a loop for a while after a run.
PAUSE_SECONDS = 0.05

_processes = multiprocessing.get_context("spawn")


def _memory(field: str) -> int:
    """Return a field of this process's memory, such as VmRSS, in bytes; 0 where unknown."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def _export(connection: Connection, engine: str, task: Task, _: Clock) -> None:
    try:
        _silence()
        export = ENGINES[engine].export
        if export is not None:
            export(task)
        connection.send(None)
    except BaseException as error:
        connection.send(_reason(error))


def _silence() -> None:
    """Drop what exporters print, native code included."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)


def _serve(connection: Connection, engine: str, task: Task, clock: Clock) -> None:
    """Load a network, then run it whenever asked to and answer with the time that it took."""
    try:
        picture = task.picture()
        for library in ENGINES[engine].libraries:
            importlib.import_module(library)
        before = _memory("VmRSS")
        enlarge = ENGINES[engine].load(task)
        connection.send(enlarge(picture))
        while connection.recv():
            start = clock.now()
            enlarge(picture)
            connection.send(clock.now() - start)
        connection.send(max(0, _memory("VmHWM") - before))
    except BaseException as error:
        connection.send(_reason(error))


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


class EngineError(Exception):
    """An engine could not do what it was asked to; the message says why."""


class Worker:
    """An engine with one network, in a process of its own."""

    def __init__(self, engine: str, task: Task, clock: Clock, limit: float) -> None:
        self.engine = engine
        self.task = task
        self.clock = clock
        self.limit = limit
        self.seconds: list[float] = []
        self._process: Any = None
        self._connection: Connection

    def start(self) -> Picture:
        """Export and load the network; return the first output."""
        if ENGINES[self.engine].export is not None:
            self._spawn(_export)
            self._receive()
            self._process.join()
        self._spawn(_serve)
        return np.asarray(self._receive())

    def run(self) -> None:
        """Time one run."""
        self._connection.send(True)
        self.seconds.append(float(self._receive()))

    def stop(self) -> int:
        """Let the process end; return its peak memory."""
        self._connection.send(False)
        memory = int(self._receive())
        self._process.join()
        return memory

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _spawn(self, target: Any) -> None:
        self._connection, other = _processes.Pipe()
        arguments = (other, self.engine, self.task, self.clock)
        self._process = _processes.Process(target=target, args=arguments, daemon=True)
        self._process.start()
        other.close()

    def _receive(self) -> Any:
        try:
            if not self._connection.poll(self.limit):
                raise EngineError(f"no answer in {self.limit:.0f} s")
            answer = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise EngineError(f"the process ended with code {self._process.exitcode}") from error
        if isinstance(answer, str):
            raise EngineError(answer)
        return answer


def _relative_difference(output: Picture, expected: Picture) -> float:
    if output.shape != expected.shape:
        raise EngineError(f"the output has shape {output.shape}, torch's {expected.shape}")
    difference = np.sqrt(np.mean(np.square(output.astype(np.float64) - expected)))
    return float(difference / expected.std())


def measure(
    preset: str,
    engines: Sequence[str],
    size: int,
    rounds: int,
    threads: int,
    clock: Clock,
    limit: float,
) -> list[dict[str, Any]]:
    """Measure a network, dense and ghost, in some engines; return the rows as JSON values."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = [Task(preset, ghost, size, threads, Path(folder)) for ghost in (False, True)]
        workers = [Worker(engine, task, clock, limit) for task in tasks for engine in engines]
        rows = [_new_row(worker) for worker in workers]
        try:
            _run_all(workers, rows, rounds)
        finally:
            for worker in workers:
                worker.kill()
    reference = next(row["seconds"] for row in rows if row["engine"] == REFERENCE)
    for row in rows:
        if row["error"] is None and len(reference) == len(row["seconds"]) > 0:
            row["ratio"] = asdict(ratio(row["seconds"], reference))
    return rows


def _new_row(worker: Worker) -> dict[str, Any]:
    return {
        "network": worker.task.preset,
        "form": worker.task.form,
        "size": worker.task.size,
        "engine": worker.engine,
        "version": ENGINES[worker.engine].version,
        "ratio": None,
        "seconds": worker.seconds,
        "peak_memory": None,
        "difference": None,
        "error": None,
    }


def _run_all(workers: list[Worker], rows: list[dict[str, Any]], rounds: int) -> None:
    expected: dict[str, Picture] = {}
    pairs = list(zip(workers, rows, strict=True))
    for worker, row in pairs:
        try:
            output = worker.start()
            if worker.engine == REFERENCE:
                expected[worker.task.form] = output
            if worker.task.form in expected:
                row["difference"] = _relative_difference(output, expected[worker.task.form])
                if not row["difference"] <= 1e-3:
                    raise EngineError(f"the output differs by {row['difference']:.2g}")
        except EngineError as error:
            row["error"] = str(error)
            worker.kill()
    for round_ in range(rounds):
        for worker, row in reversed(pairs) if round_ % 2 else pairs:
            if row["error"] is None:
                time.sleep(PAUSE_SECONDS)
                try:
                    worker.run()
                except EngineError as error:
                    row["error"] = str(error)
                    worker.kill()
    for worker, row in pairs:
        if row["error"] is None:
            try:
                row["peak_memory"] = worker.stop()
            except EngineError as error:
                row["error"] = str(error)


def report(rows: list[dict[str, Any]]) -> str:
    """Lay the rows of one network out as a Markdown table, one row an engine."""
    table = []
    for engine in dict.fromkeys(row["engine"] for row in rows):
        line = {"engine": engine}
        for form in ("dense", "ghost"):
            row = next(row for row in rows if row["engine"] == engine and row["form"] == form)
            times = row["ratio"]
            line[f"{form}: time"] = (
                f"failed: {row['error']}"
                if row["error"] is not None
                else "-"
                if times is None
                else f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})"
            )
            line[f"{form}: fastest"] = "-" if times is None else f"{times['fastest']:.2f}"
            memory, difference = row["peak_memory"], row["difference"]
            line[f"{form}: MiB"] = "-" if memory is None else f"{memory / MEBIBYTE:.0f}"
            line[f"{form}: difference"] = "-" if difference is None else f"{difference:.1e}"
        table.append(line)
    return markdown_table(table)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios of all networks as bars, one panel a network."""
    import matplotlib

    matplotlib.use("Agg")
    from ghostsr_ext.files import atomic_write
    from matplotlib import pyplot

    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, panels = pyplot.subplots(
        1, len(networks), figsize=(3.2 * len(networks) + 1.2, 3.2), squeeze=False, sharey=True
    )
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    for panel, network in zip(panels[0], networks, strict=True):
        for offset, form, color in ((-0.2, "dense", "#b0b0b0"), (0.2, "ghost", "#2b6cb0")):
            for position, engine in enumerate(engines):
                times = next(
                    row["ratio"]
                    for row in rows
                    if (row["network"], row["form"], row["engine"]) == (network, form, engine)
                )
                if times is not None:
                    label = form if position == 0 else None
                    panel.barh(position + offset, times["median"], 0.38, color=color, label=label)
                    panel.text(
                        times["median"], position + offset, f" {times['median']:.2f}", va="center"
                    )
        size = next(row["size"] for row in rows if row["network"] == network)
        panel.set_title(f"{network} x{usual_scale(network)}, {size}x{size}")
        panel.set_yticks(range(len(engines)), engines)
        panel.set_xlabel("time, dense in torch = 1")
        panel.margins(x=0.2)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].invert_yaxis()
    panels[0][-1].legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, overwrite=True) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata={"Date": None})


def _chosen(names: str) -> list[str]:
    if names == "all":
        return list(ENGINES)
    wanted = [name.strip() for name in names.split(";" if ";" in names else ",")]
    matching = {
        name for name in ENGINES for part in wanted if name.lower().startswith(part.lower())
    }
    unknown = [
        part for part in wanted if not any(n.lower().startswith(part.lower()) for n in ENGINES)
    ]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]}: unknown; known are {'; '.join(ENGINES)}")
    return [name for name in ENGINES if name in matching or name == REFERENCE]


def main(
    models: Annotated[str, typer.Option(help="Presets, separated by commas.")] = (
        "edsr_baseline,edsr,carn,carn_m,rdn"
    ),
    engines: Annotated[
        str,
        typer.Option(
            help="Beginnings of engines' names, separated by commas (semicolons where a name has "
            "a comma). Torch, channels last, always takes part."
        ),
    ] = "all",
    rounds: Rounds = 9,
    size: Annotated[
        int, typer.Option(help="Height and width of the small picture; 0: 128, for edsr 96.")
    ] = 0,
    threads: Threads = 2,
    clock: ClockOption = Clock.WALL,
    limit: Annotated[float, typer.Option(help="Seconds to wait for one answer.")] = 900,
    json: JsonOutput = None,
    markdown: MarkdownOutput = None,
    section: Annotated[str, typer.Option(help="Which section.")] = "engines",
    picture: Annotated[Path | None, typer.Option(help="Draw the ratios (.svg, .png).")] = None,
) -> None:
    """Measure, print tables, and write what is asked for."""
    surroundings = conditions(rounds, threads, clock)
    chosen = _chosen(engines)
    rows: list[dict[str, Any]] = []
    sections = []
    for preset in models.split(","):
        pixels = size or usual_size(preset)
        measured = measure(preset, chosen, pixels, rounds, threads, clock, limit)
        rows += measured
        reference = next(row["seconds"] for row in measured if row["engine"] == REFERENCE)
        unit = f", {statistics.median(reference) * 1e3:.0f} ms" if reference else ""
        sections.append(
            f"### {preset} x{usual_scale(preset)}, {pixels}x{pixels}\n\n{report(measured)}\n"
            f"Time beside the dense network in {REFERENCE}{unit}.\n"
        )
        print(sections[-1], flush=True)
    versions = ", ".join(f"{name} {ENGINES[name].version}" for name in chosen)
    text = "\n".join([*sections, f"{conditions_text(surroundings)} Engines: {versions}.\n"])
    if json is not None:
        write_json(json, {"conditions": surroundings, "rows": rows})
    if picture is not None:
        draw(rows, picture)
    if markdown is not None:
        if picture is not None:
            link = Path(os.path.relpath(picture, markdown.parent)).as_posix()
            text = f"![Ratios as bars]({link})\n\n{text}"
        write_section(markdown, section, text)


if __name__ == "__main__":
    typer.run(main)
