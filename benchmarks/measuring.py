"""What the benchmark scripts share: interleaved runs, their ratios, conditions and reports."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext.benchmark import processor_name
from ghostsr_ext.files import atomic_write


class Clock(str, Enum):
    """What a run is timed by."""

    WALL = "wall"
    PROCESSOR = "processor"
    """Time that the process computed. On one thread, other jobs on the machine hardly change it;
    threads that wait for one another count as computing."""

    def now(self) -> float:
        """Return the reading in seconds."""
        return time.perf_counter() if self is Clock.WALL else time.process_time()


Threads = Annotated[int, typer.Option(min=1, help="Threads of torch.")]
Rounds = Annotated[int, typer.Option(min=1, help="Runs of every candidate.")]
ClockOption = Annotated[Clock, typer.Option(help="What a run is timed by.")]
JsonOutput = Annotated[Path | None, typer.Option(help="Write everything here.")]
MarkdownOutput = Annotated[Path | None, typer.Option(help="Replace a section of this page.")]


@dataclass(frozen=True)
class Ratio:
    """How one candidate's time compares with another's.

    Attributes:
        median: The median over rounds of the ratio within a round, which a load that changes from
            round to round meets on both sides.
        low: Lower quartile of those ratios.
        high: Upper quartile.
        fastest: The ratio of the fastest runs, which other work disturbed least.
    """

    median: float
    low: float
    high: float
    fastest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Compare runs with the runs of a reference in the same rounds.

    Args:
        seconds: Of the candidate, one run a round.
        reference: Of the reference, in the same rounds.
    """
    rounds = sorted(mine / other for mine, other in zip(seconds, reference, strict=True))
    quartiles = statistics.quantiles(rounds, n=4) if len(rounds) > 1 else rounds * 3
    return Ratio(
        statistics.median(rounds), quartiles[0], quartiles[2], min(seconds) / min(reference)
    )


def run_interleaved(
    functions: Mapping[str, Callable[[], object]], rounds: int, clock: Clock, warmup: int = 1
) -> dict[str, list[float]]:
    """Run functions in turns, in the opposite order every other round.

    Args:
        functions: By name.
        rounds: Rounds that count.
        clock: What to time by.
        warmup: Rounds before them.

    Returns:
        Seconds of each function's runs, one a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    for round_ in range(-warmup, rounds):
        for name in order:
            start = clock.now()
            functions[name]()
            if round_ >= 0:
                seconds[name].append(clock.now() - start)
        order.reverse()
    return seconds


def conditions(
    rounds: int, threads: int, clock: Clock = Clock.WALL, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Return what a measurement holds for."""
    return {
        "clock": clock.value,
        "dtype": str(dtype).removeprefix("torch."),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "rounds": rounds,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "allocator": {
            name: value for name, value in os.environ.items() if name.startswith("MALLOC_")
        },
    }


def conditions_text(values: Mapping[str, Any]) -> str:
    """Return ``conditions`` as one sentence."""
    allocator = "".join(f", {name}={value}" for name, value in values["allocator"].items())
    return (
        f"{values['threads']} of {values['cores']} cores ({values['processor']}), "
        f"{values.get('dtype', 'float32')}, torch {values['torch']}; {values['clock']} time, "
        f"medians over {values['rounds']} interleaved rounds (with quartiles), "
        f"load average {values['load']} at the start{allocator}."
    )


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Lay rows of texts out as a Markdown table; the first column is a label, others numbers."""
    heading = list(rows[0])
    lines = [
        "| " + " | ".join(heading) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(heading) - 1)) + "|",
        *("| " + " | ".join(row[name] for name in heading) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write a measurement, replacing an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def publish(
    text: str,
    section: str,
    markdown: Path | None,
    json_file: Path | None = None,
    content: Any = None,
) -> None:
    """Print a measurement; replace ``section`` of a page and write all values where asked for."""
    print(text)
    if json_file is not None:
        write_json(json_file, content)
    if markdown is not None:
        write_section(markdown, section, text)


def write_section(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of section ``name`` in a Markdown page.

    Raises:
        ValueError: The page has no such markers.
    """
    page = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{path}: found no section between {begin!r} and {end!r}")
    section = f"{begin}\n\n{text.strip()}\n\n{end}"
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(pattern.sub(lambda _: section, page), encoding="utf-8")
