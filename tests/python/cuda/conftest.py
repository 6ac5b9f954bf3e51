import sys
from pathlib import Path

import pytest
from devices import CpuDevice, CudaDevice, Device
from ghostsr_ext.ops import library

# The layers that the CPU's tests are made of serve here too.
sys.path.append(str(Path(__file__).parents[1] / "ops"))


@pytest.fixture(params=[CpuDevice, CudaDevice], ids=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> Device:
    """Where a test runs: on the CPU, which proves its logic, and on a GPU where there is one."""
    if request.param is CudaDevice:
        reason = CudaDevice.obstacle()
        if reason is not None:
            pytest.skip(f"{reason}; the CUDA operators are {library.cuda_status()}")
    made: Device = request.param()
    return made
