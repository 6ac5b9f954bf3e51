"""What the recorder of CUDA graphs leaves behind, on a model of how torch captures."""

from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from ghostsr_ext.inference.cuda_graphs import CudaRecorder
from ghostsr_ext.inference.graphs import RecordedNetwork

SPOILED = "operation not permitted when stream is capturing"


class Device:
    """What torch 2.11 keeps of captures: see its ``CUDAGraph.cpp``."""

    def __init__(self):
        self.capturing = None
        self.generator_is_free = True
        self.pools = set()

    def synchronize(self):
        if self.capturing is not None:
            self.capturing.spoiled = True
            raise RuntimeError(SPOILED)

    def end_pool(self, _, pool):
        if pool not in self.pools:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.pools.remove(pool)


class Graph:
    def __init__(self, device):
        self.device = device
        self.spoiled = False

    def capture_begin(self, pool, capture_error_mode):
        assert self.device.capturing is None
        assert capture_error_mode == "thread_local"
        self.device.generator_is_free = False
        self.pool = pool or object()
        self.device.pools.add(self.pool)
        self.device.capturing = self

    def capture_end(self):
        self.device.capturing = None
        if self.spoiled:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.device.end_pool(0, self.pool)
        self.device.generator_is_free = True

    def replay(self):
        assert self.device.generator_is_free

    def reset(self):
        pass


@pytest.fixture
def device(monkeypatch):
    made = Device()
    properties = SimpleNamespace(total_memory=1 << 36)
    for name, value in {
        "CUDAGraph": lambda: Graph(made),
        "Event": Mock(),
        "Stream": Mock(),
        "current_stream": Mock(),
        "device": nullcontext,
        "empty_cache": Mock(),
        "get_device_properties": lambda _: properties,
        "graph_pool_handle": object,
        "is_current_stream_capturing": lambda: made.capturing is not None,
        "stream": nullcontext,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", made.end_pool, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", Mock(), raising=False)
    return made


@pytest.fixture
def recorder(device):
    return CudaRecorder(torch.device("cuda:0"))


def run(recorded):
    image = torch.rand(1, 3, 4, 5)
    for _ in range(3):
        recorded(image)


def test_work_that_does_not_wait_is_recorded(device, recorder):
    recorded = RecordedNetwork(lambda image: 2 * image, recorder)

    run(recorded)

    assert len(recorded._recordings) == 1
    assert device.generator_is_free


def test_after_a_capture_that_failed_generator_and_pools_are_free(device, recorder):
    def waiting(image):
        device.synchronize()
        return 2 * image

    run(RecordedNetwork(waiting, recorder))

    assert device.generator_is_free
    assert device.pools == set()


def test_after_work_that_failed_by_itself_generator_and_pools_are_free(device, recorder):
    def failing(image):
        if device.capturing is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * image

    run(RecordedNetwork(failing, recorder))

    assert device.generator_is_free
    assert device.pools == set()
