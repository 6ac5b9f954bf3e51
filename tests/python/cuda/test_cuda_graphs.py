"""Networks that are replayed as CUDA graphs give the bits that they give when launched.

Where a test needs no GPU, the CPU runs it with a recorder of its own.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from devices import CudaDevice
from ghostsr_ext.benchmark import compare_networks
from ghostsr_ext.conversion import convert
from ghostsr_ext.inference import Upscaler, upscaler
from ghostsr_ext.inference.cuda_graphs import CudaRecorder
from ghostsr_ext.inference.graphs import RecordedNetwork
from ghostsr_ext.models.carn import CARN
from ghostsr_ext.models.compact import SRVGGNetCompact
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.models.rdn import RDN
from ghostsr_ext.models.rrdbnet import RRDBNet
from ghostsr_ext.models.vdsr import VDSR
from recorders import CpuRecorder

NETWORKS = {
    "edsr": lambda: EDSR(scale=2, blocks=2, features=8),
    "ghost edsr": lambda: convert(EDSR(scale=2, blocks=2, features=8))[0],
    "carn": lambda: CARN(scale=2),
    "rdn": lambda: RDN(scale=2, blocks=2, layers=2, growth=8, features=8),
    "rrdbnet": lambda: RRDBNet(scale=2, blocks=1, features=8, growth=4),
    "compact": lambda: SRVGGNetCompact(scale=2, features=8, layers=2),
    "vdsr": lambda: VDSR(layers=3),
}

# Bytes of the device that torch keeps for its random generator and for what small tensors share.
LITTLE = 4 << 20


@pytest.fixture
def cuda():
    reason = CudaDevice.obstacle()
    if reason is not None:
        pytest.skip(reason)
    return CudaDevice()


@pytest.fixture(autouse=True)
def _a_recorder_for_the_processor(monkeypatch):
    known = upscaler.device_recorder
    monkeypatch.setattr(
        upscaler,
        "device_recorder",
        lambda device: CpuRecorder() if device.type == "cpu" else known(device),
    )


def noise(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def launched(network, device, **options):
    return Upscaler(network, device=device.name, **options)


def replaying_upscaler(network, device, **options):
    return Upscaler(network, device=device.name, replay=True, **options)


def recordings(made):
    return len(made._recorded._recordings)


def small_edsr():
    torch.manual_seed(0)
    return EDSR(scale=2, blocks=2, features=16).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_the_package_is_recorded_and_gives_the_same_bits(device, name):
    network = NETWORKS[name]()
    replaying, expecting = (
        replaying_upscaler(network, device),
        launched(network, device),
    )

    for seed in range(5):
        image = noise(21, 30, seed)
        np.testing.assert_array_equal(replaying(image), expecting(image))

    assert recordings(replaying) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": torch.float16},
        {"dtype": torch.bfloat16},
        {"dtype": torch.float64},
        {"tile": 16},
        {"self_ensemble": True},
    ],
    ids=str,
)
def test_sizes_that_take_turns_give_the_same_bits(device, options):
    network = small_edsr()
    replaying, expecting = (
        replaying_upscaler(network, device, **options),
        launched(network, device, **options),
    )

    for seed, rows in enumerate((20, 33, 20, 20, 33, 33, 20, 33)):
        image = noise(rows, 40, seed)
        np.testing.assert_array_equal(replaying(image), expecting(image))

    assert recordings(replaying) >= 2


def test_threads_on_streams_of_their_own_do_not_mix(cuda):
    network = small_edsr()
    replaying, expecting = replaying_upscaler(network, cuda), launched(network, cuda)
    images = [noise(20 + 8 * (seed % 2), 40, seed) for seed in range(80)]
    expected = [expecting(image) for image in images]

    def enlarge(image):
        with torch.cuda.stream(torch.cuda.Stream()):
            return replaying(image)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(enlarge, images))

    for result, values in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, values)
    assert recordings(replaying) == 2


def test_one_upscaler_replays_while_others_record(cuda):
    network = small_edsr()
    replaying, expecting = replaying_upscaler(network, cuda), launched(network, cuda)
    image = noise(20, 40)
    expected = expecting(image)
    for _ in range(3):
        replaying(image)

    def record_in_turn():
        for rows in range(20, 60):
            other = replaying_upscaler(network, cuda)
            for _ in range(2):
                other(noise(rows, 40))

    with ThreadPoolExecutor(1) as threads:
        recording = threads.submit(record_in_turn)
        while not recording.done():
            np.testing.assert_array_equal(replaying(image), expected)
        recording.result()


def test_a_deep_copy_has_graphs_of_its_own(cuda):
    network = small_edsr()
    original, expecting = replaying_upscaler(network, cuda), launched(network, cuda)
    image = noise(20, 40)
    for _ in range(3):
        original(image)

    copied = copy.deepcopy(original)
    del original
    torch.cuda.empty_cache()

    assert recordings(copied) == 0
    for _ in range(3):
        np.testing.assert_array_equal(copied(image), expecting(image))
    assert recordings(copied) == 1


class Waiting(EDSR):
    """Says that it can be captured, and reads a value of its input."""

    def upscale(self, image, scale):
        return super().upscale(image * (1 if float(image.sum()) > 0 else -1), scale)


def test_a_network_that_waits_for_the_device_is_launched_and_harms_nothing(cuda):
    network = Waiting(scale=2, blocks=1, features=8)
    replaying, expecting = replaying_upscaler(network, cuda), launched(network, cuda)

    for seed in range(5):
        image = noise(20, 40, seed)
        np.testing.assert_array_equal(replaying(image), expecting(image))
    assert replaying._recorded._cannot_be_recorded

    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    before = torch.cuda.memory_reserved()
    torch.rand(64 << 20, device="cuda").sum().item()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + LITTLE
    other = replaying_upscaler(small_edsr(), cuda)
    for _ in range(3):
        other(noise(20, 40))
    assert recordings(other) == 1


def test_within_another_capture_the_network_is_launched_into_it(cuda):
    recorded = RecordedNetwork(lambda image: 2 * image, CudaRecorder(torch.device("cuda:0")))
    image = torch.rand(1, 3, 4, 5, device="cuda")
    for _ in range(4):
        recorded(image)
    fresh = torch.rand_like(image)
    expected = 2 * fresh

    result, replay = cuda.record(lambda: recorded(image))
    image.copy_(fresh)
    replay()
    cuda.synchronize()

    assert torch.equal(result, expected)


def test_arithmetic_that_is_changed_meanwhile_is_respected(cuda, monkeypatch):
    network = EDSR(scale=2, blocks=1, features=64).eval()
    replaying, expecting = replaying_upscaler(network, cuda), launched(network, cuda)
    image = noise(64, 64) / 255

    for allowed in (True, False, True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        for _ in range(3):
            np.testing.assert_array_equal(replaying(image), expecting(image))


def test_under_autocast_the_network_is_launched(cuda):
    network = small_edsr()
    replaying, expecting = replaying_upscaler(network, cuda), launched(network, cuda)
    image = noise(20, 40)

    for _ in range(4):
        with torch.autocast("cuda", torch.float16):
            np.testing.assert_array_equal(replaying(image), expecting(image))
        np.testing.assert_array_equal(replaying(image), expecting(image))

    assert recordings(replaying) == 1


def test_released_recordings_give_their_memory_back(cuda):
    replaying = replaying_upscaler(small_edsr(), cuda, dtype=torch.float32)
    replaying(noise(300, 300))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(3):
        replaying(noise(300, 300))
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() > before + LITTLE

    assert replaying._recorded.release()

    assert torch.cuda.memory_reserved() <= before + LITTLE


def test_an_upscaler_that_is_not_needed_any_more_gives_its_memory_back_at_once(cuda):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    replaying = replaying_upscaler(small_edsr(), cuda)
    for _ in range(3):
        replaying(noise(300, 300))

    assert torch.cuda.memory_reserved() > before + LITTLE

    del replaying
    torch.cuda.empty_cache()

    assert torch.cuda.memory_reserved() <= before + LITTLE


def test_a_comparison_times_every_row_both_ways(cuda):
    dense = EDSR(scale=2, blocks=2, features=8)

    comparison = compare_networks(
        {"dense": dense, "ghost": convert(dense)[0]},
        size=(20, 30),
        repeats=3,
        plain_torch=True,
        device="cuda",
    )

    assert all(network.replayed is not None for network in comparison.networks)
