"""Same input, same bits, in every run and on any threads; other instructions only round."""

import os
import subprocess
import sys

import pytest
import torch
from ghost_layer_cases import DENSE_LAYOUTS, make_layer, values_and_gradients
from ghostsr_ext import ops

# Large enough for every operator to spread over threads.
LARGE = {
    "batch": 2,
    "size": (40, 48),
    "in_channels": 16,
    "intrinsic": 16,
    "ghosts": 16,
    "affine": True,
    "ordered": True,
    "residual": True,
    "activation": "relu",
}


def _everything(layer, dtype, layout):
    """The epilogue with all gradients, the selection's gradient and the fused layer's output."""
    arguments = layer.epilogue(dtype, intrinsic=layout, residual=layout)
    results = values_and_gradients(ops.shift_concat, arguments, layout)
    selection = {name: arguments[name] for name in ("source", "gain", "ghost_bias", "order")}
    scores, grad_logits = ops.shift_selection_backward(
        results["output"], arguments["intrinsic"], **selection, **layer.selection
    )
    fused = ops.ghost_conv(**layer.fixed(dtype, input=layout, residual=layout))
    return results | {"scores": scores, "grad_logits": grad_logits, "fused": fused}


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_bits_depend_neither_on_the_run_nor_on_the_threads(dtype, layout):
    layer = make_layer(**LARGE)
    runs = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(_everything(layer, dtype, layout))

    for other in runs[1:]:
        for name, tensor in runs[0].items():
            assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_the_bits_of_one_picture_do_not_depend_on_its_batch(layout):
    arguments = make_layer(**LARGE).epilogue(torch.float32, intrinsic=layout, residual=layout)
    together = ops.shift_concat(**arguments)
    maps = {name: arguments[name][1:] for name in ("intrinsic", "residual")}

    alone = ops.shift_concat(**{**arguments, **maps})

    assert torch.equal(together[1:], alone)


def _save_everything(path):
    torch.set_num_threads(1)
    torch.save(
        {
            (dtype, layout): _everything(make_layer(**LARGE), dtype, layout)
            for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
            for layout in DENSE_LAYOUTS
        },
        path,
    )


def test_portable_instructions_give_the_same_numbers_within_rounding(tmp_path):
    _save_everything(tmp_path / "here.pt")
    subprocess.run(
        [sys.executable, __file__, tmp_path / "there.pt"],
        env=os.environ | {"GHOSTSR_SIMD": "portable"},
        check=True,
    )

    here, there = (torch.load(tmp_path / f"{name}.pt") for name in ("here", "there"))

    # A step of the dtype for one rounding, and what a sum over a whole map adds up.
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2**-7}
    for (dtype, layout), results in here.items():
        for name, tensor in results.items():
            other = there[dtype, layout][name]
            error = (tensor.double() - other.double()).abs().max()
            allowed = tolerance.get(dtype, 2**-10) * tensor.double().abs().max()
            assert error <= allowed, (dtype, layout, name)


if __name__ == "__main__":
    _save_everything(sys.argv[1])
