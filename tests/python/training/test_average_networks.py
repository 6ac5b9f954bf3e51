"""The mean of networks that were trained on from one another."""

import sys
from pathlib import Path

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models.edsr import EDSR

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

from average_networks import main


def saved(path, *, seed, features=8, scaled=1.0, shifts=None):
    torch.manual_seed(seed)
    model, _ = convert(EDSR(scale=2, blocks=1, features=features), method="filters")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scaled)
    layer = model.body[0].conv1
    layer.set_tables(layer.source, layer.shift if shifts is None else shifts)
    save_model(model, path)
    return path


def test_weights_are_the_mean_and_shifts_those_of_all(tmp_path):
    paths = [saved(tmp_path / f"{scaled}.safetensors", seed=1, scaled=scaled) for scaled in (1, 3)]

    main(paths, tmp_path / "mean.safetensors")

    first, mean = (
        load_model(path).state_dict() for path in (paths[0], tmp_path / "mean.safetensors")
    )
    assert first.keys() == mean.keys()
    weights = [name for name, tensor in first.items() if tensor.is_floating_point()]
    for name in weights:
        expected = first[name] if name.endswith("mean") else 2 * first[name]
        torch.testing.assert_close(mean[name], expected)
    for name in first.keys() - set(weights):
        assert torch.equal(mean[name], first[name])


@pytest.mark.parametrize(
    "other", [{"features": 4}, {"shifts": torch.ones(4, 2, dtype=torch.int64)}]
)
def test_networks_of_other_layers_or_shifts_have_no_mean(tmp_path, other):
    paths = [
        saved(tmp_path / "first.safetensors", seed=1),
        saved(tmp_path / "other.safetensors", seed=1, **other),
    ]

    with pytest.raises(InputError, match="network 2: has other layers or shifts"):
        main(paths, tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()
