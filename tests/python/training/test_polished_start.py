import pytest
import torch
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.conversion import convert, distillation, polish_checkpoint
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models import CARN, EDSR
from ghostsr_ext.training import train
from ghostsr_ext.training.network import load_unit_range
from ghostsr_ext.training.run_folder import RunFolder
from run_cases import assert_same_network, smooth_picture
from safetensors.torch import load_file

STEPS = 8


class Listener:
    """Takes down how the conversion goes, and stops the run at a part of its polish or a step."""

    def __init__(self, *, at_percent=None, at_step=None):
        self.at_percent, self.at_step = at_percent, at_step
        self.polished, self.lines = [], []

    def __call__(self, run, config):
        return self

    def decoded(self, done, total): ...

    def converting(self, done, total, what):
        if what == "training end to end":
            self.polished.append(done)
            if done == self.at_percent:
                raise KeyboardInterrupt

    def noted(self, line):
        self.lines.append(line)

    def started(self, step, steps): ...

    def stepped(self, step):
        if step == self.at_step:
            raise KeyboardInterrupt

    def progressed(self, progress, model): ...

    def measured(self, step, measurements, best, model): ...

    def finished(self): ...


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Keep every step of a polish."""
    monkeypatch.setattr(polish_checkpoint, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(polish_checkpoint, "_MOST_OF_TIME", float("inf"))
    monkeypatch.setattr(distillation, "_FIRST_LOOK", 4)


@pytest.fixture
def dense(tmp_path):
    torch.manual_seed(4)
    path = tmp_path / "dense.safetensors"
    save_model(EDSR(blocks=1, features=8, residual_scale=1.0), path)
    return path


@pytest.fixture
def photographs(tmp_path):
    """Pictures that are large enough for the crops of a calibration."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(3):
        write_image(folder / f"{seed}.png", smooth_picture(seed, 96, 112))
    return folder


@pytest.fixture
def make_polished(make_config, dense, photographs):
    """Returns a function that makes the configuration of a run that begins with a polish."""

    def make(**tables):
        conversion = {
            "method": "calibrated",
            "affine": True,
            "calibration": str(photographs),
            "polish_steps": STEPS,
        }
        values = {
            "model": {"preset": None, "arguments": {}, "init": str(dense)},
            "conversion": {**conversion, **tables.pop("conversion", {})},
            "shifts": {"mode": "fixed"},
            "distillation": {"teacher": "parent"},
        }
        return make_config(**values, **tables)

    return make


def test_a_run_begins_with_the_network_that_convert_makes(
    make_polished, dense, photographs, tmp_path
):
    listener = Listener()
    train(make_polished(), tmp_path / "run", observers=[listener])

    network, _ = load_unit_range(str(dense))
    polished, _ = convert(network, 0.5, calibration=photographs, affine=True, polish_steps=STEPS)
    save_model(polished, tmp_path / "polished.safetensors")
    assert_same_network(tmp_path / "run/initial.safetensors", tmp_path / "polished.safetensors")
    assert (listener.polished[0], listener.polished[-1]) == (0, 100)


def test_the_polish_has_an_effect(make_polished, tmp_path):
    for steps in (0, STEPS):
        config = make_polished(conversion={"polish_steps": steps}, training={"steps": 1})
        train(config, tmp_path / str(steps))

    without, polished = (
        load_file(tmp_path / str(steps) / "initial.safetensors") for steps in (0, STEPS)
    )
    assert any(not torch.equal(tensor, polished[name]) for name, tensor in without.items())


def test_a_run_stopped_in_its_polish_goes_on_to_the_same_bits(make_polished, tmp_path):
    config = make_polished()
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", observers=[Listener(at_percent=50)])
    run = RunFolder(tmp_path / "parts")
    assert run.polish.exists()
    assert not run.initial.exists()

    listener = Listener()
    train(config, run.path, resume=True, observers=[listener])

    for name in ("initial.safetensors", "final.safetensors"):
        assert_same_network(tmp_path / "whole" / name, run.path / name)
    assert listener.lines == [f"goes on from step 3 of {STEPS}: {run.polish}"]
    assert not run.polish.exists()


def test_a_run_stopped_in_its_polish_is_not_begun_again_without_being_asked(
    make_polished, tmp_path
):
    with pytest.raises(KeyboardInterrupt):
        train(make_polished(), tmp_path / "run", observers=[Listener(at_percent=50)])

    with pytest.raises(InputError, match="holds a run already; pass --resume to go on with it"):
        train(make_polished(), tmp_path / "run")


def test_a_run_stopped_before_its_first_checkpoint_is_not_polished_again(make_polished, tmp_path):
    config = make_polished()
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", observers=[Listener(at_step=2)])
    before = (tmp_path / "run/initial.safetensors").stat().st_mtime_ns

    listener = Listener()
    train(config, tmp_path / "run", resume=True, observers=[listener])

    assert listener.polished == []
    assert (tmp_path / "run/initial.safetensors").stat().st_mtime_ns == before


def test_a_conversion_that_fails_leaves_the_folder_free(make_polished, tmp_path):
    (tmp_path / "empty").mkdir()
    config = make_polished(conversion={"calibration": str(tmp_path / "empty")})
    with pytest.raises(InputError, match="has no pictures"):
        train(config, tmp_path / "run")

    assert train(make_polished(), tmp_path / "run").steps == 8


def test_a_new_run_takes_no_network_that_one_left_that_could_not_begin(make_polished, tmp_path):
    train(make_polished(), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    right = run.initial.read_bytes()
    for path in (run.config, run.final, *run.checkpoints.iterdir()):
        path.unlink()
    save_model(EDSR(blocks=1, features=4), run.initial, overwrite=True)

    train(make_polished(), run.path)

    assert run.initial.read_bytes() == right


def test_a_teacher_that_does_not_fit_is_refused_before_the_polish(make_polished, tmp_path):
    save_model(EDSR(scale=3, blocks=1, features=4), tmp_path / "x3.safetensors")
    config = make_polished()
    teacher = config.distillation.model_copy(update={"teacher": tmp_path / "x3.safetensors"})
    listener = Listener()

    with pytest.raises(InputError, match=r"distillation.teacher: .*x3\.safetensors is for"):
        train(
            config.model_copy(update={"distillation": teacher}),
            tmp_path / "run",
            observers=[listener],
        )

    assert listener.polished == []


@pytest.mark.parametrize(
    ("teacher", "found"),
    [
        (lambda: EDSR(blocks=1, features=4), "gives 4"),
        (lambda: CARN(scale=2, features=8, groups=2), "has no such layer"),
    ],
)
def test_a_teacher_of_other_layers_teaches_no_features(make_polished, tmp_path, teacher, found):
    save_model(teacher(), tmp_path / "teacher.safetensors")
    config = make_polished()
    distillation = {"teacher": tmp_path / "teacher.safetensors", "features": 0.1}
    changed = config.distillation.model_copy(update=distillation)
    listener = Listener()

    with pytest.raises(InputError, match=f"layer body.0.conv1 gives 8 channels, .* {found}"):
        train(
            config.model_copy(update={"distillation": changed}),
            tmp_path / "run",
            observers=[listener],
        )

    assert listener.polished == []


def test_a_network_without_ghost_layers_learns_no_features(make_config, dense, tmp_path):
    config = make_config(
        model={"preset": None, "arguments": {}, "init": str(dense)},
        conversion={"method": "none"},
        distillation={"teacher": str(dense), "features": 0.1},
    )

    with pytest.raises(InputError, match="features: the network has no ghost layer to compare"):
        train(config, tmp_path / "run")


def test_networks_do_not_say_where_their_calibration_pictures_lie(
    make_polished, photographs, tmp_path
):
    train(make_polished(), tmp_path / "run")

    stored = (tmp_path / "run/final.safetensors").read_bytes()
    assert b"photographs" in stored
    assert str(photographs).encode() not in stored
