import pytest
from conversion_networks import PlantedNetwork, UnseenNetwork
from torch import nn


@pytest.fixture
def unseen() -> nn.Module:
    return UnseenNetwork()


@pytest.fixture
def planted() -> nn.Module:
    return PlantedNetwork()


@pytest.fixture
def planted_fused() -> nn.Module:
    return PlantedNetwork(fused=True)
