import json

import numpy as np
import pytest
from command_line import invoke
from ghostsr_cli.eval import evaluate_command
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import InputError
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.imaging import write_image
from ghostsr_ext.metrics import Protocol
from ghostsr_ext.models import create_model


@pytest.fixture
def folder(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        for picture in ("one", "two"):
            path = tmp_path / name / f"{picture}.png"
            path.parent.mkdir(exist_ok=True)
            image = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), np.uint8)
            write_image(path, image)
    save_model(
        create_model("edsr_baseline", scale=2, blocks=1, features=4), tmp_path / "small.safetensors"
    )
    save_model(create_model("vdsr", layers=3, features=4), tmp_path / "vdsr.safetensors")
    return tmp_path


def run(*arguments):
    return invoke(evaluate_command, *arguments)


def test_the_table_has_a_row_for_each_network_set_and_scale(folder):
    result = run(
        folder / "small.safetensors",
        folder / "vdsr.safetensors",
        "--data",
        folder / "a",
        "--data",
        folder / "b",
    )

    assert result.exit_code == 0
    rows = [
        line for line in result.stdout.splitlines() if "x2" in line or "x3" in line or "x4" in line
    ]
    assert sum("small" in row for row in rows) == 2
    assert sum("vdsr" in row for row in rows) == 6


def test_the_json_file_holds_what_the_library_measures(folder):
    run(
        folder / "small.safetensors",
        "--data",
        folder / "a",
        "--scale",
        2,
        "--json",
        folder / "out.json",
    )

    (row,) = json.loads((folder / "out.json").read_text())["results"]
    assert row.pop("model") == str(folder / "small.safetensors")
    model = load_model(folder / "small.safetensors")
    assert row == evaluate(model, open_picture_set(folder / "a"), 2).as_dict()


def test_json_on_standard_output_is_alone_there(folder):
    result = run(folder / "small.safetensors", "--data", folder / "a", "--json", "-")

    document = json.loads(result.stdout)
    assert {"psnr", "ssim", "images", "protocol"} <= document["results"][0].keys()
    assert "PSNR" in result.stderr


@pytest.mark.parametrize(
    ("options", "protocol"),
    [
        ([], Protocol.benchmark(2)),
        (["--y", "uint8"], Protocol.benchmark(2, y_rounding="uint8")),
        (["--channel", "rgb"], Protocol.div2k(2)),
        (["--channel", "rgb", "--crop-border", "3"], Protocol("rgb", crop_border=3)),
        (["--low", "float"], Protocol(crop_border=2, low_resolution="float")),
    ],
)
def test_options_change_the_protocol(folder, options, protocol):
    result = run(folder / "small.safetensors", "--data", folder / "a", "--json", "-", *options)

    assert json.loads(result.stdout)["results"][0]["protocol"] == protocol.as_dict()


def test_vdsr_is_measured_by_its_own_protocol(folder):
    result = run(folder / "vdsr.safetensors", "--data", folder / "a", "--scale", 3, "--json", "-")

    (row,) = json.loads(result.stdout)["results"]
    assert row["protocol"] == Protocol.vdsr(3).as_dict()


def test_self_ensemble_tile_and_dtype_are_passed_on(folder):
    result = run(
        *(folder / "small.safetensors", "--data", folder / "a", "--json", "-"),
        *("--self-ensemble", "--tile", 20, "--dtype", "float64"),
    )

    (row,) = json.loads(result.stdout)["results"]
    assert (row["self_ensemble"], row["tile"], row["dtype"]) == (True, 20, "float64")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.pth", "--data", "a"], "gone.pth"),
        (["small.safetensors", "--data", "gone"], "gone: is not a folder"),
        (
            ["small.safetensors", "--data", "a", "--scale", "3"],
            "scale: found 3; this network serves x2",
        ),
        (["small.safetensors", "--data", "a", "--device", "tpu"], "--device: found 'tpu'"),
        (["small.safetensors", "--data", "a", "--device", "cuda:99"], "--device: found 'cuda:99'"),
        (["small.safetensors", "--data", "a", "--json", "a"], "output a: cannot be written"),
        (["small.safetensors", "--data", "a", "--json", "gone/x"], "output gone/x: cannot be"),
        (["small.safetensors", "--data", "a", "--json", "vdsr.safetensors"], "exists already"),
        (["small.safetensors", "--data", "a", "--tile", "0"], "--tile: found '0'"),
        (
            ["small.safetensors", "--data", "a", "--crop-border", "30"],
            "crop_border: 30 leaves nothing",
        ),
    ],
)
def test_mistakes_are_reported_and_nothing_is_printed(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)

    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_every_set_is_checked_before_anything_is_measured(folder, monkeypatch):
    (folder / "b/two.png").write_text("words")
    monkeypatch.setattr("ghostsr_ext.evaluation.evaluate", lambda *_, **__: pytest.fail("measured"))

    with pytest.raises(InputError, match=r"b/two\.png: is not a picture"):
        run(folder / "small.safetensors", "--data", folder / "a", "--data", folder / "b")


def test_an_existing_json_file_is_replaced_when_asked(folder):
    (folder / "out.json").write_text("old")

    run(
        folder / "small.safetensors",
        "--data",
        folder / "a",
        "--json",
        folder / "out.json",
        "--overwrite",
    )

    assert json.loads((folder / "out.json").read_text())["results"]


@pytest.mark.parametrize("option", [["--scale", "0"], ["--y", "int"], ["--dtype", "int8"], []])
def test_wrong_usage_ends_with_status_2(folder, option):
    arguments = [
        folder / "small.safetensors",
        *(["--data", folder / "a"] if option else []),
        *option,
    ]

    assert run(*arguments).exit_code == 2
