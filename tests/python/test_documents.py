"""Every block of code in README.md and docs/ is run, each document in a folder of its own."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from document_blocks import LEFT_OUT, PROJECT_ROOT, SCRIPTS, blocks, shell_lines
from ghostsr_cli.main import create_app
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.imaging import imresize, write_image
from published_networks import EdsrPytorch
from typer.testing import CliRunner

DOCUMENTS = [
    PROJECT_ROOT / "README.md",
    PROJECT_ROOT / "CONTRIBUTING.md",
    *sorted((PROJECT_ROOT / "docs").glob("*.md")),
]
RNG = np.random.default_rng(0)

# Commands that are read, not run: their options must exist.
ONLY_READ = ("ghostsr train", "ghostsr demo")
# Of published networks and data sets, which take long.
PUBLISHED = ("edsr_r8f64_x2.pth", "Kodak24")
NEEDS = {".xml": "openvino", ".onnx": "onnxruntime", ".param": "pnnx", "film.mp4": "av"}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that documents speak of, all of them small."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "holiday/one.png", "holiday/two.jpg", "scans/a.tif"):
        Path(name).parent.mkdir(exist_ok=True)
        write_image(name, imresize(RNG.integers(0, 256, (25, 28, 3), np.uint8), 4))
    for folder in ("Set5/HR", "Set5/LR_bicubic/X2"):
        Path(folder).mkdir(parents=True)
    for name in ("baby", "bird"):
        high = imresize(RNG.integers(0, 256, (12, 16, 3), np.uint8), 4)
        write_image(f"Set5/HR/{name}.png", high)
        write_image(f"Set5/LR_bicubic/X2/{name}x2.png", imresize(high, 0.5))
    torch.manual_seed(0)
    network = EdsrPytorch(2, features=8, mean=(0.4488 * 255, 0.4371 * 255, 0.404 * 255))
    torch.save(network.state_dict(), "edsr.pth")
    save_model(convert(load_model("edsr.pth"))[0], "ghost.safetensors")
    return tmp_path


def write_film(path):
    av = pytest.importorskip("av", reason="the film needs PyAV (extra: video)")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(2):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8)))
            )
        container.mux(stream.encode(None))


def run_shell(script, where):
    for line in shell_lines(script):
        line = re.sub(r"^(?:[A-Z_]+=\S* )+", "", line)
        if line.startswith(("#", *LEFT_OUT)):
            continue
        if line.startswith(SCRIPTS):
            # Takes minutes to hours; the script must exist.
            assert (PROJECT_ROOT / line.split()[1]).is_file(), f"{where}: no such script: {line}"
            continue
        assert line.startswith("ghostsr "), f"{where}: no command that is known here: {line}"
        if line.startswith(ONLY_READ) or any(name in line for name in PUBLISHED):
            check_options(line, where)
        elif "<" in line or "|" in line or "--import" in line:
            run_in_bash(line, where)
        else:
            invoke(shlex.split(line, comments=True)[1:], where)


def invoke(arguments, where):
    for part, package in NEEDS.items():
        if any(argument.endswith(part) for argument in arguments):
            pytest.importorskip(package, reason=f"{where} needs {package}")
    if "film.mp4" in arguments:
        write_film(Path("film.mp4"))
    if arguments[0] == "convert" and Path(arguments[2]).exists():
        Path(arguments[2]).unlink()
    result = CliRunner().invoke(create_app(), arguments)
    assert result.exit_code == 0, f"{where}: {' '.join(arguments)}: {result.exception}"


def run_in_bash(line, where):
    command = f"{shlex.quote(sys.executable)} -m ghostsr_cli"
    line = re.sub(r"\bghostsr\b", lambda _: command, line, count=1)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, f"{where}: {line}: {done.stderr}"


def check_options(line, where):
    words = shlex.split(line, comments=True)
    described = CliRunner().invoke(create_app(), [words[1], "--help"]).stdout
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert option in described, f"{where}: {words[1]} has no option {option}"


def run_python(code, where):
    exec(compile(code, where, "exec"), {"__name__": "document"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_code_in_documents_runs(document, workplace, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = list(blocks(document))
    if not found:
        pytest.skip("has no Python and no commands")
    files = []
    for language, line, content in found:
        where = f"{document.name}:{line}"
        if language not in ("python", "sh"):
            Path(language).write_text(content)
            files.append(Path(language).stem)
        elif language == "python" and any(f"import {name}" in content for name in files):
            # What such a file registers is for nobody else.
            done = subprocess.run([sys.executable, "-c", content], capture_output=True, text=True)
            assert done.returncode == 0, f"{where}: {done.stderr}"
        elif language == "python":
            if "onnxruntime" in content:
                pytest.importorskip("onnxruntime", reason=f"{where} needs ONNX Runtime")
            run_python(content, where)
        else:
            run_shell(content, where)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_documents_link_to_exist(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
