"""An image as the numbers that a model reads."""

# h w the model's size

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of its images, by which most models are trained


@dataclass(frozen=True)
class Input:
    """How a model reads an image: (value / 255 - mean) / deviation, at a size."""

    width: int
    height: int
    mean: tuple[float, ...] = IMAGENET[0]
    deviation: tuple[float, ...] = IMAGENET[1]

    def numbers(self, image: Image) -> Any:
        """(h, w, 3) fp32."""
        import numpy
        from PIL import Image

        scaled = image.convert("RGB").resize((self.width, self.height), Image.Resampling.BILINEAR)
        values = numpy.asarray(scaled, dtype=numpy.float32) / 255.0
        found = (values - numpy.asarray(self.mean, numpy.float32)) / numpy.asarray(self.deviation, numpy.float32)
        return found.astype(numpy.float32)
