"""Networks that the package spandrel knows, in the form of the package's own.

Source: https://github.com/chaiNNer-org/spandrel (MIT).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.models.base import MAX_MULTIPLE, SRModel
from ghostsr_ext.models.locality import locality
from ghostsr_ext.text import printable

INSTALLATION = 'pip install "ghostsr[spandrel]"'

_LEAST_EXAMPLE = 16
# Those that may read the strength of the noise from one more channel, and spandrel's choice of it.
_DENOISERS, _NOISE = ("DnCNN", "DRUNet"), 15 / 255


class SpandrelNetwork(SRModel):
    """A network of one of spandrel's architectures.

    It enlarges like any other ``SRModel``: RGB or luma in 0..1, padded to the sizes that the
    architecture asks for, and cut back.

    Args:
        name: spandrel's name of the architecture, such as ``"SwinIR"``.
        tensors: State dict of the network in spandrel's form or a published one; its shapes say
            what the architecture's hyperparameters are.

    Attributes:
        network: The network itself, of spandrel's class.
        tags: What spandrel says about its size, such as ``"64nf"``.
        filters: Shape of the weight of each of its convolutions, by name, when it was built.

    Raises:
        InputError: The architecture is unknown, does not fit the tensors, or is none that makes one
            picture of one picture.
        GhostsrError: spandrel is not installed or cannot be imported.
    """

    architecture = "spandrel"

    def __init__(self, *, name: str, tensors: Mapping[str, Tensor]) -> None:
        registry = _registry()
        if name not in registry:
            raise InputError(f"architecture {printable(name)}: spandrel knows no such one")
        try:
            # Real values, wherever other networks are laid out: some are computed when it is built.
            with torch.device("cpu"):
                descriptor = registry[name].architecture.load(dict(tensors))
        except InputError:
            raise
        # Each architecture stumbles in its own way on tensors that do not fit.
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = printable(" ".join(line.strip() for line in lines[:2]))
            raise InputError(
                f"spandrel's {name} cannot be made of the tensors ({reason})"
            ) from error
        requirements = descriptor.size_requirements
        super().__init__(
            config={"name": name},
            scales=(descriptor.scale,),
            value_range=1.0,
            color=_color(name, descriptor),
            multiple=min(requirements.multiple_of, MAX_MULTIPLE),
        )
        if requirements.multiple_of > MAX_MULTIPLE:
            raise InputError(
                f"spandrel's {name}: takes sizes that are multiples of {requirements.multiple_of}; "
                f"up to {MAX_MULTIPLE} is allowed"
            )
        self.tags: tuple[str, ...] = tuple(descriptor.tags)
        self.network: nn.Module = descriptor.model
        self.filters = {
            name: tuple(layer.weight.shape)
            for name, layer in self.named_modules()
            if isinstance(layer, nn.Conv2d)
        }
        self._least = requirements.minimum
        self._square = requirements.square
        self._call: Callable[[nn.Module, Tensor], Tensor] = descriptor._call_fn
        first = next((m for m in self.network.modules() if isinstance(m, nn.Conv2d)), None)
        if name in _DENOISERS and first is not None and first.in_channels == self.channels + 1:
            # spandrel's own function makes the map for one picture alone.
            self._call = _with_noise_map

    @property
    def receptive_field(self) -> int:
        """How far all filters reach together; see :func:`ghostsr_ext.models.locality.locality`."""
        return locality(self).radius

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast the network; its layers keep the layout that its code bears."""
        kwargs.pop("memory_format", None)
        return super().to(*args, **kwargs)

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        """Map [N, C, h, w] to [N, C, scale * h, scale * w]."""
        height, width = image.shape[2:]
        # The architectures' own code takes views of maps, which not every layout allows.
        image = _padded(image.contiguous(), *self._size(height, width))
        output = self._call(self.network, image)
        return output[:, :, : height * scale, : width * scale]

    def example(self) -> Tensor:
        """Return noise of a size that the network takes, [1, C, h, h] in 0..1."""
        least = max(self._least, _LEAST_EXAMPLE)
        side = -(-least // self.multiple) * self.multiple
        generator = torch.Generator().manual_seed(0)
        return torch.rand(1, self.channels, side, side, generator=generator)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        height, width = max(height, self._least), max(width, self._least)
        return (max(height, width),) * 2 if self._square else (height, width)


def foreign_architecture(tensors: Mapping[str, Tensor]) -> str | None:
    """Return spandrel's name of the architecture that a state dict is of, or None.

    Raises:
        GhostsrError: spandrel is not installed or cannot be imported.
    """
    for support in _registry().architectures("detection"):
        if support.detect(dict(tensors)):
            return str(support.architecture.id)
    return None


def spandrel_is_installed() -> bool:
    """Whether spandrel is there, without importing it."""
    return importlib.util.find_spec("spandrel") is not None


def _registry() -> Any:
    try:
        from spandrel import MAIN_REGISTRY
    # Beside another build of torch, torchvision fails with whatever its libraries say.
    except Exception as error:
        raise GhostsrError(
            f"spandrel: cannot be imported ({error}); {INSTALLATION} installs it, with the "
            "torchvision that belongs to this torch"
        ) from error
    return MAIN_REGISTRY


def _color(name: str, descriptor: Any) -> Literal["rgb", "y"]:
    purpose = descriptor.purpose
    if purpose not in ("SR", "Restoration"):
        raise InputError(
            f"spandrel's {name} is for {purpose}; networks for SR and Restoration, which make one "
            "picture of one picture, are allowed"
        )
    channels = descriptor.input_channels, descriptor.output_channels
    if channels == (3, 3):
        return "rgb"
    if channels == (1, 1):
        return "y"
    raise InputError(
        f"spandrel's {name}: takes {channels[0]} channels and gives {channels[1]}; 3 and 3 (RGB) "
        "or 1 and 1 (luma) are allowed"
    )


def _with_noise_map(network: nn.Module, image: Tensor) -> Tensor:
    output: Tensor = network(torch.cat([image, torch.full_like(image[:, :1], _NOISE)], dim=1))
    return output


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    """Return ``image``, mirrored and then repeated at the bottom and on the right."""
    while image.shape[2:] != (height, width):
        rows, columns = image.shape[2:]
        below, right = min(height - rows, rows - 1), min(width - columns, columns - 1)
        mirrors = below > 0 or right > 0
        if not mirrors:
            below, right = height - rows, width - columns
        image = functional.pad(
            image, (0, right, 0, below), mode="reflect" if mirrors else "replicate"
        )
    return image
