"""The operators on a GPU equal their twins in float64; the CPU runs the same tests."""

import pytest
import torch
from ghost_layer_cases import (
    DENSE_LAYOUTS,
    LAYOUTS,
    assert_close,
    in_float64,
    make_layer,
    values_and_gradients,
)
from ghostsr_ext import ops, reference
from ghostsr_ext.nn import GhostConv2d, freeze_shifts
from torch import nn

EVERYTHING = {"affine": True, "ordered": True, "residual": True, "activation": "relu"}
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
# One pixel, an odd width, and planes that fill a block.
SIZES = [(1, 1), (5, 33), (40, 64), (48, 48)]


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def _on_cpu(values):
    return {name: value.cpu() for name, value in values.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ghosts", [5, 8])
def test_epilogue_equals_the_twin(device, size, layout, dtype, ghosts):
    layer = make_layer(
        size=size, intrinsic=8, ghosts=ghosts, integers=True, max_shift=2, **EVERYTHING
    )
    arguments = layer.epilogue(dtype, intrinsic=layout, residual=layout)

    actual = ops.shift_concat(**device.place(arguments))

    expected = reference.shift_concat(**in_float64(arguments))
    assert_close({"output": actual.cpu()}, {"output": expected})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "operator", "twin"),
    [
        ("fixed", ops.ghost_conv, reference.ghost_conv),
        ("learned", ops.ghost_conv_learned, reference.ghost_conv_learned),
    ],
)
@pytest.mark.parametrize("options", [{}, EVERYTHING, {"layer_scope": True, "max_shift": 3}])
def test_layers_and_all_gradients_equal_the_twin(
    device, options, kind, operator, twin, layout, dtype
):
    layer = make_layer(size=(24, 33), intrinsic=8, ghosts=8, **options)
    arguments = getattr(layer, kind)(dtype, input=layout, residual=layout)

    actual = values_and_gradients(
        lambda **values: operator(**device.place(values)).cpu(), arguments, layout
    )

    expected = values_and_gradients(twin, in_float64(arguments))
    assert_close(actual, expected, 1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_shuffled_layers_and_all_gradients_equal_the_twin(device, options, layout):
    layer = make_layer(size=(24, 33), intrinsic=8, ghosts=8, **options)
    arguments = layer.fixed(torch.float32, input=layout, residual=layout) | {"shuffle": 2}

    actual = values_and_gradients(
        lambda **values: ops.ghost_conv(**device.place(values)).cpu(), arguments, layout
    )
    plain = ops.ghost_conv(**device.place(arguments)).cpu()

    expected = values_and_gradients(reference.ghost_conv, in_float64(arguments))
    assert_close(actual, expected, 1e-4)
    assert_close({"output": plain}, {"output": expected["output"]}, 1e-4)


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_a_dense_convolution_before_leaves_a_layer_of_the_same_shape_right(device, layout):
    """A plan that cuDNN keeps for a dense map must not be one for anything else."""
    layer = make_layer(batch=2, in_channels=16, size=(17, 19), intrinsic=8, ghosts=8)
    arguments = layer.fixed(torch.float32, input=layout)
    placed = device.place(arguments)

    for _ in range(2):
        nn.functional.conv2d(placed["input"], placed["weight"], placed["bias"], padding=1)
        actual = ops.ghost_conv(**placed)

    expected = reference.ghost_conv(**in_float64(arguments))
    assert_close({"output": actual.cpu()}, {"output": expected})


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_the_same_input_gives_the_same_bits(device, layout):
    layer = make_layer(size=(40, 48), intrinsic=8, ghosts=8, **EVERYTHING)
    arguments = device.place(layer.epilogue(torch.float32, intrinsic=layout, residual=layout))
    selection = device.place({**layer.selection})
    output = ops.shift_concat(**arguments)
    shared = {
        name: arguments[name]
        for name in ("source", "gain", "ghost_bias", "order", "activation", "residual_scale")
    }

    def gradients():
        return ops.shift_concat_backward(
            output,
            shift=arguments["shift"],
            intrinsic=arguments["intrinsic"],
            output=output,
            output_mask=[True, True, True],
            **shared,
        ) + ops.shift_selection_backward(
            output,
            arguments["intrinsic"],
            logits=selection["logits"],
            noise=selection["noise"],
            tau=0.7,
            output=output,
            **shared,
        )

    for first, second in zip(gradients(), gradients(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("learned", [False, True])
def test_a_recorded_graph_replays_on_new_input(device, learned):
    layer = GhostConv2d(16, 32, 3, padding=1, activation="relu").eval().to(device.name)
    if not learned:
        layer.freeze_shifts()
    input = device.place(torch.randn(2, 16, 20, 24))
    fresh = device.place(torch.randn(2, 16, 20, 24))
    with torch.no_grad():
        result, replay = device.record(lambda: layer(input))
        expected = layer(fresh)
        input.copy_(fresh)
        replay()
    device.synchronize()

    assert torch.equal(result, expected)


def test_two_streams_do_not_mix(device):
    layers = [
        freeze_shifts(GhostConv2d(16, 32, 3, padding=1)).eval().to(device.name) for _ in range(2)
    ]
    inputs = [device.place(torch.randn(2, 16, 64, 64)) for _ in range(2)]
    with torch.no_grad():
        expected = [layer(input) for layer, input in zip(layers, inputs, strict=True)]
        device.synchronize()
        results = [[], []]
        for index, stream in enumerate(device.streams(2)):
            with stream:
                results[index] = [layers[index](inputs[index]) for _ in range(10)]
    device.synchronize()

    for index in range(2):
        for result in results[index]:
            assert torch.equal(result, expected[index])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_equals_an_explicit_cast(device, dtype):
    layer = make_layer(size=(24, 32), intrinsic=8, ghosts=8, **EVERYTHING)
    arguments = device.place(layer.fixed(torch.float32))
    cast = {
        name: value.to(dtype)
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for name, value in arguments.items()
    }

    with torch.autocast(device.name, dtype):
        actual = ops.ghost_conv(**arguments)

    assert actual.dtype == dtype
    assert torch.equal(actual, ops.ghost_conv(**cast))


@pytest.mark.slow
def test_a_compiled_model_equals_the_eager_one(device):
    model = nn.Sequential(
        GhostConv2d(3, 16, 3, padding=1, activation="relu"), GhostConv2d(16, 3, 3, padding=1)
    )
    model = freeze_shifts(model).eval().to(device.name)
    input = device.place(torch.randn(1, 3, 20, 24))
    with torch.no_grad():
        expected = model(input)
        actual = torch.compile(model, fullgraph=True)(input)

    assert_close({"output": actual.cpu()}, {"output": expected.double().cpu()})


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("batch", [0, 2])
def test_empty_maps_have_empty_results_and_zero_sums(device, batch, layout):
    layer = make_layer(batch=2, size=(4, 5), **EVERYTHING)
    arguments = device.place(layer.epilogue(torch.float32, intrinsic=layout, residual=layout))
    output = ops.shift_concat(
        **{
            **arguments,
            "intrinsic": arguments["intrinsic"][:batch],
            "residual": arguments["residual"][:batch],
        }
    )
    gradients = ops.shift_concat_backward(
        output,
        arguments["source"],
        arguments["shift"],
        intrinsic=arguments["intrinsic"][:batch],
        output_mask=[True, True, True],
    )

    assert output.shape[0] == gradients[0].shape[0] == batch
    if batch == 0:
        assert not gradients[1].any()
        assert not gradients[2].any()


def _replaced(name, value):
    def arguments(device):
        placed = device.place(make_layer(**EVERYTHING).epilogue(torch.float32))
        return placed | {name: value(placed)}

    return arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            _replaced("source", lambda placed: placed["source"].float()),
            "source: found dtype float32",
        ),
        (_replaced("order", lambda placed: placed["order"][:-1]), "order: found shape"),
        (_replaced("gain", lambda placed: placed["gain"].double()), "gain: found dtype float64"),
        (
            _replaced("residual", lambda placed: placed["residual"][..., 1:]),
            "residual: found shape",
        ),
        (
            _replaced("intrinsic", lambda placed: placed["intrinsic"].int()),
            "intrinsic: found dtype int32",
        ),
        (_replaced("activation", lambda _: "gelu"), 'activation: found "gelu"'),
    ],
    ids=["table dtype", "table size", "gain dtype", "residual size", "map dtype", "activation"],
)
def test_bad_arguments_get_the_same_words_on_every_device(device, arguments, words):
    with pytest.raises(RuntimeError, match=words):
        ops.shift_concat(**arguments(device))


def test_a_table_on_another_device_is_named(device):
    other = "cpu" if device.name == "cuda" else "meta"
    placed = device.place(make_layer().epilogue(torch.float32))

    with pytest.raises(RuntimeError, match=r"one device is needed|source: found on"):
        ops.shift_concat(**{**placed, "source": placed["source"].to(other)})


def test_entries_out_of_range_never_leave_the_maps(device):
    """The CPU names the entry; a GPU, which reads nothing back, takes the nearest allowed."""
    layer = make_layer(size=(12, 40), intrinsic=8, ghosts=8)
    arguments = layer.epilogue(torch.float32)
    arguments["source"][0] = 99
    arguments["shift"][1, 0] = -1000
    if device.name == "cpu":
        with pytest.raises(RuntimeError, match="source: found 99"):
            ops.shift_concat(**arguments)
        return
    nearest = {
        **arguments,
        "source": arguments["source"].clamp(0, 7),
        "shift": arguments["shift"].clamp(-7, 7),
    }

    actual = ops.shift_concat(**device.place(arguments))

    assert_close(
        {"output": actual.cpu()}, {"output": reference.shift_concat(**in_float64(nearest))}
    )


@pytest.mark.slow
def test_maps_of_more_than_two_to_the_31_elements(device):
    """Offsets take 64 bits. On the CPU a small map stands in for the large one."""
    batch = 2 if device.name == "cpu" else 2 * 2049
    intrinsic = torch.zeros(
        batch, 8, 256, 256 if device.name == "cuda" else 16, dtype=torch.float16
    )
    intrinsic[-1].fill_(1)
    placed = intrinsic.to(device.name)
    table = device.place(torch.zeros(0, dtype=torch.int64))

    output = ops.shift_concat(placed, table, table.view(0, 2))

    assert bool(output[-1].eq(1).all())
    assert not bool(output[:-1].any())
