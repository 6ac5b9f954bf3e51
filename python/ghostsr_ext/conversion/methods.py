"""The methods of choosing channels, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ghostsr_ext.conversion.absorption import find_followers
from ghostsr_ext.conversion.calibration import calibrate
from ghostsr_ext.conversion.convolutions import Trace, TracedConvolution
from ghostsr_ext.conversion.filters import fit_filters
from ghostsr_ext.conversion.kmeans import fit_kmeans
from ghostsr_ext.conversion.picture_format import PictureFormat
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.conversion.selection import Rules, obstacles
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.conversion.tables import GhostFit, build_ghost_layer
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.progress import ProgressCallback


@dataclass(frozen=True)
class ConversionJob:
    """A conversion of one network.

    Attributes:
        model: The network, in evaluation mode.
        network: Its convolutions.
        macs: Multiply-adds of each of its layers, by name.
        method: How channels are chosen.
        settings: Settings of the ghost layers.
        inputs: What "calibrated" calibrates on.
        seed: Seed of all random choices.
        progress: Called after each layer.
        rules: Which layers are better left as they are; None for none.
        form: What pictures the network takes; None where none were given.
    """

    model: nn.Module
    network: Trace
    macs: Mapping[str, int]
    method: str
    settings: GhostSettings
    inputs: Tensor | None
    seed: int
    progress: ProgressCallback | None
    rules: Rules | None = None
    form: PictureFormat | None = None


def layers_between(
    network: Trace, layers: Sequence[TracedConvolution], rules: Rules | None = None
) -> list[TracedConvolution]:
    """Return the dense convolutions, used once, that run between the first and last of ``layers``.

    Those that could not be converted, and those that ``rules`` call unsuitable, are not among them.
    """
    names = {entry.name for entry in layers}
    places = [place for place, entry in enumerate(network.called) if entry.name in names]
    if not places:
        return []
    reasons = obstacles(network)
    return [
        entry
        for entry in network.called[places[0] : places[-1]]
        if entry.name not in names
        and entry.uses == 1
        and entry.name not in reasons
        and not (rules and rules.unsuitable(entry))
    ]


def convert_layers(
    job: ConversionJob,
    model: nn.Module,
    layers: Sequence[TracedConvolution],
    ratios: Mapping[str, float],
) -> tuple[dict[str, tuple[GhostConv2d, GhostFit]], list[str]]:
    """Replace ``layers`` of ``model``.

    Returns:
        The ghost layers and what they were made of, by name; and the names of dense layers that
        got new weights.
    """
    if job.method == "calibrated":
        assert job.inputs is not None
        between = layers_between(job.network, layers, job.rules)
        followers = {}
        if not job.settings.affine:
            followers = find_followers(model, job.network, layers, job.inputs[:1])
        return calibrate(
            model,
            layers,
            ratios,
            job.inputs,
            job.settings,
            job.progress,
            between=between,
            followers=followers,
        )
    results: dict[str, tuple[GhostConv2d, GhostFit]] = {}
    for done, entry in enumerate(layers, start=1):
        dense, ratio = entry.module, ratios[entry.name]
        assert isinstance(dense, nn.Conv2d)
        if job.method == "kmeans":
            fit = fit_kmeans(dense, ratio, job.seed)
        else:
            fit = fit_filters(dense, ratio, job.settings)
        layer = build_ghost_layer(dense, fit, ratio, job.settings)
        replace_module(model, dense, layer)
        results[entry.name] = (layer, fit)
        if job.progress is not None:
            job.progress(done, len(layers), entry.name)
    return results, []
