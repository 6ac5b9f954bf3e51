"""Conversion of pretrained networks to GhostSR networks."""

from __future__ import annotations

from ghostsr_ext.conversion.conversion_report import ConversionReport, LayerReport, SkippedLayer
from ghostsr_ext.conversion.distillation import PolishReport, polish
from ghostsr_ext.conversion.network import convert
from ghostsr_ext.conversion.options import METHODS, Method
from ghostsr_ext.conversion.pictures import Calibration
from ghostsr_ext.conversion.polish_checkpoint import PolishCheckpoint
from ghostsr_ext.conversion.selection import LayerPredicate

__all__ = [
    "METHODS",
    "Calibration",
    "ConversionReport",
    "LayerPredicate",
    "LayerReport",
    "Method",
    "PolishCheckpoint",
    "PolishReport",
    "SkippedLayer",
    "convert",
    "polish",
]
