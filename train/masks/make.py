"""Masks made by a segmenter and written beside their images; a file that exists is never written over."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Faults, JobFailed, Refused
from registry.formats.atomic_file import atomic_file
from registry.formats.image_file import Unreadable, read_image
from registry.home import expanded
from registry.printable import as_lines, counted
from registry.progress import Report, Tick, silent
from train.data.images import is_image
from train.data.wording import names_of
from train.masks.files import FOLDER, WRITTEN, mask_files, named_as_masks
from train.masks.mask import mean_of
from train.masks.pixels import as_mask
from train.masks.segmenters import ModelOptions, Segmenter, open_segmenter

if TYPE_CHECKING:
    from PIL.Image import Image


FOUND = 128  # of 255: a mask without a brighter pixel is none, nowhere is a kept class the likelier


@dataclass(frozen=True)
class Job:
    """The images that get a mask, each with the mask's file, and those that have one."""

    folder: Path
    targets: tuple[tuple[Path, Path], ...]
    kept: tuple[Path, ...]
    segmenter: Segmenter


@dataclass
class Made:
    """What was written: image, mask, the share that it keeps (None in a dry run); and the images in which nothing was found."""

    folder: Path
    masks: list[tuple[Path, Path, float | None]] = field(default_factory=list)
    kept: tuple[Path, ...] = ()
    empty: list[Path] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {
            "folder": str(self.folder),
            "masks": [{"image": image.name, "mask": str(mask), "share": share} for image, mask, share in self.masks],
            "kept": [image.name for image in self.kept],
            "empty": [image.name for image in self.empty],
        }

    def to_text(self) -> str:
        """For a person."""
        lines = [f"{self.folder}: {counted(len(self.masks), 'mask')}"]
        for image, mask, share in self.masks:
            lines.append(f"  {mask.relative_to(self.folder)}" + ("" if share is None else f"   keeps {share:.1%} of {image.name}"))
        if self.kept:
            lines.append(f"{counted(len(self.kept), 'image')} had a mask, which is kept: {names_of(self.kept)}")
        if self.empty:
            lines.append(f"nothing is found in {names_of(self.empty)}: no mask is written. Draw one, or choose other classes with --label")
        return as_lines(lines)


def plan_masks(folder: str, model: str, given: ModelOptions, *, in_folder: bool, report: Report = silent) -> Job:
    """The masks that would be made; every image is decoded. Raises Refused, or Faults with all that is wrong; nothing is written."""
    place = expanded(folder)
    if not place.is_dir():
        raise Refused(f"{folder}: there is no such folder.")
    files = sorted(file for file in place.iterdir() if file.is_file() and is_image(file) and not file.name.startswith("."))
    masks = named_as_masks(files, set())
    images = [file for file in files if file not in masks]
    having = mask_files(place, images, masks, "files")
    missing = [image for image in images if image not in having]
    targets = [(image, place / FOLDER / f"{image.stem}.png" if in_folder else image.with_name(image.stem + WRITTEN)) for image in missing]
    faults = [*_taken(targets), *_unreadable(missing, report)]
    faults += [] if images else [f"{folder}: there are no images in it"]
    faults += [] if os.access(place, os.W_OK) else [f"{folder} cannot be written to"]
    try:
        segmenter = open_segmenter(model, given)
    except Refused as error:
        raise Faults("No masks are made:", [*faults, str(error)]) from error
    if faults:
        raise Faults("No masks are made:", faults)
    return Job(place, tuple(targets), tuple(image for image in images if image in having), segmenter)


def _taken(targets: Sequence[tuple[Path, Path]]) -> list[str]:
    """Faults of images that would share one mask file, and of masks whose name something else has."""
    owners: dict[Path, list[Path]] = defaultdict(list)
    for image, mask in targets:
        owners[mask].append(image)
    shared = {mask: images for mask, images in owners.items() if len(images) > 1}
    faults = [f"{mask.name} would be the mask of {names_of(images)}: give them different names" for mask, images in shared.items()]
    return faults + [f"{mask.name} exists already, and is not written over: move it away" for mask in owners if os.path.lexists(mask)]


def _unreadable(images: Sequence[Path], report: Report) -> list[str]:
    faults = []
    for done, image in enumerate(images, 1):
        try:
            read_image(image.read_bytes())
        except (Unreadable, OSError) as error:
            faults.append(f"{image.name}: {error}")
        report(Tick("read images", done, len(images), image.name))
    return faults


def would_make(job: Job) -> Made:
    """What `make_masks` would write."""
    return Made(job.folder, [(image, mask, None) for image, mask in job.targets], job.kept)


def make_masks(job: Job, *, threshold: float | None = None, expand: int = 0, report: Report = silent) -> Made:
    """Make and write the masks. Raises JobFailed where the model fails; masks that were written stay."""
    made = Made(job.folder, kept=job.kept)
    for done, (image, mask) in enumerate(job.targets, 1):
        pixels = read_image(image.read_bytes()).image
        grey = as_mask(job.segmenter(pixels), pixels.size, threshold=threshold, expand=expand)
        if not any(grey.histogram()[FOUND:]):
            made.empty.append(image)
        else:
            _write(mask, grey)
            made.masks.append((image, mask, mean_of(grey)))
        report(Tick("make masks", done, len(job.targets), image.name))
    return made


def _write(mask: Path, grey: Image) -> None:
    """The mask under its name, unless something got that name while others were made."""
    mask.parent.mkdir(exist_ok=True)
    if os.path.lexists(mask):
        raise JobFailed(f"{mask} appeared while masks were made. It is not written over: move it away, and start again.")
    with atomic_file(mask) as file:
        grey.save(file, format="PNG")
