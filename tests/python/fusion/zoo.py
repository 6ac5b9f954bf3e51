"""Small networks of spandrel's architectures, and what the package does with each.

As a program it prints the table of ``docs/networks.md``::

    python tests/python/fusion/zoo.py
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models.foreign import SpandrelNetwork, foreign_architecture
from ghostsr_ext.models.locality import locality
from ghostsr_ext.nn import ghost_layers
from torch import Tensor, nn

# Keyword arguments of the architecture's class, whose name is spandrel's.
_WINDOWED: Mapping[str, Any] = {
    "img_size": 16,
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 2),
    "window_size": 8,
    "mlp_ratio": 2,
    "upscale": 2,
    "upsampler": "pixelshuffle",
}

ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ATD": (
        "ATD",
        {**_WINDOWED, "category_size": 64, "num_tokens": 8, "reducted_dim": 4},
    ),
    "Compact": ("SRVGGNetCompact", {"num_feat": 16, "num_conv": 4, "upscale": 2}),
    "CRAFT": (
        "CRAFT",
        {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2], "upscale": 2},
    ),
    "DAT": (
        "DAT",
        {
            "embed_dim": 16,
            "split_size": [4, 8],
            "depth": [2, 2],
            "num_heads": [2, 2],
            "expansion_factor": 2.0,
        },
    ),
    "DCTLSA": ("DCTLSA", {"nf": 20, "upscale": 2}),
    "DITN": (
        "DITN_Real",
        {"dim": 16, "ITL_blocks": 1, "SAL_blocks": 1, "UFONE_blocks": 1, "upscale": 2},
    ),
    "DnCNN": ("DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 16, "nb": 9, "act_mode": "R"}),
    "DRCT": ("DRCT", {**_WINDOWED, "embed_dim": 20, "gc": 8}),
    "DRUNet": ("DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [8, 16, 24, 32], "nb": 2}),
    "ESRGAN": ("RRDBNet", {"num_filters": 16, "num_blocks": 2, "scale": 2}),
    "FDAT": (
        "FDAT",
        {
            "scale": 2,
            "embed_dim": 24,
            "num_groups": 1,
            "depth_per_group": 2,
            "num_heads": 2,
            "mid_dim": 16,
        },
    ),
    "HAT": ("HAT", {**_WINDOWED, "num_feat": 16, "compress_ratio": 2, "squeeze_factor": 4}),
    "KBNet": (
        "KBNet_s",
        {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    ),
    "MMRealSR": (
        "MMRRDBNet_test",
        {
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 64,
            "num_block": 1,
            "num_grow_ch": 8,
            "num_feats": [16, 16, 16, 16],
            "num_blocks": [1, 1, 1, 1],
        },
    ),
    "MoESR": ("MoESR", {"scale": 2, "dim": 16, "n_blocks": 2, "n_block": 1}),
    "MoSR": ("MoSR", {"upscale": 2, "n_block": 2, "dim": 16}),
    "NAFNet": ("NAFNet", {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    "OmniSR": ("OmniSR", {"num_feat": 16, "res_num": 1, "up_scale": 2}),
    "PLKSR": ("PLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "RealPLKSR": ("RealPLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "RCAN": (
        "RCAN",
        {"scale": 2, "n_resgroups": 2, "n_resblocks": 2, "n_feats": 16, "reduction": 4},
    ),
    "RealCUGAN": ("UpCunet2x", {}),
    "RetinexFormer": ("RetinexFormer", {"n_feat": 8, "stage": 1}),
    "RGT": (
        "RGT",
        {
            "img_size": 16,
            "embed_dim": 16,
            "depth": [2, 2],
            "num_heads": [2, 2],
            "mlp_ratio": 2.0,
        },
    ),
    "SAFMN": ("SAFMN", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "SAFMNBCIE": ("SAFMN_BCIE", {"dim": 16, "n_blocks": 2, "num_layers": 2}),
    "SeemoRe": ("SeemoRe", {"scale": 2, "num_experts": 3, "num_layers": 1, "embedding_dim": 16}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 16, "upscale": 2}),
    "SwiftSRGAN": ("Generator", {"num_channels": 16, "num_blocks": 2, "upscale_factor": 2}),
    "Swin2SR": ("Swin2SR", _WINDOWED),
    "SwinIR": ("SwinIR", _WINDOWED),
}
"""Class and arguments of each network, by spandrel's name of the architecture or of a variant."""

_VARIANTS = {"RealPLKSR": "PLKSR"}


def build(name: str) -> nn.Module:
    """Return the small network, with weights from a seed."""
    package = f"spandrel.architectures.{_VARIANTS.get(name, name)}"
    importlib.import_module(package)
    class_name, arguments = ARCHITECTURES[name]
    (found,) = {
        vars(module)[class_name]
        for place, module in list(sys.modules.items())
        if place.startswith(f"{package}.") and isinstance(vars(module).get(class_name), type)
    }
    torch.manual_seed(sum(map(ord, name)))
    network: nn.Module = found(**arguments)
    # Some start with branches that give nothing.
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


@dataclass(frozen=True)
class Row:
    """What the package does with one network.

    Attributes:
        name: Of the network.
        fused: What fusing it did, in a few words.
        difference: Largest difference of the fused output, over the output's range.
        converted: "yes", or why convolutions cannot become ghost layers.
        tiles: "yes", or what looks at the whole map.
    """

    name: str
    fused: str
    difference: float
    converted: str
    tiles: str


def examine(name: str, folder: Path, load_elsewhere: Callable[[Path, Tensor], Tensor]) -> Row:
    """Take a network through all that the package does; raises AssertionError where that is wrong.

    Args:
        name: One of ``ARCHITECTURES``.
        folder: For files.
        load_elsewhere: Loads a file in another process and runs the network there.
    """
    plain = build(name)
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    torch.save(state, folder / f"{name}.pth")
    architecture = foreign_architecture(state)
    assert architecture is not None
    dense = SpandrelNetwork(name=architecture, tensors=state).eval()
    fused = load_model(folder / f"{name}.pth")
    example = dense.example()
    # Of a size that no network asks for.
    image = torch.rand(1, dense.channels, example.shape[2] + 5, example.shape[3] + 9)
    with torch.no_grad():
        expected, output = dense(image), fused(image)
    extent = expected.max() - expected.min()
    difference = float((output - expected).abs().max() / extent)
    assert difference < 1e-4, f"fused: differs by {difference:.2g} of the output's range"

    crops = torch.rand(3, dense.channels, *example.shape[2:])
    converted = "yes"
    names = [n for n, m in fused.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    # Each layer takes its time.
    some = names[1:-1][:: max(1, len(names) // 5)]
    for method in ("kmeans", "calibrated"):
        try:
            ghost, _ = convert(
                fused,
                method=method,
                layers=some,
                calibration=crops if method == "calibrated" else None,
                polish_steps=0 if method == "calibrated" else None,
                unsuitable="convert",
                example=example,
            )
        except InputError as error:
            converted = str(error).splitlines()[0]
            break
        path = folder / f"{name}_{method}.safetensors"
        save_model(ghost, path)
        with torch.no_grad():
            wanted = ghost.eval()(image)
        found = load_elsewhere(path, image)
        wrong = float((found - wanted).abs().max() / (wanted.max() - wanted.min()))
        assert wrong < 1e-4, f"{method}: loaded elsewhere, differs by {wrong:.2g} of the range"
        train_one_step(ghost, torch.cat([example, example]))
    report = getattr(fused, "fusion_report", None)
    words = "by its own reader"
    if report is not None:
        words = (
            f"{report.layers} layers, {report.activations} activations, "
            f"{report.residuals} residuals, {report.stacked} concatenations"
        )
    operators = locality(dense).operators
    return Row(name, words, difference, converted, _what_looks_far(operators))


_FAR = {
    "attention": {"_softmax"},
    "pooling": {"mean", "sum", "adaptive_max_pool2d", "max"},
    "Fourier transform": {"_fft_r2c"},
    "normalisation": {"native_group_norm"},
}


def _what_looks_far(operators: tuple[str, ...]) -> str:
    kinds = [kind for kind, names in _FAR.items() if names & set(operators)]
    return f"no: {', '.join(kinds or operators)}" if operators else "yes"


def train_one_step(network: nn.Module, batch: Tensor) -> None:
    """Train, and check that gradients reach the ghost layers and change them."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    before = {name: layer.weight.clone() for name, layer in ghost_layers(network).items()}
    loss = (network(batch) - torch.rand_like(batch[:, :1, :1, :1])).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    moved = [
        not torch.equal(layer.weight, before[name]) for name, layer in ghost_layers(network).items()
    ]
    assert any(moved), "training moves no ghost layer"


class OtherProcess:
    """A process of its own, in which files are loaded and networks run."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, path: Path, image: Tensor) -> Tensor:
        """Load the network of ``path`` there and return what it makes of ``image``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        torch.save(image, path.with_suffix(".input"))
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer == "done", f"loaded elsewhere: {answer}"
        output: Tensor = torch.load(path.with_suffix(".output"), weights_only=True)
        return output

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def serve() -> None:
    """Answer an ``OtherProcess``."""
    for line in sys.stdin:
        path = Path(line.strip())
        try:
            image = torch.load(path.with_suffix(".input"), weights_only=True)
            with torch.no_grad():
                torch.save(load_model(path)(image), path.with_suffix(".output"))
            print("done", flush=True)
        except Exception as error:
            print(repr(error).replace("\n", " "), flush=True)


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    print("| architecture | fused | difference | ghost layers | in tiles |")
    print("|---|---|---|---|---|")
    other = OtherProcess()
    for name in sys.argv[1:] or ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = examine(name, Path(folder), other)
            except (AssertionError, InputError, RuntimeError) as error:
                print(f"| {name} | {type(error).__name__}: {error} |", flush=True)
                continue
        print(
            f"| {row.name} | {row.fused} | {row.difference:.0e} | {row.converted} | {row.tiles} |",
            flush=True,
        )
    other.close()


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else main()
