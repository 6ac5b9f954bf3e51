"""What is recorded and replayed, when, and what happens where it cannot be."""

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from enlarger import Enlarger
from ghostsr_ext.inference import Upscaler, upscaler
from ghostsr_ext.inference.graphs import RecordedNetwork
from ghostsr_ext.models.edsr import EDSR
from recorders import CpuRecorder


class Counting:
    """A network that counts its runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self, image):
        self.runs += 1
        return 2 * image + 1


@pytest.fixture
def network():
    return Counting()


@pytest.fixture
def recorder():
    return CpuRecorder()


@pytest.fixture
def recorded(network, recorder):
    return RecordedNetwork(network, recorder)


def picture(rows, columns=4):
    return torch.rand(1, 3, rows, columns)


def run(recorded, shape, times):
    for _ in range(times):
        image = picture(*shape)
        assert torch.equal(recorded(image), 2 * image + 1)


def test_from_the_third_time_on_an_input_of_a_shape_is_replayed(recorded, recorder):
    run(recorded, (5,), 2)
    assert recorder.replays == 0

    run(recorded, (5,), 3)

    assert recorder.recorded == [(1, 3, 5, 4)]
    assert recorder.replays == 3


def test_an_input_that_comes_once_is_never_recorded(recorded, recorder, network):
    for rows in range(1, 30):
        run(recorded, (rows,), 1)

    assert recorder.recorded == []
    assert network.runs == 29


def test_outputs_of_replays_are_the_callers_own(recorded):
    images = [picture(5) for _ in range(6)]

    outputs = [recorded(image) for image in images]

    for image, output in zip(images, outputs, strict=True):
        assert torch.equal(output, 2 * image + 1)


@pytest.mark.parametrize(
    "other",
    [
        lambda image: image.contiguous(memory_format=torch.channels_last),
        lambda image: image.double(),
        lambda image: image.transpose(2, 3),
    ],
    ids=["layout", "type", "turned"],
)
def test_layouts_and_types_have_recordings_of_their_own(recorded, recorder, other):
    run(recorded, (5, 6), 4)

    for _ in range(4):
        image = other(picture(5, 6))
        assert torch.equal(recorded(image), 2 * image + 1)

    assert len(recorder.recorded) == 2


def test_settings_that_change_the_work_have_recordings_of_their_own(recorded, recorder):
    run(recorded, (5,), 4)
    recorder.setting = "tf32"

    run(recorded, (5,), 2)

    assert recorder.replays == 2
    assert len(recorder.recorded) == 2


def test_the_recording_that_was_used_longest_ago_goes(recorded, recorder):
    for rows in range(1, 10):
        run(recorded, (rows,), 2)
    run(recorded, (1,), 1)

    run(recorded, (10,), 2)

    assert sorted(shape[2] for shape in recorder.alive) == [1, 3, 4, 5, 6, 7, 8, 9, 10]


def test_shapes_that_take_turns_are_recorded_ever_less_often(recorded, recorder):
    for _ in range(64):
        for rows in range(1, 12):
            run(recorded, (rows,), 1)

    for rows in range(1, 12):
        # After 2, 4, 8, 16 and 32 runs since the last time, at the most often.
        assert recorder.recorded.count((1, 3, rows, 4)) <= 5


def test_an_input_that_does_not_fit_is_computed_as_it_is(network, recorder):
    recorded = RecordedNetwork(network, recorder, lambda image: image.shape[2] < 8)

    run(recorded, (8,), 5)
    run(recorded, (7,), 5)

    assert recorder.recorded == [(1, 3, 7, 4)]


def test_in_somebody_elses_recording_the_network_is_computed_as_it_is(recorded, recorder, network):
    run(recorded, (5,), 3)
    recorder.free = False
    before = recorder.replays

    run(recorded, (5,), 3)
    run(recorded, (6,), 3)

    assert recorder.replays == before
    assert recorder.recorded == [(1, 3, 5, 4)]


def test_a_network_that_cannot_be_recorded_is_computed_as_it_is_from_then_on(recorded, recorder):
    run(recorded, (5,), 3)
    recorder.error = RuntimeError("operation not permitted when stream is capturing")

    run(recorded, (6,), 5)
    recorder.error = None
    run(recorded, (7,), 5)
    run(recorded, (5,), 5)

    assert recorder.recorded == [(1, 3, 5, 4), (1, 3, 6, 4)]
    assert recorder.replays == 1
    assert recorder.alive == []
    assert recorder.releases == 1


def test_where_memory_ends_in_a_recording_all_go_and_it_is_tried_again_later(recorded, recorder):
    run(recorded, (5,), 3)
    recorder.error = torch.OutOfMemoryError("CUDA out of memory")
    run(recorded, (6,), 2)
    assert recorder.alive == []
    recorder.error = None

    run(recorded, (6,), 3)
    assert recorder.alive == []
    run(recorded, (6,), 1)

    assert recorder.alive == [(1, 3, 6, 4)]


def test_memory_that_ends_is_known_below_the_error_of_the_recording(recorded, recorder):
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")
    except RuntimeError as error:
        recorder.error = error
    run(recorded, (5,), 2)
    recorder.error = None

    run(recorded, (5,), 4)

    assert recorder.alive == [(1, 3, 5, 4)]


def test_released_recordings_are_said_and_made_again(recorded, recorder):
    assert not recorded.release()
    run(recorded, (5,), 3)

    assert recorded.release()

    assert recorder.alive == []
    assert not recorded.release()
    run(recorded, (5,), 5)
    assert recorder.alive == [(1, 3, 5, 4)]


def test_an_error_of_the_network_is_passed_on_and_counts_for_nothing(recorder):
    def broken(image):
        raise RuntimeError("broken")

    recorded = RecordedNetwork(broken, recorder)
    for _ in range(4):
        with pytest.raises(RuntimeError, match="broken"):
            recorded(picture(5))

    assert recorder.recorded == []


def test_replays_of_several_threads_wait_for_each_other(recorded, recorder):
    images = [picture(1 + index % 3) for index in range(60)]
    with ThreadPoolExecutor(8) as threads:
        outputs = list(threads.map(recorded, images))

    for image, output in zip(images, outputs, strict=True):
        assert torch.equal(output, 2 * image + 1)
    assert recorder.replays > 0


def noise(rows, columns):
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@pytest.fixture
def recorders(monkeypatch):
    """Upscalers record on the CPU; the recorders that they made."""
    made = []

    def device_recorder(device):
        made.append(CpuRecorder())
        return made[-1]

    monkeypatch.setattr(upscaler, "device_recorder", device_recorder)
    return made


OPTIONS = [{}, {"tile": 32}, {"self_ensemble": True}, {"dtype": torch.float64}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_upscaler_that_replays_gives_the_same_bits(small_network, recorders, options):
    pictures = [noise(40 + 8 * index, 70) for index in (0, 1, 0, 0, 1, 1, 0)]
    recording = Upscaler(small_network, replay=True, **options)
    recorder = recorders[0]
    upscaler_without = Upscaler(small_network, **options)

    for image in pictures:
        np.testing.assert_array_equal(recording(image), upscaler_without(image))

    assert recorder.replays > 0


def test_an_upscaler_replays_only_when_it_is_asked_to(small_network, recorders):
    Upscaler(small_network)

    assert recorders == []


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda upscaler: pickle.loads(pickle.dumps(upscaler))]
)
def test_a_copy_records_anew_and_shares_nothing(small_network, recorders, copy_of):
    original = Upscaler(small_network, replay=True)
    image = noise(20, 30)
    for _ in range(3):
        expected = original(image)

    copied = copy_of(original)
    assert copied._recorded._network.func is copied._network
    with torch.no_grad():
        for parameter in original._network.parameters():
            parameter.zero_()

    for _ in range(4):
        np.testing.assert_array_equal(copied(image), expected)
    assert copied._recorded._recorder.replays == 2
    assert recorders[0].replays == 1


def test_networks_that_do_not_say_that_they_can_be_captured_are_not(recorders):
    network = Enlarger()
    assert not network.capturable

    Upscaler(network, replay=True)

    assert recorders == []


def test_a_small_budget_leaves_large_inputs_unrecorded(small_network, recorders):
    needed = Upscaler(small_network)._bytes_per_pixel()
    images = noise(20, 20), noise(21, 20)

    recording = Upscaler(small_network, memory_budget=int(4 * 400 * needed) + 8, replay=True)
    for image in images * 3:
        recording(image)

    assert recorders[-1].recorded == [(1, 3, 20, 20)]


def test_the_part_of_a_budget_that_recordings_may_take_is_not_spent_twice(small_network, recorders):
    recording = Upscaler(small_network, memory_budget=4 << 20, replay=True)
    without = Upscaler(small_network, memory_budget=3 << 20)

    assert recording._first_side(noise(400, 400)) == without._first_side(noise(400, 400))


class Exhausting(EDSR):
    """Has no memory in the calls whose numbers are given."""

    def __init__(self):
        super().__init__(scale=2, blocks=1, features=4)
        self.failing = ()
        self.calls = itertools.count()
        self.tried = []

    def upscale(self, image, scale):
        self.tried.append(tuple(image.shape[2:]))
        if next(self.calls) in self.failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().upscale(image, scale)


def test_exhausted_memory_costs_recordings_before_tiles_become_smaller(recorders):
    recording = Upscaler(Exhausting(), replay=True)
    recorder = recorders[0]
    for _ in range(3):
        recording(noise(48, 48))
    assert recorder.alive == [(1, 3, 48, 48)]
    network = recording._network
    network.calls, network.failing = itertools.count(), (0,)
    network.tried.clear()

    recording(noise(100, 90))

    assert network.tried == [(100, 90), (100, 90)]
    assert recorder.alive == []


def test_memory_that_stays_exhausted_ends_in_smaller_tiles(recorders):
    recording = Upscaler(Exhausting(), replay=True)
    for _ in range(3):
        recording(noise(48, 48))
    network = recording._network
    network.calls, network.failing = itertools.count(), (0, 1)
    network.tried.clear()

    recording(noise(100, 90))

    assert network.tried[:2] == [(100, 90), (100, 90)]
    assert max(rows for rows, _ in network.tried[2:]) < 100
