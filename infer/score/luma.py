"""The luma of an image, as JPEG and ITU-R BT.601 weigh the channels."""

from __future__ import annotations

from typing import Any

WEIGHTS = (0.299, 0.587, 0.114)


def luma(pixels: Any) -> Any:
    """(H, W) of (H, W, 3), in the same units."""
    import numpy

    return pixels @ numpy.array(WEIGHTS)
