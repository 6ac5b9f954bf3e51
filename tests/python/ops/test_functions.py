"""The operators as functions: documented, typed, counted, and reached in few steps."""

import inspect
import sys

import pytest
import torch
from ghostsr_ext import ops
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

FUNCTIONS = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_operator_describes_its_arguments(name):
    function = getattr(ops, name)
    signature = inspect.signature(function)

    assert function.__doc__
    for argument in signature.parameters:
        assert f"\n    {argument}: " in inspect.getdoc(function), argument
    assert all(one.annotation is not one.empty for one in signature.parameters.values())
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "convolution_path"])
def test_functions_take_what_their_operators_take(name):
    operator = getattr(torch.ops.ghostsr, name)
    overload = "out" if "out" in operator.overloads() else "default"
    schema = getattr(operator, overload)._schema
    parameters = inspect.signature(getattr(ops, name)).parameters
    # Whether weights are learned is for autograd to say.
    arguments = [argument for argument in schema.arguments if argument.name != "learning"]

    assert [argument.name for argument in arguments] == list(parameters)
    for argument in arguments:
        assert argument.kwarg_only == (
            parameters[argument.name].kind is inspect.Parameter.KEYWORD_ONLY
        )


def _counted(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "groups": 2}, {"bias": False}])
@pytest.mark.parametrize("kind", ["fused", "frozen", "learned"])
def test_layers_count_as_the_convolution_that_they_compute(kind, options, recording):
    input = torch.randn(2, 8, 6, 7)
    if kind == "fused":
        layer = FusedConv2d(8, 8, 3, **options)
        plain = nn.Conv2d(8, 8, 3, **options)
    else:
        layer = GhostConv2d(8, 16, 3, **options)
        plain = nn.Conv2d(8, 8, 3, **options)
        if kind == "frozen":
            layer.freeze_shifts()

    with torch.set_grad_enabled(recording):
        assert _counted(lambda: layer(input)) == _counted(lambda: plain(input))
    # torch's own count of the gradient of a grouped convolution is as if it had one group.
    if recording and "groups" not in options:
        input.requires_grad_()
        ours, theirs = layer(input).sum(), plain(input).sum()
        assert _counted(ours.backward) == _counted(theirs.backward)


def _frames(function):
    """Return the Python functions that are entered, the given one included."""
    entered = []

    def note(frame, event, _):
        if event == "call":
            entered.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return entered


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["fused", "frozen", "learned"])
@pytest.mark.parametrize("with_residual", [False, True])
def test_a_call_takes_few_steps_to_its_kernel(kind, mode, with_residual):
    input = torch.randn(1, 8, 4, 4).to(memory_format=torch.channels_last)
    residual = torch.randn(1, 8, 4, 4) if with_residual else None
    layer = FusedConv2d(8, 8, 3, padding=1) if kind == "fused" else GhostConv2d(8, 8, 3, padding=1)
    layer.eval()
    if kind == "frozen":
        layer.freeze_shifts()
    with mode():
        entered = _frames(lambda: layer.forward(input, residual))[1:]

    assert entered[0] == "forward"
    assert len(entered) <= 8, entered


def test_a_layer_counts_as_much_when_it_fills_a_map_that_there_is():
    layer = FusedConv2d(8, 8, 3, padding=1).requires_grad_(False)
    input, room = torch.randn(2, 8, 6, 7), torch.empty(2, 8, 6, 7)
    with torch.no_grad():
        assert _counted(lambda: layer(input, out=room)) == _counted(lambda: layer(input)) > 0
