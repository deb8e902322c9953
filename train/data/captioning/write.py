"""Captions written beside the images of a folder, one file after the other and never over another; a run that was stopped goes on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.formats.atomic_file import write_text
from registry.formats.image_file import Unreadable, read_image
from registry.printable import as_lines, counted, some
from registry.progress import Report, Tick, silent
from train.data.captions import prompt_of
from train.data.images import is_image
from train.data.metadata import METADATA
from train.data.sidecars import TEXTS
from train.data.wording import MOST
from train.masks.files import NAMED

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class CaptionPlan:
    """The images of a folder that have no caption, with the file that each will get, and how many have one."""

    folder: Path
    targets: Mapping[Path, Path]
    existing: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {
            "folder": str(self.folder),
            "images": len(self.targets) + self.existing,
            "existing": self.existing,
            "missing": len(self.targets),
        }


@dataclass
class Captioned:
    """What was done."""

    plan: CaptionPlan
    written: dict[str, str] = field(default_factory=dict)  # captions by image
    empty: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    existing: int = 0  # captions that appeared meanwhile

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        plan = self.plan.to_json() | {"existing": self.plan.existing + self.existing}
        return plan | {"written": self.written, "empty": self.empty, "failed": self.failed}

    def to_text(self) -> str:
        """For a person."""
        existing = self.plan.existing + self.existing
        lines = [f"{self.plan.folder}: {counted(len(self.written), 'caption')} written, {existing} there already and left as they are"]
        lines += [f"  no caption found for {some(self.empty, MOST)}: nothing is written"] if self.empty else []
        lines += [f"  {name}: {reason}" for name, reason in self.failed.items()]
        return as_lines(lines)


def plan_captions(folder: Path) -> CaptionPlan:
    """What is to be captioned in the folder, its subfolders left out. Raises Refused."""
    if not folder.is_dir():
        raise Refused(f"{folder}: there is no such folder. Give a folder of images.")
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise Refused(f"{folder} cannot be read ({error.strerror}).") from error
    if tables := [file.name for file in files if file.name.lower() in METADATA]:
        raise Refused(
            f"{folder}: its captions come from {tables[0]}, and a set has one kind of captions. Move that file out of the folder first."
        )
    every = [file for file in files if is_image(file)]
    stems = {image.stem for image in every}
    images = [image for image in every if not ((name := NAMED.fullmatch(image.stem)) and name["image"] in stems)]
    if not images:
        raise Refused(f"{folder}: there are no images in it.")
    if not os.access(folder, os.W_OK):
        raise Refused(f"{folder} cannot be written to. Captions are written beside the images: copy the set to where you may write.")
    texts = {file.stem.casefold() for file in files if file.suffix.lower() in TEXTS}
    missing = [image for image in images if not {image.stem.casefold(), image.name.casefold()} & texts]
    return CaptionPlan(folder, _targets(images, missing), len(images) - len(missing))


def _targets(images: Sequence[Path], missing: Sequence[Path]) -> dict[Path, Path]:
    """NAME.txt, or NAME.EXT.txt where several images have the name."""
    times = Counter(image.stem.casefold() for image in images)
    return {image: image.with_name(f"{image.stem if times[image.stem.casefold()] == 1 else image.name}.txt") for image in missing}


def write_captions(
    plan: CaptionPlan, caption: Callable[[Image], str], *, finish: Callable[[str], str], report: Report = silent
) -> Captioned:
    """Caption every image of the plan; `finish` makes the text that is written of the model's."""
    done = Captioned(plan)
    for number, (image, target) in enumerate(plan.targets.items(), 1):
        _caption_one(image, target, caption, finish, done)
        report(Tick("caption images", number, len(plan.targets), image.name))
    return done


def _caption_one(image: Path, target: Path, caption: Callable[[Image], str], finish: Callable[[str], str], done: Captioned) -> None:
    if target.exists():
        done.existing += 1
        return
    try:
        pixels = read_image(image.read_bytes()).image
    except (Unreadable, OSError) as error:
        done.failed[image.name] = str(error)
        return
    text = " ".join(caption(pixels).replace("\x00", " ").split())
    if not text:
        done.empty.append(image.name)
    elif target.exists():  # a person wrote one meanwhile
        done.existing += 1
    else:
        done.written[image.name] = finish(text)
        write_text(target, done.written[image.name] + "\n")


def finished(text: str, *, prefix: str | None, suffix: str | None, trigger: str | None) -> str:
    """The caption with its prefix and suffix, joined by commas, and the trigger before it, unless it is there."""
    joined = ", ".join(part for part in (prefix, text, suffix) if part)
    return prompt_of(joined, trigger)
