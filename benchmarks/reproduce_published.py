"""Measure published weights, MATLAB's imresize and network costs beside published figures.

Writes one Markdown page and ends with status 1 where a measurement misses its tolerance:

    python benchmarks/reproduce_published.py --data ../shared/data --output docs/results.md
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy.io
import torch
import typer
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.evaluation import EvaluationResult, default_protocol, evaluate
from ghostsr_ext.files import atomic_write
from ghostsr_ext.imaging import imresize, rgb_to_ycbcr
from ghostsr_ext.metrics import Protocol, compare
from ghostsr_ext.models import SRModel, create_model
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.profiling import cost
from measuring import Threads
from torch import nn

DEFAULT_DATA = Path(os.environ.get("GHOSTSR_DATA", "../shared/data"))

PSNR_TOLERANCE = 0.01
SSIM_TOLERANCE = 0.0005
BICUBIC_TOLERANCE = 0.0001
DOUBLE_TOLERANCE = 1e-12
COST_TOLERANCE = 0.005
REDUCTION_TOLERANCE = 0.5


@dataclass(frozen=True)
class Weights:
    """A file of weights and what is known of its quality on Set5.

    Attributes:
        file: Name below ``weights``.
        label: The network and where the weights are from.
        reference: Key of ``measured_per_image.json`` less the scale.
        published: PSNR on Y of the source's own table, by scale.
        rounds_luma: Whether that table was measured on Y rounded to uint8.
    """

    file: str
    label: str
    reference: str
    published: dict[int, float]
    rounds_luma: bool = False


WEIGHTS = (
    Weights("edsr_r8f64_x2.pth", "EDSR, 8 blocks of 64 (wdsr)", "EDSR r8f64 (krasserm)", {}),
    Weights(
        "edsr_mobile_f64b5_x2.pth", "EDSR, 5 blocks of 64 (MLCommons)", "EDSR f64b5 (mlcommons)", {}
    ),
    Weights(
        "edsr_mobile_f32b5_x2.pth", "EDSR, 5 blocks of 32 (MLCommons)", "EDSR f32b5 (mlcommons)", {}
    ),
    Weights("carn_x2.pth", "CARN (CARN-pytorch)", "CARN_2x", {2: 37.76}, rounds_luma=True),
    Weights(
        "carn_m_x234.pth",
        "CARN-M (CARN-pytorch)",
        "CARN-M",
        {2: 37.53, 3: 33.99, 4: 31.92},
        rounds_luma=True,
    ),
    Weights(
        "rdn_c3d10g64_x2_idealo.pth", "RDN, 10 blocks of 3 (idealo)", "RDN C3D10 fp32 (idealo)", {}
    ),
    Weights(
        "vdsr_twtygqyy.pth",
        "VDSR (pytorch-vdsr)",
        "VDSR double",
        {2: 37.65, 3: 33.77, 4: 31.45},
    ),
    Weights(
        "vdsr_caffe_huangzehao.pth",
        "VDSR (caffe-vdsr)",
        "VDSR caffe-vdsr@huangzehao double",
        {2: 37.53, 3: 33.66, 4: 31.35},
    ),
)


@dataclass(frozen=True)
class PublishedCost:
    """Parameters and multiply-adds of a network in its paper.

    Attributes:
        preset: Name of the network for ``create_model``.
        scales: The scales that one network serves.
        parameters: As published.
        macs: Multiply-adds for a 1280x720 output, by scale; None where the paper gives none.
        biases: Whether the published parameters include biases.
    """

    preset: str
    scales: tuple[int, ...]
    parameters: float
    macs: dict[int, float | None]
    biases: bool = True


COSTS = (
    PublishedCost("edsr", (2,), 40.73e6, {2: 9384.7e9}),
    PublishedCost("edsr", (3,), 43.7e6, {3: 4476.5e9}),
    PublishedCost("edsr", (4,), 43.1e6, {4: 2894.5e9}),
    PublishedCost("rdn", (2,), 22.12e6, {2: 5096.2e9}),
    PublishedCost("rdn", (3,), 22.31e6, {3: 2284.7e9}),
    PublishedCost("rdn", (4,), 22.27e6, {4: 1309.2e9}),
    PublishedCost("carn", (2, 3, 4), 1592e3, {2: 222.8e9, 3: 118.8e9, 4: 90.9e9}),
    PublishedCost("carn_m", (2, 3, 4), 412e3, {2: 91.2e9, 3: 46.1e9, 4: 32.5e9}, biases=False),
    PublishedCost("vdsr", (2, 3, 4), 665e3, {2: None}),
)


@dataclass(frozen=True)
class PublishedReduction:
    """What half ghost features save, in percent of the dense network's parameters and MACs."""

    preset: str
    scale: int
    extra: tuple[str, ...]
    parameters: float
    macs: float


REDUCTIONS = (
    PublishedReduction("edsr", 2, (), 46.4, 46.3),
    PublishedReduction("edsr", 2, ("body_end",), 47.1, 47.1),
    PublishedReduction("edsr", 3, (), 43.2, 43.2),
    PublishedReduction("edsr", 4, (), 43.8, 37.6),
    PublishedReduction("rdn", 2, (), 48.0, 48.0),
    PublishedReduction("rdn", 3, (), 47.6, 47.6),
    PublishedReduction("rdn", 4, (), 47.7, 46.7),
    PublishedReduction("carn", 2, (), 34.5, 34.3),
    PublishedReduction("carn", 3, (), 28.9, 28.6),
    PublishedReduction("carn", 4, (), 29.9, 21.0),
)


class Page:
    """Collects the page's text and the measurements that miss their tolerance."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.missed: list[str] = []

    def text(self, *paragraphs: str) -> None:
        """Append paragraphs."""
        for paragraph in paragraphs:
            self.lines += [paragraph, ""]

    def table(self, head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """Append a table; the first column is aligned left, the others right."""
        head = list(head)
        self.lines.append("| " + " | ".join(head) + " |")
        self.lines.append("|---" + "|---:" * (len(head) - 1) + "|")
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]
        self.lines.append("")

    def check(self, name: str, difference: float, tolerance: float) -> None:
        """Note a measurement that is too far from its reference."""
        if not abs(difference) <= tolerance:
            self.missed.append(f"{name}: off by {difference:.3g}, allowed {tolerance:g}")


def measure_resize(data: Path, page: Page) -> None:
    """Compare ``imresize`` and the metrics with MATLAB's results."""
    pictures = open_picture_set(data / "Set5")
    golden = np.load(data / "golden/matlab_imresize_double_set5.npz")
    different = total = 0
    worst = 0.0
    rows = []
    for scale in (2, 3, 4):
        table = scipy.io.loadmat(data / f"golden/selfexsr_tables/result_Set5_SRF_{scale}.mat")
        protocol = Protocol.benchmark(scale, y_rounding="uint8")
        qualities = []
        for pair in pictures.pairs(scale):
            high = pair.read_high()
            different += int((imresize(high, 1 / scale) != pair.read_low()).sum())
            total += pair.read_low().size
            low = imresize(high, 1 / scale, border="replicate")
            qualities.append(compare(imresize(low, scale, border="replicate"), high, protocol))
        psnrs, ssims = table["PSNR_table"][:, 0], table["SSIM_table"][:, 0]
        off = max(abs(q.psnr - psnr) for q, psnr in zip(qualities, psnrs, strict=True))
        page.check(f"bicubic x{scale}", off, BICUBIC_TOLERANCE)
        rows.append(
            (
                f"x{scale}",
                f"{np.mean([q.psnr for q in qualities]):.4f}",
                f"{psnrs.mean():.4f}",
                f"{off:.5f}",
                f"{np.mean([q.ssim for q in qualities]):.5f}",
                f"{ssims.mean():.5f}",
            )
        )
    for pair in pictures.pairs(1):
        y = rgb_to_ycbcr(pair.read_high())[..., 0]
        for scale in (2, 3, 4):
            y = y[: y.shape[0] // scale * scale, : y.shape[1] // scale * scale]
            if f"{pair.name}_x{scale}_im_l_y" in golden:
                small = golden[f"{pair.name}_x{scale}_im_l_y"]
                large = golden[f"{pair.name}_x{scale}_im_b_y"]
                for ours, theirs in (
                    (imresize(y, 1 / scale), small),
                    (imresize(small, scale), large),
                ):
                    worst = max(worst, float((abs(ours - theirs) / abs(theirs)).max()))
    page.check("imresize, uint8", different, 0)
    page.check("imresize, double", worst, DOUBLE_TOLERANCE)
    page.text(
        "## Resizing as MATLAB does",
        f"`imresize` on the 15 small pictures of Set5 that MATLAB made: {different} of {total:,} "
        f"values differ. In double precision, reducing and enlarging, the largest relative "
        f"difference from MATLAB is {worst:.1e}.",
        "Bicubic on Set5 beside the bicubic column of the published SelfExSR tables (Y rounded to "
        "uint8, replicated border):",
    )
    page.table(("scale", "PSNR", "published", "largest difference (dB)", "SSIM", "published"), rows)


def measure_weights(data: Path, page: Page) -> None:
    """Measure every file of weights on Set5 at every scale that it serves."""
    reference = json.loads((data / "golden/measured_per_image.json").read_text())
    pictures = open_picture_set(data / "Set5")
    rows = []
    for weights in WEIGHTS:
        model = load_model(data / "weights" / weights.file)
        for scale in model.scales:
            known = reference.get(f"{weights.reference} x{scale}", {})
            name = f"{weights.file} x{scale}"
            _say(name)
            result = evaluate(model, pictures, scale)
            rows.append(_quality_row(weights, result, known, page, name))
            if weights.rounds_luma:
                rounded = replace(default_protocol(model, scale), y_rounding="uint8")
                result = evaluate(model, pictures, scale, rounded)
                rows.append(_quality_row(weights, result, {}, page, name))
    page.text(
        "## Published weights on Set5",
        "PSNR and SSIM on Y, `scale` pixels shaved. EDSR, CARN and RDN: small pictures from files, "
        "output rounded to uint8. VDSR: floating point from the original's Y to the output. "
        "*Reference* is an independent measurement of the same weights; its differences are the "
        "largest over the pictures. *Published* is the table of the source of the weights (for "
        "caffe-vdsr: of the paper), which for CARN is measured on Y rounded to uint8; the weights "
        "that CARN's authors give do not give their table to the second decimal.",
    )
    page.table(
        (
            "network",
            "scale",
            "Y",
            "PSNR",
            "reference",
            "largest difference",
            "published",
            "difference",
            "SSIM",
            "reference",
            "largest difference",
        ),
        rows,
    )


def _quality_row(
    weights: Weights, result: EvaluationResult, known: dict[str, Any], page: Page, name: str
) -> tuple[str, ...]:
    published = weights.published.get(result.scale)
    if (result.protocol.y_rounding == "uint8") != weights.rounds_luma:
        published = None
    psnr, psnr_off = _against(known.get("psnr"), [image.psnr for image in result.images])
    ssim, ssim_off = _against(known.get("ssim"), [image.ssim for image in result.images])
    if psnr_off is not None:
        page.check(f"{name} PSNR", psnr_off, PSNR_TOLERANCE)
    if ssim_off is not None:
        page.check(f"{name} SSIM", ssim_off, SSIM_TOLERANCE)
    return (
        weights.label,
        f"x{result.scale}",
        result.protocol.y_rounding,
        f"{result.psnr:.3f}",
        _number(psnr, ".3f"),
        _number(psnr_off, "+.0e"),
        _number(published, ".2f"),
        _number(None if published is None else result.psnr - published, "+.3f"),
        f"{result.ssim:.4f}",
        _number(ssim, ".4f"),
        _number(ssim_off, "+.0e"),
    )


def _against(
    reference: list[float] | None, measured: list[float]
) -> tuple[float | None, float | None]:
    """Mean of the reference, and the largest difference from it over the pictures."""
    if reference is None:
        return None, None
    differences = (ours - theirs for ours, theirs in zip(measured, reference, strict=True))
    return float(np.mean(reference)), max(differences, key=abs)


def measure_costs(page: Page) -> None:
    """Count parameters and multiply-adds of the dense networks."""
    rows = []
    for published in COSTS:
        scale: Any = published.scales if len(published.scales) > 1 else published.scales[0]
        model = _on_meta(published.preset, scale)
        for served, macs in published.macs.items():
            counted = cost(model, scale=served)
            parameters = counted.parameters if published.biases else counted.weights
            name = f"{published.preset} x{served}"
            parameters_off = parameters / published.parameters - 1
            page.check(f"{name} parameters", parameters_off, COST_TOLERANCE)
            macs_off = None if macs is None else counted.macs / macs - 1
            if macs_off is not None:
                page.check(f"{name} MACs", macs_off, COST_TOLERANCE)
            rows.append(
                (
                    f"`{published.preset}`",
                    f"x{served}",
                    f"{parameters:,}",
                    f"{published.parameters / 1e3:,.0f} K",
                    f"{parameters_off:+.2%}",
                    f"{counted.macs / 1e9:,.1f} G",
                    "-" if macs is None else f"{macs / 1e9:,.1f} G",
                    _number(macs_off, "+.2%"),
                )
            )
    page.text(
        "## Cost of the dense networks",
        "Multiply-adds for an output of 1280x720. CARN and CARN-M count all three scales' heads, "
        "as their paper does; CARN-M's published parameters leave biases out, and so does its row. "
        "The papers of EDSR and RDN give no multiply-adds; theirs are derived from the "
        "architecture.",
    )
    page.table(
        (
            "network",
            "scale",
            "parameters",
            "published",
            "difference",
            "MACs",
            "published",
            "difference",
        ),
        rows,
    )


def measure_reductions(page: Page) -> None:
    """Count what ghost ratio 0.5 saves."""
    rows = []
    for published in REDUCTIONS:
        dense = _on_meta(published.preset, published.scale)
        before = cost(dense)
        names = [*dense.default_layers(), *published.extra]
        after = cost(_with_ghosts(dense, names, 0.5))
        parameters = 100 * (1 - after.parameters / before.parameters)
        macs = 100 * (1 - after.macs / before.macs)
        name = f"{published.preset} x{published.scale}"
        page.check(
            f"{name} parameters saved", parameters - published.parameters, REDUCTION_TOLERANCE
        )
        page.check(f"{name} MACs saved", macs - published.macs, REDUCTION_TOLERANCE)
        rows.append(
            (
                f"`{published.preset}`" + "".join(f", {extra}" for extra in published.extra),
                f"x{published.scale}",
                f"{after.parameters / 1e6:.2f} M",
                f"-{parameters:.1f} %",
                f"-{published.parameters} %",
                f"{after.macs / 1e9:,.1f} G",
                f"-{macs:.1f} %",
                f"-{published.macs} %",
            )
        )
    page.text(
        "## Cost of the ghost networks",
        "Ghost ratio 0.5 in the convolutions that the method converts: the residual blocks' (EDSR, "
        "CARN) and the dense blocks' 3x3 (RDN); *body_end* adds EDSR's last convolution before the "
        "upsampler. The published figure is 46 % for EDSR x2; the others are derived from the "
        "architectures.",
    )
    page.table(
        (
            "network",
            "scale",
            "parameters",
            "saved",
            "expected",
            "MACs",
            "saved",
            "expected",
        ),
        rows,
    )


def _on_meta(preset: str, scale: Any) -> SRModel:
    with torch.device("meta"):
        return create_model(preset, scale=scale)


def _with_ghosts(model: SRModel, names: Iterable[str], ratio: float) -> SRModel:
    """Swap convolutions for ghost layers of the same shape, with new weights."""
    for name in names:
        parent_name, _, child = name.rpartition(".")
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        ghost = GhostConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            bias=conv.bias is not None,
            ghost_ratio=ratio,
            activation=conv.activation,
            residual_scale=conv.residual_scale,
            device="meta",
        )
        setattr(model.get_submodule(parent_name), child, ghost)
    return model


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(
    data: Annotated[Path, typer.Option(help="The research data.")] = DEFAULT_DATA,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/results.md"),
    threads: Threads = 2,
) -> None:
    """Measure everything and write the page."""
    torch.set_num_threads(threads)
    page = Page()
    page.text(
        "# Measured beside published",
        f"Made by `benchmarks/reproduce_published.py` with torch {torch.__version__}, float32 on a "
        f"CPU ({platform.machine()}). PSNR in dB.",
    )
    measure_weights(data, page)
    measure_resize(data, page)
    measure_costs(page)
    measure_reductions(page)
    with atomic_write(output, overwrite=True) as temporary:
        temporary.write_text("\n".join(page.lines).rstrip() + "\n", encoding="utf-8")
    for line in page.missed:
        _say(f"out of tolerance: {line}")
    if page.missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
