"""README.md and then the quick start, followed in a fresh clone and a fresh virtual environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from document_blocks import PROJECT_ROOT, blocks, shell_lines
from ghostsr_ext.imaging import read_image, write_image
from ghostsr_ext.sample_pictures import picture_folder

DOCUMENTS = ("README.md", "docs/quick-start.md")
# What builds the package (the wheel stands for it), runs until it is stopped, or changes a shell.
LEFT_OUT = ("make ", "pip ", "ghostsr demo", "ghostsr --install-completion")

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, environment: Path | None = None) -> None:
    left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    variables |= {"HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache"), "SHELL": "/bin/bash"}
    if environment is not None:
        variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"


@pytest.fixture
def environment(tmp_path_factory) -> Path:
    """A virtual environment with the wheel that would be shipped, and what it asks for."""
    wheels = sorted((PROJECT_ROOT / "dist").glob("ghostsr-*.whl"), key=os.path.getmtime)
    if not wheels:
        pytest.skip("no wheel in dist/; `make test` builds it")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    version = torch.__version__.partition("+")[0]
    # What is used of torch's thousands of modules is compiled when it is.
    install = (folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile")
    subprocess.run([*install, f"{wheels[-1]}[video]", f"torch=={version}"], check=True)
    return folder


@pytest.fixture
def clone(tmp_path, data_dir) -> Path:
    """A clone of the repository, with real files under the names that documents use."""
    folder = tmp_path / "ghostsr"
    subprocess.run(["git", "clone", "--quiet", PROJECT_ROOT, folder], check=True)
    photographs = sorted(picture_folder("samples").glob("*.jpg"))
    shutil.copy(photographs[0], folder / "photo.jpg")
    for name in ("holiday", "scans"):
        (folder / name).mkdir()
    for photograph in photographs:
        shutil.copy(photograph, folder / "holiday")
    write_image(folder / "scans/page.tif", read_image(photographs[1])[:160, :200])
    shutil.copy(data_dir / "weights/edsr_mobile_f32b5_x2.pth", folder / "edsr.pth")
    (folder / "Set5").symlink_to(data_dir / "Set5")
    return folder


def write_film(path: Path, environment: Path) -> None:
    program = (
        "import av, numpy as np, sys\n"
        "with av.open(sys.argv[1], 'w') as container:\n"
        "    stream = container.add_stream('libx264', rate=5)\n"
        "    stream.height, stream.width, stream.pix_fmt = 32, 48, 'yuv420p'\n"
        "    for gray in range(3):\n"
        "        picture = np.full((32, 48, 3), 80 * gray, np.uint8)\n"
        "        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))\n"
        "    container.mux(stream.encode(None))\n"
    )
    run(environment / "bin/python", "-c", program, path, cwd=path.parent)


def test_the_documents_can_be_followed_to_the_letter(clone, environment):
    write_film(clone / "film.mp4", environment)
    for document in DOCUMENTS:
        for language, _, content in blocks(clone / document):
            if language == "python":
                run("python", "-c", content, cwd=clone, environment=environment)
                continue
            for line in shell_lines(content):
                if not line.startswith(LEFT_OUT):
                    run("bash", "-euo", "pipefail", "-c", line, cwd=clone, environment=environment)
