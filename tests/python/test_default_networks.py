"""What the networks in the package promise: their size, their construction and their pictures."""

from pathlib import Path

import ghostsr_ext
import pytest
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.default_models import default_models
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.nn import ghost_layers

CARD = Path(ghostsr_ext.__file__).parent / "assets" / "README.md"
LARGEST_FILE = 256_000


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_package_has_a_small_ghost_network_for_every_scale(scale):
    path = default_models()[f"x{scale}"]
    model = load_model(path)

    assert path.stat().st_size <= LARGEST_FILE
    assert model.scales == (scale,)
    assert ghost_layers(model)


@pytest.mark.parametrize(("scale", "psnr"), [(2, 37.253), (3, 33.328), (4, 31.1740)])
def test_default_networks_reach_what_their_card_says(data_dir, scale, psnr):
    model = load_model(default_models()[f"x{scale}"])

    measured = evaluate(model, open_picture_set(data_dir / "Set5"), scale)

    assert measured.psnr == pytest.approx(psnr, abs=0.002)
    assert f"**{psnr:.2f}**" in CARD.read_text(encoding="utf-8")


def test_the_card_names_the_author_and_the_licence_of_every_photograph(data_dir):
    text = CARD.read_text(encoding="utf-8")
    listed = (data_dir / "open" / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in listed if ".webp |" in line
    ]

    assert rows
    for name, _size, author, *_ in rows:
        (credit,) = (line for line in text.splitlines() if f"| {Path(name).stem} |" in line)
        assert author in credit
