"""Fake CUDA tensors pass through every operator and come out looking like real ones."""

import pytest
import torch
from ghost_layer_cases import DENSE_LAYOUTS, make_layer
from ghostsr_ext import ops
from ghostsr_ext.nn import GhostConv2d
from torch._subclasses.fake_tensor import FakeTensorMode

EVERYTHING = {"affine": True, "ordered": True, "residual": True, "activation": "relu"}


needs_cuda_torch = pytest.mark.skipif(
    torch.version.cuda is None, reason="this torch knows no CUDA device to make fake tensors of"
)


def _fake(mode, arguments):
    return {
        name: mode.from_tensor(value).to("cuda") if isinstance(value, torch.Tensor) else value
        for name, value in arguments.items()
    }


def _results(results):
    return [results] if isinstance(results, torch.Tensor) else list(results)


def _calls(layer, dtype, layout):
    epilogue = layer.epilogue(dtype, intrinsic=layout, residual=layout)
    output = ops.shift_concat(**epilogue)
    gradient = {
        name: value
        for name, value in epilogue.items()
        if name in ("source", "gain", "ghost_bias", "order", "activation", "residual_scale")
    }
    selection = layer.learned(dtype)
    return {
        ops.ghost_conv: layer.fixed(dtype, input=layout, residual=layout),
        ops.ghost_conv_learned: layer.learned(dtype, input=layout, residual=layout),
        ops.shift_concat: epilogue,
        ops.shift_concat_backward: gradient
        | {
            "grad_output": output,
            "shift": epilogue["shift"],
            "intrinsic": epilogue["intrinsic"],
            "output": output,
            "output_mask": [True, True, True],
        },
        ops.select_shift: {
            "logits": selection["logits"],
            "noise": selection["noise"],
            "tau": selection["tau"],
            "ghosts": len(epilogue["source"]),
        },
        ops.shift_selection_backward: gradient
        | {
            "grad_output": output,
            "intrinsic": epilogue["intrinsic"],
            "logits": selection["logits"],
            "noise": selection["noise"],
            "tau": selection["tau"],
            "output": output,
        },
    }


@needs_cuda_torch
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_fake_cuda_tensors_look_like_the_real_cpu_results(layout, dtype):
    for operator, arguments in _calls(make_layer(**EVERYTHING), dtype, layout).items():
        expected = _results(operator(**arguments))
        with FakeTensorMode() as mode:
            found = _results(operator(**_fake(mode, arguments)))

        for fake, real in zip(found, expected, strict=True):
            assert fake.device.type == "cuda", operator
            assert (fake.shape, fake.dtype, fake.stride()) == (
                real.shape,
                real.dtype,
                real.stride(),
            ), operator


@needs_cuda_torch
def test_a_layer_records_its_gradient_on_fake_cuda_tensors():
    with FakeTensorMode():
        layer = GhostConv2d(16, 32, 3, padding=1, affine=True, activation="relu", device="cuda")
        input = torch.empty(2, 16, 9, 11, device="cuda", requires_grad=True)
        output = layer(input, torch.empty(2, 32, 9, 11, device="cuda"))

    assert output.requires_grad
    assert (output.shape, output.device.type) == ((2, 32, 9, 11), "cuda")
