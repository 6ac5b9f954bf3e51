"""All gradients of a layer of fixed shifts in one operator: its twin's, and what is refused."""

import itertools

import pytest
import torch
from ghost_layer_cases import DENSE_LAYOUTS, LAYOUTS, TOLERANCE, assert_close, make_layer
from ghostsr_ext import ops, reference
from torch.library import opcheck

OPERATOR = torch.ops.ghostsr.ghost_conv_backward.default
LEAVES = ("input", "weight", "bias", "ghost_bias", "residual")
MASKS = [
    (True, True, True, True, True),
    (True, False, False, False, False),
    (False, True, False, False, True),
    (False, False, True, True, False),
    (False, False, False, False, True),
    (False, False, False, False, False),
]
LAYERS = {
    "dense": {"intrinsic": 8, "ghosts": 0},
    "scaled": {"intrinsic": 8, "ghosts": 0, "residual_scale": 0.5},
    "ordered": {"intrinsic": 8, "ghosts": 0, "ordered": True},
    "ghosts": {"intrinsic": 4, "ghosts": 4},
    "affine ghosts": {"intrinsic": 5, "ghosts": 7, "affine": True, "residual_scale": -0.5},
    "one source": {"intrinsic": 1, "ghosts": 3, "affine": True, "ordered": True},
    "groups": {"intrinsic": 8, "ghosts": 12, "groups": 4, "max_shift": 2},
    "1x1": {"intrinsic": 12, "ghosts": 4, "kernel": (1, 1), "padding": (0, 0)},
    "stride": {"intrinsic": 3, "ghosts": 5, "stride": (2, 1), "dilation": (1, 2)},
}


def _case(name, activation="none", dtype=torch.float64, layout="channels_last", shuffle=1):
    """Return the operator's arguments, and the gradients that it should give."""
    layer = make_layer(
        **LAYERS[name], residual=True, activation=activation, negative_slope=0.2, size=(7, 37)
    )
    exact = layer.fixed()
    leaves = {key: exact[key] for key in LEAVES if exact.get(key) is not None}
    for leaf in leaves.values():
        leaf.requires_grad_()
    output = reference.ghost_conv(**exact, shuffle=shuffle)
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).double()
    expected = dict(
        zip(leaves, torch.autograd.grad(output, list(leaves.values()), grad_output), strict=True)
    )
    given = layer.fixed(dtype, input=layout)
    for key in ("bias", "ghost_bias", "residual", "prelu_weight"):
        given.pop(key, None)
    given["grad_output"] = LAYOUTS[layout](grad_output.to(dtype))
    given["output"] = LAYOUTS[layout](output.detach().to(dtype)) if activation != "none" else None
    return {**given, "shuffle": shuffle}, expected


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {"expanded"}))
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize("name", LAYERS)
def test_all_gradients_are_those_of_its_twin_whichever_are_wanted(name, activation, layout):
    arguments, expected = _case(name, activation, layout=layout)

    for mask in MASKS:
        found = OPERATOR(**arguments, output_mask=mask)

        for leaf, gradient, wanted in zip(LEAVES, found, mask, strict=True):
            if wanted and leaf in expected:
                assert_close({leaf: gradient}, {leaf: expected[leaf]}, TOLERANCE[torch.float64])
            else:
                assert gradient.numel() == 0 or leaf == "ghost_bias"


@pytest.mark.parametrize("shuffle", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["dense", "ghosts", "groups"])
def test_each_dtype_is_as_exact_as_its_roundings(name, dtype, shuffle):
    arguments, expected = _case(name, "leaky_relu", dtype, shuffle=shuffle)

    found = OPERATOR(**arguments, output_mask=MASKS[0])

    for leaf, gradient in zip(LEAVES, found, strict=True):
        if leaf in expected:
            assert_close({leaf: gradient}, {leaf: expected[leaf]}, 8 * TOLERANCE[dtype])


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize(
    ("name", "shuffle"), [*itertools.product(("dense", "ghosts", "groups"), (2,)), ("wide", 3)]
)
def test_a_pixel_shuffle_is_undone_with_the_activation(name, shuffle, activation, layout, request):
    LAYERS["wide"] = {"intrinsic": 45, "ghosts": 0}
    request.addfinalizer(lambda: LAYERS.pop("wide"))
    for dtype in (torch.float64, torch.float32):
        arguments, expected = _case(name, activation, dtype, layout, shuffle)

        found = OPERATOR(**arguments, output_mask=MASKS[0])

        for leaf, gradient in zip(LEAVES, found, strict=True):
            if leaf in expected:
                assert_close({leaf: gradient}, {leaf: expected[leaf]}, TOLERANCE[dtype])


@pytest.mark.parametrize("mask", [MASKS[0], MASKS[3], MASKS[4]])
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize(
    ("name", "activation", "shuffle"),
    [("dense", "none", 1), ("dense", "relu", 2), ("ghosts", "relu", 1), ("ordered", "none", 1)],
)
def test_torch_finds_nothing_wrong_with_the_operator(name, activation, shuffle, layout, mask):
    arguments, _ = _case(name, activation, layout=layout, shuffle=shuffle)

    opcheck(
        OPERATOR,
        (),
        {**arguments, "output_mask": mask},
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def test_any_number_of_threads_gives_the_same_bits():
    arguments, _ = _case("groups", "relu", torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = OPERATOR(**arguments, output_mask=MASKS[4])
        torch.set_num_threads(3)
        together = OPERATOR(**arguments, output_mask=MASKS[4])
    finally:
        torch.set_num_threads(before)

    assert all(map(torch.equal, alone, together))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_mask": [True] * 3}, "output_mask: found 3 values; 5 are needed"),
        ({"input": None}, "input, weight: found None; both are needed"),
        ({"output": None}, "output: found None; the output"),
        ({"output": torch.zeros(2, 8, 7, 36).double()}, "output: found shape [2, 8, 7, 36]"),
        ({"grad_output": torch.zeros(2, 8, 7).double()}, "grad_output: found shape [2, 8, 7]"),
        ({"grad_output": torch.zeros(2, 8, 6, 37).double()}, "found shape"),
        ({"shuffle": 2}, "shuffle: found 2; a divisor of the height and width"),
        ({"shuffle": 0}, "shuffle: found 0"),
        ({"grad_output": torch.zeros(2, 8, 0, 0).double(), "shuffle": 2**40}, f"found {2**40}"),
        ({"source": torch.tensor([0, 1, 2, 4])}, "source: found 4"),
    ],
)
def test_wrong_arguments_are_refused_by_name(changes, message):
    arguments, _ = _case("ghosts", "relu")

    with pytest.raises(RuntimeError) as error:
        OPERATOR(**{**arguments, "output_mask": MASKS[0], **changes})
    assert message in str(error.value)


def test_a_layer_whose_shuffle_is_its_own_gives_the_gradients_of_torchs():
    layer = make_layer(intrinsic=12, ghosts=0, activation="relu")
    own, apart = (layer.fixed(torch.float32, input="channels_last") for _ in range(2))
    for arguments in (own, apart):
        arguments["input"].requires_grad_()
        arguments["weight"].requires_grad_()

    shuffled = ops.ghost_conv(**own, shuffle=2)
    by_torch = torch.nn.functional.pixel_shuffle(ops.ghost_conv(**apart), 2)
    gradient = torch.randn(shuffled.shape)
    shuffled.backward(gradient)
    by_torch.backward(gradient)

    found, expected = (
        {name: arguments[name].grad for name in ("input", "weight")} for arguments in (own, apart)
    )
    assert_close(found, expected, TOLERANCE[torch.float32])
