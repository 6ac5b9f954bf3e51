"""What torch gives to new tensors by default makes no difference to a conversion."""

import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.models import EDSR


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "kmeans"},
        {"method": "filters", "affine": True},
        {"method": "calibrated", "affine": True},
        {"method": "prune"},
        {"ghost_op": "depthwise"},
        {"target_macs": 0.9},
    ],
    ids=str,
)
@pytest.mark.parametrize("default", ["float64", "device"])
def test_the_same_network_comes_out(arguments: dict, default: str) -> None:
    torch.manual_seed(0)
    dense = EDSR(scale=2, blocks=1, features=8).eval()
    if arguments.get("method") in ("calibrated", "prune") or "target_macs" in arguments:
        arguments = {**arguments, "calibration": torch.rand(6, 3, 24, 24) * 255}
    expected = convert(dense, **arguments)[0].state_dict()
    try:
        if default == "float64":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_default_device("meta")
        found = convert(dense, **arguments)[0].state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].device == tensor.device
        assert torch.equal(found[name], tensor)
