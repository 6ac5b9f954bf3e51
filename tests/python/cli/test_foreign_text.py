"""Text from files reaches a terminal escaped and cut, whichever command prints it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ghostsr_cli.main import create_app
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models import EDSR
from safetensors.torch import save_file
from typer.testing import CliRunner

# A window's title, a color, rich's markup and HTML's.
AWKWARD = "\x1b]0;title\x07\x1b[31m[/red]<script>alert(1)</script>"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(create_app(), [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.exception
    return result.output


@pytest.fixture
def dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network whose metadata and whose file name are awkward."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = EDSR(scale=2, blocks=1, features=4)
    model.metadata = {"training": AWKWARD, AWKWARD: {"report": AWKWARD}}
    path = tmp_path / (AWKWARD.replace("/", "|") + ".safetensors")
    save_model(model, path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / AWKWARD.replace("/", "|") / "HR"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    write_image(folder / (AWKWARD.replace("/", "|") + ".png"), pixels)
    return folder.parent


def assert_harmless(output: str) -> None:
    assert output
    assert not [line for line in output.splitlines() if not line.isprintable()]
    assert max(map(len, output.splitlines())) < 3000


def test_info_shows_hyperparameters_escaped(tmp_path: Path) -> None:
    state = EDSR(blocks=1, features=4).state_dict()
    description = {
        "format_version": 1,
        "ghostsr_version": AWKWARD + 10**5 * "x",
        "model": {**EDSR(blocks=1, features=4).config},
    }
    save_file(state, tmp_path / "net.safetensors", metadata={"ghostsr": json.dumps(description)})
    output = run("info", str(tmp_path / "net.safetensors"))
    assert_harmless(output)
    assert r"\x1b]0;title\x07" in output
    document = json.loads(run("info", str(tmp_path / "net.safetensors"), "--json", "-"))
    assert AWKWARD in document["origin"]["evidence"][0]


def test_info_says_which_network_of_a_file_it_describes(tmp_path: Path) -> None:
    from published_networks import EdsrPytorch

    state = EdsrPytorch(2, features=4, blocks=1).state_dict()
    networks = {name: dict(state) for name in ("model", "old\x1b[2J", "ema")}
    torch.save(networks, tmp_path / "both.pth")
    output = run("info", str(tmp_path / "both.pth"))
    assert "several networks in the file: 'ema' was taken, not " in output
    assert_harmless(output)


def test_convert_eval_bench_and_upscale_print_names_escaped(dense: Path, pictures: Path) -> None:
    assert_harmless(run("convert", dense, "ghost\x1b[31m[bold].safetensors"))
    assert_harmless(run("eval", dense, "--data", pictures))
    bench = ("bench", dense, "--size", "16x16", "--repeats", "1")
    assert_harmless(run(*bench))
    assert_harmless(run(*bench, "--markdown"))
    picture = next((pictures / "HR").iterdir())
    assert_harmless(run("upscale", picture, "--model", dense))


def test_the_report_page_has_no_markup_of_a_files(
    dense: Path, pictures: Path, tmp_path: Path
) -> None:
    save_model(convert(load_model(dense))[0], "ghost.safetensors")
    assert_harmless(
        run("report", dense, "ghost.safetensors", "--data", pictures, "--size", "16x16")
    )
    assert "<script>alert" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_traceback_obeys_no_file_either() -> None:
    script = (
        "import ghostsr_cli.main as main\n"
        "def crash(*_, **__): raise RuntimeError('bad \\x1b]0;title\\x07')\n"
        "main.create_app = lambda: crash\n"
        "main.main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 1
    assert r"RuntimeError: bad \x1b]0;title\x07" in ended.stderr
    assert_harmless(ended.stderr)
