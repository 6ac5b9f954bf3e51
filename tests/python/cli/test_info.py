import json
import re

import pytest
from ghostsr_cli.main import create_app
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.convolution_paths import convolution_paths
from ghostsr_ext.models import create_model
from typer.testing import CliRunner


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = create_model("edsr", blocks=1, features=16)
    save_model(network, "net.safetensors")
    return network


def run(*arguments):
    result = CliRunner().invoke(create_app(), ["info", *arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_how_each_layer_is_computed_is_told(network):
    output = run("net.safetensors")

    expected = [(p.name, p.path, p.packed_bytes) for p in convolution_paths(network)]
    rows = re.findall(r"^(\S+) +(winograd|pointwise|torch) +([\d,]+)$", output, flags=re.MULTILINE)
    assert [(name, path, int(size.replace(",", ""))) for name, path, size in rows] == expected


def test_the_memory_of_packed_weights_is_summed(network):
    output = run("net.safetensors")

    kept = sum(path.packed_bytes for path in convolution_paths(network))
    assert re.search(rf"^total +{kept:,}$", output, flags=re.MULTILINE)


def test_a_forced_path_is_told(network, force_path):
    force_path("aten")

    assert "winograd" not in run("net.safetensors")


def test_paths_stand_in_the_json_too(network):
    content = json.loads(run("net.safetensors", "--json", "-"))

    first = content["convolution_paths"][0]
    assert set(first) == {"name", "path", "packed_bytes"}
