"""Captions in files beside the images: NAME.txt, NAME.json, and kohya's meta file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from registry.printable import counted
from train.data.sidecars import Sidecars, match_sidecars, read_captions
from train.data.texts.json_files import is_meta, may_hold, read_meta, read_object
from train.data.wording import names_of
from train.settings.data import DataConfig

Captions = list[tuple[Path, tuple[str, ...]]]


@dataclass
class FolderReading:
    """The images of a folder with their captions, nothing decoded, and what was found about the files."""

    captions: Captions = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    masks: dict[Path, list[Path]] = field(default_factory=dict)  # the mask files of each image, where data.masks reads them
    read: set[Path] = field(default_factory=set)  # JSON files that captions were read from


def captions_beside(
    images: Sequence[Path], sidecars: Sidecars, others: Sequence[Path], config: DataConfig, found: FolderReading, *, word: str | None
) -> None:
    """Add the images' captions: by text files, by NAME.json where there is none, by kohya's meta file where no image has any.

    `sidecars` are the text files, matched; `others` the folder's files beside these and the images.
    `word`: the caption that images without one will get.
    """
    objects = [file for file in others if file.suffix.lower() == ".json"] if may_hold(config.caption_column) else []
    pairs = _captions_of_sidecars(images, sidecars, config, found)
    if config.caption_column is not None and sidecars.of:
        found.notes.append(
            f"data.caption_column={config.caption_column} acts on tables and JSON files; the captions of"
            f" {counted(len(sidecars.of), 'image')} are text files, and are read"
        )
    captionless = [image for image in images if image not in sidecars.of]
    by_object = _captions_of_objects(captionless, objects, config, found)
    bare = [image for image in captionless if image not in by_object]
    if len(bare) == len(images):
        by_object = _captions_of_meta(images, objects, config, found)
    elif not word:
        found.faults += [f"{image.name}: has no caption, the others have; write {image.stem}.txt" for image in bare]
    found.captions = [(image, captions or by_object.get(image, ())) for image, captions in pairs]


def _captions_of_sidecars(images: Sequence[Path], matched: Sidecars, config: DataConfig, found: FolderReading) -> Captions:
    _fault_shared(matched.shared, found)
    pairs: Captions = []
    for image in images:
        beside = matched.of.get(image, [])
        if len(beside) > 1:
            found.faults.append(f"{image.name}: has several caption files ({names_of(beside)}); keep one")
        captions, fault = read_captions(beside[0], lines=config.captions == "lines") if beside else ((), None)
        found.faults += [fault] if fault else []
        pairs.append((image, captions))
    return pairs


def _captions_of_objects(
    images: Sequence[Path], files: Sequence[Path], config: DataConfig, found: FolderReading
) -> dict[Path, tuple[str, ...]]:
    """The captions of NAME.json and NAME.EXT.json, of the images that have such a file with a caption."""
    matched = match_sidecars(images, files)
    captions: dict[Path, tuple[str, ...]] = {}
    for image, beside in matched.of.items():
        texts, fault = read_object(beside[0], config.caption_column)
        found.faults += [fault] if fault else []
        if texts:
            captions[image] = texts
            found.read.add(beside[0])
        if len(beside) > 1:
            found.faults.append(f"{image.name}: has several caption files ({names_of(beside)}); keep one")
    _fault_shared({file: owners for file, owners in matched.shared.items() if file in found.read}, found)
    return captions


def _captions_of_meta(
    images: Sequence[Path], files: Sequence[Path], config: DataConfig, found: FolderReading
) -> dict[Path, tuple[str, ...]]:
    """The captions of kohya's meta file, where there is one."""
    metas = [file for file in match_sidecars(images, files).lone if is_meta(file)]
    if len(metas) > 1:
        found.faults.append(f"{names_of(metas)}: each has captions of the images; keep one")
    if len(metas) != 1:
        return {}
    captions, faults = read_meta(metas[0], images, config.caption_column)
    found.read.add(metas[0])
    found.faults += faults
    found.notes.append(f"captions are read from {metas[0].name}, by the images' names")
    return captions


def _fault_shared(shared: Mapping[Path, Sequence[Path]], found: FolderReading) -> None:
    found.faults += [
        f"{file.stem}: several images share the caption file {file.name}; rename one of them, or write {owners[0].name}{file.suffix}"
        " for each"
        for file, owners in shared.items()
    ]
