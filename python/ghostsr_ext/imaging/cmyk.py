"""Turning ink into light."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageCms


def cmyk_converter(icc_profile: bytes | None) -> Callable[[Image.Image], Image.Image]:
    """Return what turns CMYK pictures into sRGB.

    Args:
        icc_profile: The profile of the inks; None, or one that is broken, for a plain formula.
    """
    if icc_profile:
        try:
            transform = ImageCms.buildTransform(
                ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)),
                ImageCms.createProfile("sRGB"),
                "CMYK",
                "RGB",
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
        else:
            return transform.apply
    return lambda image: image.convert("RGB")
