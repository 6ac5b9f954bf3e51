"""What a run starts from: its batches of patches and its networks."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import ghost_layers
from ghostsr_ext.training.config import Config
from ghostsr_ext.training.data import BatchPlan, PatchBatches, open_cached
from ghostsr_ext.training.distributed import Processes
from ghostsr_ext.training.last_convolution import fit_last_convolution
from ghostsr_ext.training.network import (
    ConversionListener,
    convert_network,
    load_unit_range,
)
from ghostsr_ext.training.run_folder import RunFolder
from ghostsr_ext.training.shifts import start_shifts


def start_networks(
    config: Config,
    run: RunFolder,
    group: Processes,
    device: torch.device,
    dense: SRModel,
    batches: PatchBatches,
    told: ConversionListener,
) -> tuple[SRModel, SRModel | None]:
    """Return the networks of a run; the first process makes the one that starts, for all of them.

    Where the run folder has the starting network already, it is the one.

    Args:
        config: Configuration of the run.
        run: Its folder, which gets the starting network and the parent.
        group: The processes that share the work.
        device: Where a polish is computed.
        dense: The network of ``config.model``, for values in 0..1.
        batches: Patches, for what is fitted to some.
        told: Is told how a conversion goes.

    Returns:
        The network to train and its teacher, if it has one.

    Raises:
        InputError: The teacher does not fit, or the conversion refuses the network or a picture.
    """
    chosen = config.distillation.teacher
    teacher = None
    if chosen not in (None, "parent"):
        teacher = _teacher(str(chosen), dense)
        if config.distillation.features:
            _check_features(_layers_to_convert(config, dense), dense, teacher)
    if group.broadcast(not run.initial.exists()) and group.first:
        model = dense
        if config.model.fit_last:
            fit_last_convolution(dense, batches)
        if config.conversion.method != "none":
            model = convert_network(dense, config, batches, device, run.polish, told)
            if chosen == "parent":
                save_model(dense, run.teacher, overwrite=True)
        save_model(model, run.initial, overwrite=True)
    group.wait_long()
    model = load_model(run.initial)
    start_shifts(model, config.shifts, config.training.seed)
    if chosen == "parent":
        teacher = load_model(run.teacher)
    if teacher is not None and config.distillation.features:
        names = list(ghost_layers(model))
        if not names:
            raise InputError("distillation.features: the network has no ghost layer to compare")
        _check_features(names, model, teacher)
    return model, teacher


def _teacher(path: str, model: SRModel) -> SRModel:
    teacher, _ = load_unit_range(path)
    if not set(model.scales) <= set(teacher.scales) or teacher.color != model.color:
        raise InputError(
            f"distillation.teacher: {path} is for {teacher.scales} {teacher.color}, the "
            f"network for {model.scales} {model.color}"
        )
    return teacher


def _layers_to_convert(config: Config, dense: SRModel) -> list[str]:
    """Return the names of those that become ghost layers or are, as far as they are known."""
    if config.conversion.method == "none":
        return list(ghost_layers(dense))
    return config.conversion.layers or dense.default_layers() or []


def _check_features(names: list[str], model: SRModel, teacher: SRModel) -> None:
    for name in names:
        own, other = (_channels_of(network, name) for network in (model, teacher))
        if own is not None and own != other:
            found = "has no such layer" if other is None else f"gives {other}"
            raise InputError(
                f"distillation.features: layer {name} gives {own} channels, and the teacher "
                f"{found}; its layers must be those of the network, or features 0"
            )


def _channels_of(network: SRModel, name: str) -> int | None:
    layer = dict(network.named_modules()).get(name)
    return getattr(layer, "out_channels", None)


def make_batches(
    config: Config, group: Processes, model: SRModel, decoded: Callable[[int, int], None]
) -> PatchBatches:
    """Return the patches of a run.

    Args:
        config: Configuration of the run.
        group: The processes that share each batch.
        model: The network that takes them.
        decoded: Called with the pictures decoded and all of them.

    Raises:
        InputError: A picture is wrong.
    """
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
