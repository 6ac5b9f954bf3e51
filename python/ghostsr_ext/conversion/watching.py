"""What one forward pass does with the convolutions of a network and with what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghostsr_ext.conversion.activations import Activation
from ghostsr_ext.nn import GhostConv2d

Convolution = nn.Conv2d | GhostConv2d

_UPSAMPLING = ("pixel_shuffle", "interpolate", "conv_transpose2d")
_ACTIVATIONS = {
    *("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "rrelu_"),
    *("elu", "elu_", "selu", "selu_", "celu", "celu_", "gelu", "silu", "silu_", "mish", "mish_"),
    *("hardswish", "hardswish_", "hardsigmoid", "hardtanh", "hardtanh_", "clamp", "clamp_"),
    *("sigmoid", "sigmoid_", "tanh", "tanh_", "softplus", "softsign", "tanhshrink", "logsigmoid"),
    *("softshrink", "hardshrink", "threshold", "threshold_", "clamp_min", "clamp_min_"),
}
# Attributes whose values are no part of a weight.
_REMARKS = {
    *("shape", "dtype", "device", "layout", "ndim", "is_cuda", "is_meta", "is_leaf"),
    *("requires_grad", "grad", "grad_fn", "_version", "_base", "names"),
}
_QUESTIONS = {
    *("size", "dim", "numel", "stride", "element_size", "data_ptr", "__len__", "is_contiguous"),
    *("is_floating_point", "is_complex", "get_device"),
}


@dataclass
class Call:
    """One call of one convolution.

    Attributes:
        name: The convolution.
        shape: Shape of its output, [N, C, H, W].
        feeds_upsampling: Whether a map with its number of channels is enlarged before another
            convolution runs.
        activation: All that reads its output, if that is one function of each element.
    """

    name: str
    shape: tuple[int, ...]
    feeds_upsampling: bool = False
    activation: Activation | None = None


@dataclass
class Watched:
    """What was seen.

    Attributes:
        calls: The calls of convolutions, in their order.
        handled: Convolutions whose weights or biases the network reads or writes outside of them.
    """

    calls: list[Call]
    handled: set[str]


def watch(model: nn.Module, names: Mapping[str, Convolution], run: Callable[[], object]) -> Watched:
    """Run a network and watch its convolutions.

    Args:
        model: The network.
        names: The convolutions to watch.
        run: Runs ``model``.
    """
    observer = _Observer(names)
    before = {name: list(_marks(module)) for name, module in names.items()}
    handles = []
    for name, module in names.items():
        handles.append(module.register_forward_pre_hook(observer.entering(name)))
        handles.append(module.register_forward_hook(observer.leaving(name)))
    for other in model.modules():
        if not any(isinstance(inner, Convolution | nn.Linear) for inner in other.modules()):
            handles.append(other.register_forward_pre_hook(observer.entering_other))
            handles.append(other.register_forward_hook(observer.leaving_other))
    try:
        with observer:
            run()
    finally:
        for handle in handles:
            handle.remove()
    changed = {name for name, module in names.items() if list(_marks(module)) != before[name]}
    return Watched(observer.finished(), observer.handled | changed)


def _marks(module: nn.Module) -> Iterator[tuple[int, int, int]]:
    """Yield what changes with any write to the parameters of a module."""
    for parameter in module.parameters(recurse=False):
        yield id(parameter), parameter.data_ptr(), parameter._version


@dataclass
class _Map:
    """The output of a convolution, or of a function of each element behind it."""

    tensor: Tensor
    readers: list[tuple[Activation, _Map] | None] = field(default_factory=list)

    def activation(self) -> Activation | None:
        """Compose the functions of which each is all that reads what is before it."""
        functions: list[Activation] = []
        here = self
        while len(here.readers) == 1 and here.readers[0] is not None:
            function, here = here.readers[0]
            functions.append(function)
        if not functions:
            return None

        def composed(maps: Tensor) -> Tensor:
            for function in functions:
                maps = function(maps)
            return maps

        return composed


class _Observer(TorchFunctionMode):
    def __init__(self, names: Mapping[str, Convolution]) -> None:
        super().__init__()
        self.handled: set[str] = set()
        self._owners = {
            id(parameter): name
            for name, module in names.items()
            for parameter in module.parameters(recurse=False)
        }
        self._calls: list[tuple[Call, _Map]] = []
        self._maps: dict[int, _Map] = {}
        self._inside: list[str] = []
        # What modules without convolutions that are running now were given.
        self._given: list[tuple[_Map | None, int]] = []

    def finished(self) -> list[Call]:
        for call, output in self._calls:
            call.activation = output.activation()
        return [call for call, _ in self._calls]

    def entering(self, name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._read(_tensors(inputs))
            self._inside.append(name)

        return hook

    def leaving(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
            self._inside.pop()
            self._maps[id(output)] = _Map(output)
            self._calls.append((Call(name, tuple(output.shape)), self._maps[id(output)]))

        return hook

    def entering_other(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        given = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Tensor) else None
        found = None if given is None else self._maps.get(id(given))
        self._given.append((found, 0 if given is None else given._version))

    def leaving_other(self, module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        given, version = self._given.pop()
        if given is None or any(outer is given for outer, _ in self._given):
            return
        if output is given.tensor and output._version == version:
            return
        self._pass_on(given, module, output, by_name=False)

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        read = list(_tensors((*args, *kwargs.values())))
        asked = name in _QUESTIONS or (
            name == "__get__" and getattr(func.__self__, "__name__", "") in _REMARKS
        )
        if name in _UPSAMPLING and self._calls and read:
            latest = self._calls[-1][0]
            if read[0].dim() == 4 and read[0].shape[1] == latest.shape[1]:
                latest.feeds_upsampling = True
        if not asked:
            for tensor in read:
                owner = self._owners.get(id(tensor))
                if owner is not None and owner not in self._inside:
                    self.handled.add(owner)
        result = func(*args, **kwargs)
        if asked or self._inside:
            return result
        if (
            name in _ACTIVATIONS
            and args
            and args[0] is read[0]
            and all(other.dim() <= 1 for other in read[1:])
            and id(read[0]) in self._maps
            and not self._is_given(self._maps[id(read[0])])
        ):
            rest, options = tuple(args[1:]), dict(kwargs)
            self._pass_on(
                self._maps[id(read[0])], lambda maps: func(maps, *rest, **options), result
            )
        else:
            self._read(read)
        return result

    def _is_given(self, found: _Map) -> bool:
        return any(given is found for given, _ in self._given)

    def _read(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            found = self._maps.get(id(tensor))
            if found is not None and not self._is_given(found):
                found.readers.append(None)

    def _pass_on(
        self, given: _Map, function: Activation, output: Any, *, by_name: bool = True
    ) -> None:
        del self._maps[id(given.tensor)]
        fits = isinstance(output, Tensor) and output.shape == given.tensor.shape
        if not fits or not (by_name or _is_elementwise(function, output)):
            given.readers.append(None)
            self._maps[id(given.tensor)] = given
            return
        if output is not given.tensor:
            self._maps[id(given.tensor)] = given
        behind = _Map(output)
        self._maps[id(output)] = behind
        given.readers.append((function, behind))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _is_elementwise(function: Activation, like: Tensor) -> bool:
    """Whether a change of one element changes no other one."""
    if like.dim() != 4:
        return False
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, like.shape[1], 3, 4, generator=generator).to(like)
    changed = maps.clone()
    changed[0, -1, 1, 2] += 1
    try:
        with torch._C.DisableTorchFunction():
            one, other = function(maps.clone()), function(changed.clone())
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    if one.shape != maps.shape:
        return False
    different = one != other
    different[0, -1, 1, 2] = False
    return not bool(different.any())
