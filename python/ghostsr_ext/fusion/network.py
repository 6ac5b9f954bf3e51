"""Fusing a network: its layers, what follows them, and the layout of its maps."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.fusion.examples import Call, agree, copied, example_calls, of_another_size
from ghostsr_ext.fusion.fusion_report import FusionReport
from ghostsr_ext.fusion.layers import FusedLayer, become_fused, obstacle
from ghostsr_ext.fusion.layout import prefer_channels_last
from ghostsr_ext.fusion.recording import Sample, Uses, record_samples, record_uses
from ghostsr_ext.fusion.region import Region
from ghostsr_ext.fusion.rewriting import FusedModule
from ghostsr_ext.fusion.tracing import NotTraceableError, shadow, trace_module
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import FusedConv2d

Model = TypeVar("Model", bound=nn.Module)


@torch.inference_mode(False)
def fuse(module: Model, example: Any = None) -> Model:
    """Return a copy of any network that computes the same on fused layers.

    Each ``nn.Conv2d`` becomes a ``FusedConv2d`` with the same parameters. ReLU, LeakyReLU and PReLU
    behind a convolution and the map that is added to its output, scaled or not, are folded into it;
    concatenations that repeat one another, as those of dense blocks, share one growing map where no
    gradients are recorded. Maps are channels_last inside, whatever the caller gives, and come back
    in the layout of the input.

    What follows a convolution is found by ``torch.fx``, in the largest modules that can be traced,
    and every rewritten module is run beside the original on ``example``: where outputs differ by
    more than rounding, the module stays as it was, with fused layers alone. Such modules keep their
    class (by a subclass), their submodules and the keys of their state dict. Convolutions that
    carry hooks or parametrizations, and subclasses of ``nn.Conv2d``, are left alone.

    Args:
        module: The network; it is not changed. It may be in training or evaluation mode, dense or
            converted.
        example: An input of the network, or a tuple of the positional arguments of its ``forward``;
            by default noise of 16 x 16 pixels with the channels of the first convolution.

    Returns:
        The fused copy. Its ``fusion_report``, a :class:`FusionReport`, says how much was done and
        why the rest was left. Arguments of ``forward`` that ``example`` leaves out cannot be given
        to it any more where the network itself was rewritten, and numbers that ``forward`` takes
        from attributes are those of now.

    Raises:
        InputError: ``module`` cannot be copied, or cannot be run on the given ``example``.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"module: found {type(module).__name__}; an nn.Module is needed")
    # Old weight normalisations keep what they compute, with its history, which does not copy.
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        fused = copy.deepcopy(module, memo)
    # Modules may hold anything that does not copy: open files, tensors inside a graph, ...
    except Exception as error:
        raise InputError(f"module: cannot be copied ({error})") from error
    fuse_in_place(fused, example)
    return fused


@torch.inference_mode(False)
@torch.no_grad()
def fuse_in_place(module: nn.Module, example: Any = None) -> FusionReport:
    """Fuse a network itself; see :func:`fuse`.

    Returns:
        What was done; also in the network's ``fusion_report``.

    Raises:
        InputError: It cannot be run on the given ``example``.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        report = _Fusion(module, example).run()
    finally:
        for part, training in modes.items():
            part.training = training
    module.fusion_report = report  # type: ignore[assignment]
    return report


class _Fusion:
    def __init__(self, model: nn.Module, example: Any) -> None:
        self.model = model
        self.left: dict[str, str] = {}
        self.done: list[Region] = []
        self.calls: list[Call] = []
        self.uses: dict[int, Uses] = {}
        self.example = example

    def run(self) -> FusionReport:
        expected = self._run_original()
        for name, layer in self.model.named_modules():
            if isinstance(layer, nn.Conv2d) and not isinstance(layer, FusedConv2d):
                reason = obstacle(layer)
                if reason is None:
                    become_fused(layer)
                else:
                    self.left[name] = reason
        if expected and _has_layers(self.model):
            self._rewrite()
            self._convert_layout(expected)
        return FusionReport(
            layers=sum(isinstance(m, FusedLayer) for m in self.model.modules()),
            activations=sum(region.activations for region in self.done),
            residuals=sum(region.residuals for region in self.done),
            stacked=sum(region.stacked for region in self.done),
            rewritten=tuple(region.name for region in self.done),
            left=dict(sorted(self.left.items())),
        )

    def _run_original(self) -> list[Any]:
        """Return what the network makes of an example; nothing where it cannot be run."""
        failure: tuple[str, Exception] | None = None
        for calls in example_calls(self.model, self.example):
            try:
                self.uses, outputs = record_uses(self.model, calls)
            # Whatever the network's own code stumbles on.
            except Exception as error:
                shapes = [list(v.shape) for v in calls[0].positional if isinstance(v, Tensor)]
                failure = f"cannot be run on {shapes} ({_first_line(error)})", error
            else:
                self.calls = calls
                return outputs
        if failure is not None:
            if self.example is not None:
                raise InputError(f"example: the network {failure[0]}") from failure[1]
            self.left[""] = f"{failure[0]}; pass an example"
        return []

    def _rewrite(self) -> None:
        """Rewrite the largest modules that can be, round by round."""
        self.shadow = shadow(self.model)
        self.names = {module: name for name, module in self.model.named_modules()}
        self.owners: dict[int, int] = {}
        for module in self.model.modules():
            for parameter in module._parameters.values():
                self.owners[id(parameter)] = self.owners.get(id(parameter), 0) + 1
        names = [""]
        while regions := self._regions(names):
            names = []
            samples = self._samples([region.module for region in regions])
            for region in regions:
                reason = _try(region, samples[id(region.module)])
                if reason is not None:
                    self.left[region.name] = reason
                    names.extend(self._children(region.name))
                    continue
                self.done.append(region)
                for name, why in region.opaque.items():
                    whole_name = _join(region.name, name)
                    if _has_layers(self.model.get_submodule(whole_name)):
                        self.left.setdefault(whole_name, why)
                        names.extend(self._children(whole_name))

    def _regions(self, names: list[str]) -> list[Region]:
        """Trace the largest modules at or below ``names`` that can be traced."""
        regions: list[Region] = []
        waiting = list(names)
        while waiting:
            name = waiting.pop(0)
            module = self.model.get_submodule(name)
            if (
                isinstance(module, FusedLayer | FusedModule)
                or not _has_layers(module)
                or self.names[module] != name
            ):
                continue
            try:
                regions.append(self._trace(name, module))
            except NotTraceableError as error:
                if str(error):
                    self.left[name] = str(error)
                waiting.extend(self._children(name))
        return regions

    def _trace(self, name: str, module: nn.Module) -> Region:
        uses = self.uses[id(module)]
        inside = [self.uses[id(part)] for part in module.modules() if part is not module]
        if not uses.callers or not all(part.are_within(module) for part in inside):
            # A container whose parts are called by others.
            raise NotTraceableError("")
        (arguments, *others) = set(uses.arguments)
        if others or arguments is None:
            raise NotTraceableError("its forward takes arguments of varying number")
        if "forward" in vars(module):
            raise NotTraceableError("its forward was replaced")
        graph, opaque = trace_module(self.shadow.get_submodule(name), arguments)
        return Region(name, module, arguments, graph, opaque, self.uses, self.owners)

    def _samples(self, modules: list[nn.Module]) -> dict[int, list[Sample]]:
        """Return calls of modules, of the example's size and of another one."""
        found: dict[int, list[Sample]] = {id(module): [] for module in modules}
        for call in self.calls:
            for key, sample in record_samples(self.model, modules, call).items():
                found[key].append(sample)
            other = of_another_size(call)
            if other is None:
                continue
            try:
                samples = record_samples(self.model, modules, other)
            # Not every network takes another size.
            except Exception:
                continue
            for key, sample in samples.items():
                found[key].append(sample)
        return found

    def _children(self, name: str) -> list[str]:
        module = self.model.get_submodule(name)
        return [_join(name, child) for child, _ in module.named_children()]

    def _convert_layout(self, expected: list[Any]) -> None:
        """Let a network that was not rewritten compute in channels_last."""
        if isinstance(self.model, FusedModule | SRModel | FusedLayer):
            return

        def runs_alike() -> bool:
            return all(map(agree, [call.run(self.model) for call in self.calls], expected))

        reason = prefer_channels_last(self.model, runs_alike)
        reasons = [text for text in (self.left.get(""), reason) if text]
        if reasons:
            self.left[""] = "; ".join(reasons)


def _try(region: Region, samples: list[Sample]) -> str | None:
    """Rewrite a module; return why it was left as it was."""
    try:
        region.fuse(samples)
        for sample in samples:
            positional, named = copied((sample.call.positional, dict(sample.call.named)))
            output = region.module(*positional, **named)
            found = output, (positional, named)
            if not agree(found, (sample.output, sample.arguments)):
                raise NotTraceableError("what was traced computes something else")
    # The graph may meet what tracing could not foresee.
    except Exception as error:
        region.undo()
        return _first_line(error)
    return None


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(part, FusedLayer) for part in module.modules())


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
