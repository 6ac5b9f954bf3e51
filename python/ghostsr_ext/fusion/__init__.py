"""Putting fused layers into any network, without loss."""

from ghostsr_ext.fusion.examples import agree
from ghostsr_ext.fusion.fusion_report import FusionReport
from ghostsr_ext.fusion.layout import prefer_channels_last
from ghostsr_ext.fusion.network import fuse, fuse_in_place
from ghostsr_ext.fusion.rewriting import FusedModule

__all__ = [
    "FusedModule",
    "FusionReport",
    "agree",
    "fuse",
    "fuse_in_place",
    "prefer_channels_last",
]
