"""Every command takes a file that spandrel alone knows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ghostsr_cli.main import create_app
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("spandrel", reason="spandrel cannot be imported", exc_type=Exception)

from zoo import build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    torch.save(build("MoSR").state_dict(), folder / "mosr.pth")
    noise = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    (folder / "set" / "HR").mkdir(parents=True)
    picture = Image.fromarray(noise).resize((48, 40), Image.Resampling.BICUBIC)
    picture.save(folder / "set" / "HR" / "noise.png")
    dense, ghost = folder / "mosr.pth", folder / "ghost.safetensors"
    run("convert", dense, ghost)
    return {"folder": folder, "dense": dense, "ghost": ghost, "set": folder / "set"}


def run(*words: object) -> str:
    result = CliRunner().invoke(create_app(), [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return result.output


@pytest.mark.parametrize("network", ["dense", "ghost"])
def test_info(files: dict[str, Path], network: str) -> None:
    assert "network.gblocks" in run("info", files[network])


@pytest.mark.parametrize("network", ["dense", "ghost"])
def test_upscale(files: dict[str, Path], network: str, tmp_path: Path) -> None:
    picture = files["set"] / "HR" / "noise.png"
    run("upscale", picture, "--model", files[network], "--output", tmp_path)
    with Image.open(tmp_path / "noise_x2.png") as enlarged:
        assert enlarged.size == (96, 80)


def test_eval(files: dict[str, Path]) -> None:
    assert "x2" in run("eval", files["dense"], files["ghost"], "--data", files["set"])


def test_bench(files: dict[str, Path]) -> None:
    text = run("bench", files["dense"], files["ghost"], "--size", "32x24", "--repeats", 1)
    assert "mosr" in text
    assert "ghost" in text


def test_report(files: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = ("--data", files["set"], "--output", page, "--size", "32x24", "--repeats", 1)
    run("report", files["dense"], files["ghost"], *options)
    assert page.stat().st_size > 1000


@pytest.mark.parametrize("network", ["dense", "ghost"])
def test_export(files: dict[str, Path], network: str, tmp_path: Path) -> None:
    assert "differs by at most" in run("export", files[network], tmp_path / "network.pt2")
