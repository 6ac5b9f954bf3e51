"""What ``torch.onnx.export`` is told, which knows none of the package's operators."""

from __future__ import annotations

import sys

from ghostsr_ext.errors import InputError


def refuse_onnx_export() -> None:
    """Say what to do where ``torch.onnx.export`` traces an operator of the package.

    Raises:
        InputError: It does.
    """
    # Not imported for this: where nobody imported it, nothing is exported.
    onnx = sys.modules.get("torch.onnx")
    if onnx is not None and onnx.is_in_onnx_export():
        raise InputError(
            "torch.onnx.export: ONNX has no operators of ghostsr; export "
            "ghostsr_ext.export.lower(module), or let ghostsr_ext.export.export_model(module, "
            "path) do both"
        )
