"""Make the pictures that the networks of the package are trained on.

Photographs are reduced to several sizes, cut into tiles, of which the half with most detail is
kept, and stored as JPEG: as they are they are smoother, and cleaner, than the pictures that
networks meet. Each tile comes in other colors, too, since few photographs have few. Drawn pictures
add sharp edges and flat colors.

python benchmarks/training_pictures.py ../shared/data/open runs/training_pictures
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ghostsr_ext.imaging import imresize, picture_files, read_image
from ghostsr_ext.training.data import detail
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_SIZES = (0.5, 0.35, 0.25)
_TILE = 256
_KEPT = 0.5
_QUALITY = 88
_SIDE = 512
_SUPERSAMPLING = 3
_COUNTS = (3000, 10_000)
_SMALLEST_RADII = (2.0, 4.0, 8.0)
_CONTRASTS = (12.0, 24.0, 60.0)
_LINE_WIDTHS = (0.5, 6.0)

Color = tuple[int, ...]


def cut(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Cut a picture [H, W, 3] into as many tiles as have 256 rows and columns or more."""
    rows = np.array_split(picture, max(1, picture.shape[0] // _TILE))
    return [
        tile
        for row in rows
        for tile in np.array_split(row, max(1, picture.shape[1] // _TILE), axis=1)
    ]


def in_other_colors(
    tile: NDArray[np.uint8], generator: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Return a tile [H, W, 3] with its channels in any order, and a negative of it in any order."""
    moved, negative = (tile[..., generator.permutation(3)] for _ in range(2))
    return [moved, 255 - negative]


def drawn_picture(generator: np.random.Generator, side: int = _SIDE) -> Image.Image:
    """Draw ellipses, polygons, lines and arcs over one another, as in the dead leaves model.

    Radii r have a density of r^-3, which gives pictures the statistics of edges of photographs
    (Lee, Mumford and Huang 2001).

    Args:
        generator: Decides everything about the picture.
        side: Rows and columns.
    """
    large = side * _SUPERSAMPLING
    base = generator.integers(0, 256, 3).astype(np.float64)
    contrast = generator.choice(_CONTRASTS)
    smallest = generator.choice(_SMALLEST_RADII) * _SUPERSAMPLING
    picture = Image.new("RGB", (large, large), _color(generator, base, contrast))
    draw = ImageDraw.Draw(picture)
    for _ in range(generator.choice(_COUNTS)):
        part = generator.random()
        radius = (smallest**-2 * (1 - part) + (large / 4) ** -2 * part) ** -0.5
        _draw_shape(draw, generator, radius, _color(generator, base, contrast), large)
    return picture.resize((side, side), Image.Resampling.BOX)


def _color(generator: np.random.Generator, base: NDArray[np.float64], contrast: float) -> Color:
    """Return any color, one near to the base, or a grey that is often black or white."""
    kind = generator.integers(8)
    if kind < 1:
        level = generator.choice([0, 255, generator.integers(0, 256)])
        values = np.full(3, level)
    elif kind < 3:
        values = generator.integers(0, 256, 3)
    else:
        values = np.clip(base + generator.normal(0, contrast, 3), 0, 255)
    return tuple(int(value) for value in values)


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    generator: np.random.Generator,
    radius: float,
    color: Color,
    side: int,
) -> None:
    x, y = generator.random(2) * side
    flat = radius * generator.uniform(0.3, 1)
    box = (x - radius, y - flat, x + radius, y + flat)
    width = max(1, int(generator.uniform(*_LINE_WIDTHS) * _SUPERSAMPLING))
    turn = generator.uniform(0, 2 * np.pi)
    match generator.integers(4):
        case 0:
            draw.ellipse(box, fill=color)
        case 1:
            angles = np.sort(generator.random(generator.integers(3, 8))) * 2 * np.pi
            radii = radius * generator.uniform(0.4, 1, len(angles))
            corners = zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)
            draw.polygon([(float(column), float(row)) for column, row in corners], fill=color)
        case 2:
            reach = 3 * radius * np.array([np.cos(turn), np.sin(turn)])
            ends = (x - reach[0], y - reach[1], x + reach[0], y + reach[1])
            draw.line(ends, fill=color, width=width)
        case _:
            start = float(np.degrees(turn))
            draw.arc(box, start, start + generator.uniform(60, 360), fill=color, width=width)


def main(
    photographs: Annotated[Path, typer.Argument(help="Folder of photographs.")],
    output: Annotated[Path, typer.Argument(help="Folder to make.")],
    recolored: Annotated[bool, typer.Option(help="Whether tiles come in other colors too.")] = True,
    drawn: Annotated[int, typer.Option(help="How many pictures to draw.")] = 40,
    seed: Annotated[int, typer.Option(help="Decides about colors and drawings.")] = 0,
) -> None:
    """Reduce photographs, and draw pictures."""
    if output.exists():
        raise typer.BadParameter(f"{output} exists already", param_hint="OUTPUT")
    paths = picture_files(photographs)
    if len({path.stem for path in paths}) < len(paths):
        raise typer.BadParameter("two photographs have one name", param_hint="PHOTOGRAPHS")
    output.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for size in _SIZES:
        tiles = {
            f"{path.stem}_{round(100 * size)}_{number}": tile
            for path in paths
            for number, tile in enumerate(cut(imresize(read_image(path), size)))
        }
        names = sorted(tiles, key=lambda name: detail(tiles[name]), reverse=True)
        for name in names[: round(_KEPT * len(names))]:
            variants = [
                tiles[name],
                *(in_other_colors(tiles[name], generator) if recolored else ()),
            ]
            for number, tile in enumerate(variants):
                path = output / f"{name}_{number}.jpg"
                Image.fromarray(tile).save(path, quality=_QUALITY)
    for number in range(drawn):
        picture = drawn_picture(np.random.default_rng((seed, number)))
        picture.save(output / f"drawn_{number:02}.png")
    typer.echo(f"wrote {len(picture_files(output))} pictures to {output}")


if __name__ == "__main__":
    typer.run(main)
