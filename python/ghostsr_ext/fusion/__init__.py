"""Putting fused layers into any network, without loss."""

from ghostsr_ext.fusion.network import fuse, fuse_in_place
from ghostsr_ext.fusion.report import FusionReport

__all__ = ["FusionReport", "fuse", "fuse_in_place"]
