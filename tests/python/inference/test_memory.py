import math
import subprocess
import sys

import pytest
import torch
from ghostsr_ext.inference.memory import (
    activation_bytes,
    bytes_per_pixel,
    default_budget,
    is_out_of_memory,
)
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.models.vdsr import VDSR
from torch import nn


@pytest.mark.parametrize("compute", [False, True])
def test_live_feature_maps_are_counted_and_dead_ones_are_not(compute):
    chain = nn.Sequential(nn.Conv2d(1, 10, 1), nn.Conv2d(10, 1, 1), nn.Conv2d(1, 1, 1)).eval()
    pixels = 8 * 9

    # The input stays; the widest moment holds it, the ten channels and the one made from them.
    found = activation_bytes(chain, (1, 1, 8, 9), compute=compute)
    assert found == 4 * pixels * (1 + 10 + 1)


class ReadsValues(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) if float(x.sum()) >= 0 else x


def test_networks_that_read_values_are_run():
    network = ReadsValues(2, 4, 3, padding=1)
    assert activation_bytes(network, (1, 2, 6, 5)) == 4 * 30 * (2 + 4)


def test_half_precision_takes_half():
    network = EDSR(scale=2, blocks=2, features=8)
    whole = activation_bytes(network, (1, 3, 40, 40), {"scale": 2})

    assert activation_bytes(network.half(), (1, 3, 40, 40), {"scale": 2}) == whole // 2


def test_the_network_itself_is_not_touched():
    network = EDSR(scale=2, blocks=1, features=4)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    activation_bytes(network, (1, 3, 8, 8))

    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("network", [EDSR(scale=2, blocks=2, features=16), VDSR(layers=3)])
def test_as_many_pixels_fit_as_the_budget_allows(network):
    budget = 20 << 20

    side = math.isqrt(int(budget / bytes_per_pixel(network, 2)))

    enlarged = 2 if network.input_upscaled else 1
    shape = (1, network.channels, side * enlarged, side * enlarged)
    assert budget / 4 < activation_bytes(network, shape, {"scale": 2}) < budget


def test_bytes_of_a_pixel_are_the_same_in_inference_mode():
    network = EDSR(scale=2, blocks=2, features=16).eval()
    expected = bytes_per_pixel(network, 2)

    with torch.inference_mode():
        assert bytes_per_pixel(network, 2) == expected


def test_the_default_budget_is_bounded_on_the_cpu():
    assert 0 < default_budget(torch.device("cpu")) <= 512 << 20


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("ghostsr: out of memory"), True),
        (RuntimeError("sizes do not match"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_exhausted_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_the_native_operators_failure_to_get_memory_is_known():
    """In a process of its own, whose address space is limited."""
    program = """
import resource, sys, torch
from ghostsr_ext.inference.memory import is_out_of_memory
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.models.vdsr import VDSR
network = EDSR(scale=2, blocks=1, features=64).eval()
with torch.inference_mode():
    network(torch.rand(1, 3, 8, 8))
    image = torch.rand(1, 3, 700, 700)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
    try:
        network(image)
    except RuntimeError as error:
        sys.exit(0 if is_out_of_memory(error) else str(error))
sys.exit("it fitted")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_torchs_own_message_on_the_cpu_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)

    assert is_out_of_memory(caught.value)
