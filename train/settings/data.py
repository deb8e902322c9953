"""Settings of the training images and their captions."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from registry.settings import setting
from train.settings.rules import Rule, optional_counts, texts


@dataclass(kw_only=True)
class DataConfig:
    path: str | None = setting(
        None,
        "folder of images with captions (NAME.png + NAME.txt or NAME.png.txt, or metadata.jsonl/csv/parquet), or anything"
        " datasets.load_dataset opens",
    )
    trigger: str | None = setting(
        None,
        "trigger word: prepended to every caption that lacks it; alone it is the caption of a set without captions",
    )
    buckets: bool = setting(
        True,
        "train every image at its own aspect ratio: sizes of about the same pixel area (aspect-ratio buckets); false: squares, cropped at"
        " the centre",
    )
    bucket_step: int | None = setting(
        None, "pixels between the sides of two buckets (default: 64, an eighth of the resolution where that is less)"
    )
    memory: float = setting(4.0, "GiB of encoded images that are kept in memory; those of a larger set are read from the cache")
    split: str = setting("train", "the split, where load_dataset is used")
    image_column: str | None = setting(None, "column with the image (default: file_name in metadata files, the one image column elsewhere)")
    caption_column: str | None = setting(
        None, "column with the caption (default: text, caption or prompt, whichever there is); none: the set has no captions"
    )
    masks: str = setting(
        "none",
        "masks of the images, white is trained and black is left out: none, alpha (the alpha channel), files (NAME-masklabel.png,"
        " NAME_mask.png or masks/NAME.png), auto (a file, else the alpha channel), or a folder of masks with the images' names",
    )
    unmasked_weight: float = setting(0.0, "weight in the loss of what a mask leaves out; what it keeps has 1")
    normalize_masked_loss: bool = setting(
        True, "take the mean over what the mask keeps, so that images count alike; false: by the share of the image that it keeps"
    )

    def rules(self) -> Iterator[Rule]:
        """Ranges, without what needs the disk."""
        yield from texts(self, "path", "trigger")
        yield from optional_counts(self, "bucket_step")
        yield from texts(self, "masks")
        good = 0 <= self.unmasked_weight < 1
        yield "unmasked_weight", self.unmasked_weight, good, "must be 0 or more and below 1, the weight of what is kept"
        yield "memory", self.memory, isfinite(self.memory) and self.memory >= 0, "must be 0 or more"
