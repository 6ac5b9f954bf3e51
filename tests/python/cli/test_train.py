import json
from pathlib import Path

import numpy as np
import pytest
from command_line import invoke
from ghostsr_cli.train import train_command
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models import create_model
from ghostsr_ext.nn import ghost_layers

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
QUICK = ("--set", "training.steps=2", "--set", "data.patch=8", "--set", "training.batch_size=2")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        image = np.random.default_rng(ord(name)).integers(0, 256, (48, 36, 3), np.uint8)
        write_image(tmp_path / "pictures" / f"{name}.png", image)
    return tmp_path


def run(*arguments):
    return invoke(train_command, *arguments)


def test_a_dense_network_is_converted_and_trained_without_a_configuration(folder):
    save_model(create_model("edsr_baseline", blocks=1, features=8), folder / "dense.safetensors")

    result = run(
        "--init", "dense.safetensors", "--convert", "kmeans", "--ratio", 0.25,
        "--data", "pictures", "--validation", "pictures", "--run", "out", *QUICK,
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "best: " in result.output
    ghosts = ghost_layers(load_model(folder / "out" / "best.safetensors"))
    assert [layer.ghost_channels for layer in ghosts.values()] == [2, 2]


def test_the_small_configuration_of_the_project_runs(folder):
    result = run(CONFIGS / "ci_tiny.toml", *QUICK)

    assert result.exit_code == 0, result.output
    assert "samples x2" in result.stderr
    assert (folder / "runs" / "ci_tiny" / "final.safetensors").exists()


def test_a_run_goes_on_by_its_folder_alone(folder):
    run(CONFIGS / "ci_tiny.toml", "--data", "pictures", "--run", "out", *QUICK)

    result = run("--run", "out", "--resume")

    assert result.exit_code == 0, result.output
    assert "networks: out/" in result.output


def test_the_schema_is_printed_as_json():
    schema = json.loads(run("--schema").output)

    assert schema["title"] == "Config"


def test_without_configuration_and_folder_the_folder_is_asked_for(folder):
    with pytest.raises(InputError, match="--run-folder DIR: is needed"):
        run("--data", "pictures")


def test_a_mistyped_key_is_one_clear_error(folder):
    with pytest.raises(InputError, match=r"stesp: unknown key; did you mean training\.steps"):
        run(CONFIGS / "ci_tiny.toml", "--data", "pictures", "--set", "training.stesp=2")


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("**/*.toml")), ids=lambda path: path.stem)
def test_every_configuration_of_the_project_is_valid(config, monkeypatch):
    from ghostsr_ext.training import read_config

    monkeypatch.setenv("GHOSTSR_DATA", "/data")
    base, more = (
        (config.with_name("edsr.toml"), [config]) if config.stem == "ghost" else (config, [])
    )
    settings = read_config(base, more=more)
    assert not any(str(path).startswith("..") for path in settings.data.train)


def test_a_network_of_the_papers_becomes_a_ghost_network_by_a_second_configuration(folder):
    save_model(create_model("edsr", blocks=1, features=8), folder / "dense.safetensors")
    small = ("--set", "model.arguments={scale=2, blocks=1, features=8}", "--data", "pictures")
    result = run(
        *(CONFIGS / "paper/edsr.toml", CONFIGS / "paper/ghost.toml", *small, *QUICK),
        *("--set", "model.pretrained=dense.safetensors", "--set", "validation.sets=[]"),
        *("--set", "data.workers=0"),
    )

    assert result.exit_code == 0, result.output
    assert len(ghost_layers(load_model(folder / "runs/edsr_ghost/final.safetensors"))) == 2
