"""What a reader finds out about a foreign state dict, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from ghostsr_ext.errors import InputError
from ghostsr_ext.text import printable


class Draft:
    """The network that a foreign state dict describes, as far as it is known.

    Args:
        tensors: The state dict.
        source: The file, for messages.

    Attributes:
        config: Architecture and hyperparameters, as in ``SRModel.config``.
        choices: Hyperparameters that the tensors do not show, each with its possible values, the
            usual one first; they are settled by trying them.
        evidence: One sentence for each decision: which keys decided what.
        file_names: The key in the file of each tensor of the network.
        constants: Tensors of the network that have no key in the file.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self._tensors = tensors
        self._source = source
        self._used: set[str] = set()
        self.config: dict[str, Any] = {}
        self.choices: dict[str, tuple[Any, ...]] = {}
        self.evidence: list[str] = []
        self.file_names: dict[str, str] = {}
        self.constants: dict[str, Tensor] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def count(self, pattern: str, first: int = 0) -> int:
        """Return how many keys ``pattern.format(number)`` there are in a row from ``first`` on."""
        number = first
        while pattern.format(number) in self._tensors:
            number += 1
        return number - first

    def filters(self, prefix: str) -> tuple[int, int, int, int]:
        """Return the shape [C_out, C_in / groups, kH, kW] of a convolution's weight.

        Raises:
            InputError: It is missing or has not four dimensions.
        """
        key = f"{prefix}.weight"
        if key not in self._tensors:
            raise InputError(f"{self._source}: lacks {key}")
        shape = self._tensors[key].shape
        if len(shape) != 4 or min(shape) < 1:
            raise InputError(
                f"{self._source}: tensor {key} has shape {list(shape)}; "
                "the four dimensions of a convolution's weight are needed"
            )
        return shape[0], shape[1], shape[2], shape[3]

    def conv(self, name: str, prefix: str, *, bias: bool = True) -> None:
        """Map the convolution ``name`` of the network to the keys under ``prefix`` in the file."""
        for part in ("weight", "bias") if bias else ("weight",):
            self.parameter(f"{name}.{part}", f"{prefix}.{part}")

    def parameter(self, name: str, key: str) -> None:
        """Map the tensor ``name`` of the network to a key in the file."""
        self.file_names[name] = key
        self._used.add(key)

    def keep_names(self) -> None:
        """Take the keys of the file for the names of the network, for state dicts of its class."""
        for key in self._tensors:
            self.parameter(key, key)

    def mean_shift(self, subtract: str, add: str) -> list[float] | None:
        """Read the mean color from two 1x1 convolutions, the first of the network and the last.

        Their biases also show the value range: the mean of pictures in 0..1 is at most 1, that of
        pictures in 0..255 is far above.

        Args:
            subtract: Prefix of the convolution that takes the mean away.
            add: Prefix of the one that gives it back.

        Returns:
            The mean, in the network's value range; None if the file has neither. ``config`` gets
            ``mean`` and, where the mean decides it, ``value_range``.

        Raises:
            InputError: The convolutions do anything but shift colors by one mean.
        """
        present = [prefix for prefix in (subtract, add) if f"{prefix}.weight" in self._tensors]
        self.config["mean"] = None
        if not present:
            self.evidence.append(f"no mean shift: no keys {subtract}.* and {add}.*")
            return None
        weights = [self._tensors.get(f"{prefix}.weight") for prefix in (subtract, add)]
        biases = [self._tensors.get(f"{prefix}.bias") for prefix in (subtract, add)]
        for prefix in (subtract, add):
            self._used.update((f"{prefix}.weight", f"{prefix}.bias"))
        identity = torch.eye(3, dtype=torch.float32, device="cpu").view(3, 3, 1, 1)
        if (
            any(t is not None and t.dtype != torch.float32 for t in (*weights, *biases))
            or any(w is None or w.shape != identity.shape for w in weights)
            or any(b is None or b.shape != (3,) for b in biases)
            or not all(torch.allclose(w, identity, atol=1e-5) for w in weights if w is not None)
        ):
            raise InputError(
                f"{self._source}: {subtract} and {add} must be 1x1 convolutions of 3 channels "
                "that only shift colors (identity weights, floating-point numbers)"
            )
        taken, given = (b for b in biases if b is not None)
        if not torch.allclose(taken, -given, atol=1e-3 * max(1.0, float(given.abs().max()))):
            raise InputError(f"{self._source}: {subtract}.bias is not the negative of {add}.bias")
        # Six decimals give the float32 values back and read as they were meant.
        mean = [round(float(value), 6) for value in given]
        largest = max(mean)
        if largest > 0:
            value_range = 255.0 if largest > 1 else 1.0
            self.config["value_range"] = value_range
            self.evidence.append(
                f"value range 0..{value_range:g}: {add}.bias is up to {largest:.4g}"
            )
        self.constant_mean(mean)
        return mean

    def constant_mean(self, mean: Sequence[float] | None) -> None:
        """Give the network a mean color, in its value range, that has no key in the file."""
        self.config["mean"] = None if mean is None else list(mean)
        self.constants.pop("mean", None)
        if mean is not None:
            values = torch.tensor(mean, dtype=torch.float32, device="cpu")
            self.constants["mean"] = values.view(1, -1, 1, 1)

    def pixel_shuffle_stages(self, name: str, prefixes: Sequence[str], features: int) -> int:
        """Map a row of sub-pixel convolutions of ``features`` channels; return their scale.

        Args:
            name: The row in the network, whose convolutions are ``name.0``, ``name.1`` and so on;
                braces in it stand for the scale.
            prefixes: Where the file may have them, in order; those that it lacks are passed over.
            features: Channels before and after each of them.

        Raises:
            InputError: Their output channels fit no scale.
        """
        prefixes = [prefix for prefix in prefixes if f"{prefix}.weight" in self]
        factors = [self.filters(prefix)[0] / features for prefix in prefixes]
        scales = {(4.0,): 2, (9.0,): 3, (4.0, 4.0): 4, (4.0, 4.0, 4.0): 8}
        if tuple(factors) not in scales:
            found = ", ".join(f"{self.filters(p)[0]} in {p}.weight" for p in prefixes)
            raise InputError(
                f"{self._source}: output channels {found or '(none)'} fit no scale; {features} "
                "features times 4 (x2), 9 (x3), 4 twice (x4) or three times (x8) are read"
            )
        scale = scales[tuple(factors)]
        for number, prefix in enumerate(prefixes):
            self.conv(f"{name.format(scale)}.{number}", prefix)
        self.evidence.append(f"x{scale}: {', '.join(f'{p}.weight' for p in prefixes)}")
        return scale

    def refuse(self, found: str) -> NoReturn:
        """Raise an error about a variant that is not read.

        Raises:
            InputError: Always; the message says what was ``found``.
        """
        raise InputError(f"{self._source}: has {found}, which no key mapping reads")

    def finish(self) -> None:
        """Check that every key of the file has its place in the network.

        Raises:
            InputError: Keys are left over; the message names them.
        """
        surplus = [key for key in self._tensors if key not in self._used]
        if surplus:
            more = f" and {len(surplus) - 5} more" if len(surplus) > 5 else ""
            raise InputError(
                f"{self._source}: has keys that do not belong there: "
                f"{', '.join(printable(key, 80) for key in surplus[:5])}{more}"
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors under the names of the network; missing ones are left out."""
        found = {
            name: self._tensors[key]
            for name, key in self.file_names.items()
            if key in self._tensors
        }
        return {**found, **self.constants}
