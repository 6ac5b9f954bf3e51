import math

import pytest
from ghostsr_ext.training.config import ScheduleConfig, ShiftConfig
from ghostsr_ext.training.schedules import freeze_step, lr_factor, noisy, tau


def test_cosine_goes_from_one_to_its_final_value():
    schedule = ScheduleConfig(kind="cosine", final=0.1)

    assert lr_factor(schedule, 0, 100) == 1
    assert lr_factor(schedule, 50, 100) == pytest.approx(0.55)
    assert lr_factor(schedule, 100, 100) == pytest.approx(0.1)


def test_warm_up_rises_linearly_and_never_starts_at_zero():
    schedule = ScheduleConfig(kind="constant", warmup=3)

    assert [lr_factor(schedule, step, 10) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_cosine_begins_after_the_warm_up():
    schedule = ScheduleConfig(kind="cosine", warmup=10)

    assert lr_factor(schedule, 10, 30) == 1
    assert lr_factor(schedule, 20, 30) == pytest.approx(0.5)


def test_step_multiplies_at_each_milestone():
    schedule = ScheduleConfig(kind="step", milestones=[10, 20], gamma=0.5)

    assert [lr_factor(schedule, step, 30) for step in (9, 10, 19, 20)] == [1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ("linear", 0.55),
        ("exponential", math.sqrt(0.1)),
        ("cosine", 0.55),
        ("constant", 1.0),
    ],
)
def test_tau_reaches_its_end_when_shifts_freeze(shape, middle):
    shifts = ShiftConfig(tau_start=1.0, tau_end=0.1, tau_shape=shape, freeze_at=0.5)

    assert tau(shifts, 0, 200) == 1.0
    assert tau(shifts, 50, 200) == pytest.approx(middle)
    end = 1.0 if shape == "constant" else 0.1
    assert tau(shifts, 100, 200) == pytest.approx(end)
    assert tau(shifts, 199, 200) == pytest.approx(end)


def test_noise_ends_at_a_part_of_the_run():
    assert [noisy(ShiftConfig(noise_until=0.5), step, 10) for step in (0, 4, 5, 9)] == [
        True,
        True,
        False,
        False,
    ]
    assert not noisy(ShiftConfig(noise_until=0), 0, 10)
    assert noisy(ShiftConfig(), 9, 10)


def test_shifts_freeze_at_a_part_of_the_run_or_never():
    assert freeze_step(ShiftConfig(freeze_at=0.25), 100) == 25
    assert freeze_step(ShiftConfig(freeze_at=0), 100) == 0
    assert freeze_step(ShiftConfig(freeze_at=1), 100) is None
