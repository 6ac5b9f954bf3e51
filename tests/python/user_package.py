"""A package of a user's own, with a network, its key mapping and an entry point, as a wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

NETWORKS = """
import torch
from ghostsr_ext.checkpoints import KeyMapping, register_key_mapping
from ghostsr_ext.models import SRModel, register_model
from torch import nn


class Tiny(SRModel):
    architecture = "tiny"

    def __init__(self, *, scale=2, features=8):
        super().__init__(
            config={"scale": scale, "features": features}, scales=(scale,), value_range=1.0
        )
        self.first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.PReLU(features),
            nn.Conv2d(features, features, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.last = nn.Conv2d(features, 3 * scale**2, 3, padding=1)

    def upscale(self, image, scale):
        features = torch.relu(self.first(image))
        return nn.functional.pixel_shuffle(self.last(self.body(features) + features), scale)

    def default_layers(self):
        return ["body.0", "body.2"]


def read_theirs(draft):
    features = draft.filters("theirs.first")[0]
    draft.config |= {"architecture": "tiny", "scale": 2, "features": features}
    for name in ("first", "body.0", "body.2", "last"):
        draft.conv(name, f"theirs.{name}")
    draft.parameter("body.1.weight", "theirs.body.1.weight")


register_model("tiny", Tiny)
register_model("tiny_wide", Tiny, features=16)
register_key_mapping(
    KeyMapping("Their Tiny", ("theirs.first.weight", "theirs.last.weight"), read_theirs)
)
"""


def write_module(folder: Path, name: str = "tiny_networks") -> Path:
    """Write the networks as a module of one file."""
    path = folder / f"{name}.py"
    path.write_text(NETWORKS)
    return path


def install(folder: Path, target: str = "tiny_networks", name: str = "tiny") -> Path:
    """Install the package as pip does, into a folder of its own; returns that folder."""
    wheel = folder / f"{name}_package-1.0-py3-none-any.whl"
    info = f"{name}_package-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_networks.py", NETWORKS)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", f"[ghostsr.models]\n{name} = {target}\n")
        archive.writestr(f"{info}/RECORD", "")
    site = folder / "site"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-index", "--target", site, wheel),
        ],
        check=True,
    )
    return site
