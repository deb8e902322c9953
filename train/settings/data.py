"""Settings of the training images and their captions."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

from registry.settings import setting, word
from train.settings.prior import prior_rules
from train.settings.rules import Rule, counts, optional_counts, texts
from train.settings.sets import set_rules

CAPTIONS = ("whole", "lines")  # what a text file is
MOST_VARIANTS, MOST_CROPS = 4096, 64


@dataclass(kw_only=True)
class DataConfig:
    path: str | None = setting(
        None,
        "folder of images with captions (NAME.png + NAME.txt or NAME.png.txt, or metadata.jsonl/csv/parquet), or anything"
        " datasets.load_dataset opens; a folder of kohya's folders 10_WORD is read as sets with repeats",
    )
    sets: Any = setting(
        None,
        "several sets in place of data.path: [{path: cats, repeats: 2, weight: 1.0, trigger: sks, prior: false}, ...], all but path"
        " optional; prior: regularisation images; masks: in place of data.masks",
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
    preferences: Any = setting(
        None,
        "votes to learn from with objective.name=dpo: the folder of a grid with its votes.jsonl, a file of loraloom vote GRID --export"
        " FILE.parquet (or any parquet file in Pick-a-Pic's columns), or a list of them",
    )
    split: str = setting("train", "the split, where load_dataset is used")
    image_column: str | None = setting(None, "column with the image (default: file_name in metadata files, the one image column elsewhere)")
    caption_column: str | None = setting(
        None, "column with the caption (default: text, caption or prompt, whichever there is); none: the set has no captions"
    )
    prior: str | None = setting(
        None,
        "folder of regularisation images: images of the class, without the trigger in their captions, which keep the class as it is",
    )
    prior_prompt: str | None = setting(
        None, "caption of the images of data.prior that have none, or what the base draws data.prior_images by: a photo of a woman"
    )
    prior_images: int | None = setting(
        None, "regularisation images that the base draws before training, where there is no data.prior (prior preservation)"
    )
    prior_weight: float = setting(1.0, "weight in the loss of all regularisation images, those of sets with prior: true too")
    masks: str = setting(
        "none",
        "masks of the images, white is trained and black is left out: none, alpha (the alpha channel), files (NAME-masklabel.png,"
        " NAME_mask.png or masks/NAME.png), auto (a file, else the alpha channel), or a folder of masks with the images' names",
    )
    unmasked_weight: float = setting(0.0, "weight in the loss of what a mask leaves out; what it keeps has 1")
    normalize_masked_loss: bool = setting(
        True, "take the mean over what the mask keeps, so that images count alike; false: by the share of the image that it keeps"
    )

    captions: str = word(
        "whole",
        "a text file beside an image is one caption (whole), or has a caption a line (lines), of which one is drawn",
        among=("whole", "lines"),
    )
    shuffle_tags: bool = setting(False, "put a caption's tags in another order each time; a tag with the trigger keeps its place")
    keep_tokens: int = setting(0, "the first tags of a caption that are neither shuffled nor dropped")
    keep_separator: str | None = setting(
        None, "text such as ||| that ends the tags that keep their places in front, and begins those at the end; it is taken out"
    )
    tag_separator: str = setting(",", "text between two tags")
    tag_dropout: float = setting(0.0, "probability that a tag is left out, but those that keep their places and the trigger's")
    caption_dropout: float = setting(0.0, "probability that an image is trained with the empty prompt")
    wildcards: bool = setting(False, "read {a|b} in captions as a choice, drawn each time; {{ and }} are the signs themselves")
    variants: int = setting(16, "prompts an image that are made and encoded where captions, tags or choices are drawn")
    flip: Any = setting(
        False, "train the mirror image as often: false, true, or force, where captions hold words such as left, right or text"
    )
    crops: int = setting(1, "crops an image that a step chooses from: 1 is the centre, more are random, where the image has room")

    def rules(self) -> Iterator[Rule]:
        """Ranges, without what needs the disk."""
        yield from texts(self, "path", "trigger", "keep_separator")
        yield from set_rules(self.sets)
        yield "sets", self.sets, self.sets is None or self.path is None, "must be null beside data.path: give one of the two"
        yield "captions", self.captions, self.captions in CAPTIONS, f"must be {' or '.join(CAPTIONS)}"
        yield "keep_tokens", self.keep_tokens, 0 <= self.keep_tokens < 2**31, "must be 0 or more"
        yield "tag_separator", self.tag_separator, bool(self.tag_separator), "must not be empty"
        differ = self.keep_separator is None or self.tag_separator not in self.keep_separator
        yield "keep_separator", self.keep_separator, differ, "must not contain data.tag_separator"
        for name in ("tag_dropout", "caption_dropout"):
            value = getattr(self, name)
            yield name, value, 0 <= value < 1, "is a probability and must be in [0, 1)"
        yield from counts(self, "variants", "crops")
        yield "variants", self.variants, self.variants <= MOST_VARIANTS, f"must be at most {MOST_VARIANTS}"
        yield "crops", self.crops, self.crops <= MOST_CROPS, f"must be at most {MOST_CROPS}"
        good = isinstance(self.flip, bool) or self.flip == "force"
        yield "flip", self.flip, good, "must be true, false or force"
        yield from optional_counts(self, "bucket_step")
        yield from prior_rules(self)
        yield from texts(self, "masks")
        good = 0 <= self.unmasked_weight < 1
        yield "unmasked_weight", self.unmasked_weight, good, "must be 0 or more and below 1, the weight of what is kept"
        yield "memory", self.memory, isfinite(self.memory) and self.memory >= 0, "must be 0 or more"
