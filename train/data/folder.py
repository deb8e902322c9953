"""A folder of images and captions, read in one of two ways: kohya's text files, or `datasets`' metadata file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from registry.printable import counted
from train.data.images import is_image, is_image_suffix, reason_of_suffix, unread_reason
from train.data.listing import KEPT, Listing, listed
from train.data.metadata import METADATA, read_rows
from train.data.sidecars import SIDECARS, Sidecars, match_sidecars, unread_captions
from train.data.texts.beside import Captions, FolderReading, captions_beside
from train.data.wording import names_of
from train.masks.files import FOLDER as MASKS
from train.masks.files import lone_masks, mask_files, named_as_masks, reads_files
from train.settings.data import DataConfig
from train.settings.sets import Subset

EXPECTED = (
    "Expected a folder of images (NAME.png, .jpg, .webp, ...) each with its caption in NAME.txt beside it, "
    "or with one metadata.jsonl, .csv or .parquet that has the columns file_name and text"
)


def read_folder(folder: Path, config: DataConfig, subset: Subset) -> FolderReading:
    """Every image of the folder with its captions. Subfolders are not read."""
    found = FolderReading()
    if fault := _interruption(folder):
        found.faults.append(fault)
    listing = listed(folder)
    _note_hidden(listing, found)
    images, sidecars, unread, others = _sorted_out(listing.files)
    _note_unread(unread, images, found)
    tables = [file for file in others if file.name.lower() in METADATA]
    inside = _note_subfolders(listing, found, empty=not images and not unread, read=(MASKS,) if reads_files(config.masks) else ())
    if not images and not tables:
        if not unread:
            found.faults.append(f"there are no images in it{inside}. {EXPECTED}")
        return found
    if len(tables) > 1:
        found.faults.append(f"there are {counted(len(tables), 'metadata file')} ({names_of(tables)}); keep one")
        return found
    matched = match_sidecars(images, sidecars)
    if tables:
        found.captions = _captions_of_table(folder, tables[0], images, matched, config, found)
    else:
        own = _without_masks(images, {*matched.of}, folder, config, found)
        matched = matched if len(own) == len(images) else match_sidecars(own, sidecars)
        captions_beside(own, matched, others, config, found, word=subset.word)
    known = {*tables, *found.read}
    rest = [file for file in others if file not in known]
    bare = [file for file, captions in found.captions if not captions]
    lone = matched.lone
    trigger = subset.word or subset.trigger or config.trigger
    looking = unread_captions(folder, bare, [*lone, *rest], trigger) if not tables or config.caption_column is None else {}
    found.faults += looking
    at_fault = {file for files in looking.values() for file in files}
    lone, rest = ([file for file in some if file not in at_fault] for some in (lone, rest))
    if lone and not tables:
        found.notes.append(f"text files with no image of their name: {names_of(lone)}")
    if rest:
        found.notes.append(f"neither images nor captions, ignored: {names_of(rest)}")
    if subset.word and bare and not found.faults:
        found.captions = [(file, captions or (subset.word,)) for file, captions in found.captions]
        found.notes.append(
            f"{subset.word!r}, of the folder's name, is the caption of {counted(len(bare), 'image')} without one: {names_of(bare)}"
        )
    return found


def _interruption(folder: Path) -> str | None:
    """The fault of a set that is half edited; most sets have no edits."""
    try:
        os.lstat(folder / KEPT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    from train.data.editing.journal import interruption

    return interruption(folder)


def _sorted_out(files: Sequence[Path]) -> tuple[list[Path], list[Path], dict[Path, str], list[Path]]:
    """(images, text files, image files that are not read with the reason, all others) by the files' suffixes."""
    kinds: dict[str, list[Path]] = {}
    images: list[Path] = []
    sidecars: list[Path] = []
    others: list[Path] = []
    unread: dict[Path, str] = {}
    for file in files:
        suffix = file.suffix.lower()
        kind = kinds.get(suffix)
        if kind is None:
            kind = kinds[suffix] = sidecars if suffix in SIDECARS else images if is_image_suffix(suffix) else others
        if kind is others and (reason := reason_of_suffix(suffix)):
            unread[file] = reason
        else:
            kind.append(file)
    return images, sidecars, unread, others


def _note_unread(unread: Mapping[Path, str], images: Sequence[Path], found: FolderReading) -> None:
    """Image files that are not read: a fault, unless an image that is read has the name (a camera's raw file beside its JPEG)."""
    read = {file.stem for file in images} if unread else set()
    reasons: dict[str, list[Path]] = defaultdict(list)
    for file, reason in unread.items():
        if file.stem not in read:
            reasons[reason].append(file)
    found.faults += [f"{names_of(group)}: {reason}" for reason, group in reasons.items()]
    beside = [file for file in unread if file.stem in read]
    if beside:
        found.notes.append(f"not read, the image of the same name beside them is: {names_of(beside)}")


def _without_masks(images: Sequence[Path], captioned: set[Path], folder: Path, config: DataConfig, found: FolderReading) -> list[Path]:
    """The images without the masks of others, which are a fault where data.masks does not read them: as images they would be learned."""
    masks = named_as_masks(images, captioned)
    if masks and not reads_files(config.masks):
        found.faults.append(
            f"{names_of(masks)}: named as the mask of another image (NAME-masklabel.png, NAME_mask.png). data.masks=files reads them as"
            f" masks; with data.masks={config.masks} move them away, or give each a caption of its own if it is an image to learn"
        )
    apart = set(masks)
    rest = [image for image in images if image not in apart] if masks else list(images)
    found.masks = mask_files(folder, rest, masks, config.masks)
    if lone := lone_masks(folder, rest, config.masks):
        found.notes.append(f"masks with no image of their name: {names_of(lone)}")
    return rest


def _note_hidden(listing: Listing, found: FolderReading) -> None:
    hidden = [entry for entry in listing.hidden if is_image(entry)]
    if hidden:
        found.notes.append(f"hidden files are not read: {names_of(hidden)}")


def _note_subfolders(listing: Listing, found: FolderReading, *, empty: bool, read: Sequence[str]) -> str:
    """A note on subfolders with images, which are not read; gives the words for a folder that has only those."""
    counts = {}
    for inner in listing.folders:
        count = sum(1 for file in inner.rglob("*") if is_image(file) or unread_reason(file))
        if count and inner.name not in read:
            counts[inner.name] = count
    if not counts:
        return ""
    listed = ", ".join(f"{name}/ ({counted(count, 'image')})" for name, count in counts.items())
    if empty:
        several = "data.sets=[{path: FOLDER}, ...]"
        return f", only in its subfolders: {listed}; data.path reads one folder, so name one of them, or several as {several}"
    known = [("heldout", " (heldout/ is for held-out loss)"), (MASKS, f" ({MASKS}/ is read with data.masks=files)")]
    found.notes.append(f"subfolders are not read: {listed}" + "".join(what for name, what in known if name in counts))
    return ""


def _captions_of_table(
    folder: Path, table: Path, images: Sequence[Path], sidecars: Sidecars, config: DataConfig, found: FolderReading
) -> Captions:
    beside = sorted({file for files in sidecars.of.values() for file in files}, key=lambda file: file.name)
    if beside:
        found.faults.append(f"captions come from both {table.name} and {names_of(beside)}; keep one of the two")
    rows, faults = read_rows(table, image_column=config.image_column, caption_column=config.caption_column)
    found.faults += faults
    if faults:
        return [(image, ()) for image in images]
    listed: dict[Path, tuple[str, ...]] = {}
    for number, (name, captions) in enumerate(rows, 1):
        file = folder / name
        where = f"{table.name}, row {number}"
        if Path(name).is_absolute() or ".." in Path(name).parts:
            found.faults.append(f"{where}: {name} lies outside the folder")
        elif not os.path.isfile(file):
            found.faults.append(f"{where}: names {name}, which does not exist")
        elif file in listed:
            found.faults.append(f"{where}: names {name} a second time")
        else:
            listed[file] = captions
    images = _without_masks(images, set(listed), folder, config, found)
    missing = [image for image in images if image not in listed]
    found.faults += [f"{image.name}: is not listed in {table.name}, which lists {counted(len(rows), 'image')}" for image in missing]
    return list(listed.items())
