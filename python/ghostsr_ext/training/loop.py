"""A run from its configuration to its networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import InputError
from ghostsr_ext.training.checkpoints import (
    random_states,
    read_newest_checkpoint,
    set_random_states,
    write_checkpoint,
)
from ghostsr_ext.training.config import Config
from ghostsr_ext.training.configuration_files import check_same_run, read_config, write_config
from ghostsr_ext.training.data import Batch
from ghostsr_ext.training.distributed import Processes, processes, restarted
from ghostsr_ext.training.divergence import DivergenceCheck
from ghostsr_ext.training.meter import Meter
from ghostsr_ext.training.network import build_dense
from ghostsr_ext.training.observers import JsonLog, Observer, TrainingProgress
from ghostsr_ext.training.products import save_product
from ghostsr_ext.training.run_folder import RunFolder
from ghostsr_ext.training.shifts import entropy, logits_of
from ghostsr_ext.training.start import make_batches, start_networks
from ghostsr_ext.training.trainer import Trainer
from ghostsr_ext.training.validation import Measurement, measure, score

ObserverFactory = Callable[[RunFolder, Config], Observer]


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        folder: Folder of the run.
        steps: Steps done in all.
        best_step: Step of ``best.safetensors``, or None without validation sets.
        best_psnr: Its PSNR on the first validation set, or None.
        measurements: Measurements of the network after the last step.
    """

    folder: Path
    steps: int
    best_step: int | None
    best_psnr: float | None
    measurements: tuple[Measurement, ...]


@torch.inference_mode(False)
def train(
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    observers: Sequence[ObserverFactory] = (),
) -> RunResult:
    """Train a network, alone or as one of the processes that ``torchrun`` has started.

    Args:
        config: The configuration of the run.
        folder: Folder of the run: ``config.toml``, ``initial.safetensors``, ``best.safetensors``,
            ``final.safetensors``, ``checkpoints/`` and ``log.jsonl`` go there.
        resume: Whether to go on with the run in ``folder``, by the same configuration; a run that
            has no checkpoint yet begins anew. Processes that ``torchrun`` has restarted always do.
        observers: Who is told about progress, beside the log; called in the first process.

    Returns:
        How it ended.

    Raises:
        InputError: The configuration, a picture, a network or the folder is wrong.
        GhostsrError: The loss is not finite or has diverged, or a file cannot be written.
    """
    run = RunFolder(Path(folder))
    resume = resume or restarted()
    with _threads(config.training.threads), processes(config.training.device) as (group, device):
        _check_shares(config, group)
        if not group.first:
            group.barrier()
            return _Run(config, run, group, device, resume, []).go()
        with run.locked():
            _prepare_folder(config, run, resume)
            group.barrier()
            told = [factory(run, config) for factory in observers]
            try:
                return _Run(config, run, group, device, resume, told).go()
            finally:
                for observer in told:
                    observer.finished()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_shares(config: Config, group: Processes) -> None:
    parts = group.world_size * config.training.accumulation
    if config.training.batch_size % parts:
        raise InputError(
            f"training.batch_size: {config.training.batch_size} is no multiple of "
            f"{group.world_size} processes x accumulation {config.training.accumulation}"
        )
    if (
        config.shifts.reselect_every is not None
        and config.training.batch_size < 2 * group.world_size
    ):
        raise InputError(
            f"training.batch_size: {config.training.batch_size} for {group.world_size} processes; "
            "shifts.reselect_every needs two patches or more for each, to check on one what was "
            "chosen on another"
        )


def _prepare_folder(config: Config, run: RunFolder, resume: bool) -> None:
    if resume:
        run.existing()
        check_same_run(read_config(run.config), config, f"run folder {run.path}")
        run.remove_leftovers()
    else:
        run.create()


class _Run:
    """The state of :func:`train`."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        group: Processes,
        device: torch.device,
        resume: bool,
        observers: list[Observer],
    ) -> None:
        self._config, self._run, self._group, self._device = config, run, group, device
        self._sets = [open_picture_set(path) for path in config.validation.sets]
        self._observers = observers
        if group.first and config.logging.tensorboard:
            from ghostsr_ext.training.tensorboard import TensorBoard

            self._observers.append(TensorBoard(run, config))
        state = self._read_checkpoint() if resume else None
        dense, self._value_range = build_dense(config)
        self._batches = make_batches(config, group, dense, self._decoded)
        for pictures in self._sets:
            for scale in dense.scales:
                pictures.pairs(scale)
        with self._beginning(resume):
            networks = start_networks(config, run, group, device, dense, self._batches, self)
            self._trainer = Trainer(config, *networks, device, group)
        if group.first:
            run.polish.unlink(missing_ok=True)
        self._best_psnr: float | None = None
        self._best_step: int | None = None
        self._divergence = DivergenceCheck(config.training, run.checkpoints)
        if state is not None:
            self._restore(state)
        if group.first:
            self._observers.insert(0, JsonLog(run.log, self._trainer.step))

    def go(self) -> RunResult:
        """Do all steps that are left."""
        settings = self._config
        steps = settings.training.steps
        for observer in self._observers:
            observer.started(self._trainer.step, steps)
        finished_before = self._trainer.step == steps
        measurements: list[Measurement] = []
        meter = Meter(settings.training.batch_size)
        for parts in meter.waiting(self._parts()):
            lr, tau = self._trainer.lr, self._trainer.tau
            result = self._trainer.train_step(parts)
            step = self._trainer.step
            due = step % settings.logging.every == 0 or step == steps
            saved = step % settings.checkpoints.every == 0 or step == steps
            measured = bool(self._sets) and (step % settings.validation.every == 0 or step == steps)
            if self._device.type == "cpu" or due or saved or measured:
                self._divergence.check(step, float(result.loss), bool(result.usable))
                meter.computed(float(result.loss))
            else:
                meter.computed(None)
            for observer in self._observers:
                observer.stepped(step)
            if due:
                self._tell(meter, float(result.gradient_norm), lr, tau)
            if measured:
                measurements = self._measure()
                meter.pause()
            if saved:
                self._write_checkpoint()
                meter.pause()
        if finished_before:
            measurements = measure(self._trainer.result, self._sets, self._group)
        if self._group.first:
            self._save(self._run.final, measurements)
        self._group.barrier()
        return RunResult(
            self._run.path,
            self._trainer.step,
            self._best_step,
            self._best_psnr,
            tuple(measurements),
        )

    def converting(self, done: int, total: int, what: str) -> None:
        """Pass on how far the conversion is."""
        for observer in self._observers:
            observer.converting(done, total, what)

    def noted(self, line: str) -> None:
        """Pass on what becomes of a polish."""
        for observer in self._observers:
            observer.noted(line)

    @contextmanager
    def _beginning(self, resume: bool) -> Iterator[None]:
        """Make the folder that of a run, unless it cannot begin and has no polish to go on with."""
        if resume or not self._group.first:
            yield
            return
        self._run.remove_start()
        write_config(self._config, self._run.config)
        try:
            yield
        except BaseException:
            if not self._run.polish.exists():
                self._run.config.unlink()
            raise

    def _decoded(self, done: int, total: int) -> None:
        for observer in self._observers:
            observer.decoded(done, total)

    def _parts(self) -> Iterator[list[Batch]]:
        """The parts of each step that is left."""
        settings = self._config
        parts = settings.training.accumulation
        workers = settings.data.workers
        loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=range(self._trainer.step * parts, settings.training.steps * parts),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),
        )
        share: list[Batch] = []
        for batch in loader:
            share.append(batch)
            if len(share) == parts:
                yield share
                share = []

    def _tell(self, meter: Meter, gradient_norm: float, lr: float, tau: float) -> None:
        logits = list(logits_of(self._trainer.model).values())
        reading = meter.take()
        progress = TrainingProgress(
            step=self._trainer.step,
            loss=reading.loss,
            gradient_norm=gradient_norm,
            lr=lr,
            tau=tau if logits else None,
            shift_entropy=sum(map(entropy, logits)) / len(logits) if logits else None,
            images_per_second=reading.images_per_second,
            data_share=reading.data_share,
            other_share=reading.other_share,
        )
        for observer in self._observers:
            observer.progressed(progress, self._trainer.model)

    def _measure(self) -> list[Measurement]:
        network = self._trainer.result
        measurements = measure(network, self._sets, self._group)
        psnr = score(measurements)
        best = self._best_psnr is None or psnr > self._best_psnr
        if best:
            self._best_psnr, self._best_step = psnr, self._trainer.step
            if self._group.first:
                self._save(self._run.best, measurements)
        for observer in self._observers:
            observer.measured(self._trainer.step, measurements, best, network)
        return measurements

    def _save(self, path: Path, measurements: Sequence[Measurement]) -> None:
        save_product(
            self._trainer.result,
            self._value_range,
            path,
            config=self._config,
            group=self._group,
            step=self._trainer.step,
            measurements=measurements,
        )

    def _read_checkpoint(self) -> dict[str, Any] | None:
        state = read_newest_checkpoint(self._run.checkpoints)
        if state is not None and state["world_size"] != self._group.world_size:
            raise InputError(
                f"run folder {self._run.path}: was trained by {state['world_size']} processes, now "
                f"there are {self._group.world_size}; start as many as before"
            )
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        own = self._trainer.state()
        for key in ("architecture", "ghost_layers"):
            if state[key] != own[key]:
                raise InputError(
                    f"run folder {self._run.path}: its checkpoint is of another network: "
                    f"{_difference(state[key], own[key])}"
                )
        self._trainer.load_state(state)
        self._best_psnr, self._best_step = state["best_psnr"], state["best_step"]
        self._divergence.load_state(state)
        set_random_states(state["random_states"][self._group.rank])

    def _write_checkpoint(self) -> None:
        random = self._group.gather(random_states())
        if self._group.first:
            state = {
                **self._trainer.state(),
                "best_psnr": self._best_psnr,
                "best_step": self._best_step,
                **self._divergence.state(),
                "random_states": random,
                "world_size": self._group.world_size,
            }
            write_checkpoint(self._run.checkpoints, state, self._config.checkpoints.keep)
        self._group.barrier()


def _difference(stored: dict[str, Any], own: dict[str, Any]) -> str:
    for key in sorted({*stored, *own}):
        if stored.get(key) != own.get(key):
            return f"{key} is {stored.get(key)} there and {own.get(key)} here"
    return "its layers differ"
