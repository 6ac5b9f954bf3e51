"""Commands compute where ``--device`` says."""

import json

import numpy as np
import pytest
import torch
from ghostsr_cli.main import create_app
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.imaging import read_picture, write_image
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.nn import GhostConv2d
from typer.testing import CliRunner


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(EDSR(scale=2, blocks=1, features=8), "dense.safetensors")
    (tmp_path / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for name in "ab":
        picture = generator.integers(0, 256, (100, 96, 3), np.uint8)
        write_image(tmp_path / f"pictures/{name}.png", picture)
    return tmp_path


def run(*arguments):
    result = CliRunner().invoke(create_app(), [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return result.stdout


def test_upscale(folder, device):
    run("upscale", "pictures", "-m", "dense.safetensors", "-o", "out", "--device", device.name)
    run("upscale", "pictures", "-m", "dense.safetensors", "-o", "cpu", "--device", "cpu")

    for name in ("a_x2.png", "b_x2.png"):
        here, there = (
            read_picture(path / name).pixels for path in (folder / "out", folder / "cpu")
        )
        assert np.abs(here.astype(int) - there).max() <= 1


def test_a_calibrated_conversion(folder, device):
    options = ("--calibration", "pictures", "--layers", "body.*", "--device", device.name)

    run("convert", "dense.safetensors", "ghost.safetensors", *options)

    ghost = load_model("ghost.safetensors")
    assert any(isinstance(layer, GhostConv2d) for layer in ghost.modules())
    assert ghost(torch.rand(1, 3, 8, 9)).isfinite().all()


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "dense.safetensors", "--data", "pictures", "--scale", "2"),
        ("bench", "dense.safetensors", "--size", "16x12", "--repeats", "2"),
    ],
    ids=lambda command: command[0],
)
def test_what_is_measured_names_the_device(folder, device, command):
    document = json.loads(run(*command, "--json", "-", "--device", device.name))

    entry = document["results"][0] if command[0] == "eval" else document
    assert torch.device(entry["device"]).type == device.name
