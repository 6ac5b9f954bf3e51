import copy
import dataclasses
import json
import math
import signal

import pytest
import torch
from ghostsr_ext.conversion import (
    PolishCheckpoint,
    convert,
    distillation,
    polish,
    polish_checkpoint,
)
from ghostsr_ext.errors import InputError
from ghostsr_ext.files import remove_leftovers
from ghostsr_ext.models import CARN, EDSR
from safetensors import safe_open
from safetensors.torch import load_file, save_file

STEPS = 12
RECIPE = {"ghost_ratio": 0.5, "seed": 0}


class Inventing(EDSR):
    """Gives other details for a picture that is turned, so that each turn is wanted by itself."""

    def upscale(self, image, scale):
        ramp = torch.linspace(-40, 40, image.shape[-1]).repeat_interleave(scale)
        return super().upscale(image, scale) + ramp * image.mean(dim=(1, 2, 3), keepdim=True)


NETWORKS = {
    "one scale": lambda: EDSR(blocks=1, features=8, residual_scale=1.0),
    "several scales": lambda: CARN(scale=(2, 3), features=8, groups=2),
    "inventing": lambda: Inventing(blocks=1, features=8, residual_scale=1.0),
}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Keep every step, and let much happen in few of them."""
    monkeypatch.setattr(polish_checkpoint, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(polish_checkpoint, "_MOST_OF_TIME", math.inf)
    monkeypatch.setattr(distillation, "_RENEWED_EVERY", 5)
    monkeypatch.setattr(distillation, "_LOOKS", 2)
    monkeypatch.setattr(distillation, "_FIRST_LOOK", 4)


@pytest.fixture
def images():
    return torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(3)) * 255


def converted(name="one scale"):
    torch.manual_seed(2)
    dense = NETWORKS[name]()
    return dense, convert(dense, method="filters")[0]


def further(number):
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(number)) * 255


def checkpoint(path, recipe=RECIPE, **options):
    return PolishCheckpoint(path, lambda: recipe, **options)


class Stop:
    """Interrupts a polish after a number of calls."""

    def __init__(self, calls, how=None):
        self.left, self.how = calls, how

    def __call__(self, part):
        self.left -= 1
        if self.left == 0:
            if self.how is not None:
                self.how()
            else:
                raise KeyboardInterrupt


def stopped(ghost, dense, images, path, calls, how=None, **options):
    options = {"steps": STEPS, "more": further, "seed": 4} | options
    with pytest.raises(KeyboardInterrupt):
        polish(
            copy.deepcopy(ghost),
            dense,
            images,
            progress=Stop(calls, how),
            checkpoint=checkpoint(path),
            **options,
        )


def gone_on(ghost, dense, images, path, **options):
    model, said = copy.deepcopy(ghost), []
    options = {"steps": STEPS, "more": further, "seed": 4} | options
    report = polish(
        model, dense, images, checkpoint=checkpoint(path, notify=said.append), **options
    )
    return model, report, said


def untimed(report):
    return dataclasses.replace(report, seconds=0.0)


def assert_same(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_polish_that_is_stopped_ends_with_the_same_bits(name, images, tmp_path):
    dense, ghost = converted(name)
    whole = copy.deepcopy(ghost)
    wanted = polish(whole, dense, images, steps=STEPS, more=further, seed=4)
    assert wanted.inputs > len(images) + 4
    # Around the first look, the look at what layers get, further inputs and half way.
    for step in (1, 4, 5, 6, 7) if name == "one scale" else (8,):
        path = tmp_path / f"{step}.unfinished"
        # The first call is before any step; a step is told before it is kept.
        stopped(ghost, dense, images, path, calls=step + 2)
        model, report, said = gone_on(ghost, dense, images, path)
        assert said == [f"goes on from step {step} of {STEPS}: {path}"]
        assert untimed(report) == untimed(wanted)
        assert_same(model, whole)


def test_a_polish_that_is_stopped_again_and_again_ends_with_the_same_bits(images, tmp_path):
    dense, ghost = converted()
    whole = copy.deepcopy(ghost)
    wanted = polish(whole, dense, images, steps=STEPS, more=further, seed=4)
    stopped(ghost, dense, images, tmp_path / "kept", calls=4)
    for _ in range(3):
        # What was kept is not done again, so the first call is of a step.
        stopped(ghost, dense, images, tmp_path / "kept", calls=4)
    model, report, _ = gone_on(ghost, dense, images, tmp_path / "kept")
    assert untimed(report) == untimed(wanted)
    assert_same(model, whole)


@pytest.mark.parametrize("calls", [4, 9, 14])
def test_an_attempt_at_a_lower_rate_is_gone_on_with(calls, images, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "_RATES", (1e3, 0.005))
    dense, ghost = converted()
    whole = copy.deepcopy(ghost)
    wanted = polish(whole, dense, images, steps=STEPS, more=further, seed=4)
    assert wanted.rate == 0.005
    stopped(ghost, dense, images, tmp_path / "kept", calls=calls)
    model, report, _ = gone_on(ghost, dense, images, tmp_path / "kept")
    assert untimed(report) == untimed(wanted)
    assert_same(model, whole)


def test_a_start_that_differs_by_rounding_makes_no_difference(images, tmp_path):
    """Another number of threads may fit layers to other last bits."""
    dense, ghost = converted()
    whole = copy.deepcopy(ghost)
    polish(whole, dense, images, steps=STEPS, more=further, seed=4)
    stopped(ghost, dense, images, tmp_path / "kept", calls=7)
    with torch.no_grad():
        for parameter in ghost.parameters():
            parameter *= 1 + 1e-6
    model, _, _ = gone_on(ghost, dense, images, tmp_path / "kept")
    assert_same(model, whole)


def test_pictures_that_were_gone_stay_so(images, tmp_path):
    dense, ghost = converted()

    def one(number):
        if number:
            raise InputError("picture: does not exist")
        return further(number)

    whole = copy.deepcopy(ghost)
    wanted = polish(whole, dense, images, steps=STEPS, more=one, seed=4)
    assert wanted.inputs == len(images) + 4
    stopped(ghost, dense, images, tmp_path / "kept", calls=STEPS, more=one)
    model, report, _ = gone_on(ghost, dense, images, tmp_path / "kept")
    assert untimed(report) == untimed(wanted)
    assert_same(model, whole)


def test_minutes_that_were_spent_count(images, tmp_path, monkeypatch):
    """By a clock that goes on by three seconds whenever it is looked at."""
    times = iter(range(0, 10**6, 3))
    monkeypatch.setattr(distillation.time, "perf_counter", lambda: next(times))
    dense, ghost = converted()
    whole = polish(copy.deepcopy(ghost), dense, images, minutes=1)
    options = {"minutes": 1, "steps": None, "more": None}
    stopped(ghost, dense, images, tmp_path / "kept", calls=6, **options)
    progress = progress_of(tmp_path / "kept")
    _, report, said = gone_on(ghost, dense, images, tmp_path / "kept", **options)
    assert said == [
        f"goes on from minute {(progress['seconds'] + 3) / 60:.1f} of 1: {tmp_path / 'kept'}"
    ]
    assert progress["number"] < report.steps <= whole.steps
    assert report.seconds >= 60


@pytest.fixture
def terminal():
    """Ctrl-C as a program at a terminal has it; what runs in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_ends_after_the_step_that_is_under_way_and_keeps_it(images, tmp_path, monkeypatch):
    dense, ghost = converted()
    whole = copy.deepcopy(ghost)
    polish(whole, dense, images, steps=STEPS, more=further, seed=4)

    def ctrl_c():
        # As if the last step had just been kept.
        monkeypatch.setattr(PolishCheckpoint, "due", lambda _: False)
        signal.raise_signal(signal.SIGINT)

    stopped(ghost, dense, images, tmp_path / "kept", calls=7, how=ctrl_c)
    assert progress_of(tmp_path / "kept")["number"] == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model, _, _ = gone_on(ghost, dense, images, tmp_path / "kept")
    assert_same(model, whole)


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_promises_nothing_where_the_step_cannot_be_kept(images, tmp_path, monkeypatch):
    dense, ghost = converted()
    said = []
    kept = checkpoint(tmp_path / "kept", notify=said.append)

    def ctrl_c():
        def full(*_args, **_options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(polish_checkpoint, "save_file", full)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="cannot be written"):
        polish(ghost, dense, images, steps=STEPS, progress=Stop(7, ctrl_c), checkpoint=kept)
    assert progress_of(tmp_path / "kept")["number"] == 5
    assert said == []


def test_a_tensor_that_no_file_can_hold_stops_no_polish(tmp_path):
    kept = checkpoint(tmp_path / "kept")
    with pytest.warns(UserWarning, match="cannot be written"):
        assert not kept.write(progress(), {"now.phase": torch.zeros(2, dtype=torch.complex128)})
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("terminal")
def test_a_second_ctrl_c_ends_at_once(images, tmp_path):
    dense, ghost = converted()

    def ctrl_c():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    stopped(ghost, dense, images, tmp_path / "kept", calls=7, how=ctrl_c)
    assert progress_of(tmp_path / "kept")["number"] == 5


@pytest.mark.usefixtures("terminal")
def test_short_polishes_keep_nothing(images, tmp_path, monkeypatch):
    monkeypatch.setattr(polish_checkpoint, "_SECONDS_BETWEEN", 180.0)
    dense, ghost = converted()
    stopped(ghost, dense, images, tmp_path / "kept", 7, lambda: signal.raise_signal(signal.SIGINT))
    gone_on(ghost, dense, images, tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_takes_long_to_write_is_written_less_often(tmp_path, monkeypatch):
    monkeypatch.setattr(polish_checkpoint, "_SECONDS_BETWEEN", 180.0)
    monkeypatch.setattr(polish_checkpoint, "_MOST_OF_TIME", 1 / 20)
    now = [0.0]
    monkeypatch.setattr(polish_checkpoint.time, "monotonic", lambda: now[0])
    kept = checkpoint(tmp_path / "kept")

    def slow(tensors, path, metadata):
        now[0] += 30
        save_file(tensors, path, metadata)

    monkeypatch.setattr(polish_checkpoint, "save_file", slow)
    now[0] = 200.0
    assert kept.due()
    kept.write(progress(), {})
    now[0] += 599
    assert not kept.due()
    now[0] += 1
    assert kept.due()


def progress():
    return polish_checkpoint.PolishProgress(0, 0, 5, 0.1, 0.0, False, 3.0, 0, True, (5,))


def test_a_full_disk_stops_no_polish(images, tmp_path, monkeypatch):
    dense, ghost = converted()
    whole = copy.deepcopy(ghost)
    polish(whole, dense, images, steps=STEPS, more=further, seed=4)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(polish_checkpoint, "save_file", full)
    with pytest.warns(UserWarning, match="cannot be written .*the polish goes on"):
        model, _, _ = gone_on(ghost, dense, images, tmp_path / "kept")
    assert_same(model, whole)
    assert not list(tmp_path.iterdir())


def test_another_kind_of_conversion_is_told_and_left_alone(tmp_path):
    checkpoint(tmp_path / "kept").write(progress(), {})
    before = (tmp_path / "kept").read_bytes()
    for other in ({"ghost_ratio": 0.25, "seed": 0}, {"ghost_ratio": 0.5}, {**RECIPE, "new": [1]}):
        with pytest.raises(InputError, match="unfinished conversion of another kind") as found:
            checkpoint(tmp_path / "kept", other)
    assert "new is null there and [1] here" in str(found.value)
    assert "delete it to begin anew" in str(found.value)
    assert (tmp_path / "kept").read_bytes() == before


def test_another_kind_of_conversion_is_replaced_where_asked_for(images, tmp_path):
    checkpoint(tmp_path / "kept").write(progress(), {})
    dense, ghost = converted()
    said = []
    kept = checkpoint(tmp_path / "kept", {"seed": 1}, overwrite=True, notify=said.append)
    report = polish(ghost, dense, images, steps=STEPS, checkpoint=kept)
    assert report.steps == STEPS
    assert len(said) == 1
    assert said[0].startswith(f"begins anew: {tmp_path / 'kept'} is of a conversion of another")
    assert checkpoint(tmp_path / "kept", {"seed": 1}).kept


def test_a_file_that_another_process_has_written_meanwhile_stays(tmp_path):
    late = checkpoint(tmp_path / "kept")
    checkpoint(tmp_path / "kept").write(progress(), {})
    before = (tmp_path / "kept").read_bytes()
    with pytest.raises(InputError, match="another process that converts to the same output"):
        late.write(progress(), {})
    assert (tmp_path / "kept").read_bytes() == before


def test_files_that_are_none_of_its_own_stay(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "kept")
    with pytest.raises(InputError, match="keeps no unfinished conversion; name another output"):
        checkpoint(tmp_path / "kept", overwrite=True)


def test_a_checkpoint_is_no_leftover_of_its_output(tmp_path):
    names = ("ghost.safetensors", ".ghost.safetensors")
    for name in names:
        checkpoint(tmp_path / f"{name}.unfinished").write(progress(), {})
    remove_leftovers(tmp_path / name for name in ("ghost", "ghost.safetensors", *names))
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".ghost.safetensors.ab12cd_9.unfinished").write_bytes(b"half")
    checkpoint(tmp_path / "ghost.safetensors.unfinished")
    assert not list(tmp_path.iterdir())


def progress_of(path):
    return description_of(path)["progress"]


def description_of(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["ghostsr_polish"])


def rewritten(path, change):
    tensors, description = load_file(path), description_of(path)
    change(tensors, description)
    save_file(tensors, path, {"ghostsr_polish": json.dumps(description)})


def progress_with(**values):
    return lambda _tensors, description: description["progress"].update(values)


def without(name):
    return lambda tensors, _description: tensors.pop(name)


def tensors_with(**values):
    return lambda tensors, _: tensors.update({k.replace("__", "."): v for k, v in values.items()})


DAMAGES = {
    "no progress": lambda _, description: description.pop("progress"),
    "no recipe": lambda _, description: description.update(recipe=3),
    "another format": lambda _, description: description.update(format_version=2),
    "a number that is none": progress_with(number="\x1b[2J"),
    "a negative number": progress_with(number=-1),
    "a truth for a number": progress_with(number=True),
    "infinite seconds": progress_with(seconds=math.inf),
    "seconds beyond a float": progress_with(seconds=10**400),
    "nothing left to begin with": progress_with(begun=1.0),
    "an attempt that is none": progress_with(attempt=3),
    "inputs without steps": progress_with(asked=10**6),
    "other parameters": progress_with(seen=[1]),
    "gradients that are none": progress_with(seen=[-1]),
    "a field too many": progress_with(surprise=1),
    "no start": without("start.head.weight"),
    "no weights": without("now.head.weight"),
    "no basis": without("optimizer.0.basis"),
    "no moments": without("optimizer.0.mean"),
    "no order": without("order"),
    "another shape": tensors_with(now__head__weight=torch.zeros(3)),
    "another type": tensors_with(now__head__weight=torch.zeros(8, 3, 3, 3).double()),
    "inputs that there are not": tensors_with(order=torch.tensor([10**6])),
    "held-out inputs": tensors_with(order=torch.tensor([0])),
    "an order of another type": tensors_with(order=torch.tensor([2.5])),
    "an order of another shape": tensors_with(order=torch.zeros(2, 2).long()),
    "no generator": tensors_with(generator=torch.zeros(5056, dtype=torch.uint8)),
    "a table that is none": tensors_with(
        **{"now__body__0__conv1__source": torch.full((4,), 99, dtype=torch.int64)}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_ends_in_one_clear_error(damage, images, tmp_path):
    dense, ghost = converted()
    path = tmp_path / "kept"
    stopped(ghost, dense, images, path, calls=7)
    rewritten(path, DAMAGES[damage])
    with pytest.raises(InputError, match=r"delete (it|the file) to begin anew") as error:
        gone_on(ghost, dense, images, path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\x1b" not in str(error.value)
    assert path.exists()


@pytest.mark.parametrize("size", [0, 7, 300, -1])
def test_a_truncated_file_ends_in_one_clear_error(size, images, tmp_path):
    dense, ghost = converted()
    path = tmp_path / "kept"
    stopped(ghost, dense, images, path, calls=7)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"no whole safetensors file .*delete it to begin anew"):
        checkpoint(path)


def test_a_network_of_other_layers_is_refused(images, tmp_path):
    dense, ghost = converted()
    stopped(ghost, dense, images, tmp_path / "kept", calls=7)
    other, _ = convert(dense, 0.25, method="filters")
    with pytest.raises(InputError, match=r"body.0.conv1.weight has shape .* is needed"):
        gone_on(other, dense, images, tmp_path / "kept")


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint .*: cannot be written \(File name too long"):
        PolishCheckpoint(str(tmp_path / ("n" * 300)), dict)
