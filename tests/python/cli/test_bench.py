import json

import numpy as np
import pytest
import typer
from command_line import invoke
from ghostsr_cli.bench import bench_command
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models.edsr import EDSR
from typer.testing import CliRunner


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("large", "small"):
        features = 8 if name == "large" else 4
        save_model(EDSR(scale=2, blocks=1, features=features), f"{name}.safetensors")
    return tmp_path


def run(*arguments):
    quick = ("--size", "12x8", "--repeats", "2")
    return invoke(bench_command, *arguments, *quick)


def test_networks_are_told_side_by_side(folder):
    result = run("large.safetensors", "small.safetensors")

    assert result.exit_code == 0
    rows = [line.split("  ")[0].strip() for line in result.stdout.splitlines()[3:6]]
    assert rows == ["large, plain torch", "large", "small"]
    assert "x2 from 12x8" in result.stdout


def test_columns_that_do_not_fit_beside_the_names_stand_below(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "44")

    lines = run("large.safetensors", "small.safetensors").stdout.splitlines()

    assert max(map(len, lines)) <= 44
    headings = [line.split() for line in lines if line.strip().startswith("network ")]
    assert len(headings) > 1
    assert [word for line in headings for word in line if word != "network"] == [
        *("parameters", "MACs", "latency", "spread", "speed", "MPix/s", "memory")
    ]
    for name in ("large, plain torch", "large", "small"):
        assert sum(line.split("  ")[0].strip() == name for line in lines) == len(headings)


def test_markdown_is_printed_where_asked(folder):
    assert run("large.safetensors", "--markdown").stdout.startswith("| network | parameters |")


def test_json_goes_to_a_file_or_to_standard_output_alone(folder):
    run("large.safetensors", "--json", "bench.json")
    printed = run("large.safetensors", "--json", "-").stdout

    for text in ((folder / "bench.json").read_text(), printed):
        names = [network["name"] for network in json.loads(text)["networks"]]
        assert names == ["large, plain torch", "large"]


def test_plain_torch_is_left_out_where_asked(folder):
    printed = run("large.safetensors", "--no-plain-torch", "--json", "-").stdout

    assert [network["name"] for network in json.loads(printed)["networks"]] == ["large"]


def test_psnr_is_measured_on_a_data_set(folder):
    (folder / "two").mkdir()
    generator = np.random.default_rng(0)
    for name in "ab":
        picture = generator.integers(0, 256, (24, 24, 3), np.uint8)
        write_image(folder / f"two/{name}.png", picture)

    result = run("large.safetensors", "--data", "two", "--markdown")

    assert "PSNR two" in result.stdout
    assert " dB |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["large.safetensors", "large.safetensors"], r"MODEL: found large\.safetensors twice"),
        (["gone.safetensors"], r"model gone\.safetensors: does not exist"),
        (["large.safetensors", "--scale", "3"], "scale: found 3; this network serves x2"),
    ],
)
def test_wrong_arguments_are_one_clear_error(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_a_size_that_is_none_is_refused(folder):
    app = typer.Typer()
    app.command()(bench_command)

    result = CliRunner().invoke(app, ["large.safetensors", "--size", "big"])

    assert str(result.exception) == "--size: found 'big'; WIDTHxHEIGHT such as 320x180 is allowed"
