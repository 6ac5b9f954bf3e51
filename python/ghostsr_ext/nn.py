"""The layers of GhostSR networks: dense and ghost convolutions with one forward signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext import ops
from ghostsr_ext.activations import Activation, check_activation
from ghostsr_ext.ops.given_maps import OfferedMap, check_given_map, fill_given_map
from ghostsr_ext.reference import candidate_shifts
from ghostsr_ext.shift_selection import choose_by_reinmax, draw_rows, gumbel_noise

ShiftScope = Literal["channel", "layer"]
ShiftEstimator = Literal["straight-through", "reinmax"]

MAX_SHIFT_LIMIT = 7
"""Largest ``max_shift`` that the operators take."""

# A logit this far above the others makes the soft mixture all but one-hot at tau = 1 (p > 0.98 for
# K = 9) and still leaves a gradient to learn from.
SELECTED_LOGIT = 6.0

_NO_GHOSTS = (
    torch.empty(0, dtype=torch.int64, device="cpu"),
    torch.empty(0, 2, dtype=torch.int64, device="cpu"),
)


class FusedConv2d(nn.Conv2d):
    """A convolution with its residual and activation in one operator.

    ``forward(input, residual)`` is ``activation(residual + residual_scale * conv(input))``, the
    residual term absent when None. Parameters, state dict and remaining arguments are those of
    ``torch.nn.Conv2d``; under "prelu" there is one more parameter, ``prelu_weight``, of [1] or
    [C_out].

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: Height and width of the filters.
        stride: As in ``torch.nn.Conv2d``.
        padding: As in ``torch.nn.Conv2d``.
        dilation: As in ``torch.nn.Conv2d``.
        groups: As in ``torch.nn.Conv2d``.
        bias: As in ``torch.nn.Conv2d``.
        padding_mode: As in ``torch.nn.Conv2d``.
        activation: "none", "relu", "leaky_relu" or "prelu".
        negative_slope: Factor of negative values under "leaky_relu".
        prelu_parameters: Learned factors of negative values under "prelu": 1 for all channels, or
            C_out.
        residual_scale: Factor of the convolution's output.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: An argument is outside the allowed values.
    """

    prelu_weight: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        activation: Activation = "none",
        negative_slope: float = 0.01,
        prelu_parameters: int = 1,
        residual_scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_activation(activation, negative_slope, prelu_parameters, out_channels)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,  # type: ignore[arg-type]
            device=device,
            dtype=dtype,
        )
        self.activation: Activation = activation
        self.negative_slope = negative_slope
        self.residual_scale = residual_scale
        self.cache = ops.LayerCache()
        self.register_parameter(
            "prelu_weight", _prelu_weight(activation, prelu_parameters, self.weight)
        )

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as ``torch.nn.Conv2d`` and ``torch.nn.PReLU`` do."""
        super().reset_parameters()
        # The base class draws its own before there are others.
        prelu_weight = self._parameters.get("prelu_weight")
        if prelu_weight is not None:
            nn.init.constant_(prelu_weight, 0.25)

    def forward(
        self,
        input: Tensor,
        residual: Tensor | None = None,
        *,
        out: Tensor | OfferedMap | None = None,
        shuffle: int = 1,
    ) -> Tensor:
        """Convolve [N, C_in, H, W] to [N, C_out, H', W'], the shape that ``residual`` must have.

        A map without a batch, [C_in, H, W], becomes [C_out, H', W']. Where neither gradients nor
        operators are recorded, the result may be written into ``out``, a map of its shape. A pixel
        shuffle by ``shuffle`` then follows, as by ``torch.nn.PixelShuffle``, in the same pass where
        that can be; the result is [N, C_out / shuffle², shuffle * H', shuffle * W'].
        """
        if input.dim() == 3:
            return _forward_unbatched(self, input, residual, out, shuffle=shuffle)
        padded, padding = input, self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros":
            padded, padding = _pad(self, input)
        plain = padded.is_cpu and type(padded) is Tensor
        # A compiled graph would take the sizes of a global tensor for ones that may change, and
        # ask at each call whether they equal those of the map.
        shared = plain and not torch.compiler.is_dynamo_compiling()
        source, shift = _NO_GHOSTS if shared else _no_ghosts(padded)
        weight, bias = _weight_and_bias(self)
        activation = self.activation
        return ops.ghost_conv(
            padded,
            weight,
            bias,
            source,
            shift,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
            activation=activation,
            negative_slope=self.negative_slope,
            prelu_weight=self.prelu_weight if activation == "prelu" else None,
            residual=residual,
            residual_scale=self.residual_scale,
            shuffle=shuffle,
            cache=self.cache.handle if plain else _cache(self, padded),
            out=out,
        )

    def extra_repr(self) -> str:
        """Return the arguments that differ from a plain convolution's."""
        text: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return text + _epilogue_repr(self)


class GhostConv2d(nn.Module):
    """A convolution that computes part of its output channels and makes the rest by shifting those.

    A drop-in for ``torch.nn.Conv2d``, with the forward of :class:`FusedConv2d`. A new layer learns
    its shifts: in training mode each ghost uses the candidate with the largest ``(logits + Gumbel
    noise) / tau``, with a straight-through gradient; in evaluation mode the candidate with the
    largest logit. :meth:`freeze_shifts` keeps that choice as a table and drops the logits. State
    dicts load across the learned and the frozen form.

    Source: GhostSR (arXiv 2101.08525), sections on ghost features and learnable shift.

    Args:
        in_channels: C_in.
        out_channels: C_out = I + G.
        kernel_size: Height and width of the filters.
        stride: As in ``torch.nn.Conv2d``.
        padding: As in ``torch.nn.Conv2d``.
        dilation: As in ``torch.nn.Conv2d``.
        groups: As in ``torch.nn.Conv2d``; must divide C_in and I.
        bias: As in ``torch.nn.Conv2d``; belongs to the intrinsic channels, ghosts inherit their
            source's.
        padding_mode: As in ``torch.nn.Conv2d``.
        ghost_ratio: Part of the outputs made by shifting, in [0, 1); G = floor(ghost_ratio *
            C_out), less what keeps I a multiple of ``groups``.
        max_shift: d, 0 to 7; a ghost moves by -d..d rows and columns.
        shift_scope: "channel" learns a shift for every ghost, "layer" one for all of them.
        affine: Whether ghosts have a learned gain and bias of their own.
        activation: "none", "relu", "leaky_relu" or "prelu".
        negative_slope: Factor of negative values under "leaky_relu".
        prelu_parameters: Learned factors of negative values under "prelu": 1 for all channels, or
            C_out.
        residual_scale: Factor of the layer's output before the residual is added.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Attributes:
        weight: Intrinsic filters [I, C_in / groups, kH, kW].
        bias: [I] or None.
        gain: [G] or None.
        ghost_bias: [G] or None.
        prelu_weight: [1] or [C_out] under "prelu", else None.
        logits: [G, K] or [1, K]; None once frozen.
        source: int64 buffer [G], the intrinsic channel of each ghost.
        shift: int64 buffer [G, 2], (dy, dx) of each ghost when frozen.
        order: int64 buffer [C_out]; output p is concat(intrinsic, ghost)[order[p]].
        tau: Temperature of the selection.
        noise: Whether Gumbel noise is added to the logits in training mode.
        exploration_rate: Part of the ghosts that noise is added to, drawn anew in each forward:
            of the rows of ``logits``. All of them by default.
        estimator: The gradient of the logits, "straight-through" or "reinmax"; see
            :func:`ghostsr_ext.shift_selection.choose_by_reinmax`. With the latter, ghosts that are
            not explored get none, and without noise none are.

    Raises:
        ValueError: An argument is outside the allowed values.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    gain: nn.Parameter | None
    ghost_bias: nn.Parameter | None
    prelu_weight: nn.Parameter | None
    logits: nn.Parameter | None
    source: Tensor
    shift: Tensor
    order: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        ghost_ratio: float = 0.5,
        max_shift: int = 1,
        shift_scope: ShiftScope = "channel",
        affine: bool = False,
        activation: Activation = "none",
        negative_slope: float = 0.01,
        prelu_parameters: int = 1,
        residual_scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_activation(activation, negative_slope, prelu_parameters, out_channels)
        if not 0 <= ghost_ratio < 1:
            raise ValueError(f"ghost_ratio: found {ghost_ratio}; 0 <= ghost_ratio < 1 is allowed")
        if not 0 <= max_shift <= MAX_SHIFT_LIMIT:
            raise ValueError(f"max_shift: found {max_shift}; 0 to {MAX_SHIFT_LIMIT} is allowed")
        if shift_scope not in ("channel", "layer"):
            raise ValueError(f'shift_scope: found "{shift_scope}"; allowed are channel, layer')
        self.ghost_channels = ghost_count(out_channels, ghost_ratio, groups)
        self.intrinsic_channels = out_channels - self.ghost_channels
        # nn.Conv2d checks the convolution's arguments, normalises them and draws the first weights.
        convolution = nn.Conv2d(
            in_channels,
            self.intrinsic_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,  # type: ignore[arg-type]
            device=device,
            dtype=dtype,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = convolution.kernel_size
        self.stride = convolution.stride
        self.padding = convolution.padding
        self.dilation = convolution.dilation
        self.groups = groups
        self.padding_mode = padding_mode
        self.ghost_ratio = ghost_ratio
        self.max_shift = max_shift
        self.shift_scope: ShiftScope = shift_scope
        self.affine = affine
        self.activation: Activation = activation
        self.negative_slope = negative_slope
        self.residual_scale = residual_scale
        self.tau = 1.0
        self.noise = True
        self.exploration_rate = 1.0
        self.estimator: ShiftEstimator = "straight-through"
        self.cache = ops.LayerCache()

        self.weight = nn.Parameter(convolution.weight)
        self.bias = None if convolution.bias is None else nn.Parameter(convolution.bias)
        ghosts = self.ghost_channels
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.register_parameter(
            "gain", nn.Parameter(torch.ones(ghosts, **factory)) if affine else None
        )
        self.register_parameter(
            "ghost_bias", nn.Parameter(torch.zeros(ghosts, **factory)) if affine else None
        )
        self.register_parameter(
            "prelu_weight", _prelu_weight(activation, prelu_parameters, self.weight)
        )
        choices = ghosts if shift_scope == "channel" else min(1, ghosts)
        self.logits = nn.Parameter(torch.empty(choices, (2 * max_shift + 1) ** 2, **factory))
        nn.init.uniform_(self.logits, -1 / 3, 1 / 3)
        table: dict[str, Any] = {"device": device, "dtype": torch.int64}
        # From lists: on the meta device, where networks are built before they are loaded,
        # torch.arange and % import torch's compiler, which takes a second.
        source = [ghost % self.intrinsic_channels for ghost in range(ghosts)]
        self.register_buffer("source", torch.tensor(source, **table))
        self.register_buffer("shift", torch.zeros(ghosts, 2, **table))
        self.register_buffer("order", torch.tensor(list(range(out_channels)), **table))
        self.register_state_dict_post_hook(  # type: ignore[no-untyped-call]
            _store_selected_shift
        )

    def forward(
        self,
        input: Tensor,
        residual: Tensor | None = None,
        *,
        out: Tensor | OfferedMap | None = None,
    ) -> Tensor:
        """Convolve [N, C_in, H, W] to [N, C_out, H', W'], the shape that ``residual`` must have.

        A map without a batch, [C_in, H, W], becomes [C_out, H', W']. Where neither gradients nor
        operators are recorded, the result may be written into ``out``, a map of its shape.
        """
        if input.dim() == 3:
            return _forward_unbatched(self, input, residual, out)
        padded, padding = input, self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros":
            padded, padding = _pad(self, input)
        weight, bias = _weight_and_bias(self)
        activation = self.activation
        tables: dict[str, Any] = self._buffers
        affine = self.affine
        arguments: dict[str, Any] = {
            "gain": self.gain if affine else None,
            "ghost_bias": self.ghost_bias if affine else None,
            "order": tables["order"],
            "stride": self.stride,
            "padding": padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "activation": activation,
            "negative_slope": self.negative_slope,
            "prelu_weight": self.prelu_weight if activation == "prelu" else None,
            "residual": residual,
            "residual_scale": self.residual_scale,
            "cache": (
                self.cache.handle
                if padded.is_cpu and type(padded) is Tensor
                else _cache(self, padded)
            ),
        }
        logits = self._parameters["logits"]
        if logits is None:
            return ops.ghost_conv(
                padded, weight, bias, tables["source"], tables["shift"], **arguments, out=out
            )
        if isinstance(out, OfferedMap):
            out = None
        elif out is not None:
            check_given_map(out)
        selection = self._selection(logits) if self.training else (logits, None, 1.0)
        output = ops.ghost_conv_learned(
            padded, weight, bias, tables["source"], *selection, **arguments
        )
        return output if out is None else fill_given_map(out, output)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as a new layer does; the tables stay as they are."""
        nn.Conv2d.reset_parameters(self)  # type: ignore[arg-type]
        for parameter, value in ((self.gain, 1.0), (self.ghost_bias, 0.0)):
            if parameter is not None:
                nn.init.constant_(parameter, value)
        if self.prelu_weight is not None:
            nn.init.constant_(self.prelu_weight, 0.25)
        if self.logits is not None:
            nn.init.uniform_(self.logits, -1 / 3, 1 / 3)

    def _selection(self, logits: Tensor) -> tuple[Tensor, Tensor | None, float]:
        """Return the logits, the noise and the temperature of training."""
        if self.estimator == "straight-through" and not self.noise:
            return logits, None, self.tau
        drawn = draw_rows(logits, self.exploration_rate if self.noise else 0.0)
        noise = gumbel_noise(logits) * drawn
        if self.estimator == "reinmax":
            return choose_by_reinmax(logits, noise, self.tau, drawn), None, 1.0
        return logits, noise, self.tau

    @torch.no_grad()
    def selected_shift(self) -> Tensor:
        """Return the table [G, 2] of (dy, dx) that evaluation mode uses."""
        if self.logits is None or self.ghost_channels == 0:
            return self.shift.clone()
        candidates = candidate_shifts(self.logits.shape[1], self.logits.device)
        return candidates[self.logits.argmax(dim=1)].expand(self.ghost_channels, 2).contiguous()

    @torch.no_grad()
    def freeze_shifts(self) -> GhostConv2d:
        """Keep the selected shifts as a table and drop the logits; returns the layer itself."""
        self.shift.copy_(self.selected_shift())
        self.logits = None
        return self

    @torch.no_grad()
    def learn_shifts(self) -> GhostConv2d:
        """Make logits that select the present shifts, so that training can change them.

        Raises:
            ValueError: The scope is "layer" and the ghosts have different shifts.
        """
        if self.logits is None:
            self.logits = nn.Parameter(self._logits_selecting(self.shift))
        return self

    @torch.no_grad()
    def set_tables(self, source: Tensor, shift: Tensor, order: Tensor | None = None) -> GhostConv2d:
        """Set where ghosts come from; a learned layer gets logits that select ``shift``.

        Args:
            source: [G], each in 0..I-1.
            shift: [G, 2], (dy, dx) each in -max_shift..max_shift.
            order: Permutation [C_out]; the identity when None.

        Raises:
            ValueError: A table has the wrong shape or an entry out of range.
        """
        if order is None:
            order = torch.arange(self.out_channels, device=self.order.device)
        self._check_tables(source, shift, order)
        if self.logits is not None:
            self.logits.copy_(self._logits_selecting(shift.to(self.logits.device)))
        self.source.copy_(source)
        self.shift.copy_(shift)
        self.order.copy_(order)
        return self

    def _check_tables(self, source: Tensor, shift: Tensor, order: Tensor) -> None:
        ghosts, intrinsic, outputs = self.ghost_channels, self.intrinsic_channels, self.out_channels
        needed = {
            "source": (source, [ghosts]),
            "shift": (shift, [ghosts, 2]),
            "order": (order, [outputs]),
        }
        for name, (table, size) in needed.items():
            if table.dtype not in (torch.int64, torch.int32):
                raise ValueError(f"{name}: found dtype {table.dtype}; int64 or int32 is needed")
            if list(table.shape) != size:
                raise ValueError(f"{name}: found shape {list(table.shape)}; {size} is needed")
        if ghosts:
            least, most, largest = int(source.min()), int(source.max()), int(shift.abs().max())
            if least < 0 or most >= intrinsic:
                raise ValueError(f"source: found {least}..{most}; 0..{intrinsic - 1} is allowed")
            if largest > self.max_shift:
                raise ValueError(
                    f"shift: found {largest}; at most max_shift = {self.max_shift} is allowed"
                )
        if not torch.equal(
            order.sort().values.cpu(), torch.arange(outputs, dtype=order.dtype, device="cpu")
        ):
            raise ValueError(
                f"order: found {order.tolist()}; a permutation of 0..{outputs - 1} is needed"
            )

    def _logits_selecting(self, shift: Tensor) -> Tensor:
        candidates = (2 * self.max_shift + 1) ** 2
        index = (
            (shift[:, 0] + self.max_shift) * (2 * self.max_shift + 1) + shift[:, 1] + self.max_shift
        )
        if self.shift_scope == "layer" and self.ghost_channels:
            if bool((index != index[0]).any()):
                raise ValueError(
                    'shift: the ghosts differ, which shift_scope="layer" does not allow'
                )
            index = index[:1]
        logits = torch.zeros(
            index.numel(), candidates, dtype=self.weight.dtype, device=shift.device
        )
        return logits.scatter_(1, index[:, None].long(), SELECTED_LOGIT)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        stored = state_dict.get(prefix + "logits")
        tables = [
            table
            for name in ("source", "shift", "order")
            if isinstance(table := state_dict.get(prefix + name), Tensor) and not table.is_meta
        ]
        if stored is not None and self.logits is None:
            state_dict = {
                key: value for key, value in state_dict.items() if key != prefix + "logits"
            }
        if len(tables) == 3:
            source, shift, order = tables
            try:
                self._check_tables(source, shift, order)
                if stored is None and self.logits is not None:
                    state_dict = {**state_dict, prefix + "logits": self._logits_selecting(shift)}
            except ValueError as error:
                error_msgs.append(f"{prefix}{error}")
                return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if stored is not None and prefix + "logits" in unexpected_keys:
            unexpected_keys.remove(prefix + "logits")

    def extra_repr(self) -> str:
        """Return the arguments of the layer."""
        return (
            f"{self.in_channels}, {self.intrinsic_channels} + {self.ghost_channels}, "
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}, "
            f"max_shift={self.max_shift}, shift_scope={self.shift_scope}, affine={self.affine}, "
            f"shifts={'frozen' if self.logits is None else 'learned'}" + _epilogue_repr(self)
        )


def ghost_count(out_channels: int, ghost_ratio: float, groups: int = 1) -> int:
    """Return G: the most ghosts at ``ghost_ratio`` that leave all groups equal.

    Args:
        out_channels: C_out.
        ghost_ratio: The part of the output channels that are ghosts, in [0, 1).
        groups: Groups of the convolution.

    Raises:
        ValueError: ``groups`` does not divide C_out.
    """
    if groups < 1 or out_channels % groups:
        raise ValueError(
            f"groups: found {groups}; a divisor of out_channels = {out_channels} is needed"
        )
    group_outputs = out_channels // groups
    # The small addend keeps ratios such as 0.3 of 10 channels from falling one short in floating
    # point.
    ghosts = int(ghost_ratio * group_outputs + 1e-9)
    return groups * max(0, min(ghosts, group_outputs - 1))


def ghost_layers(model: nn.Module) -> dict[str, GhostConv2d]:
    """Return the ghost layers of ``model`` by name, each of them once."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, GhostConv2d)
    }


def freeze_shifts(model: nn.Module) -> nn.Module:
    """Keep the present shifts of every ghost layer of ``model``, to deploy it; return ``model``.

    In each ghost layer the shifts that its logits select become a table, and the logits are
    dropped.
    """
    for layer in ghost_layers(model).values():
        layer.freeze_shifts()
    return model


def learn_shifts(model: nn.Module) -> nn.Module:
    """Make the shifts of every ghost layer of ``model`` trainable, and return ``model``.

    Each ghost layer gets logits that select the shifts it has now; optimizers must be given them.
    """
    for layer in ghost_layers(model).values():
        layer.learn_shifts()
    return model


def _store_selected_shift(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, _: Any
) -> None:
    assert isinstance(module, GhostConv2d)
    if module.logits is not None:
        state_dict[prefix + "shift"] = module.selected_shift()


def _prelu_weight(activation: Activation, parameters: int, weight: Tensor) -> nn.Parameter | None:
    """Return the factors that "prelu" learns, of the weight's dtype and device, else None."""
    if activation != "prelu":
        return None
    return nn.Parameter(torch.full((parameters,), 0.25, dtype=weight.dtype, device=weight.device))


def _cache(layer: FusedConv2d | GhostConv2d, input: Tensor) -> Tensor | None:
    """Return the handle of the layer's cache where an input that is no plain tensor goes with it.

    While torch exports, its own modes take real tensors beside their fake ones.
    """
    return layer.cache.handle if input.is_cpu and torch.compiler.is_compiling() else None


def _no_ghosts(input: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tables of a layer without ghosts."""
    source = torch.empty(0, dtype=torch.int64, device=input.device)
    return source, source.view(0, 2)


def _weight_and_bias(layer: FusedConv2d | GhostConv2d) -> tuple[Tensor, Tensor | None]:
    """Return a layer's parameters, past a lookup that costs as much as a small convolution.

    A parametrised layer computes them.
    """
    parameters = layer._parameters
    if "weight" in parameters and "bias" in parameters:
        weight = parameters["weight"]
        assert weight is not None
        return weight, parameters["bias"]
    return layer.weight, layer.bias


def _epilogue_repr(layer: FusedConv2d | GhostConv2d) -> str:
    arguments = epilogue_arguments(layer)
    ordinary = {"activation": "none", "residual_scale": 1.0}
    return "".join(
        f", {name}={value}" for name, value in arguments.items() if ordinary.get(name) != value
    )


def convolution_arguments(layer: nn.Conv2d | GhostConv2d) -> dict[str, Any]:
    """Return the arguments of a convolution apart from its channels, dtype and device."""
    return {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "bias": layer.bias is not None,
        "padding_mode": layer.padding_mode,
    }


def epilogue_arguments(layer: nn.Module) -> dict[str, Any]:
    """Return the arguments of what follows a convolution; those of nothing for plain layers.

    ``negative_slope`` and ``prelu_parameters`` are there under the activation that reads them.
    """
    arguments: dict[str, Any] = {"activation": getattr(layer, "activation", "none")}
    if arguments["activation"] == "leaky_relu":
        arguments["negative_slope"] = layer.negative_slope
    if arguments["activation"] == "prelu":
        assert isinstance(layer.prelu_weight, Tensor)
        arguments["prelu_parameters"] = layer.prelu_weight.numel()
    arguments["residual_scale"] = getattr(layer, "residual_scale", 1.0)
    return arguments


def _forward_unbatched(
    layer: FusedConv2d | GhostConv2d,
    input: Tensor,
    residual: Tensor | None,
    out: Tensor | OfferedMap | None,
    **arguments: Any,
) -> Tensor:
    """Apply a layer to one map, as torch's convolutions allow."""
    if isinstance(out, OfferedMap):
        out = None
    residual, room = (None if map is None else map.unsqueeze(0) for map in (residual, out))
    output = layer.forward(input.unsqueeze(0), residual, out=room, **arguments).squeeze(0)
    return output if out is None else out


def _pad(layer: FusedConv2d | GhostConv2d, input: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Apply the padding that the operator cannot express; return what is left to it."""
    padding = layer.padding
    if padding == "valid":
        return input, (0, 0)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        edges = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
    else:
        assert isinstance(padding, tuple)
        edges = [padding[1], padding[1], padding[0], padding[0]]
    if layer.padding_mode != "zeros":
        return functional.pad(input, edges, mode=layer.padding_mode), (0, 0)
    if edges[0] == edges[1] and edges[2] == edges[3]:
        return input, (edges[2], edges[0])
    return functional.pad(input, edges), (0, 0)
