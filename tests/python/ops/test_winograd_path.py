"""What Winograd's path does that the other paths do not."""

import os
import subprocess
import sys

import pytest
import torch
from fused_path_cases import WINOGRAD_WIDE
from ghost_layer_cases import (
    EVERYTHING,
    assert_close,
    in_float64,
    make_layer,
    values_and_gradients,
)
from ghostsr_ext import ops, reference
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch.nn import functional


def _run(path, layer, force_path, dtype=torch.float32, layout="channels_last"):
    force_path(path)
    return ops.ghost_conv(**layer.fixed(dtype, input=layout, residual=layout))


@pytest.mark.parametrize("layout", ["channels_last", "channel_slice"])
def test_winograd_takes_maps_whose_channels_lie_side_by_side(layout, force_path):
    layer = make_layer(**WINOGRAD_WIDE)

    output = _run("winograd", layer, force_path, layout=layout)
    other = _run("aten", layer, force_path, layout=layout)

    assert not torch.equal(output, other)
    assert_close({"output": output}, {"output": other.double()})


@pytest.mark.parametrize("value", ["", "Winograd", "fast"])
def test_an_unknown_path_is_refused(value):
    with (
        pytest.raises(RuntimeError, match=f'path: found "{value}"; auto, aten, winograd, point'),
        ops.convolution_path(value),
    ):
        pass


@pytest.mark.parametrize("value", ["", "fast", "aten"])
def test_the_environment_decides_from_the_first_call_on(value):
    program = (
        "import torch; from ghostsr_ext import ops; input = torch.zeros(1, 16, 64, 64);"
        "print(ops.packed_weight_bytes(input.to(memory_format=torch.channels_last),"
        "torch.zeros(16, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1, 0))"
    )
    environment = os.environ | {"GHOSTSR_CONVOLUTION": value}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )

    if value == "aten":
        assert ran.stdout == "0\n"
    else:
        message = f'environment variable GHOSTSR_CONVOLUTION: found "{value}"; auto, aten, winograd'
        assert message in ran.stderr


@pytest.mark.parametrize("path", ["aten", "winograd", "auto"])
@pytest.mark.parametrize("mask", [(True, True, True), (True, False, False), (False, True, True)])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_convolution_backward_gives_the_gradients_asked_for(
    padding, groups, mask, path, force_path
):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)

    input, weight = draw(2, 16, 12, 11), draw(24, 16 // groups, 3, 3)
    grad_output = draw(2, 24, 10 + 2 * padding, 9 + 2 * padding)
    exact = [tensor.double().requires_grad_() for tensor in (input, weight)]
    bias = torch.zeros(24, dtype=torch.float64, requires_grad=True)
    output = functional.conv2d(*exact, bias, padding=padding, groups=groups)
    expected = torch.autograd.grad(output, [*exact, bias], grad_output.double())
    force_path(path)

    gradients = torch.ops.ghostsr.convolution_backward(
        grad_output, input, weight, (1, 1), (padding, padding), (1, 1), groups, mask
    )

    for gradient, twin, wanted in zip(gradients, expected, mask, strict=True):
        if wanted:
            assert_close({"gradient": gradient}, {"gradient": twin})
        else:
            assert gradient.numel() == 0


def test_the_gradient_of_the_input_takes_winograd_too(force_path):
    arguments = make_layer(**WINOGRAD_WIDE).fixed(torch.float32, input="channels_last")
    gradients = {}
    for path in ("aten", "winograd"):
        force_path(path)
        gradients[path] = values_and_gradients(ops.ghost_conv, arguments, "channels_last")

    assert not torch.equal(gradients["aten"]["input"], gradients["winograd"]["input"])
    assert torch.equal(gradients["aten"]["weight"], gradients["winograd"]["weight"])


def _trained(path, force_path, steps=3):
    force_path(path)
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        FusedConv2d(3, 16, 3, padding=1, activation="relu"),
        GhostConv2d(16, 16, 3, padding=1, activation="relu", affine=True),
        GhostConv2d(16, 3, 3, padding=1),
    ).to(memory_format=torch.channels_last)
    for layer in network[1:]:
        layer.noise = False
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    pictures, targets = (
        torch.randn(2, 3, 17, 14).to(memory_format=torch.channels_last) for _ in range(2)
    )
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = functional.mse_loss(network(pictures), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: value.double() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("path", ["winograd", "auto"])
def test_training_takes_the_same_course_on_every_path(path, force_path):
    losses, state = _trained("aten", force_path)
    other_losses, other_state = _trained(path, force_path)

    assert other_losses == pytest.approx(losses, rel=1e-5)
    for name, value in state.items():
        assert torch.allclose(other_state[name], value, rtol=1e-4, atol=1e-5), name
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 16, "intrinsic": 12, "ghosts": 12, "size": (45, 38)},
        {"in_channels": 16, "intrinsic": 8, "ghosts": 8, "size": (3, 130), "batch": 3},
        {"in_channels": 64, "intrinsic": 32, "ghosts": 32, "size": (8, 8), "batch": 1},
    ],
    ids=["large", "low", "small"],
)
def test_the_bits_depend_neither_on_the_run_nor_on_the_threads(options, force_path):
    force_path("winograd")
    arguments = make_layer(**EVERYTHING, **options).fixed(
        torch.float32, input="channels_last", residual="channels_last"
    )
    runs = []
    for threads in (1, 1, 2, 3, 7):
        torch.set_num_threads(threads)
        inference = {"inference": ops.ghost_conv(**arguments)}
        runs.append(inference | values_and_gradients(ops.ghost_conv, arguments, "channels_last"))

    # torch's own convolution_backward sums the weight's gradient by threads.
    names = runs[0].keys() - {"weight", "bias"}
    for other in runs[1:]:
        for name in names:
            assert torch.equal(runs[0][name], other[name]), name


def test_the_bits_of_one_picture_do_not_depend_on_its_batch(force_path):
    force_path("winograd")
    arguments = make_layer(**{**WINOGRAD_WIDE, **EVERYTHING, "batch": 3}).fixed(
        torch.float32, input="channels_last", residual="channels_last"
    )
    together = ops.ghost_conv(**arguments)
    maps = {name: arguments[name][1:2] for name in ("input", "residual")}

    assert torch.equal(ops.ghost_conv(**{**arguments, **maps}), together[1:2])


def test_inference_and_training_compute_the_same_layer(force_path):
    force_path("winograd")
    arguments = make_layer(**WINOGRAD_WIDE, **EVERYTHING).fixed(
        torch.float32, input="channels_last", residual="channels_last"
    )
    fused = ops.ghost_conv(**arguments)
    arguments["weight"].requires_grad_()

    assert_close({"output": ops.ghost_conv(**arguments).detach()}, {"output": fused.double()}, 1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_reaches_all_that_depend_on_it(value, force_path):
    layer = make_layer(batch=2, in_channels=16, intrinsic=8, ghosts=0, size=(24, 24))
    arguments = layer.fixed(torch.float32, input="channels_last")
    arguments["input"][0, 3, 12, 12] = value
    expected = reference.ghost_conv(**in_float64(arguments))
    force_path("winograd")

    output = ops.ghost_conv(**arguments)

    assert not output[0, :, 11:14, 11:14].isfinite().any()
    # It spoils whole tiles, but none beyond those whose patches hold it.
    far = torch.ones(24, 24, dtype=torch.bool)
    far[8:16, 8:16] = False
    assert output[0][:, far].isfinite().all()
    assert_close({"output": output[1]}, {"output": expected[1]})


@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5])
def test_gradients_of_a_layer_of_few_outputs(outputs, force_path):
    generator = torch.Generator().manual_seed(0)
    wide, grad_output = (
        torch.randn(3, channels, 11, 7, generator=generator).to(memory_format=torch.channels_last)
        for channels in (20, outputs)
    )
    input, weight = wide[:, 3:19], torch.randn(outputs, 16, 3, 3, generator=generator)
    force_path("winograd")
    geometry = ((1, 1), (1, 1), (1, 1), 1)
    actual = ops.convolution_backward(grad_output, input, weight, *geometry, (True, True, True))

    inputs = [value.double().requires_grad_() for value in (input, weight, torch.zeros(outputs))]
    output = torch.nn.functional.conv2d(*inputs, padding=1)
    expected = torch.autograd.grad(output, inputs, grad_output.double())
    for found, needed in zip(actual, expected, strict=True):
        torch.testing.assert_close(found, needed.float(), rtol=1e-4, atol=1e-4)
