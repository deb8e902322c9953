"""The images of a set and of its heldout/ as training reads them, each with the file that its captions come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from registry.errors import Refused
from registry.home import expanded
from train.data.editing.rows import bare, lines_of
from train.data.folder import EXPECTED, read_folder
from train.data.images import holds_images
from train.data.listing import listed
from train.data.metadata import METADATA, caption_column_of
from train.data.sidecars import SIDECARS, match_sidecars
from train.data.subsets import HELDOUT, subsets_of
from train.data.texts.beside import FolderReading
from train.data.wording import names_of
from train.settings.data import DataConfig
from train.settings.sets import Subset


@dataclass(frozen=True)
class TextFile:
    """A text file beside the image; it may not be there yet."""

    file: str  # relative to the set, as all names here
    exists: bool


@dataclass(frozen=True)
class TableRow:
    """A row of metadata.jsonl."""

    table: str
    place: int  # of its line
    line: str
    image_column: str
    column: str | None  # None: the table has no captions


@dataclass(frozen=True)
class Unedited:
    """Captions that are not edited here, and why: what to do stands in it."""

    reason: str


Source = TextFile | TableRow | Unedited


@dataclass(frozen=True)
class Entry:
    """An image of the set. Names are relative to the set's folder: cat.png, heldout/cat.png."""

    name: str
    captions: tuple[str, ...]
    source: Source
    masks: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()  # its caption files, all of them

    @property
    def is_nested(self) -> bool:
        """Whether it lies in a subfolder, as a table may name it: no mask file and no heldout/ is read for such an image."""
        return "/" in self.name.removeprefix(f"{HELDOUT}/")

    @property
    def is_heldout(self) -> bool:
        return self.name.startswith(f"{HELDOUT}/")


@dataclass(frozen=True)
class EditableSet:
    """A set as it is now."""

    folder: Path
    entries: tuple[Entry, ...]
    config: DataConfig
    faults: tuple[str, ...] = ()  # of reading, without decoding an image

    def named(self, name: str) -> Entry:
        """The image of this name. Raises Refused."""
        found = next((entry for entry in self.entries if entry.name == name), None)
        if found is None:
            raise Refused(f"{name}: the set has no image of this name.")
        return found


def read_entries(config: DataConfig) -> EditableSet:
    """The set at config.path, nothing decoded; mask files are looked for in any case. Raises Refused for what is no such set."""
    folder = expanded(config.path or "").absolute()
    if not folder.is_dir():
        raise Refused(f"{config.path}: there is no such folder. An edit changes a folder of images on this machine.")
    inner = subsets_of(config, str(folder))
    if any(subset.name for subset in inner.sets):
        named = ", ".join(f"{Path(subset.path).name}/" for subset in inner.sets)
        raise Refused(f"{folder}: this is a folder of sets ({named}). Edit one of them.")
    try:
        every = [(folder, ""), *([(folder / HELDOUT, f"{HELDOUT}/")] if holds_images(folder / HELDOUT) else [])]
        reading = replace(config, masks="auto")
        parts = [_read(place, prefix, reading) for place, prefix in every]
    except OSError as error:
        raise Refused(f"{error.filename or folder} cannot be read ({error.strerror or error}).") from error
    entries = tuple(entry for found, _ in parts for entry in found)
    if not entries:
        raise Refused(f"{folder}: there are no images in it. {EXPECTED}.")
    return EditableSet(folder, entries, config, tuple(fault for _, faults in parts for fault in faults))


def _read(folder: Path, prefix: str, config: DataConfig) -> tuple[list[Entry], list[str]]:
    reading = read_folder(folder, config, Subset(path=str(folder)))
    files = listed(folder).files
    images = [file for file, _ in reading.captions]
    tables = [file for file in files if file.name.lower() in METADATA]
    sidecars = [file for file in files if file.suffix.lower() in SIDECARS]
    objects = [file for file in files if file.suffix.lower() == ".json"]
    beside = match_sidecars(images, [*sidecars, *objects])
    sources = _of_tables(folder, tables, images, config) if tables else _of_files(images, sidecars, objects, reading)
    found = []
    for image, captions in reading.captions:
        source = sources[image]
        if isinstance(source, TextFile):
            source = TextFile(prefix + source.file, source.exists)
        elif isinstance(source, TableRow):
            source = replace(source, table=prefix + source.table)
        found.append(
            Entry(
                prefix + image.relative_to(folder).as_posix(),
                captions,
                source,
                tuple(prefix + mask.relative_to(folder).as_posix() for mask in reading.masks.get(image, ())),
                () if tables else tuple(prefix + file.name for file in beside.of.get(image, ())),
            )
        )
    faults = [f"{prefix}{fault}" if prefix else fault for fault in reading.faults]
    return found, faults


def _of_files(images: Sequence[Path], sidecars: Sequence[Path], objects: Sequence[Path], reading: FolderReading) -> dict[Path, Source]:
    matched, described = match_sidecars(images, sidecars), match_sidecars(images, objects)
    shared = {image for owners in matched.shared.values() for image in owners}
    stems: dict[str, int] = {}
    for image in images:
        stems[image.stem.casefold()] = stems.get(image.stem.casefold(), 0) + 1
    found: dict[Path, Source] = {}
    for image, captions in reading.captions:
        own = matched.of.get(image, [])
        if image in shared:
            found[image] = Unedited(f"shares the caption file {own[0].name} with another image; rename one of the two")
        elif len(own) > 1:
            found[image] = Unedited(f"has several caption files ({names_of(own)}); keep one")
        elif own:
            found[image] = TextFile(own[0].name, True)
        elif captions:
            holder = described.of.get(image) or sorted(reading.read)
            name = holder[0].name if holder else "a JSON file"
            found[image] = Unedited(
                f"its caption is in {name}, which is not edited here; write {image.stem}.txt with it, which is read first"
            )
        else:
            alone = stems[image.stem.casefold()] == 1
            found[image] = TextFile(f"{image.stem if alone else image.name}.txt", False)
    return found


def _of_tables(folder: Path, tables: Sequence[Path], images: Sequence[Path], config: DataConfig) -> dict[Path, Source]:
    if len(tables) > 1:
        return dict.fromkeys(images, Unedited(f"there are several metadata files ({names_of(tables)}); keep one"))
    table = tables[0]
    if table.suffix.lower() != ".jsonl":
        reason = f"its caption is in {table.name}, which is not edited here; save it as metadata.jsonl, or its captions as text files"
        return dict.fromkeys(images, Unedited(reason))
    return _of_rows(folder, table, images, config)


def _of_rows(folder: Path, table: Path, images: Sequence[Path], config: DataConfig) -> dict[Path, Source]:
    from registry.plain_values import from_json

    missing = Unedited(f"has no row in {table.name} that can be read; `loraloom data lint` names what is wrong with it")
    found: dict[Path, Source] = dict.fromkeys(images, missing)
    column = config.image_column or "file_name"
    rows = []
    try:
        for place, line in enumerate(lines_of(table)):
            if text := bare(line):
                rows.append((place, text, from_json(text)))
        columns = list(dict.fromkeys(name for _, _, row in rows for name in row))
        caption, fault = caption_column_of([name for name in columns if name != column], config.caption_column, where=table.name)
    except (ValueError, TypeError, AttributeError, Refused) as error:
        return dict.fromkeys(images, Unedited(f"{table.name} cannot be read ({error})"))
    if fault:
        return dict.fromkeys(images, Unedited(fault))
    for place, text, row in rows:
        image = folder / str(row.get(column))
        if isinstance(found.get(image), TableRow):
            found[image] = Unedited(f"has several rows in {table.name}; keep one")
        elif found.get(image) == missing:
            found[image] = TableRow(table.name, place, text, column, caption)
    return found
