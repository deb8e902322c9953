"""Which file is the mask of an image: NAME-masklabel.png or NAME_mask.png beside it, or one of its name in masks/ or another folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from registry.errors import Refused
from registry.home import expanded
from registry.names import suggest
from train.data.images import is_image

NAMED = re.compile(r"(?P<image>.+?)[-_. ](masklabel|condlabel|mask)", re.IGNORECASE)  # the first two are OneTrainer's
FOLDER = "masks"
WRITTEN = "-masklabel.png"  # what `data mask` ends a name with, as OneTrainer does
SOURCES = ("none", "auto", "alpha", "files")  # of data.masks, beside a folder


def check_source(masks: str) -> None:
    """Raise Refused for a value of data.masks that is neither one of its words nor a folder."""
    if masks not in SOURCES and not expanded(masks).is_dir():
        raise Refused(
            f"data.masks={masks!r}: give {', '.join(SOURCES[:-1])} or {SOURCES[-1]}, or a folder of masks with the images' names, which"
            f" this is not. {suggest(masks, SOURCES)}"
        )


def reads_files(masks: str) -> bool:
    """Whether data.masks reads mask files."""
    return masks not in ("none", "alpha")


def named_as_masks(images: Sequence[Path], captioned: set[Path]) -> list[Path]:
    """The images that are named as the mask of another image of the folder, and have no caption of their own."""
    named = [(image, name) for image in images if _may_be_mask(image.name) and (name := NAMED.fullmatch(image.stem))]
    if not named:
        return []
    stems = {image.stem for image in images}
    return [image for image, name in named if name["image"] in stems and image not in captioned]


def _may_be_mask(name: str) -> bool:
    """Whether NAMED could match, in far less time than it takes for a name that it does not."""
    folded = name.casefold()
    return "mask" in folded or "condlabel" in folded


def mask_files(folder: Path, images: Sequence[Path], beside: Sequence[Path], masks: str) -> dict[Path, list[Path]]:
    """The mask files of each image that has any: those beside it, those of its name in masks/, or in the folder that data.masks names."""
    if not reads_files(masks):
        return {}
    found: dict[Path, list[Path]] = defaultdict(list)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
    named = [] if masks not in ("auto", "files") else beside
    for file in named:
        name = NAMED.fullmatch(file.stem)
        for image in by_stem.get(name["image"], []) if name else []:
            found[image].append(file)
    for file in _in_folder(folder, masks):
        for image in _owners(file, by_stem):
            found[image].append(file)
    return dict(found)


def lone_masks(folder: Path, images: Sequence[Path], masks: str) -> list[Path]:
    """Files in the masks' folder that have no image."""
    files = _in_folder(folder, masks)
    by_stem = {image.stem: [image] for image in images} if files else {}
    return [file for file in files if not _owners(file, by_stem)]


def _in_folder(folder: Path, masks: str) -> list[Path]:
    """The images in the folder of masks: masks/, or PATH/<the images' folder>, or PATH."""
    if not reads_files(masks):
        return []
    place = folder / FOLDER
    if masks not in SOURCES:
        place = expanded(masks) / folder.name
        place = place if place.is_dir() else expanded(masks)
    if not place.is_dir():
        return []
    return sorted(file for file in place.iterdir() if file.is_file() and is_image(file) and not file.name.startswith("."))


def _owners(file: Path, by_stem: dict[str, list[Path]]) -> list[Path]:
    """The images that a file in a folder of masks is for: of its name, or of its name without -masklabel or _mask."""
    if file.stem in by_stem:
        return by_stem[file.stem]
    name = NAMED.fullmatch(file.stem)
    return by_stem.get(name["image"], []) if name else []
