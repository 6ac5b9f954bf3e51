"""Upscale a photograph with the default x2 network and show what was gained.

Usage: python examples/upscale_photograph.py [FOLDER]

The photograph is the one of a Chinese palace that ships with scikit-learn. Into FOLDER (``demo`` by
default) go the photograph enlarged twice, and a strip of crops: a half-size copy enlarged
bicubically and by the network, beside the original.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ghostsr_ext.benchmark import compare_networks
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.default_models import resolve_model
from ghostsr_ext.imaging import imresize, write_image
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.metrics import Protocol, compare
from ghostsr_ext.models import model_from_config
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

CROP = (slice(120, 300), slice(150, 390))


def main(folder: Path) -> None:
    """Write the pictures into ``folder`` and print the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    photograph = load_sample_image("china.jpg")
    height, width = (side // 2 * 2 for side in photograph.shape[:2])
    photograph = np.ascontiguousarray(photograph[:height, :width])
    upscaler = Upscaler("x2")

    enlarged = folder / "china_x2.png"
    write_image(enlarged, upscaler(photograph), overwrite=True)
    print(f"{enlarged}: {width} x {height} enlarged to {2 * width} x {2 * height}")

    small = imresize(photograph, 0.5)
    bicubic, network = imresize(small, 2), upscaler(small)
    strip = folder / "china_before_after.png"
    write_image(
        strip,
        np.hstack([_white_edge(picture[CROP]) for picture in (bicubic, network, photograph)]),
        overwrite=True,
    )
    protocol = Protocol.benchmark(2)
    print(
        f"{strip}: half-size copy enlarged bicubically "
        f"({compare(bicubic, photograph, protocol).psnr:.2f} dB) and by the network "
        f"({compare(network, photograph, protocol).psnr:.2f} dB), and the original\n"
    )

    ghost = load_model(resolve_model("x2"))
    dense = model_from_config(ghost.config)
    comparison = compare_networks(
        {"dense": dense, "ghost": ghost}, scale=2, size=small.shape[:2], repeats=7
    )
    print("Dense is the same architecture before conversion.")
    print(comparison.markdown())


def _white_edge(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(picture, ((0, 0), (0, 4), (0, 0)), constant_values=255)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
