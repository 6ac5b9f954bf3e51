import pytest
from command_line import invoke
from ghostsr_cli.export import export_command
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.models.edsr import EDSR


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(EDSR(scale=2, blocks=1, features=4), "net.safetensors")


def run(*arguments):
    return invoke(export_command, *arguments)


def test_a_network_is_written_and_the_difference_told(network, tmp_path):
    result = run("net.safetensors", "net.pt2")

    assert result.exit_code == 0
    assert result.stdout.startswith("net.pt2: torch ")
    assert "differs by at most" in result.stdout
    assert (tmp_path / "net.pt2").exists()


def test_the_tolerance_is_obeyed(network):
    with pytest.raises(GhostsrError, match="0 is accepted"):
        run("net.safetensors", "net.pt2", "--tolerance", "0")


def test_an_unknown_suffix_is_refused(network):
    with pytest.raises(InputError, match=r"suffix must be one of \.onnx"):
        run("net.safetensors", "net.caffemodel")
