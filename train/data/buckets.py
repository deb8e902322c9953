"""Aspect-ratio buckets: sizes of about the same pixel area, so that images of every shape are trained with little cropped away.

An image goes to the size whose aspect ratio is nearest to its own; it is scaled until it covers the size, and what overlaps is cropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from registry.formats.image_file import Size

STEP = 64  # pixels between the sides of two buckets, as SDXL's published list has them; an eighth of the resolution where that is less
WIDEST = 4.0  # aspect ratio of the widest bucket; an image that is wider is cropped to it


@dataclass(frozen=True, order=True)
class Bucket:
    """A size in pixels that images are trained at."""

    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height

    def kept(self, size: Size) -> float:
        """Share of an image of this size that is left by the crop."""
        own, image = self.width / self.height, size.width / size.height
        return min(own, image) / max(own, image)

    def enlarges(self, size: Size) -> bool:
        """Whether an image of this size has fewer pixels than it is trained with."""
        return size.width < self.width or size.height < self.height


def step_of(side: int, multiple: int) -> int:
    """Pixels between the sides of two buckets at a resolution, a multiple of what the model needs."""
    return max(multiple, min(STEP, side // 8) // multiple * multiple)


@lru_cache(maxsize=64)
def buckets_of(side: int, *, step: int, most: int | None = None) -> tuple[Bucket, ...]:
    """The square, and every width and height in steps whose area is the largest one that is not above the square's.

    `most`: pixels a side that the model has positions for.
    """
    found = {Bucket(side, side)}
    for long in range(step, int(side * math.sqrt(WIDEST)) + 1, step):
        short = side * side // long // step * step
        if side < long <= (most or long) and short and long / short <= WIDEST:
            found |= {Bucket(long, short), Bucket(short, long)}
    return tuple(sorted(found))


@lru_cache(maxsize=4096)
def nearest(size: Size, buckets: tuple[Bucket, ...]) -> Bucket:
    """The bucket that keeps most of an image of this size; of equals the one with more pixels."""
    return max(buckets, key=lambda bucket: (round(bucket.kept(size), 9), bucket.area, bucket))
