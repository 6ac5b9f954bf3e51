"""What a program sees of the package: ``import ghostsr_ext`` and its names."""

import inspect
import pydoc
import subprocess
import sys
import textwrap
from pathlib import Path

import ghostsr_ext
import pytest
import torch


def run_python(program):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_registers_the_operators():
    program = """
        import torch, ghostsr_ext
        table = torch.empty(0, dtype=torch.int64)
        maps, weight = torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 1), 3.0)
        arguments = maps, weight, None, table, table.view(0, 2)
        print(torch.ops.ghostsr.ghost_conv(*arguments).sum().item())
        print(ghostsr_ext.ops.ghost_conv(*arguments).sum().item())
    """
    assert run_python(program).split() == ["12.0", "12.0"]


def test_importing_the_package_does_not_load_what_operators_do_not_need():
    program = """
        import sys, ghostsr_ext
        print(sorted({"sklearn", "PIL", "pydantic", "typer", "safetensors"} & set(sys.modules)))
    """
    assert run_python(program).strip() == "[]"


@pytest.mark.parametrize("name", ghostsr_ext.__all__)
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(ghostsr_ext, name)
    if name != "__version__":
        assert inspect.getdoc(value)


def test_nothing_but_the_public_names_is_listed():
    assert dir(ghostsr_ext) == sorted(ghostsr_ext.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'konvert'"):
        _ = ghostsr_ext.konvert


def test_names_for_type_checkers_are_those_that_are_loaded():
    """Each name under TYPE_CHECKING comes from the module that the lazy import takes it from."""
    import ast

    tree = ast.parse(Path(ghostsr_ext.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.asname or alias.name: line.module
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert declared == ghostsr_ext._LAZY
    assert set(declared) | {"ops", "__version__"} == set(ghostsr_ext.__all__)


def test_help_names_what_to_begin_with():
    text = pydoc.plain(pydoc.render_doc(ghostsr_ext))
    for name in ("Upscaler", "load_model", "convert", "save_model"):
        assert name in text


TABLE = torch.empty(0, dtype=torch.int64)
CONVOLUTION = (torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3), None, TABLE, TABLE.view(0, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ghostsr_ext.convert("edsr.pth"), "model: found 'edsr.pth'; a network is needed"),
        (lambda: ghostsr_ext.fuse("edsr.pth"), "module: found str"),
        (lambda: ghostsr_ext.load_model("x9"), "model x9: does not exist; a file or one of x2"),
        (lambda: ghostsr_ext.load_model(9), "model: found int; a path"),
        (lambda: ghostsr_ext.load_model("x2", device="cuda:99"), "device: found 'cuda:99'"),
        (lambda: ghostsr_ext.save_model("edsr.pth", "a.safetensors"), "model: found str"),
        (lambda: ghostsr_ext.create_model("edsrr"), "did you mean 'edsr'"),
        (lambda: ghostsr_ext.Upscaler("x2", dtype="float16"), "dtype: found 'float16'"),
        (lambda: ghostsr_ext.GhostConv2d(8, 8, 3, activation="gelu"), 'activation: found "gelu"'),
        (
            lambda: ghostsr_ext.ops.ghost_conv(*CONVOLUTION, padding="same"),
            "padding: found 'same'; integers are allowed",
        ),
    ],
)
def test_a_wrong_argument_is_a_value_error_of_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


RIGHT = """
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ghostsr_ext import (
    GhostConv2d, Upscaler, build_info, convert, create_model, freeze_shifts, load_model, ops,
    save_model,
)


def enlarge(picture: NDArray[np.uint8]) -> Tensor:
    dense = load_model("x2")
    ghost, report = convert(dense, 0.5, method="kmeans")
    scales: tuple[int, ...] = ghost.scales
    save_model(ghost, "ghost.safetensors", overwrite=True)
    Upscaler(ghost, tile="auto")(picture).shape
    layer = GhostConv2d(8, 8, 3, padding=1, activation="relu")
    freeze_shifts(layer)
    create_model("edsr_baseline", scale=2)
    print(report.macs_after, scales, build_info()["version"])
    x: Tensor = layer(Tensor())
    return ops.ghost_conv(x, x, None, x, x, activation="relu", stride=2)
"""

OPERATOR = "import torch\nfrom ghostsr_ext import ops\nx = torch.zeros(1)\n"

WRONG = {
    "a misspelled name": "from ghostsr_ext import konvert",
    "a misspelled method": "from ghostsr_ext import convert, load_model\n"
    'convert(load_model("x2"), method="k-means")',
    "a misspelled argument": 'from ghostsr_ext import load_model\nload_model("x2", devise="cpu")',
    "a path to convert": 'from ghostsr_ext import convert\nconvert("edsr.pth")',
    "a type by name": 'from ghostsr_ext import Upscaler\nUpscaler("x2", dtype="float16")',
    "an operator's unknown argument": OPERATOR + "ops.shift_concat(x, x, x, nonsense=3)",
    "an operator's unknown activation": OPERATOR + 'ops.shift_concat(x, x, x, activation="gelu")',
}


@pytest.mark.slow
def test_a_users_script_is_checked_by_mypy(tmp_path):
    """One run of mypy: it accepts what is right and marks each line that is wrong."""
    pytest.importorskip("mypy", reason="needs mypy")
    (tmp_path / "right.py").write_text(RIGHT)
    wrong = {f"wrong_{number}.py": text for number, text in enumerate(WRONG.values())}
    for name, text in wrong.items():
        (tmp_path / name).write_text(text + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", *sorted(wrong), "right.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    marked = {line.split(":")[0] for line in errors}
    assert marked == set(wrong), done.stdout + done.stderr
