"""What this installation is: versions, build and processor features."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from ghostsr_ext import _native
from ghostsr_ext.ops import library


def build_info() -> dict[str, Any]:
    """Return what a bug report needs to say about this installation.

    Returns:
        JSON values by name: the package's ``version``, compiler, torch ABI and processor features
        of the build (``simd_chosen`` is the level that runs here, ``native_bfloat16`` whether it
        has instructions that convolve in bfloat16), the versions of torch and
        Python, the platform, torch's threads, and under ``cuda`` whether the CUDA operators are
        loaded, and why not.
    """
    return {
        **_native.build_info(),
        # Builds by CMake alone do not know it.
        "version": version("ghostsr"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": library.cuda_status(),
    }
