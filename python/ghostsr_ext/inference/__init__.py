"""Enlarging pictures: one in memory, folders of files, video."""

from ghostsr_ext.inference.upscaler import Upscaler

__all__ = ["Upscaler"]
