import numpy as np
import pytest
from command_line import invoke
from ghostsr_cli.report import report_command
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models.edsr import EDSR


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense = EDSR(scale=2, blocks=1, features=8)
    save_model(dense, "dense.safetensors")
    save_model(convert(dense)[0], "ghost.safetensors")
    (tmp_path / "two").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    write_image(tmp_path / "two/a.png", picture)
    return tmp_path


def run(*arguments):
    quick = ("--data", "two", "--size", "12x8", "--repeats", "2")
    return invoke(report_command, *arguments, *quick)


def test_a_page_is_written(folder):
    result = run("dense.safetensors", "ghost.safetensors", "--pictures", "png")

    assert (result.exit_code, result.stdout) == (0, "report.html\n")
    assert "ghost beside dense" in (folder / "report.html").read_text()
    assert (folder / "png/a_bicubic.png").exists()


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(folder):
    with pytest.raises(InputError, match=r"layer: found head; allowed are body\.0\.conv1"):
        run("dense.safetensors", "ghost.safetensors", "--layer", "head")


def test_one_model_is_not_enough(folder):
    with pytest.raises(InputError, match="a dense and a converted network"):
        run("dense.safetensors")
