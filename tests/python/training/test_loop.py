import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.models import create_model
from ghostsr_ext.nn import ghost_layers
from ghostsr_ext.training import loop, products, train, write_config
from ghostsr_ext.training.distributed import Processes
from run_cases import assert_same_network
from safetensors import SafetensorError
from safetensors.torch import load_file

CPU = torch.device("cpu")


class Recorder:
    """Takes down what it is told, and stops the run after a step where asked to."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.progress, self.measurements, self.calls = [], [], []

    def __call__(self, run, config):
        return self

    def decoded(self, done, total):
        self.calls.append(("decoded", done, total))

    def converting(self, done, total, what):
        self.calls.append(("converting", done, total, what))

    def noted(self, line):
        self.calls.append(("noted", line))

    def started(self, step, steps):
        self.calls.append(("started", step, steps))

    def stepped(self, step):
        if step == self.stop_after:
            raise KeyboardInterrupt

    def progressed(self, progress, model):
        self.progress.append(progress)

    def measured(self, step, measurements, best, model):
        self.measurements.append((step, best, measurements))

    def finished(self):
        self.calls.append("finished")


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses_of(folder):
    log = log_of(folder)
    return {entry["step"]: entry["loss"] for entry in log if entry["event"] == "progress"}


def test_a_run_leaves_networks_configuration_log_and_checkpoints(make_config, pictures, tmp_path):
    recorder = Recorder()
    config = make_config(validation={"sets": [str(pictures)], "every": 4})

    result = train(config, tmp_path / "run", observers=[recorder])

    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "config.toml", "initial.safetensors", "best.safetensors", "final.safetensors", "log.jsonl",
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {
        "step_00000004.pt",
        "step_00000008.pt",
    }
    decoded = [("decoded", done, 4) for done in range(1, 5)]
    converted = [("converting", done, 2, f"body.0.conv{done}") for done in (1, 2)]
    assert recorder.calls == [*decoded, *converted, ("started", 0, 8), "finished"]
    assert [progress.step for progress in recorder.progress] == list(range(1, 9))
    assert [step for step, _, _ in recorder.measurements] == [4, 8]
    assert result.steps == 8
    assert set(losses_of(tmp_path / "run")) == set(range(1, 9))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_run_learns_the_same_where_no_gradients_are_recorded(make_config, tmp_path, mode):
    config = make_config(training={"steps": 2})
    train(config, tmp_path / "expected")

    with mode():
        train(config, tmp_path / "run")

    final = "final.safetensors"
    assert_same_network(tmp_path / "run" / final, tmp_path / "expected" / final)


def test_a_run_recolors_its_patches_where_the_configuration_says_so(make_config, tmp_path):
    for recolor in (False, True):
        config = make_config(data={"recolor": recolor}, training={"steps": 1})
        train(config, tmp_path / str(recolor))

    assert losses_of(tmp_path / "True")[1] != losses_of(tmp_path / "False")[1]


def test_threads_are_those_of_the_configuration_during_the_run_alone(make_config, tmp_path):
    class Watch(Recorder):
        def stepped(self, step):
            self.threads = torch.get_num_threads()

    watch = Watch()
    torch.set_num_threads(1)

    train(make_config(training={"threads": 2, "steps": 1}), tmp_path / "run", observers=[watch])

    assert watch.threads == 2
    assert torch.get_num_threads() == 1


def test_the_best_network_measures_what_the_run_says(make_config, pictures, tmp_path):
    config = make_config(
        validation={"sets": [str(pictures)], "every": 2}, training={"ema_decay": 0.5}
    )

    result = train(config, tmp_path / "run")

    best = load_model(tmp_path / "run" / "best.safetensors")
    measured = evaluate(best, open_picture_set(pictures), 2).psnr
    assert measured == pytest.approx(result.best_psnr, abs=1e-6)
    training = best.metadata["training"]
    assert training["step"] == result.best_step
    assert training["data"] == ["pictures"]
    assert str(tmp_path) not in json.dumps(best.metadata)


def test_exported_shifts_are_tables_and_the_range_is_that_of_the_start(make_config, tmp_path):
    dense = create_model("edsr_baseline", blocks=1, features=4, value_range=255.0)
    save_model(dense, tmp_path / "dense.safetensors")
    config = make_config(
        model={"preset": None, "arguments": {}, "init": str(tmp_path / "dense.safetensors")},
        shifts={"freeze_at": 1.0},
    )

    train(config, tmp_path / "run")

    final = load_model(tmp_path / "run" / "final.safetensors")
    assert final.value_range == 255
    assert final.config == dense.config
    assert len(ghost_layers(final)) == 2
    assert all(layer.logits is None for layer in ghost_layers(final).values())


def test_networks_are_stored_in_half_precision_where_asked_for(make_config, tmp_path):
    train(make_config(checkpoints={"network_dtype": "fp16"}), tmp_path / "half")
    train(make_config(), tmp_path / "full")

    half = load_file(tmp_path / "half" / "final.safetensors")
    full = load_file(tmp_path / "full" / "final.safetensors")
    for name, tensor in full.items():
        expected = tensor.half() if tensor.is_floating_point() else tensor
        assert torch.equal(half[name], expected)


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        ("none", "learned"),
        ("kmeans", "fixed"),
        ("filters", "learned"),
        ("calibrated", "learned"),
        ("scratch", "learned"),
        ("scratch", "fixed"),
    ],
)
def test_every_arm_trains(make_config, tmp_path, method, mode):
    config = make_config(conversion={"method": method}, shifts={"mode": mode})

    train(config, tmp_path / "run")

    ghosts = ghost_layers(load_model(tmp_path / "run" / "final.safetensors"))
    assert len(ghosts) == (0 if method == "none" else 2)


def test_a_pruned_network_trains(make_config, tmp_path):
    config = make_config(conversion={"method": "prune"})

    train(config, tmp_path / "run")

    pruned = load_model(tmp_path / "run" / "final.safetensors")
    assert not ghost_layers(pruned)
    assert pruned.body[0].conv1.out_channels < config.model.arguments["features"]
    report = load_model(tmp_path / "run" / "initial.safetensors").metadata["report"]
    assert report["settings"]["calibration_inputs"] == [64, 3, 8, 8]


def test_a_network_with_depthwise_ghosts_trains(make_config, tmp_path):
    config = make_config(
        model={"arguments": {"scale": 2, "blocks": 1, "features": 8, "value_range": 1.0}},
        conversion={"method": "calibrated", "ghost_op": "depthwise"},
    )

    train(config, tmp_path / "run")

    initial, final = (
        load_model(tmp_path / "run" / f"{name}.safetensors").body[0].conv1
        for name in ("initial", "final")
    )
    assert isinstance(final, DepthwiseGhostConv2d)
    assert not torch.equal(initial.cheap.weight, final.cheap.weight)


def test_a_conversion_for_one_shift_a_layer_is_made_for_it(make_config, tmp_path):
    config = make_config(
        conversion={"method": "filters"}, shifts={"scope": "layer"}, training={"steps": 1}
    )

    train(config, tmp_path / "run")

    for layer in ghost_layers(load_model(tmp_path / "run" / "initial.safetensors")).values():
        assert layer.shift_scope == "layer"
        assert len(layer.shift.unique(dim=0)) == 1


def test_from_scratch_no_filter_of_the_dense_network_is_left(make_config, tmp_path):
    for method in ("kmeans", "scratch"):
        train(make_config(conversion={"method": method}, training={"steps": 1}), tmp_path / method)
    initial = {
        method: load_model(tmp_path / method / "initial.safetensors").body[0].conv1
        for method in ("kmeans", "scratch")
    }

    assert not torch.equal(initial["kmeans"].weight, initial["scratch"].weight)
    assert initial["scratch"].source.tolist() == [0, 1]


def test_the_parent_teaches_its_conversion(make_config, tmp_path):
    config = make_config(
        distillation={"teacher": "parent", "target": 0.0, "features": 1.0},
        training={"steps": 30, "lr": 5e-3},
        shifts={"mode": "fixed"},
    )

    train(config, tmp_path / "run")

    losses = losses_of(tmp_path / "run")
    assert sum(losses[step] for step in range(26, 31)) < sum(losses[step] for step in range(1, 6))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_ends_in_the_bits_of_an_uninterrupted_one(
    make_config, pictures, tmp_path, workers
):
    config = make_config(
        data={"workers": workers},
        training={"ema_decay": 0.9, "steps": 12},
        shifts={"freeze_at": 0.7},
        validation={"sets": [str(pictures)], "every": 6},
    )
    train(config, tmp_path / "whole")
    for stop in (6, 10):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts", resume=stop > 6, observers=[Recorder(stop)])

    result = train(config, tmp_path / "parts", resume=True)

    for name in ("final.safetensors", "best.safetensors"):
        assert_same_network(tmp_path / "whole" / name, tmp_path / "parts" / name)
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    assert result.steps == 12


KILLED = """
import os, signal, sys
from pathlib import Path
from ghostsr_ext.training import read_config, train

class Killer:
    def __init__(self, run, config): pass
    def decoded(self, done, total): pass
    def converting(self, done, total, what): pass
    def noted(self, line): pass
    def started(self, step, steps): pass
    def stepped(self, step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
    def progressed(self, progress, model): pass
    def measured(self, step, measurements, best, model): pass
    def finished(self): pass

train(read_config(sys.argv[1]), Path(sys.argv[2]), observers=[Killer])
"""


def test_a_killed_run_ends_in_the_bits_of_an_uninterrupted_one(make_config, tmp_path):
    config = make_config(data={"workers": 1})
    write_config(config, tmp_path / "config.toml")
    train(config, tmp_path / "whole")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "config.toml", tmp_path / "parts"], check=False
    )
    assert killed.returncode == -signal.SIGKILL

    train(config, tmp_path / "parts", resume=True)

    for name in ("final.safetensors", "initial.safetensors"):
        assert_same_network(tmp_path / "whole" / name, tmp_path / "parts" / name)


def test_a_run_without_a_checkpoint_begins_anew(make_config, tmp_path):
    config = make_config()
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", observers=[Recorder(stop_after=2)])

    assert train(config, tmp_path / "run", resume=True).steps == 8
    assert [entry["step"] for entry in log_of(tmp_path / "run") if entry["event"] == "started"] == [
        0,
        0,
    ]


def test_a_run_killed_before_its_last_file_writes_the_same_file(make_config, pictures, tmp_path):
    config = make_config(validation={"sets": [str(pictures)], "every": 8})
    train(config, tmp_path / "run")
    final = tmp_path / "run" / "final.safetensors"
    before = final.read_bytes()
    final.unlink()

    train(config, tmp_path / "run", resume=True)

    assert final.read_bytes() == before


def test_a_run_that_could_not_begin_leaves_its_folder_free(make_config, tmp_path):
    recorder = Recorder()
    with pytest.raises(InputError, match="is not a folder"):
        train(make_config(data={"train": ["nowhere"]}), tmp_path / "run", observers=[recorder])

    assert recorder.calls == ["finished"]
    assert train(make_config(), tmp_path / "run").steps == 8


def test_a_second_run_in_the_same_folder_is_refused(make_config, tmp_path):
    train(make_config(training={"steps": 1}), tmp_path / "run")

    with pytest.raises(InputError, match="holds a run already"):
        train(make_config(), tmp_path / "run")


def test_going_on_with_another_rate_is_refused(make_config, tmp_path):
    train(make_config(training={"steps": 1}), tmp_path / "run")

    with pytest.raises(InputError, match=r"training\.lr was 0\.001 and is 0\.5"):
        train(make_config(training={"steps": 1, "lr": 0.5}), tmp_path / "run", resume=True)


def edit_checkpoint(folder, **changes):
    path = next(folder.joinpath("checkpoints").iterdir())
    state = torch.load(path, weights_only=True)
    torch.save({**state, **changes}, path)


def test_another_number_of_processes_is_refused(make_config, tmp_path):
    config = make_config(training={"steps": 1})
    train(config, tmp_path / "run")
    edit_checkpoint(tmp_path / "run", world_size=3)

    with pytest.raises(InputError, match="trained by 3 processes, now there are 1"):
        train(config, tmp_path / "run", resume=True)


def test_a_checkpoint_of_another_network_is_refused(make_config, tmp_path):
    config = make_config(training={"steps": 1})
    train(config, tmp_path / "run")
    other = create_model("edsr_baseline", blocks=2, features=4, value_range=1.0)
    edit_checkpoint(tmp_path / "run", architecture=other.config)

    with pytest.raises(InputError, match="of another network: blocks is 2 there and 1 here"):
        train(config, tmp_path / "run", resume=True)


def test_a_loss_that_is_not_finite_stops_with_advice(make_config, tmp_path):
    config = make_config(training={"lr": 1e30, "steps": 20})

    with pytest.raises(GhostsrError, match=r"not finite.*lower training\.lr.*checkpoint is kept"):
        train(config, tmp_path / "run")


def test_a_loss_that_grows_stops_with_advice(make_config, tmp_path):
    config = make_config(training={"lr": 0.2, "steps": 500, "divergence": 1.5})

    with pytest.raises(GhostsrError, match=r"more than 1\.5 times its lowest"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "final.safetensors").exists()


def test_a_batch_that_the_processes_cannot_share_is_refused(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "processes", lambda device: nullcontext((Processes(0, 3), CPU)))

    with pytest.raises(InputError, match="4 is no multiple of 3 processes x accumulation 1"):
        train(make_config(), tmp_path / "run")


def test_a_teacher_of_another_scale_is_refused(make_config, tmp_path):
    teacher = create_model("edsr_baseline", scale=3, blocks=1, features=4)
    save_model(teacher, tmp_path / "teacher.safetensors")
    config = make_config(distillation={"teacher": str(tmp_path / "teacher.safetensors")})

    with pytest.raises(InputError, match=r"teacher: .* is for \(3,\) rgb, the network for \(2,\)"):
        train(config, tmp_path / "run")


def test_a_teacher_of_more_scales_teaches_at_the_networks_own(make_config, tmp_path):
    torch.manual_seed(0)
    save_model(create_model("carn_m", scale=[3, 2], features=8), tmp_path / "teacher.safetensors")
    config = make_config(
        distillation={"teacher": str(tmp_path / "teacher.safetensors"), "target": 0.0}
    )

    train(config, tmp_path / "run")

    assert (tmp_path / "run" / "final.safetensors").exists()


@pytest.mark.parametrize(
    ("preset", "arguments"),
    [
        ("vdsr", {"scale": [2, 3], "layers": 3, "features": 4}),
        ("carn_m", {"scale": [2, 3, 4], "features": 8}),
    ],
)
def test_networks_of_several_scales_train_on_all_of_them(
    make_config, pictures, tmp_path, preset, arguments
):
    config = make_config(
        model={"preset": preset, "arguments": arguments},
        validation={"sets": [str(pictures)], "every": 8},
    )

    result = train(config, tmp_path / "run")

    assert [entry.scale for entry in result.measurements] == arguments["scale"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(make_config, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)

    with pytest.raises(GhostsrError, match="cannot be"):
        train(make_config(), tmp_path / "closed" / "run")


def test_a_disk_that_is_full_at_the_end_keeps_the_checkpoints(make_config, tmp_path, monkeypatch):
    config = make_config()
    save = products.save_model

    def full(model, path, **settings):
        if path.name == "final.safetensors":
            raise SafetensorError("I/O error: No space left on device")
        save(model, path, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(products, "save_model", full)
        with pytest.raises(GhostsrError, match=r"final\.safetensors: .*No space left.*--resume"):
            train(config, tmp_path / "run")

    assert train(config, tmp_path / "run", resume=True).steps == 8
    assert (tmp_path / "run" / "final.safetensors").exists()
