"""Whatever the operators are given, they compute what the reference does, or refuse."""

from typing import Any

import torch
from fuzz_settings import FUZZ
from ghost_layer_cases import LAYOUTS, GhostLayer, assert_close, in_float64, make_layer
from ghostsr_ext import ops, reference
from hypothesis import assume, given
from hypothesis import strategies as st

REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)


@st.composite
def layers(draw: st.DrawFn) -> GhostLayer:
    count = st.integers(1, 9)
    groups = draw(st.sampled_from([1, 1, 1, 2, 4]))
    kernel = draw(st.sampled_from([(3, 3), (1, 1), (3, 3), (5, 5), (2, 3)]))
    ghosts = draw(st.integers(0, 12))
    same = draw(st.booleans())
    padding = (kernel[0] // 2, kernel[1] // 2) if same else draw(st.sampled_from([(0, 0), (2, 1)]))
    size = draw(st.tuples(st.integers(5, 24), st.integers(5, 24)))
    return make_layer(
        batch=draw(st.integers(0, 3)),
        in_channels=groups * draw(count),
        size=size,
        intrinsic=groups * draw(count),
        ghosts=ghosts,
        kernel=kernel,
        stride=(1, 1) if same else draw(st.sampled_from([(1, 1), (2, 1)])),
        padding=padding,
        groups=groups,
        bias=draw(st.booleans()),
        max_shift=draw(st.integers(0, 3)),
        affine=draw(st.booleans()),
        ordered=draw(st.booleans()),
        residual=draw(st.booleans()),
        activation=draw(st.sampled_from(["none", "relu"])),
        residual_scale=draw(st.sampled_from([1.0, 0.1, -2.0, 0.0])),
        table_dtype=draw(st.sampled_from([torch.int64, torch.int32])),
        seed=draw(st.integers(0, 2**16)),
    )


def arguments(layer: GhostLayer, data: st.DataObject, dtype: torch.dtype) -> dict[str, Any]:
    layouts = st.sampled_from([name for name in LAYOUTS if name != "expanded"])
    drawn = {name: data.draw(layouts) for name in ("input", "residual")}
    return layer.fixed(dtype, **drawn)


@FUZZ
@given(layer=layers(), data=st.data())
def test_layers_compute_what_the_reference_does(layer: GhostLayer, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    given_arguments = arguments(layer, data, dtype)
    with torch.no_grad():
        output = ops.ghost_conv(**given_arguments)
        expected = reference.ghost_conv(**in_float64(given_arguments))
    assert output.dtype == dtype
    # A Winograd kernel rounds a little more than the convolution that it replaces.
    assert_close({"output": output}, {"output": expected}, 1e-4 if dtype == torch.float32 else 1e-9)


@st.composite
def wrong_tensors(draw: st.DrawFn, tensor: torch.Tensor) -> Any:
    # What was changed before may have no values to change again.
    assume(tensor.layout == torch.strided and not tensor.is_meta)
    kind = draw(
        st.sampled_from(
            [
                "dtype",
                "narrow",
                "empty",
                "flat",
                "none",
                "meta",
                "sparse",
                "large",
                "negative",
                "nan",
            ]
        )
    )
    if kind == "dtype":
        kinds = (
            torch.float16,
            torch.bfloat16,
            torch.int8,
            torch.int64,
            torch.bool,
            torch.complex64,
        )
        return tensor.to(draw(st.sampled_from(kinds)))
    if kind == "narrow":
        dimension = draw(st.integers(0, max(0, tensor.dim() - 1)))
        assume(tensor.dim() > 0 and tensor.shape[dimension] > 0)
        return tensor.narrow(dimension, 0, tensor.shape[dimension] - 1)
    if kind == "nan":
        return torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
    if kind in ("large", "negative"):
        return torch.full_like(tensor, 2**30 if kind == "large" else -(2**30))
    return {
        "empty": tensor.new_empty(0),
        "flat": tensor.reshape(-1),
        "none": None,
        "meta": tensor.to("meta"),
        "sparse": tensor.to_sparse() if tensor.dim() else tensor,
    }[kind]


def _check_refusal(error: BaseException) -> None:
    assert str(error)


@FUZZ
@given(layer=layers(), data=st.data())
def test_wrong_arguments_are_refused_or_computed_as_the_reference_does(
    layer: GhostLayer, data: st.DataObject
) -> None:
    changed = arguments(layer, data, torch.float32)
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(changed)))
        value = changed[name]
        if isinstance(value, torch.Tensor):
            changed[name] = data.draw(wrong_tensors(value))
        else:
            numbers = st.integers(-3, 3) | st.sampled_from([2**31, 2**62, -(2**63), 0])
            odd = st.sampled_from(["", "relu", "tanh", float("nan"), 1e300, None, (), (1, 1, 1)])
            changed[name] = data.draw(numbers | st.tuples(numbers, numbers) | odd)
    try:
        with torch.no_grad():
            output = ops.ghost_conv(**changed)
    except REFUSALS as error:
        _check_refusal(error)
        return
    if output.is_meta or output.dtype != torch.float32 or not output.numel():
        return
    # The operators take one number for both axes, as torch does.
    for name in ("stride", "padding", "dilation"):
        if isinstance(changed[name], int):
            changed[name] = (changed[name], changed[name])
    with torch.no_grad():
        expected = reference.ghost_conv(**in_float64(changed))
    finite = torch.isfinite(expected) & torch.isfinite(output)
    assert torch.equal(torch.isnan(output), torch.isnan(expected))
    difference = (output.double() - expected)[finite].abs()
    scale = expected[finite].abs().max().clamp_min(1e-3) if finite.any() else torch.tensor(1.0)
    assert not difference.numel() or float(difference.max()) <= 1e-4 * float(scale)
