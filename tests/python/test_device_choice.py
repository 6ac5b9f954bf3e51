"""What the device ``auto`` is."""

import pytest
import torch
from ghostsr_ext.devices import usable_device
from ghostsr_ext.errors import InputError
from ghostsr_ext.training.distributed import processes


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize("variable", [None, "auto"])
def test_a_gpu_is_taken_where_there_is_one(variable, gpu, monkeypatch):
    monkeypatch.delenv("GHOSTSR_DEVICE")
    if variable is not None:
        monkeypatch.setenv("GHOSTSR_DEVICE", variable)

    assert usable_device("auto") == torch.device("cuda")
    with processes("auto") as (_, device):
        assert device == torch.device("cuda:0")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto") == torch.device("cpu")


def test_the_environment_says_what_is_taken_instead(gpu, monkeypatch):
    monkeypatch.setenv("GHOSTSR_DEVICE", "cpu")

    assert usable_device("auto") == torch.device("cpu")
    with processes("auto") as (_, device):
        assert device == torch.device("cpu")


def test_a_device_that_was_named_is_no_matter_of_the_environment(monkeypatch):
    monkeypatch.setenv("GHOSTSR_DEVICE", "meta")

    assert usable_device("auto") == torch.device("meta")
    assert usable_device("cpu") == torch.device("cpu")


def test_a_variable_that_names_no_device_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("GHOSTSR_DEVICE", "graphics")

    with pytest.raises(InputError, match="GHOSTSR_DEVICE: found 'graphics', which cannot be used"):
        usable_device("auto")
