"""Writing ncnn models."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.export.lowering import LoweredNetwork
from ghostsr_ext.export.parity import Parity, check_parity
from ghostsr_ext.export.torch_tracing import explained
from ghostsr_ext.files import atomic_write


def write_ncnn(
    network: LoweredNetwork,
    path: Path,
    tolerance: float,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> Parity:
    """Write a network for ncnn, ``.param`` and ``.bin``, and check it there.

    The blobs are ``in0`` and ``out0``.

    Args:
        network: The network.
        path: The ``.param``; the weights go beside it.
        tolerance: Largest difference to accept, for values in 0..255.
        half: Whether weights are stored in float16.
        overwrite: Whether existing files may be replaced.

    Raises:
        InputError: A file cannot be written.
        GhostsrError: A package is missing, pnnx fails, or a difference is larger than
            ``tolerance``.
    """
    try:
        import ncnn
        import pnnx
    except ImportError as error:
        raise GhostsrError("ncnn needs packages: pip install 'ghostsr[ncnn]'") from error
    with (
        tempfile.TemporaryDirectory() as folder,
        atomic_write(path.with_suffix(".bin"), overwrite=overwrite) as weights,
        atomic_write(path, overwrite=overwrite) as graph,
    ):
        # Two sizes where they are free, so that neither is taken for a constant.
        examples = [network.example(*size) for size in network.sizes()[:2]]
        with torch.no_grad(), warnings.catch_warnings(), explained(network, path):
            # pnnx reads TorchScript alone, which torch advises against; and the checks of shapes
            # in the network are meant to be left behind.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(network, examples[0], check_trace=False)
            torch.jit.save(traced, str(Path(folder, "network.pt")))
        shapes = [str(list(example.shape)).replace(" ", "") + "f32" for example in examples]
        subprocess.run(
            [
                pnnx.EXEC_PATH,
                "network.pt",
                *(
                    f"inputshape{end}={shape}"
                    for end, shape in zip(("", "2"), shapes, strict=False)
                ),
                f"fp16={int(half)}",
            ],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        written = Path(folder, "network.ncnn.param"), Path(folder, "network.ncnn.bin")
        if not all(file.exists() for file in written):
            raise GhostsrError(f"output {path}: pnnx could not convert the network")
        run = load_ncnn(*written)
        parity = check_parity(network, run, f"ncnn {ncnn.__version__}", tolerance, path)
        graph.write_bytes(written[0].read_bytes())
        weights.write_bytes(written[1].read_bytes())
        return parity


def load_ncnn(graph: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs an ncnn model on the CPU, one picture at a time.

    Raises:
        GhostsrError: ncnn cannot load the files, which may hold layers that it does not know.
    """
    import ncnn

    net = ncnn.Net()
    # Half precision is for where it is faster; here the picture must be the same.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.opt.num_threads = torch.get_num_threads()
    # Running a network that was not loaded would end the process.
    if net.load_param(str(graph)) != 0 or net.load_model(str(weights)) != 0:
        raise GhostsrError(f"{graph}: ncnn cannot load it")

    def run(image: Tensor) -> Tensor:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(np.ascontiguousarray(image[0].numpy())))
            _, output = extractor.extract("out0")
            return torch.from_numpy(np.array(output))[None]

    return run
