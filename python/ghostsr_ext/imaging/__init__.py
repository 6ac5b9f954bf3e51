"""Pictures: reading, writing, resizing as MATLAB does, and colour."""

from ghostsr_ext.imaging.resize import imresize

__all__ = ["imresize"]
