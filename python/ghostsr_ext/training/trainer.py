"""One optimisation step, and everything that the next one depends on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from ghostsr_ext.conversion.eigenbasis import EigenbasisAdam
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import ghost_layers
from ghostsr_ext.training.config import Config
from ghostsr_ext.training.data import Batch
from ghostsr_ext.training.distributed import Processes
from ghostsr_ext.training.losses import FeatureTap, feature_loss, pixel_loss
from ghostsr_ext.training.muon import MuonAdam
from ghostsr_ext.training.reselection import Forward, reselect
from ghostsr_ext.training.schedules import freeze_step, lr_factor, noisy, reselects, tau
from ghostsr_ext.training.shifts import freeze_as, learned, logits_of, set_selection

_COMPILED_TEMPERATURES = 4
"""Levels of tau in a compiled network, which is compiled again for each."""

_RENEWAL = 100
"""Steps from one look at the inputs of layers to the next."""

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """What one step found, still on the device.

    Attributes:
        loss: The minimised sum, mean over the batch and the processes.
        gradient_norm: Euclidean norm of all gradients before they are clipped.
        usable: Whether both are finite: 1 or 0. Where it is 0 the weights were left as they are on
            a CPU, and in fp16, whose scaler leaves out such steps. On other devices the step was
            taken, since looking first would wait for the device.
    """

    loss: Tensor
    gradient_norm: Tensor
    usable: Tensor


class Trainer:
    """Optimises a network by the steps of a configuration.

    Args:
        config: Configuration of the run.
        model: A network for values in 0..1, with its shifts started. It is changed in place.
        teacher: A network for values in 0..1, or None.
        device: Where to compute.
        processes: Who shares each batch.

    Attributes:
        model: The network.
        teacher: Who gives the wanted output, or None.
        step: Number of steps done.
    """

    def __init__(
        self,
        config: Config,
        model: SRModel,
        teacher: SRModel | None,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self._config = config
        self._device = device
        self._processes = processes
        self._steps = config.training.steps
        self._freeze_step = freeze_step(config.shifts, self._steps)
        self.step = 0
        self.model = self._placed(model).train()
        decay = config.training.ema_decay
        self._average = None if decay is None else AveragedModel(self.model)
        self._optimizer = self._new_optimizer()
        self._scheduler = LambdaLR(self._optimizer, self._lr_factor)
        self._scaler = torch.amp.GradScaler(
            device.type, enabled=config.training.precision == "fp16"
        )
        self._pixel_loss = pixel_loss(config.loss)
        self.teacher: nn.Module | None = None
        self._taps: tuple[FeatureTap, FeatureTap] | None = None
        if teacher is not None:
            teacher = self._placed(teacher).eval()
            teacher.requires_grad_(False)
            self.teacher = teacher
            if config.distillation.features:
                names = list(ghost_layers(self.model))
                self._taps = (FeatureTap(self.model, names), FeatureTap(teacher, names))
        self._network = self._wrapped()
        self._look_through_networks()

    @property
    def result(self) -> SRModel:
        """The network to measure and to export: the average where there is one."""
        if self._average is None:
            return self.model
        assert isinstance(self._average.module, SRModel)
        return self._average.module

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def tau(self) -> float:
        """The temperature of the next step."""
        step = self.step
        if self._config.training.compile:
            level = math.ceil((self._freeze_step or self._steps) / _COMPILED_TEMPERATURES)
            step -= step % level
        return tau(self._config.shifts, step, self._steps)

    def train_step(self, parts: Sequence[Batch]) -> StepResult:
        """Do one step.

        Args:
            parts: This process's share of the batch, in ``training.accumulation`` parts.

        Returns:
            What it found, on the device.
        """
        if self.step == self._freeze_step and self._learns_shifts:
            self._freeze_shifts()
        if self._learns_shifts:
            set_selection(self.model, self.tau, noisy(self._config.shifts, self.step, self._steps))
        if reselects(self._config.shifts, self.step, self._steps):
            self._reselect(parts)
        for parameter in self._parameters:
            parameter.grad = None
        loss = torch.zeros((), device=self._device)
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            with self._without_exchange() if not last else nullcontext():
                part_loss = self._forward(self._network, part).loss / len(parts)
                torch.autograd.backward(self._scaler.scale(part_loss))
            loss += part_loss.detach()
        loss = self._processes.mean(loss)
        self._renew_eigenbasis(parts)
        self._scaler.unscale_(self._optimizer)
        limit = self._config.training.clip_gradient
        if limit is None:
            norm = get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        else:
            norm = clip_grad_norm_(self._parameters, limit)
        usable = torch.isfinite(norm) & torch.isfinite(loss)
        if not self._scaler.is_enabled() and self._device.type == "cpu" and not bool(usable):
            return StepResult(loss, norm, usable)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._update_average()
        self.step += 1
        self._scheduler.step()
        return StepResult(loss, norm, usable)

    def state(self) -> dict[str, Any]:
        """Return what :meth:`load_state` needs to go on with the same bits."""
        return {
            "step": self.step,
            "architecture": self.model.config,
            "ghost_layers": {
                name: [layer.ghost_channels, layer.max_shift, layer.shift_scope, layer.affine]
                for name, layer in ghost_layers(self.model).items()
            },
            "learned": learned(self.model),
            "model": self.model.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to where :meth:`state` was called, in a trainer of the same configuration."""
        if not state["learned"] and learned(self.model):
            self._freeze_shifts()
        self.model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    def _placed(self, model: SRModel) -> SRModel:
        if self._config.training.channels_last:
            # The stubs of torch do not know this keyword of Module.to.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.to(self._device)

    def _lr_factor(self, step: int) -> float:
        return lr_factor(self._config.schedule, step, self._steps)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings = self._config.training
        logits = list(logits_of(self.model).values())
        shifting = {id(parameter) for parameter in logits}
        weights = [p for p in self.model.parameters() if id(p) not in shifting]
        groups: list[dict[str, Any]] = [{"params": weights}]
        if logits:
            factor = self._config.shifts.lr_factor
            groups.append({"params": logits, "lr": settings.lr * factor, "weight_decay": 0.0})
        kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "muon": partial(MuonAdam, self.model),
            "eigenbasis": partial(EigenbasisAdam, self.model),
        }
        return kinds[settings.optimizer](
            groups,
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        )

    def _renew_eigenbasis(self, parts: Sequence[Batch]) -> None:
        """Let the optimiser see the inputs of layers, oftener while they change quickly."""
        if not isinstance(self._optimizer, EigenbasisAdam):
            return
        early = 0 < self.step < _RENEWAL and self.step & (self.step - 1) == 0
        if self.step % _RENEWAL and not early and self._optimizer.ready:
            return
        inputs = torch.cat([part.inputs for part in parts]).to(self._device)
        self._optimizer.renew(lambda: self.model(inputs, parts[0].scale), mean=self._processes.mean)

    def _wrapped(self) -> nn.Module:
        network: nn.Module = self.model
        if self._processes.world_size > 1:
            with warnings.catch_warnings():
                # Later releases of torch have another name for broadcast_buffers.
                warnings.simplefilter("ignore", FutureWarning)
                network = DistributedDataParallel(
                    network,
                    device_ids=[self._device] if self._device.type == "cuda" else None,
                    # Buffers are tables that training never changes but in all processes alike.
                    broadcast_buffers=False,
                    # A step of one scale leaves the heads of the others without gradients.
                    find_unused_parameters=len(self.model.scales) > 1,
                )
        if self._config.training.compile:
            network = torch.compile(network)  # type: ignore[assignment]
        return network

    def _look_through_networks(self) -> None:
        """Look through the networks; in every step that would take a part of its time."""

        def tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
            return list(network.parameters()), list(network.buffers())

        self._learns_shifts = learned(self.model)
        self._parameters, self._buffers = tensors(self.model)
        self._averages, self._average_buffers = tensors(
            self._average.module if self._average is not None else nn.Module()
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average to the current weights, faster at first, or it would keep the start.

        It does what ``AveragedModel.update_parameters`` does, in fewer calls.
        """
        assert self._average is not None
        assert self._config.training.ema_decay is not None
        count = int(self._average.n_averaged)
        # The first average is the first weights themselves.
        decay = min(self._config.training.ema_decay, (1 + count) / (10 + count)) if count else 0.0
        torch._foreach_lerp_(self._averages, self._parameters, 1 - decay)
        if self._buffers:
            torch._foreach_copy_(self._average_buffers, self._buffers)
        self._average.n_averaged += 1

    def _without_exchange(self) -> Any:
        network = getattr(self._network, "_orig_mod", self._network)
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def _freeze_shifts(self) -> None:
        """Make tables of the shifts and forget what the optimiser knew of their logits."""
        if self._average is not None:
            freeze_as(self._average.module, self.model)
        freeze_as(self.model, self.model)
        for group in self._optimizer.param_groups[1:]:
            for parameter in group["params"]:
                self._optimizer.state.pop(parameter, None)
        del self._optimizer.param_groups[1:]
        done = self._scheduler.state_dict()
        self._scheduler = LambdaLR(self._optimizer, self._lr_factor)
        done["base_lrs"] = done["base_lrs"][:1]
        done["_last_lr"] = done["_last_lr"][:1]
        done["lr_lambdas"] = done["lr_lambdas"][:1]
        self._scheduler.load_state_dict(done)
        for group, lr in zip(self._optimizer.param_groups, done["_last_lr"], strict=True):
            group["lr"] = lr
        self._network = self._wrapped()
        self._look_through_networks()

    def _reselect(self, parts: Sequence[Batch]) -> None:
        """Choose sources and shifts again on half of the pictures, and check it on the others."""
        inputs = torch.cat([part.inputs for part in parts])
        targets = torch.cat([part.targets for part in parts])
        chosen, other = (
            Batch(inputs[half::2], targets[half::2], parts[0].scale) for half in (0, 1)
        )

        def forward() -> Forward:
            passed = self._forward(self.model, chosen)
            return replace(passed, loss=self._scaler.scale(passed.loss))

        reselect(
            self.model,
            forward,
            lambda: self._forward(self.model, other).loss,
            mean=self._processes.mean,
            seed=_noise_seed(self._config.training.seed, self.step),
        )

    def _forward(self, network: nn.Module, batch: Batch) -> Forward:
        settings = self._config.distillation
        inputs = batch.inputs.to(self._device, non_blocking=True)
        targets = batch.targets.to(self._device, non_blocking=True)
        if not self._config.training.channels_last:
            inputs = inputs.contiguous()
        # One noise a step, in all processes and all parts of a batch: they are one batch.
        seed = _noise_seed(self._config.training.seed, self.step)
        if self._device.type == "cpu":
            # What seeds the other devices too looks at the whole stack of calls.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        precision = _PRECISIONS[self._config.training.precision]
        reduced = precision is not torch.float32
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self._device.type, precision, enabled=reduced))
            features = None
            if self._taps is not None:
                features = [stack.enter_context(tap.recording()) for tap in self._taps]
            output = network(inputs, batch.scale).float()
            loss = self._pixel_loss(output, targets)
            if self.teacher is not None:
                with torch.no_grad():
                    wanted = self.teacher(inputs, batch.scale).float()
                loss = settings.target * loss + settings.output * self._pixel_loss(output, wanted)
                if features is not None:
                    loss = loss + settings.features * feature_loss(*features)
        return Forward(loss, output, targets)


def _noise_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint32)[0])
