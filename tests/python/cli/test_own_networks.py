"""Networks of a user's package are known to every command."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ghostsr_ext.imaging import write_image
from user_package import install, write_module

# Every command that takes a model, one after the other, in one fresh process.
EVERY_COMMAND = """
import sys
from ghostsr_cli.main import create_app
from typer.testing import CliRunner

def run(line):
    result = CliRunner().invoke(create_app(), line.split())
    if result.exit_code:
        raise SystemExit(f"ghostsr {line}: {result.output} {result.exception!r}")
    return result.output

assert "tiny, x2" in run("info theirs.pth")
run("upscale picture.png --model theirs.pth --output dense")
run("convert theirs.pth ghost.safetensors --method kmeans")
assert "2 of 4 convolutions are ghost layers" in run("info ghost.safetensors")
run("upscale picture.png --model ghost.safetensors --output ghost")
run("eval theirs.pth ghost.safetensors --data set --scale 2")
run("bench theirs.pth ghost.safetensors --size 16x12 --repeats 1")
run("report theirs.pth ghost.safetensors --data set --size 16x12 --repeats 1 --output page.html")
run("export ghost.safetensors ghost.pt2")
run("train --init ghost.safetensors --data set/HR --validation set/HR --run run"
    " --set training.steps=1 --set data.patch=8 --set training.batch_size=2")
run("train tiny.toml --data set/HR --validation set/HR --run dense_run"
    " --set training.steps=1 --set data.patch=8 --set training.batch_size=2")
"""

# Their file, made where the package is not known.
MAKE_THEIRS = """
import torch, tiny_networks
state = tiny_networks.Tiny(features=6).state_dict()
torch.save({f"theirs.{name}": value for name, value in state.items()}, "theirs.pth")
"""


def python(code: str, *path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": search, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def ghostsr(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from ghostsr_cli.main import main; sys.path.pop(0); main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GHOSTSR_IMPORT", raising=False)
    (tmp_path / "package").mkdir()
    (tmp_path / "set" / "HR").mkdir(parents=True)
    pictures = np.random.default_rng(0)
    write_image(tmp_path / "picture.png", pictures.integers(0, 256, (12, 10, 3), np.uint8))
    for name in ("a", "b"):
        image = pictures.integers(0, 256, (48, 36, 3), np.uint8)
        write_image(tmp_path / "set" / "HR" / f"{name}.png", image)
    (tmp_path / "tiny.toml").write_text('[model]\npreset = "tiny_wide"\n')
    return tmp_path


def test_a_package_with_an_entry_point_is_known_without_being_named(folder: Path) -> None:
    site = install(folder / "package")
    assert python(MAKE_THEIRS, site).returncode == 0

    search = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    done = ghostsr("info", "theirs.pth", PYTHONPATH=search)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny, x2")


@pytest.mark.slow
def test_a_package_with_an_entry_point_is_known_to_every_command(folder: Path) -> None:
    site = install(folder / "package")
    done = python(MAKE_THEIRS, site)
    assert done.returncode == 0, done.stderr

    done = python(EVERY_COMMAND, site)

    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "page.html").exists()
    assert (folder / "run" / "final.safetensors").exists()


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_module_in_the_working_folder_can_be_named(folder: Path, way: str) -> None:
    write_module(folder)
    assert python(MAKE_THEIRS, folder).returncode == 0
    options = ["--import", "tiny_networks"] if way == "option" else []
    variables = {"GHOSTSR_IMPORT": "tiny_networks"} if way == "variable" else {}

    done = ghostsr("info", "theirs.pth", *options, **variables)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny, x2")


def test_without_it_the_error_says_what_to_do(folder: Path) -> None:
    write_module(folder, "elsewhere")
    code = "import elsewhere\nfrom ghostsr_ext.checkpoints import save_model\n"
    done = python(code + "save_model(elsewhere.Tiny(), 'own.safetensors')", folder)
    assert done.returncode == 0, done.stderr

    done = ghostsr("info", "own.safetensors")

    assert done.returncode == 1
    assert "architecture 'tiny': unknown" in done.stderr
    assert "--import" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "content", "message"),
    [
        ("missing", None, "--import missing: cannot be imported (ModuleNotFoundError: No module"),
        ("broken", "def", "--import broken: cannot be imported (SyntaxError: "),
        ("raising", "1 / 0", "--import raising: cannot be imported (ZeroDivisionError: "),
        ("mine.py/", None, "--import: found 'mine.py/'; the name of a module such as"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_clear_error(
    folder: Path, module: str, content: str | None, message: str
) -> None:
    if content is not None:
        (folder / f"{module}.py").write_text(content)

    done = ghostsr("info", "x2", "--import", module)

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
