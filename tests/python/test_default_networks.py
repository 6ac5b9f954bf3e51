"""What the networks in the package promise: their size, their construction and their pictures."""

import pytest
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.default_models import default_models
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.nn import ghost_layers

MEGABYTE = 1_000_000
BICUBIC_PSNR = {3: 30.39, 4: 28.42}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_package_has_a_small_ghost_network_for_every_scale(scale):
    path = default_models()[f"x{scale}"]
    model = load_model(path)

    assert path.stat().st_size <= MEGABYTE
    assert model.scales == (scale,)
    assert ghost_layers(model)


@pytest.mark.parametrize(
    ("scale", "least"), [(2, 37.2), (3, BICUBIC_PSNR[3] + 2.5), (4, BICUBIC_PSNR[4] + 2.5)]
)
def test_default_networks_are_well_above_bicubic(data_dir, scale, least):
    model = load_model(default_models()[f"x{scale}"])

    measured = evaluate(model, open_picture_set(data_dir / "Set5"), scale)

    assert measured.psnr >= least
