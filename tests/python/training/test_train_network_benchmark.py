"""The benchmark of a training step times what belongs to the step, and nothing else."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models.edsr import EDSR

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import train_network
from measuring import Clock

CONFIG = """
[model]
init = "dense.safetensors"
[data]
train = ["pictures"]
patch = 8
[distillation]
teacher = "parent"
output = 1.0
[training]
steps = 2
batch_size = 2
"""


def test_the_parts_of_a_step_are_those_of_the_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = np.random.default_rng(0).integers(0, 256, (48, 36, 3), np.uint8)
    Path("pictures").mkdir()
    write_image("pictures/one.png", image)
    save_model(EDSR(scale=2, blocks=1, features=4), "dense.safetensors")
    Path("run.toml").write_text(CONFIG)
    plain_backward, floor_of = torch.autograd.backward, train_network.floor_of
    backward_of_floor = []

    def watched_floor(*arguments):
        run = floor_of(*arguments)

        def floor():
            backward_of_floor.append(torch.autograd.backward)
            run()

        return floor

    monkeypatch.setattr(train_network, "floor_of", watched_floor)

    measured = train_network.measure(Path("run.toml"), 2, Clock.WALL)

    assert sum(measured["parts"].values()) == pytest.approx(1)
    assert all(share > 0 for share in measured["parts"].values())
    assert backward_of_floor == [plain_backward] * 3
