"""What torch gives to new tensors, and whether it records gradients, changes no conversion."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.models import EDSR


@contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


ENTERED: dict[str, Callable[[], AbstractContextManager]] = {
    "float64": float64_by_default,
    "device": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


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
@pytest.mark.parametrize("surroundings", ["float64", "device", "no_grad", "inference_mode"])
def test_the_same_network_comes_out(arguments: dict, surroundings: str) -> None:
    torch.manual_seed(0)
    dense = EDSR(scale=2, blocks=1, features=8).eval()
    if arguments.get("method") in ("calibrated", "prune") or "target_macs" in arguments:
        arguments = {**arguments, "calibration": torch.rand(6, 3, 24, 24) * 255}
    expected = convert(dense, **arguments)[0].state_dict()
    with ENTERED[surroundings]():
        found = convert(dense, **arguments)[0].state_dict()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].device == tensor.device
        assert torch.equal(found[name], tensor)
        assert not found[name].is_inference()


def test_a_network_and_pictures_made_without_gradients_are_converted_and_trained_alike() -> None:
    def made() -> tuple[EDSR, torch.Tensor]:
        torch.manual_seed(0)
        return EDSR(scale=2, blocks=1, features=8).eval(), torch.rand(6, 3, 24, 24) * 255

    dense, pictures = made()
    expected = convert(dense, calibration=pictures)[0]
    with torch.inference_mode():
        dense, pictures = made()
        found = convert(dense, calibration=pictures)[0]

    assert all(map(torch.equal, found.state_dict().values(), expected.state_dict().values()))
    found(torch.rand(1, 3, 8, 8)).sum().backward()
