import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import invoke
from ghostsr_cli import output
from ghostsr_cli.convert import convert_command
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import distillation, polish_checkpoint
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models import EDSR
from ghostsr_ext.nn import ghost_layers


@pytest.fixture
def folder(tmp_path):
    save_model(EDSR(blocks=2, features=8, residual_scale=1.0), tmp_path / "dense.safetensors")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 256, (100, 110, 3), np.uint8)
        write_image(pictures / f"{number}.png", image)
    return tmp_path


def run(*arguments):
    return invoke(convert_command, *arguments)


def test_the_written_network_has_ghost_layers_and_its_report(folder):
    result = run(folder / "dense.safetensors", folder / "ghost.safetensors")
    assert result.exit_code == 0
    assert "body.1.conv2" in result.stdout
    model = load_model(folder / "ghost.safetensors")
    assert len(ghost_layers(model)) == 4
    assert model.metadata["report"]["method"] == "kmeans"


def test_a_device_that_is_not_here_is_refused_before_any_work(folder):
    with pytest.raises(InputError, match="--device: found 'abacus'"):
        run(folder / "dense.safetensors", folder / "ghost.safetensors", "--device", "abacus")

    assert not (folder / "ghost.safetensors").exists()


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_same_conversion_gives_the_same_file(folder, calibrated):
    pictures = ("--calibration", folder / "pictures") if calibrated else ()
    for name in ("first.safetensors", "second.safetensors"):
        run(folder / "dense.safetensors", folder / name, *pictures, "--seed", "0")
    first, second = ((folder / f"{n}.safetensors").read_bytes() for n in ("first", "second"))
    assert first == second


def test_pictures_make_calibration_the_default(folder):
    result = run(
        folder / "dense.safetensors",
        folder / "ghost.safetensors",
        "--calibration",
        folder / "pictures",
        "--affine",
        "--polish",
        0,
    )
    assert result.exit_code == 0
    report = load_model(folder / "ghost.safetensors").metadata["report"]
    assert report["method"] == "calibrated"
    assert report["settings"]["affine"]


def test_weights_stored_in_half_precision_are_those_of_float32_rounded(folder):
    for dtype in ("float32", "float16"):
        result = run(
            folder / "dense.safetensors", folder / f"{dtype}.safetensors", "--dtype", dtype
        )
        assert result.exit_code == 0

    files = [(folder / f"{dtype}.safetensors") for dtype in ("float32", "float16")]
    assert files[1].stat().st_size < 0.7 * files[0].stat().st_size
    single, half = (load_model(file).state_dict() for file in files)
    for name, tensor in single.items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(half[name], expected)


def test_a_name_that_cannot_be_saved_to_is_refused_before_the_work(folder, monkeypatch):
    monkeypatch.setattr("ghostsr_ext.checkpoints.load_model", lambda _: pytest.fail("it began"))
    with pytest.raises(InputError, match=r"ghost.pth: the name must end in .safetensors"):
        run(folder / "dense.safetensors", folder / "ghost.pth")


def test_patterns_choose_layers_and_the_ratio_is_kept(folder):
    options = ["--layers", "*.conv1", "--ratio", 0.25, "--method", "filters"]
    run(folder / "dense.safetensors", folder / "ghost.safetensors", *options)
    layers = ghost_layers(load_model(folder / "ghost.safetensors"))
    assert list(layers) == ["body.0.conv1", "body.1.conv1"]
    assert all(layer.ghost_channels == 2 for layer in layers.values())


def test_the_report_is_written_where_asked(folder):
    run(folder / "dense.safetensors", folder / "g.safetensors", "--report", folder / "r.json")
    report = json.loads((folder / "r.json").read_text())
    assert report.pop("seconds") > 0
    assert report == load_model(folder / "g.safetensors").metadata["report"]


def test_existing_files_are_kept_unless_told(folder):
    arguments = folder / "dense.safetensors", folder / "dense.safetensors"
    before = (folder / "dense.safetensors").read_bytes()
    with pytest.raises(InputError, match="exists already; pass --overwrite"):
        run(*arguments)
    assert (folder / "dense.safetensors").read_bytes() == before
    assert run(*arguments, "--overwrite").exit_code == 0


def test_a_missing_folder_for_the_output_is_refused_before_the_work(folder):
    with pytest.raises(InputError, match="name a file in a folder that exists"):
        run(folder / "dense.safetensors", folder / "nowhere" / "ghost.safetensors")


def test_a_ratio_outside_its_domain_leaves_no_file(folder):
    with pytest.raises(InputError, match="ghost_ratio"):
        run(folder / "dense.safetensors", folder / "ghost.safetensors", "--ratio", 1)
    assert not (folder / "ghost.safetensors").exists()


def test_patterns_that_fit_no_layer_are_refused(folder):
    with pytest.raises(InputError, match="no layer can be converted"):
        run(folder / "dense.safetensors", folder / "ghost.safetensors", "--layers", "tale*")


def test_what_needs_training_says_so_in_the_last_line(folder):
    result = run(folder / "dense.safetensors", folder / "ghost.safetensors")
    assert "to be trained before use" in result.output.splitlines()[-1]


def test_a_number_of_steps_trains_a_start_that_needs_it(folder):
    result = run(
        folder / "dense.safetensors",
        folder / "ghost.safetensors",
        "--calibration",
        folder / "pictures",
        "--method",
        "filters",
        "--polish-steps",
        2,
    )
    assert result.exit_code == 0, result.output
    assert "to be trained" not in result.output
    report = load_model(folder / "ghost.safetensors").metadata["report"]
    assert report["extra"]["polish"]["steps"] >= 2


def test_names_of_layers_are_whole_on_narrow_terminals(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    result = run(folder / "dense.safetensors", folder / "ghost.safetensors")
    for name in ("body.0.conv1", "body.1.conv2"):
        assert f" {name} " in result.output
    assert max(map(len, result.output.splitlines()[:8])) <= 60


def test_in_a_pipe_a_line_now_and_then_tells_the_progress(capsys, monkeypatch):
    monkeypatch.setattr(output, "_SECONDS_BETWEEN_LINES", 0)
    with output.ProgressBar() as bar:
        bar.show(3, 16, "body.1.conv1")
    assert capsys.readouterr().err.startswith("body.1.conv1: 3 of 16, 0 s")


def test_in_a_pipe_short_work_is_silent(capsys):
    with output.ProgressBar() as bar:
        bar.show(3, 16, "body.1.conv1")
    assert not capsys.readouterr().err


KILLED = """
import math, os, signal, sys
from ghostsr_cli.main import main
from ghostsr_ext.conversion import polish_checkpoint

polish_checkpoint._SECONDS_BETWEEN, polish_checkpoint._MOST_OF_TIME = 0.0, math.inf
save_file, written = polish_checkpoint.save_file, []

def save_and_die(*arguments, **options):
    save_file(*arguments, **options)
    written.append(arguments)
    if len(written) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

polish_checkpoint.save_file = save_and_die
main()
"""


LONG = ("--affine", "--polish-steps", "6", "--calibration")


def test_a_killed_conversion_goes_on_to_the_same_bytes(folder):
    dense, ghost = folder / "dense.safetensors", folder / "ghost.safetensors"
    options = (*LONG, folder / "pictures")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "convert", dense, ghost, *options],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    result = run(dense, ghost, *options)

    # It died while it wrote after the fourth step.
    assert f"goes on from step 3 of 6: {ghost}.unfinished" in result.output.splitlines()
    run(dense, folder / "whole.safetensors", *options)
    assert ghost.read_bytes() == (folder / "whole.safetensors").read_bytes()
    assert {path.name for path in folder.iterdir()} == {
        *("dense.safetensors", "ghost.safetensors", "pictures", "whole.safetensors")
    }


@pytest.fixture
def stopped(folder, monkeypatch):
    """The options of a conversion that was stopped in its polish."""
    monkeypatch.setattr(polish_checkpoint, "_SECONDS_BETWEEN", 0.0)
    with monkeypatch.context() as patches:
        patches.setattr(distillation._Task, "extend_if_due", _stop_after_two_steps)
        result = run(
            folder / "dense.safetensors", folder / "ghost.safetensors", *LONG, folder / "pictures"
        )
    assert result.exit_code != 0
    assert (folder / "ghost.safetensors.unfinished").exists()
    return (*LONG, folder / "pictures")


def _stop_after_two_steps(_task, number):
    if number == 2:
        raise KeyboardInterrupt


def test_a_conversion_with_other_options_leaves_another_one_alone(folder, stopped):
    unfinished = folder / "ghost.safetensors.unfinished"
    before = unfinished.read_bytes()
    for options, difference in (
        (("--ratio", 0.25, *stopped), "ghost_ratio is 0.5 there and 0.25 here"),
        (("--method", "kmeans"), "affine is true there and false here"),
    ):
        with pytest.raises(InputError, match=difference):
            run(folder / "dense.safetensors", folder / "ghost.safetensors", *options)
    assert unfinished.read_bytes() == before
    assert not (folder / "ghost.safetensors").exists()


def test_a_conversion_begins_anew_in_the_place_of_another_one_where_asked_for(folder, stopped):
    ghost = folder / "ghost.safetensors"
    options = [*stopped, "--seed", 1, "--overwrite"]
    result = run(folder / "dense.safetensors", ghost, *options)
    assert "begins anew" in result.output
    assert "(seed is 0 there and 1 here)" in result.output
    assert load_model(ghost).metadata["report"]["settings"]["seed"] == 1
    assert not (folder / "ghost.safetensors.unfinished").exists()


def test_other_pictures_are_another_conversion(folder, stopped):
    more = np.random.default_rng(9).integers(0, 256, (100, 110, 3), np.uint8)
    write_image(folder / "pictures" / "2.png", more)
    with pytest.raises(InputError, match=r"another kind \(pictures is"):
        run(folder / "dense.safetensors", folder / "ghost.safetensors", *stopped)
