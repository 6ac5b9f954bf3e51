"""Collecting what a report shows, and writing it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

import ghostsr_ext
from ghostsr_ext.benchmark import Comparison, compare_networks
from ghostsr_ext.datasets import PictureSet
from ghostsr_ext.errors import InputError
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.files import atomic_write
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.models import SRModel
from ghostsr_ext.report.layers import LayerComparison, compare_layers, ghost_maps
from ghostsr_ext.report.pictures import Crop, crop_png, data_uri, make_crop, map_picture, png
from ghostsr_ext.report.scatter import scatter_svg
from ghostsr_ext.report.similarity import ALIKE, similar_pairs

_FEATURE_SIDE = 96
_GHOSTS_SHOWN = 32
_PICTURES_SHOWN = 3


def write_report(
    path: str | os.PathLike[str],
    models: Mapping[str, SRModel],
    pictures: PictureSet,
    *,
    scale: int | None = None,
    layer: str | None = None,
    size: tuple[int, int] = (180, 320),
    repeats: int = 10,
    device: torch.device | str = "cpu",
    picture_folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Measure networks and write one HTML page that needs nothing beside it.

    Args:
        path: The HTML file to write.
        models: The networks by name: the dense parent, the network converted from it, and others
            to compare.
        pictures: A benchmark set.
        scale: A scale of all networks; None for the parent's.
        layer: The dense layer whose feature maps are shown; None for a middle one.
        size: Rows and columns of the small picture whose time is taken.
        repeats: How many runs are timed.
        device: Where PSNR and time are measured.
        picture_folder: Where to write the pictures as PNG files, too; None for nowhere.
        overwrite: Whether existing files may be replaced.
        progress: Called before each step.

    Returns:
        The measurements; the first row is the parent in plain torch.

    Raises:
        InputError: There are fewer than two networks, they do not fit together, or a file cannot
            be written.
    """
    if len(models) < 2:
        raise InputError("models: a dense and a converted network are needed")
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(
            f"output {path}: exists already; pass overwrite (--overwrite) to replace it"
        )
    step = progress or (lambda _name: None)
    (dense_name, dense), (ghost_name, ghost), *_ = models.items()
    scale = dense.scale if scale is None else scale
    pairs = pictures.pairs(scale)

    step("layers")
    low = pairs[0].read_low()
    image = Upscaler(dense, scale=scale, device="cpu").network_input(low)
    image = image[:, :, :_FEATURE_SIDE, :_FEATURE_SIDE].contiguous()
    layers, features = compare_layers(dense.cpu().eval(), ghost.cpu().eval(), image, scale)
    layer = _middle(layers) if layer is None else layer
    if layer not in features:
        raise InputError(f"layer: found {layer}; allowed are {', '.join(features)}")
    maps = {
        dense_name: features[layer],
        ghost_name: ghost_maps(ghost, layer, image, scale),
    }

    psnr = {}
    for name, model in models.items():
        step(f"PSNR of {name}")
        psnr[name] = evaluate(model, pictures, scale, device=device).psnr
    step("latency")
    comparison = compare_networks(
        models,
        scale=scale,
        size=size,
        repeats=repeats,
        plain_torch=True,
        device=device,
        psnr=psnr,
        dataset=pictures.name,
    )
    step("pictures")
    details = [
        make_crop(pair.name, pair.read_low(), pair.read_high(), dict(models), scale)
        for pair in pairs[:_PICTURES_SHOWN]
    ]
    files = _picture_files(layer, maps, details)
    if picture_folder is not None:
        folder = Path(picture_folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with atomic_write(folder / name, overwrite=overwrite) as temporary:
                temporary.write_bytes(content)
    page = _page(comparison, layers, layer, maps, details, files)
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return comparison


def _middle(layers: list[LayerComparison]) -> str:
    return layers[len(layers) // 2].name


def _picture_files(
    layer: str, maps: Mapping[str, torch.Tensor], details: list[Crop]
) -> dict[str, bytes]:
    files = {
        _map_name(network, layer, channel): png(map_picture(channels[channel]))
        for network, channels in maps.items()
        for channel in range(len(channels))
    }
    for detail in details:
        for label, pixels in detail.versions.items():
            files[_crop_name(detail, label)] = crop_png(pixels)
    return files


def _map_name(network: str, layer: str, channel: int) -> str:
    return f"{network}_{layer}_{channel}.png".replace("/", "_")


def _crop_name(detail: Crop, label: str) -> str:
    return f"{detail.name}_{label}.png".replace("/", "_")


def _page(
    comparison: Comparison,
    layers: list[LayerComparison],
    layer: str,
    maps: Mapping[str, torch.Tensor],
    details: list[Crop],
    files: dict[str, bytes],
) -> str:
    shown = next(entry for entry in layers if entry.name == layer)
    uris = {name: data_uri(content) for name, content in files.items()}
    before, after = maps
    environment = Environment(
        loader=PackageLoader("ghostsr_ext.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: dict[str, Any] = {
        "title": f"{after} beside {before}",
        "version": ghostsr_ext.__version__,
        "rows": comparison.rows(),
        "conditions": comparison.conditions(),
        "scatter": scatter_svg(comparison),
        "layer": layer,
        "maps": {
            network: [uris[_map_name(network, layer, channel)] for channel in range(len(channels))]
            for network, channels in maps.items()
        },
        "pairs": similar_pairs(maps[before]),
        "alike_from": ALIKE,
        "alike": sum(entry.alike for entry in layers),
        "all_maps": sum(len(entry.intrinsic) + len(entry.ghosts) for entry in layers),
        "shown": shown,
        "ghosts": shown.ghosts[:_GHOSTS_SHOWN],
        "layers": layers,
        "largest_error": max(entry.relative_error for entry in layers) or 1.0,
        "details": [
            {
                "name": detail.name,
                "versions": {label: uris[_crop_name(detail, label)] for label in detail.versions},
            }
            for detail in details
        ],
        "before": before,
        "after": after,
    }
    return environment.get_template("page.html").render(values)
