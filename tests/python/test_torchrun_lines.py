"""Every torchrun line of the documents runs, with few processes and small work."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.imaging import imresize, write_image
from ghostsr_ext.models import EDSR
from ghostsr_ext.training import config_from_values, write_config

PROJECT_ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]


def torchrun_lines() -> list[str]:
    lines = []
    for document in DOCUMENTS:
        text = re.sub(r"\\\n\s*", "", document.read_text(encoding="utf-8"))
        lines += re.findall(r"^\s*(torchrun .*--no-python.*)$", text, flags=re.MULTILINE)
    return lines


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the lines speak of, all of them small."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("holiday/one.png", "holiday/two.png"):
        Path(name).parent.mkdir(exist_ok=True)
        write_image(name, imresize(rng.integers(0, 256, (12, 12, 3), np.uint8), 4))
    network = EDSR(scale=2, blocks=1, features=4)
    save_model(network, "ghost.safetensors")
    config = config_from_values(
        {
            "model": {"init": "ghost.safetensors"},
            "data": {"train": ["holiday"], "patch": 8, "cache": "cache"},
            "training": {"steps": 2, "batch_size": 2, "threads": 1, "device": "cpu"},
        },
        "test",
    )
    for name in {word for line in torchrun_lines() for word in line.split()}:
        if name.endswith(".toml"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            write_config(config, name, overwrite=True)
    return tmp_path


def run(line: str) -> None:
    # The command stands for the module of this environment, wherever it is installed.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = shlex.split(re.sub(r"--nproc-per-node \d+", "--nproc-per-node 2", line))[1:]
    begin = words.index("ghostsr")
    command += [*words[:begin], sys.executable, "-m", "ghostsr_cli", *words[begin + 1 :]]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, f"{line}: {ended.stderr}"


@pytest.mark.slow
def test_the_lines_of_the_documents_run(workplace: Path) -> None:
    lines = torchrun_lines()
    assert any("train" in line and "--resume" in line for line in lines)
    (upscale,) = (shlex.split(line) for line in lines if " upscale " in line)
    enlarged = Path(upscale[upscale.index("--output") + 1])
    for line in lines:
        run(line)
    assert {path.name for path in enlarged.iterdir()} >= {"one_x2.png", "two_x2.png"}
    assert Path("runs/paper/final.safetensors").exists()


def test_options_of_the_lines_are_none_that_torchrun_takes_for_its_own() -> None:
    """Its parser knows short forms of its options, even behind the command that it is to start."""
    from torch.distributed.run import get_args_parser

    parser = get_args_parser()
    for line in torchrun_lines():
        parsed = parser.parse_args(shlex.split(line)[1:])
        assert parsed.training_script == "ghostsr"
        assert parsed.training_script_args == shlex.split(line[line.index("ghostsr ") :])[1:]
