"""Training items: every image at every size that it is trained at, with the parts of it that are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from registry.formats.image_file import Size
from train.data.buckets import Bucket, buckets_of, nearest, step_of
from train.data.dataset import Sample
from train.data.images import crop_corner, scaled_size
from train.data.views import corners_of


@dataclass(frozen=True)
class View:
    """A part of an image: the corner of its crop in the scaled image, mirrored or not."""

    left: int
    top: int
    flipped: bool = False


@dataclass(frozen=True)
class Item:
    """An image at a size; each time that it is trained on, one of its views is drawn."""

    sample: Sample
    image: int  # place of the sample among those that are trained (or held out)
    bucket: Bucket
    views: tuple[View, ...]

    @property
    def weight(self) -> float:
        """What its loss is multiplied by."""
        return self.sample.weight

    @property
    def scaled(self) -> tuple[int, int]:
        """(width, height) of the whole image once it covers the bucket."""
        return scaled_size(self.sample.size, self.bucket.width, self.bucket.height)

    @property
    def cropped(self) -> float:
        """Share of the image that one view leaves out."""
        return 1.0 - self.bucket.kept(self.sample.size)

    @property
    def enlarged(self) -> bool:
        """Whether the image has fewer pixels than it is trained with."""
        return self.bucket.enlarges(self.sample.size)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Which sizes images may have: resolutions in pixels a side, in buckets of their area or as squares."""

    sides: tuple[int, ...]  # ascending
    multiple: int = 8  # of width and height, which the model needs
    step: int | None = None  # pixels between the sides of two buckets; None: step_of
    buckets: bool = True  # False: squares alone
    most: int | None = None  # pixels a side that the model has positions for
    crops: int = 1  # views of a training image, each also mirrored where `flip`
    flip: bool = False

    def choices(self, size: Size) -> list[Bucket]:
        """The bucket of every resolution that the image is large enough for; of the smallest one where it is for none."""
        found = [self._bucket(size, side) for side in self.sides]
        fitting = [bucket for bucket in found if not bucket.enlarges(size)]
        return list(dict.fromkeys(fitting or found[:1]))

    def _bucket(self, size: Size, side: int) -> Bucket:
        if not self.buckets:
            return Bucket(side, side)
        return nearest(size, buckets_of(side, step=self.step or step_of(side, self.multiple), most=self.most))


def items_of(samples: Sequence[Sample], sizes: Sizes) -> tuple[Item, ...]:
    """An item for every size of every image, in the images' order, with the views that `sizes` has."""
    return tuple(
        Item(sample, image, bucket, _views(sample, bucket, sizes))
        for image, sample in enumerate(samples)
        for bucket in sizes.choices(sample.size)
    )


def heldout_items(samples: Sequence[Sample], sizes: Sizes) -> tuple[Item, ...]:
    """One item an image, at the largest of its sizes."""
    return tuple(
        Item(sample, image, bucket, (_centre(sample, bucket),))
        for image, sample in enumerate(samples)
        for bucket in sizes.choices(sample.size)[-1:]
    )


def _views(sample: Sample, bucket: Bucket, sizes: Sizes) -> tuple[View, ...]:
    """The crops of an image at a size, and the same crops mirrored: their corners count in the mirrored image."""
    width, height = scaled_size(sample.size, bucket.width, bucket.height)
    room = width - bucket.width, height - bucket.height
    upright = [View(left, top) for left, top in corners_of(sample, room, sizes.crops)]
    return (*upright, *(View(room[0] - view.left, view.top, flipped=True) for view in upright if sizes.flip))


def _centre(sample: Sample, bucket: Bucket) -> View:
    return View(*crop_corner(scaled_size(sample.size, bucket.width, bucket.height), bucket.width, bucket.height))


def images_by_bucket(items: Sequence[Item]) -> dict[Bucket, list[str]]:
    """The names of the images of every bucket, the bucket with most images first."""
    counts = Counter(item.bucket for item in items)
    found: dict[Bucket, list[str]] = {bucket: [] for bucket in sorted(counts, key=lambda bucket: (-counts[bucket], bucket))}
    for item in items:
        found[item.bucket].append(item.sample.name)
    return found
