"""Pictures: reading, writing, resizing as MATLAB does, and color."""

from ghostsr_ext.imaging.color import (
    luma,
    luma_uint8,
    rgb_to_ycbcr,
    round_to_uint8,
    ycbcr_to_rgb,
)
from ghostsr_ext.imaging.picture import Metadata, Picture
from ghostsr_ext.imaging.read import (
    MAX_PIXELS,
    PICTURE_SUFFIXES,
    picture_files,
    picture_from_pil,
    read_image,
    read_picture,
    read_size,
)
from ghostsr_ext.imaging.resize import imresize
from ghostsr_ext.imaging.write import (
    LOSSY_SUFFIXES,
    WRITABLE_SUFFIXES,
    picture_to_pil,
    write_bands,
    write_image,
    write_picture,
)

__all__ = [
    "LOSSY_SUFFIXES",
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "Metadata",
    "Picture",
    "imresize",
    "luma",
    "luma_uint8",
    "picture_files",
    "picture_from_pil",
    "picture_to_pil",
    "read_image",
    "read_picture",
    "read_size",
    "rgb_to_ycbcr",
    "round_to_uint8",
    "write_bands",
    "write_image",
    "write_picture",
    "ycbcr_to_rgb",
]
