import sys

import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.training import train

EVENTS = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="needs ghostsr[tensorboard]"
)


def read(folder):
    events = EVENTS.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


def test_curves_pictures_and_shifts_are_written(make_config, pictures, tmp_path):
    config = make_config(
        logging={"tensorboard": True, "every": 2},
        validation={"sets": [str(pictures)], "every": 4},
        shifts={"freeze_at": 0.5},
    )

    train(config, tmp_path / "run")

    events = read(tmp_path / "run" / "tensorboard")
    assert [point.step for point in events.Scalars("training/loss")] == [2, 4, 6, 8]
    assert [point.step for point in events.Scalars("psnr/pictures x2")] == [4, 8]
    assert [point.step for point in events.Scalars("shift_entropy/body.0.conv1")] == [2, 4]
    assert [point.step for point in events.Images("examples/0")] == [4, 8]
    last = events.Histograms("shifts")[-1].histogram_value
    assert last.num == 4
    assert 0 <= last.min <= last.max <= 8


def test_without_the_extra_it_is_named(make_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    with pytest.raises(InputError, match=r"ghostsr\[tensorboard\]"):
        train(make_config(logging={"tensorboard": True}), tmp_path / "run")
