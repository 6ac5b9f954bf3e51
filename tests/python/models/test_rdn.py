import pytest
import torch
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import RDN
from published_networks import IdealoRdn, Yjn870Rdn
from torch import nn


def load_convs(model: RDN, twin: nn.Module, names: dict[str, str]) -> RDN:
    assert set(names) == {
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    }
    for name, twin_name in names.items():
        model.get_submodule(name).load_state_dict(twin.get_submodule(twin_name).state_dict())
    return model.double().eval()


@pytest.mark.parametrize(("scale", "stages"), [(2, [0]), (3, [0]), (4, [0, 2])])
def test_computes_the_network_of_the_paper(scale: int, stages: list[int]) -> None:
    twin = Yjn870Rdn(scale, features=6, growth=4, blocks=3, layers=2)
    model = RDN(scale=scale, blocks=3, layers=2, growth=4, features=6)
    names = {
        "shallow1": "sfe1",
        "shallow2": "sfe2",
        "global_fusion1": "gff.0",
        "global_fusion2": "gff.1",
        "tail.output": "output",
    }
    for d in range(3):
        names[f"blocks.{d}.local_fusion"] = f"rdbs.{d}.lff"
        names |= {f"blocks.{d}.layers.{c}": f"rdbs.{d}.layers.{c}.conv" for c in range(2)}
    names |= {f"tail.upsampler.convs.{i}": f"upscale.{s}" for i, s in enumerate(stages)}
    model = load_convs(model, twin, names)
    image = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(model(image), twin.double()(image), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [2, 3])
def test_nearest_tail_is_that_of_idealo(scale: int) -> None:
    twin = IdealoRdn(scale, features=6, growth=4, blocks=2, layers=3)
    model = RDN(scale=scale, blocks=2, layers=3, growth=4, features=6, tail="nearest")
    names = {
        "shallow1": "F_m1",
        "shallow2": "F_0",
        "global_fusion1": "GFF_1",
        "global_fusion2": "GFF_2",
        "tail.conv1": "UPN1",
        "tail.conv2": "UPN2",
        "tail.conv3": "UPN3",
        "tail.output": "SR",
    }
    for d in range(2):
        names[f"blocks.{d}.local_fusion"] = f"LFF_{d + 1}"
        names |= {f"blocks.{d}.layers.{c}": f"F_{d + 1}_{c + 1}" for c in range(3)}
    model = load_convs(model, twin, names)
    image = torch.rand(1, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(model(image), twin.double()(image), rtol=1e-10, atol=1e-10)


def test_converts_the_3x3_convolutions_of_its_dense_blocks() -> None:
    model = RDN(blocks=2, layers=3, growth=4, features=6)
    names = model.default_layers()
    assert names == [f"blocks.{d}.layers.{c}" for d in range(2) for c in range(3)]
    assert all(model.get_submodule(name).kernel_size == (3, 3) for name in names)


def test_refuses_an_unknown_tail() -> None:
    with pytest.raises(InputError, match="tail: got 'direct'"):
        RDN(blocks=1, layers=1, growth=4, features=4, tail="direct")
