"""``ghostsr train``: training of dense and GhostSR networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghostsr_cli.output import ProgressBar, as_cells, print_warnings_in_one_line, say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from ghostsr_ext.models import SRModel
    from ghostsr_ext.training import Config, RunResult
    from ghostsr_ext.training.observers import TrainingProgress
    from ghostsr_ext.training.run_folder import RunFolder
    from ghostsr_ext.training.validation import Measurement


def train_command(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CONFIG",
            help="A TOML file, and others whose values replace its own. None is needed with "
            "--resume, or with --init and --data.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        # torchrun takes --run for a short form of options of its own.
        typer.Option(
            "--run-folder",
            "--run",
            metavar="DIR",
            help="Folder of the run; by default runs/ and the name of CONFIG. (Under torchrun "
            "write --run-folder: it takes --run for an option of its own.)",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in that folder from its last checkpoint."
        ),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a value of the configuration, such as training.lr=1e-4. May be given "
            "several times.",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Set model.init: the network to start from."),
    ] = None,
    convert: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="Set conversion.method: how MODEL is converted before training."
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            metavar="PART",
            help="Set conversion.ghost_ratio: the part of the channels that is made by shifting, "
            "such as 0.5.",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Set data.train: pictures to train on. May be given several times."
        ),
    ] = None,
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Set validation.sets: pictures to measure PSNR on. May be given several times.",
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of CONFIG and exit.")
    ] = False,
) -> None:
    """Train a network, or convert one and train it.

    The run folder gets best.safetensors, final.safetensors, checkpoints, a log and config.toml with
    every default. Started by torchrun, all its processes share the work.
    """
    from ghostsr_ext.training import config_schema, train

    if schema:
        typer.echo(json.dumps(config_schema(), indent=2))
        return
    named = [
        *_named("model.init", init),
        *_named("conversion.method", convert),
        *_named("conversion.ghost_ratio", ratio),
        *_named("data.train", data),
        *_named("validation.sets", validation),
    ]
    print_warnings_in_one_line()
    settings, folder = _settings(configs or [], run, resume, [*named, *(overrides or [])])
    result = train(settings, folder, resume=resume, observers=[_Terminal])
    _report(result)


def _named(key: str, value: Any) -> list[str]:
    if value is None or value == []:
        return []
    if isinstance(value, list):
        return [f"{key}={json.dumps([str(entry) for entry in value])}"]
    return [f"{key}={json.dumps(value if isinstance(value, float) else str(value))}"]


def _settings(
    configs: Sequence[Path], run: Path | None, resume: bool, overrides: Sequence[str]
) -> tuple[Config, Path]:
    from ghostsr_ext.errors import InputError
    from ghostsr_ext.training import config_from_values, read_config
    from ghostsr_ext.training.run_folder import RunFolder

    if run is None and not configs:
        raise InputError("--run-folder DIR: is needed where there is no CONFIG")
    if configs:
        name = "_".join(config.stem for config in configs)
        settings = read_config(configs[0], overrides, more=configs[1:])
        return settings, run or Path("runs") / name
    assert run is not None
    if resume:
        RunFolder(run).existing()
        return read_config(RunFolder(run).config, overrides), run
    return config_from_values({}, "options", overrides), run


def _report(result: RunResult) -> None:
    from ghostsr_ext.torchrun import place

    if place().rank != 0:
        return
    if result.best_psnr is not None:
        say(f"best: {result.best_psnr:.3f} dB at step {result.best_step}")
    say(f"networks: {result.folder}/")


class _Terminal:
    """Shows one progress bar, and a line for each measurement."""

    def __init__(self, run: RunFolder, config: Config) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        from ghostsr_ext.text import printable

        self._bar: Bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(printable(run.path.name), figures="")
        self._conversion: ProgressBar | None = None

    def decoded(self, done: int, total: int) -> None:
        """Show how far the decoding of pictures is."""
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total, figures="pictures decoded")

    def converting(self, done: int, total: int, what: str) -> None:
        """Show how far the conversion is, in lines where standard error is no terminal."""
        if self._conversion is None:
            # A bar that was never shown leaves an empty line.
            if self._bar.live.is_started:
                self._bar.stop()
            self._conversion = ProgressBar()
            self._conversion.start()
        self._conversion.show(done, total, what)

    def noted(self, line: str) -> None:
        """Print what becomes of a polish."""
        say(line)

    def started(self, step: int, steps: int) -> None:
        """Show the bar of the steps."""
        self._end_conversion()
        self._bar.reset(self._task, completed=step, total=steps, figures="")
        self._bar.start()

    def stepped(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step)

    def progressed(self, progress: TrainingProgress, model: SRModel) -> None:
        """Show loss, learning rate and speed."""
        speed = f"{progress.images_per_second:.1f} img/s"
        figures = f"loss {progress.loss:.5f}  lr {progress.lr:.1e}  {speed}"
        self._bar.update(self._task, figures=figures)

    def measured(
        self, step: int, measurements: Sequence[Measurement], best: bool, model: SRModel
    ) -> None:
        """Print what was measured."""
        figures = "  ".join(
            f"{entry.dataset} x{entry.scale} {entry.psnr:.3f} dB" for entry in measurements
        )
        line = f"step {step}: {figures}{'  (best)' if best else ''}"
        self._bar.console.print(*as_cells([line]))

    def finished(self) -> None:
        """Remove the bar."""
        self._end_conversion()
        self._bar.stop()

    def _end_conversion(self) -> None:
        if self._conversion is not None:
            self._conversion.stop()
            self._conversion = None
