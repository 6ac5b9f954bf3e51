"""A wrong argument gives one error that names it, what was found and what is allowed."""

import re

import pytest
import torch
from ghost_layer_cases import make_layer
from ghostsr_ext import ops

PLAIN = make_layer(affine=True, ordered=True, residual=True)
REAL = torch.zeros(4, dtype=torch.float64)


def _fails(operator, arguments, changes, message):
    with pytest.raises((RuntimeError, ValueError), match=re.escape(message)):
        operator(**{**arguments, **changes})


CONVOLUTION = {
    "input of three axes": (
        {"input": torch.zeros(4, 7, 9).double()},
        "input: found shape [4, 7, 9]; four axes [N, C, H, W] are needed",
    ),
    "integer input": (
        {"input": torch.zeros(2, 4, 7, 9, dtype=torch.int64)},
        "input: found dtype int64; float32, float64, float16 or bfloat16 is allowed",
    ),
    "complex input": (
        {"input": torch.zeros(2, 4, 7, 9, dtype=torch.complex64)},
        "input: found dtype",
    ),
    "input of too few channels": (
        {"input": torch.zeros(2, 3, 7, 9).double()},
        "input: found 3 channels; the weight [5, 4, 3, 3] with groups = 1 takes 4",
    ),
    "input smaller than the filter": (
        {"input": torch.zeros(2, 4, 7, 0).double()},
        "input: found shape [2, 4, 7, 0]; with padding [1, 1] it must be at least as large as the "
        "dilated filter, 3 along axis 3",
    ),
    "dilated filter larger than the input": (
        {"dilation": [1, 6]},
        "input: found shape [2, 4, 7, 9]; with padding [1, 1] it must be at least as large as the "
        "dilated filter, 13 along axis 3",
    ),
    "weight of three axes": (
        {"weight": torch.zeros(5, 4, 3).double()},
        "weight: found shape [5, 4, 3]; four axes",
    ),
    "weight of another dtype": (
        {"weight": torch.zeros(5, 4, 3, 3)},
        "weight: found dtype float32; the input's float64 is needed",
    ),
    "no filters": (
        {"weight": torch.zeros(0, 4, 3, 3).double()},
        "weight: found shape [0, 4, 3, 3]; at least one filter",
    ),
    "empty filters": (
        {"weight": torch.zeros(5, 4, 3, 0).double()},
        "weight: found shape [5, 4, 3, 0]; at least one filter",
    ),
    "filters of no channels": (
        {"input": torch.zeros(2, 0, 7, 9).double(), "weight": torch.zeros(5, 0, 3, 3).double()},
        "weight: found shape [5, 0, 3, 3]; at least one filter",
    ),
    "bias of another size": (
        {"bias": torch.zeros(9).double()},
        "bias: found shape [9]; [5] is needed",
    ),
    "bias of another dtype": (
        {"bias": torch.zeros(5).half()},
        "bias: found dtype float16; the input's float64 is needed",
    ),
    "zero stride": (
        {"stride": [1, 0]},
        "stride: found [1, 0]; two integers of at least 1 are needed",
    ),
    "negative padding": (
        {"padding": [-1, 0]},
        "padding: found [-1, 0]; two integers of at least 0 are needed",
    ),
    "three dilations": (
        {"dilation": [1, 1, 1]},
        "dilation: found [1, 1, 1]; two integers of at least 1 are needed",
    ),
    "no groups": ({"groups": 0}, "groups: found 0; a divisor of the weight's 5 filters is needed"),
    "indivisible groups": (
        {"groups": 2},
        "groups: found 2; a divisor of the weight's 5 filters is needed",
    ),
}
SOURCES = {
    "source of two axes": (
        {"source": torch.zeros(2, 2, dtype=torch.int64)},
        "source: found shape [2, 2]; one axis [G] is needed",
    ),
    "float source": ({"source": REAL}, "source: found dtype float64; int64 or int32 is needed"),
    "source beyond the intrinsic channels": (
        {"source": torch.tensor([0, 4, 5, 1])},
        "source: found 5 at 2; 0..4 is allowed",
    ),
    "negative source": (
        {"source": torch.tensor([0, -1, 3, 1])},
        "source: found -1 at 1; 0..4 is allowed",
    ),
    "order of another size": (
        {"order": torch.arange(8)},
        "order: found shape [8]; [9] is needed",
    ),
    "order out of range": (
        {"order": torch.arange(9) + 1},
        "order: found 9 at 8; 0..8 is allowed",
    ),
    "order that repeats": (
        {"order": torch.tensor([0, 1, 2, 3, 3, 5, 6, 7, 8])},
        "order: found 3 twice; a permutation is needed",
    ),
    "float order": (
        {"order": torch.arange(9).float()},
        "order: found dtype float32; int64 or int32 is needed",
    ),
    "gain of another size": ({"gain": REAL[:3]}, "gain: found shape [3]; [4] is needed"),
    "gain of another dtype": (
        {"gain": REAL.float()},
        "gain: found dtype float32; the input's float64 is needed",
    ),
    "ghost bias of another size": (
        {"ghost_bias": REAL[:1]},
        "ghost_bias: found shape [1]; [4] is needed",
    ),
    "unknown activation": (
        {"activation": "gelu"},
        'activation: found "gelu"; allowed are "none", "relu", "leaky_relu" and "prelu"',
    ),
}
SHIFTS = {
    "shift beyond seven": (
        {"shift": torch.tensor([[0, 0], [0, 8], [0, 0], [0, 0]])},
        "shift: found 8 at 1; -7..7 is allowed",
    ),
    "shift below minus seven": (
        {"shift": torch.tensor([[0, 0], [0, 0], [-8, 0], [0, 0]])},
        "shift: found -8 at 2; -7..7 is allowed",
    ),
    "shift of another size": (
        {"shift": torch.zeros(2, 4, dtype=torch.int64)},
        "shift: found shape [2, 4]; [4, 2] is needed",
    ),
    "float shift": (
        {"shift": torch.zeros(4, 2)},
        "shift: found dtype float32; int64 or int32 is needed",
    ),
}
RESIDUALS = {
    "residual of the intrinsic size": (
        {"residual": torch.zeros(2, 5, 7, 9).double()},
        "residual: found shape [2, 5, 7, 9]; [2, 9, 7, 9] is needed",
    ),
    "residual that would broadcast": (
        {"residual": torch.zeros(1, 9, 7, 9).double()},
        "residual: found shape [1, 9, 7, 9]; [2, 9, 7, 9] is needed",
    ),
    "residual of another dtype": (
        {"residual": torch.zeros(2, 9, 7, 9)},
        "residual: found dtype float32; the input's float64 is needed",
    ),
}
SELECTIONS = {
    "logits of one axis": (
        {"logits": torch.zeros(9)},
        "logits: found shape [9]; [4, K] or [1, K] is needed",
    ),
    "logits of too many rows": (
        {"logits": torch.zeros(5, 9)},
        "logits: found shape [5, 9]; [4, K] or [1, K] is needed",
    ),
    "even number of candidates": (
        {"logits": torch.zeros(4, 16)},
        "logits: found 16 candidates; (2 * max_shift + 1)^2 for max_shift 0 to 7 is allowed",
    ),
    "no square of candidates": ({"logits": torch.zeros(4, 8)}, "logits: found 8 candidates"),
    "no candidates": ({"logits": torch.zeros(4, 0)}, "logits: found 0 candidates"),
    "too many candidates": ({"logits": torch.zeros(4, 17**2)}, "logits: found 289 candidates"),
    "integer logits": (
        {"logits": torch.zeros(4, 9, dtype=torch.int64)},
        "logits: found dtype int64; a floating-point dtype is needed",
    ),
    "noise of another shape": (
        {"noise": torch.zeros(1, 9).double()},
        "noise: found shape [1, 9]; [4, 9] is needed",
    ),
    "noise of another dtype": ({"noise": torch.zeros(4, 9)}, "noise: found dtype float32"),
    "zero temperature": ({"tau": 0.0}, "tau: found 0.000000; a positive number is needed"),
    "negative temperature": ({"tau": -1.0}, "tau: found -1.000000; a positive number is needed"),
    "temperature that is no number": ({"tau": float("nan")}, "tau: found nan"),
    "infinite temperature": ({"tau": float("inf")}, "tau: found inf"),
}


def _cases(*groups):
    return [pytest.param(*case, id=name) for group in groups for name, case in group.items()]


@pytest.mark.parametrize(("changes", "message"), _cases(CONVOLUTION, SOURCES, SHIFTS, RESIDUALS))
@pytest.mark.parametrize("gradients", [False, True])
def test_ghost_conv_refuses(changes, message, gradients):
    arguments = PLAIN.fixed()
    if gradients and "weight" not in changes:
        arguments["weight"].requires_grad_()
    _fails(ops.ghost_conv, arguments, changes, message)


@pytest.mark.parametrize(
    ("changes", "message"), _cases(CONVOLUTION, SOURCES, RESIDUALS, SELECTIONS)
)
def test_ghost_conv_learned_refuses(changes, message):
    _fails(ops.ghost_conv_learned, PLAIN.learned(), changes, message)


@pytest.mark.parametrize(("changes", "message"), _cases(SOURCES, SHIFTS, RESIDUALS))
def test_shift_concat_refuses(changes, message):
    _fails(ops.shift_concat, PLAIN.epilogue(), changes, message)


def test_shift_concat_refuses_a_map_of_three_axes():
    changes = {"intrinsic": torch.zeros(5, 7, 9).double()}
    _fails(ops.shift_concat, PLAIN.epilogue(), changes, "intrinsic: found shape [5, 7, 9]")


BACKWARD = {
    "gradient of three axes": (
        {"grad_output": torch.zeros(9, 7, 9).double()},
        "grad_output: found shape [9, 7, 9]; four axes",
    ),
    "gradient of ghosts alone": (
        {"grad_output": torch.zeros(2, 4, 7, 9).double()},
        "grad_output: found 4 channels; more than the 4 ghosts are needed",
    ),
    "intrinsic map of another size": (
        {"intrinsic": torch.zeros(2, 5, 7, 8).double()},
        "intrinsic: found shape [2, 5, 7, 8]; [2, 5, 7, 9] is needed",
    ),
    "output of another size": (
        {"output": torch.zeros(2, 5, 7, 9).double()},
        "output: found shape [2, 5, 7, 9]; [2, 9, 7, 9] is needed",
    ),
}


def _gradient():
    return {"grad_output": torch.zeros(2, 9, 7, 9).double()}


@pytest.mark.parametrize(("changes", "message"), _cases(SOURCES, SHIFTS, BACKWARD))
def test_shift_concat_backward_refuses(changes, message):
    arguments = PLAIN.epilogue() | _gradient()
    del arguments["residual"]
    _fails(ops.shift_concat_backward, arguments, changes, message)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_shift_concat_backward_refuses_to_guess_the_intrinsic_map(activation):
    arguments = PLAIN.epilogue() | _gradient() | {"activation": activation, "intrinsic": None}
    del arguments["residual"]
    _fails(ops.shift_concat_backward, arguments, {}, "intrinsic: found None")
    changes = {"output_mask": [True, False, True]}
    if activation == "relu":
        _fails(ops.shift_concat_backward, arguments, changes, "output: found None")
    else:
        assert ops.shift_concat_backward(**{**arguments, **changes})[1].numel() == 0


@pytest.mark.parametrize(("changes", "message"), _cases(SOURCES, BACKWARD, SELECTIONS))
def test_shift_selection_backward_refuses(changes, message):
    arguments = PLAIN.epilogue() | PLAIN.selection | _gradient()
    del arguments["residual"], arguments["shift"]
    _fails(ops.shift_selection_backward, arguments, changes, message)


@pytest.mark.parametrize(("changes", "message"), _cases(SELECTIONS))
def test_select_shift_refuses(changes, message):
    _fails(ops.select_shift, PLAIN.selection | {"ghosts": 4}, changes, message)


def test_select_shift_refuses_a_negative_number_of_ghosts():
    arguments = {"logits": torch.zeros(1, 9), "noise": None, "tau": 1.0, "ghosts": -1}
    _fails(ops.select_shift, arguments, {}, "ghosts: found -1; at least 0 is needed")


@pytest.mark.parametrize(("changes", "message"), _cases(CONVOLUTION))
def test_convolution_refuses(changes, message):
    arguments = PLAIN.fixed()
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    operator = torch.ops.ghostsr.convolution.default
    _fails(operator, {name: arguments[name] for name in names}, changes, message)


@pytest.mark.parametrize("argument", ["weight", "bias", "source", "shift", "order", "residual"])
def test_tensors_of_several_devices_are_refused(argument):
    arguments = PLAIN.fixed()
    changes = {argument: arguments[argument].to("meta")}
    _fails(ops.ghost_conv, arguments, changes, "found tensors on cpu and on meta; one device")
