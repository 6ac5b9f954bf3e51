"""Maps lie in memory that is used again, and behave as any tensor does."""

import copy
import io
import pickle
import resource

import pytest
import torch
from ghost_layer_cases import make_layer
from ghostsr_ext import ops
from ghostsr_ext.nn import FusedConv2d

LARGE = {"in_channels": 16, "intrinsic": 16, "ghosts": 16, "size": (96, 96)}


@pytest.fixture(autouse=True)
def _nothing_kept():
    ops.release_memory()
    yield
    ops.release_memory()


def _output(layout="channels_last"):
    return ops.ghost_conv(**make_layer(**LARGE).fixed(torch.float32, input=layout))


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_a_freed_map_is_kept_and_used_again(layout):
    output = _output(layout)
    assert ops.release_memory() == 0
    size, address = output.nbytes, output.data_ptr()
    del output

    output = _output(layout)

    assert output.data_ptr() == address
    del output
    assert ops.release_memory() == size
    assert ops.release_memory() == 0


def test_views_keep_a_map_alive():
    output = _output()
    expected, view = output.clone(), output[0, 3]
    del output
    others = [_output() for _ in range(3)]

    assert torch.equal(view, expected[0, 3])
    assert all(torch.equal(other, expected) for other in others)


def test_small_maps_are_not_kept():
    del_me = ops.ghost_conv(**make_layer().fixed(torch.float32))
    del del_me

    assert ops.release_memory() == 0


def test_no_more_than_the_bound_is_kept():
    maps = [ops.empty_map(torch.empty(1, 1, 1024, 1024), 16) for _ in range(6)]
    assert sum(one.nbytes for one in maps) == 6 * 64 << 20
    del maps

    assert ops.release_memory() == 256 << 20


def test_what_is_kept_follows_the_sizes_in_use():
    maps = [ops.empty_map(torch.empty(1, 1, 1024, 1024), 16) for _ in range(6)]
    del maps
    small = ops.empty_map(torch.empty(1, 1, 512, 512), 16)
    size, address = small.nbytes, small.data_ptr()
    del small

    small = ops.empty_map(torch.empty(1, 1, 512, 512), 16)

    assert small.data_ptr() == address
    assert ops.release_memory() == 3 * 64 << 20
    del small
    assert ops.release_memory() == size


def test_a_map_larger_than_the_bound_is_not_kept():
    small = ops.empty_map(torch.empty(1, 1, 512, 512), 16)
    size = small.nbytes
    del small
    ops.empty_map(torch.empty(1, 1, 4096, 4096), 5)

    assert ops.release_memory() == size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_an_empty_map_is_channels_last(dtype):
    result = ops.empty_map(torch.empty(2, 3, 40, 50, dtype=dtype), 20)

    assert result.shape == (2, 20, 40, 50)
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_maps_can_be_saved_copied_shared_and_changed():
    output, expected = _output(), _output().clone()
    stream = io.BytesIO()
    torch.save(output, stream)
    stream.seek(0)

    for other in (
        torch.load(stream, weights_only=True),
        copy.deepcopy(output),
        pickle.loads(pickle.dumps(output)),
        torch.from_numpy(output.numpy()),
        _output().share_memory_(),
    ):
        assert torch.equal(other, expected)
    assert torch.equal(output.relu_(), expected.relu())


def test_threads_never_share_a_map_in_use():
    import threading

    expected, wrong = _output().clone(), []

    def run():
        for _ in range(20):
            if not torch.equal(_output(), expected):
                wrong.append(1)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


@pytest.mark.parametrize(
    "call",
    [
        lambda huge, table: ops.shift_concat(huge, table, table.view(0, 2)),
        lambda huge, table: ops.ghost_conv(
            huge, torch.ones(1, 1, 1, 1), None, table, table.view(0, 2)
        ),
        lambda huge, table: ops.empty_map(huge, 2),
    ],
    ids=["shift_concat", "ghost_conv", "empty_map"],
)
def test_exhausted_memory_is_called_so(call):
    # More than any address space, as a machine may promise more memory than it has.
    huge = torch.zeros(1).expand(1, 1, 2**29, 2**29)

    with pytest.raises(RuntimeError, match=r"ghostsr: .*(allocate|out of) memory"):
        call(huge, torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize("channels", [1, 2**60, 2**62 + 1])
def test_a_size_beyond_64_bits_is_no_small_one(channels):
    huge = torch.zeros(1).expand(1, 1, 2**18, 2**44 + 1)
    assert huge.numel() * 4 % 2**64 == 2**20

    with pytest.raises(RuntimeError, match="ghostsr: out of memory"):
        ops.empty_map(huge, channels)


def test_a_warm_network_takes_no_memory_from_the_system():
    """Counted in page faults, which a busy machine does not disturb."""
    network = torch.nn.Sequential(*(FusedConv2d(32, 32, 3, padding=1) for _ in range(6)))
    input = torch.randn(1, 32, 128, 128).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(3):
            network(input)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            network(input)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # Two maps of 512 pages would be taken and given back by each layer otherwise.
    assert faults < 5 * 512
