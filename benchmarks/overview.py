"""Draw the first picture of the documents: a detail enlarged, and the time of one network.

The photograph is of Eileen Collins by NASA, in the public domain; scikit-image brings it along. It
is reduced to half and enlarged again. The times are those that ``networks.py`` has measured.

    python benchmarks/overview.py --json docs/speed/edsr_baseline.json docs/images/overview.webp
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ghostsr_ext.files import atomic_write
from ghostsr_ext.imaging import imresize
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.metrics import Protocol, compare
from ghostsr_ext.report.pictures import make_crop
from PIL import Image, ImageDraw, ImageFont
from skimage.data import astronaut

WIDTH, HEIGHT = 1240, 330
MARGIN, SIDE, ZOOM = 16, 120, 2
INK, FAINT, BARS = "#1f2328", "#656d76", ("#8c959f", "#2a7de1", "#d9822b")
ROWS = {
    "dense, torch": "the network in torch",
    "dense, ghostsr": "the same network, in ghostsr",
    "ghost, ghostsr": "half of its channels shifted copies",
}


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_details(canvas: Image.Image) -> None:
    """Draw a detail of the photograph as each method gives it, with the PSNR of the whole."""
    photograph = np.ascontiguousarray(astronaut()[..., :3])
    upscaler = Upscaler("x2")
    small = imresize(photograph, 0.5)
    protocol = Protocol.benchmark(2)
    enlarged = {"bicubic": imresize(small, 2), "ghostsr x2": upscaler(small)}
    detail = make_crop("astronaut", small, photograph, {}, 2, SIDE)
    top, left = _place(photograph, detail.versions["original"])
    draw = ImageDraw.Draw(canvas)
    for column, (name, picture) in enumerate([*enlarged.items(), ("original", photograph)]):
        crop = Image.fromarray(picture[top : top + SIDE, left : left + SIDE])
        x = MARGIN + column * (ZOOM * SIDE + MARGIN)
        canvas.paste(crop.resize((ZOOM * SIDE, ZOOM * SIDE), Image.Resampling.NEAREST), (x, MARGIN))
        y = MARGIN + ZOOM * SIDE + 8
        draw.text((x, y), name, INK, _font(20))
        if name != "original":
            quality = compare(picture, photograph, protocol).psnr
            draw.text((x, y + 26), f"{quality:.2f} dB", FAINT, _font(18))


def _place(photograph: np.ndarray, detail: np.ndarray) -> tuple[int, int]:
    """Return where a detail lies."""
    rows, columns = (photograph.shape[axis] - SIDE + 1 for axis in (0, 1))
    corners = np.argwhere((photograph[:rows, :columns] == detail[0, 0]).all(axis=2))
    for top, left in corners.tolist():
        if np.array_equal(photograph[top : top + SIDE, left : left + SIDE], detail):
            return top, left
    raise RuntimeError("the detail is no part of the photograph")


def _draw_times(canvas: Image.Image, measured: dict, network: str) -> None:
    """Draw the median times beside that of plain torch as bars."""
    chosen = next(entry for entry in measured["networks"] if entry["network"] == network)
    ratios = {row["name"]: row["ratio"]["median"] for row in chosen["rows"]}
    draw = ImageDraw.Draw(canvas)
    left = MARGIN + 3 * (ZOOM * SIDE + MARGIN) + 2 * MARGIN
    longest = WIDTH - left - 90
    draw.text((left, MARGIN), f"Time of {network.replace('_', '-')}, x2, on a CPU", INK, _font(20))
    for number, (name, label) in enumerate(ROWS.items()):
        y = MARGIN + 44 + number * 78
        draw.text((left, y), label, INK, _font(18))
        length = round(longest * ratios[name])
        draw.rectangle((left, y + 26, left + length, y + 52), BARS[number])
        draw.text((left + length + 8, y + 29), f"{ratios[name]:.2f}", INK, _font(20))
    conditions = measured["conditions"]
    processor = conditions["processor"].replace("(R)", "")
    text = f"{conditions['threads']} cores ({processor}), torch {conditions['torch']}"
    draw.text((left, HEIGHT - 42), text, FAINT, _font(14))


def main(
    output: Annotated[Path, typer.Argument(help="The picture to write.")],
    json_path: Annotated[
        Path, typer.Option("--json", help="Measurements that networks.py has written.")
    ] = Path("docs/speed/edsr_baseline.json"),
    network: Annotated[str, typer.Option(help="Which network of them.")] = "edsr_baseline",
) -> None:
    """Draw the picture, replacing an older one."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    _draw_details(canvas)
    _draw_times(canvas, json.loads(json_path.read_text(encoding="utf-8")), network)
    with atomic_write(output, overwrite=True) as temporary:
        canvas.save(temporary, quality=88, method=6)


if __name__ == "__main__":
    typer.run(main)
