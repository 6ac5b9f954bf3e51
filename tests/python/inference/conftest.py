import pytest
import torch
from ghostsr_ext.models.edsr import EDSR


@pytest.fixture
def small_network():
    torch.manual_seed(1)
    return EDSR(scale=2, blocks=2, features=8).eval()
