"""Draw a detail of a photograph as a network and its conversion enlarge it, beside each other.

The photograph is "Chelsea" by Stefan van der Walt (CC0); scikit-image brings it along. It
is reduced by the scale of the network and enlarged again.

    ghostsr convert realesrgan_x4plus_anime_6b.pth ghost.safetensors --affine --calibration BSD200
    python benchmarks/dense_and_ghost.py realesrgan_x4plus_anime_6b.pth ghost.safetensors \
        docs/images/dense_and_ghost.webp
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ghostsr_ext.files import atomic_write
from ghostsr_ext.imaging import imresize
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.metrics import Protocol, compare
from PIL import Image, ImageDraw, ImageFont
from skimage.data import chelsea

TOP, LEFT, SIDE, ZOOM = 60, 120, 160, 2
MARGIN, CAPTION = 16, 64
INK, FAINT = "#1f2328", "#656d76"


def main(
    dense: Annotated[Path, typer.Argument(help="A network.")],
    ghost: Annotated[Path, typer.Argument(help="What it was converted to.")],
    output: Annotated[Path, typer.Argument(help="The picture to write.")],
) -> None:
    """Draw the picture, replacing an older one."""
    photograph = np.ascontiguousarray(chelsea()[:300, :448])
    scale = Upscaler(dense).scale
    small = imresize(photograph, 1 / scale)
    wanted = Upscaler(dense)(small)
    found = Upscaler(ghost)(small)
    difference = compare(found, wanted, Protocol.benchmark(scale)).psnr
    columns = {
        "bicubic": (imresize(small, scale), ""),
        "the network": (wanted, "in torch or in ghostsr"),
        "converted": (found, f"{difference:.1f} dB to the network"),
    }
    step = ZOOM * SIDE + MARGIN
    canvas = Image.new("RGB", (MARGIN + 3 * step, ZOOM * SIDE + MARGIN + CAPTION), "white")
    draw = ImageDraw.Draw(canvas)
    for column, (name, (picture, text)) in enumerate(columns.items()):
        x = MARGIN + column * step
        crop = Image.fromarray(picture[TOP : TOP + SIDE, LEFT : LEFT + SIDE])
        canvas.paste(crop.resize((ZOOM * SIDE, ZOOM * SIDE), Image.Resampling.NEAREST), (x, MARGIN))
        draw.text((x, MARGIN + ZOOM * SIDE + 6), name, INK, ImageFont.load_default(18))
        draw.text((x, MARGIN + ZOOM * SIDE + 30), text, FAINT, ImageFont.load_default(16))
    with atomic_write(output, overwrite=True) as temporary:
        canvas.save(temporary, format="WEBP", quality=85, method=6)


if __name__ == "__main__":
    typer.run(main)
