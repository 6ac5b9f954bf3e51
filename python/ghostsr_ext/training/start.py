"""What a run starts from: its batches of patches, its networks, and its trainer."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.training.config import Config
from ghostsr_ext.training.data import BatchPlan, PatchBatches, open_cached
from ghostsr_ext.training.distributed import Processes
from ghostsr_ext.training.last_convolution import fit_last_convolution
from ghostsr_ext.training.network import build_dense, convert_network, load_unit_range
from ghostsr_ext.training.run_folder import RunFolder
from ghostsr_ext.training.shifts import start_shifts
from ghostsr_ext.training.trainer import Trainer
from ghostsr_ext.training.value_range import OriginalRange


def start_run(
    config: Config,
    run: RunFolder,
    group: Processes,
    device: torch.device,
    *,
    fresh: bool,
    decoded: Callable[[int, int], None],
) -> tuple[Trainer, OriginalRange, PatchBatches]:
    """Build what a run trains with; the first process makes the starting network for all of them.

    Args:
        config: Configuration of the run.
        run: Its folder, which gets the starting network and the teacher.
        group: The processes that share the work.
        device: Where this one trains.
        fresh: Whether a starting network that is there already is made again.
        decoded: Called with the pictures decoded and all of them.

    Returns:
        The trainer, the range of values that the network had before, and the batches.

    Raises:
        InputError: The network, a picture or the teacher is wrong.
    """
    dense, original = build_dense(config)
    batches = _make_batches(config, group, dense, decoded)
    if group.broadcast(fresh or not run.initial.exists()) and group.first:
        model = dense
        if config.model.fit_last:
            fit_last_convolution(dense, batches)
        if config.conversion.method != "none":
            model = convert_network(dense, config, batches)
            if config.distillation.teacher == "parent":
                save_model(dense, run.teacher, overwrite=True)
        save_model(model, run.initial, overwrite=True)
    group.barrier()
    model = load_model(run.initial)
    start_shifts(model, config.shifts, config.training.seed)
    trainer = Trainer(config, model, _teacher(config, run, model), device, group)
    return trainer, original, batches


def _teacher(config: Config, run: RunFolder, model: SRModel) -> SRModel | None:
    chosen = config.distillation.teacher
    if chosen is None:
        return None
    if chosen == "parent":
        return load_model(run.teacher)
    teacher, _ = load_unit_range(str(chosen))
    if not set(model.scales) <= set(teacher.scales) or teacher.color != model.color:
        raise InputError(
            f"distillation.teacher: {chosen} is for {teacher.scales} {teacher.color}, the "
            f"network for {model.scales} {model.color}"
        )
    return teacher


def _make_batches(
    config: Config, group: Processes, model: SRModel, decoded: Callable[[int, int], None]
) -> PatchBatches:
    stores = [
        open_cached(
            config.data.train,
            scale,
            config.data.patch,
            config.data.cache,
            sizes=config.data.sizes,
            on_unreadable=config.data.on_unreadable,
            progress=decoded,
        )
        for scale in model.scales
    ]
    plan = BatchPlan(
        seed=config.training.seed,
        batch_size=config.training.batch_size,
        accumulation=config.training.accumulation,
        rank=group.rank,
        world_size=group.world_size,
        patch=config.data.patch,
        augment=config.data.augment,
        recolor=config.data.recolor,
        sampling=config.data.sampling,
        candidates=config.data.candidates,
        color=model.color,
        enlarged=model.input_upscaled,
    )
    return PatchBatches(stores, plan)
