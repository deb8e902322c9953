"""Captions in text files beside the images: NAME.txt or NAME.EXT.txt, and the files that look like captions and are not read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.printable import counted
from train.data.listing import listed
from train.data.wording import names_of

SIDECARS = (".txt", ".caption")
TEXTS = (*SIDECARS, ".json", ".jsonl", ".yaml", ".yml", ".xml", ".cap", ".tag", ".tags", ".text", ".prompt", ".md", ".csv", ".tsv")
TABLES = (".json", ".jsonl", ".csv", ".tsv")
LARGEST = 64 << 20  # bytes of a table that is searched for images' names
SEARCHED = 50  # images whose names are looked for in a table
AS_CAPTIONS = "save each as NAME.txt or NAME.EXT.txt beside its image, or all of them as one metadata.jsonl with file_name and text"


@dataclass(frozen=True)
class Sidecars:
    """Text files by the image they belong to, and those that belong to none."""

    of: dict[Path, list[Path]]
    shared: dict[Path, list[Path]]  # by name alone, where several images have it
    lone: list[Path]


def match_sidecars(images: Sequence[Path], files: Sequence[Path]) -> Sidecars:
    """The text files of each image: NAME.EXT.txt is of NAME.EXT alone, NAME.txt of every image called NAME."""
    if not files:
        return Sidecars({}, {}, [])
    by_name = {image.name: image for image in images}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
    found: dict[Path, list[Path]] = defaultdict(list)
    shared: dict[Path, list[Path]] = {}
    lone = []
    for file in files:
        stem = file.stem
        owners = [by_name[stem]] if stem in by_name else by_stem.get(stem, [])
        for image in owners:
            found[image].append(file)
        if not owners:
            lone.append(file)
        elif len(owners) > 1:
            shared[file] = owners
    return Sidecars(dict(found), shared, lone)


def read_captions(file: Path, *, lines: bool) -> tuple[tuple[str, ...], str | None]:
    """(the captions, a fault): the whole text is one, or each of its `lines` that is not empty."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return (), f"{file.name}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
    except OSError as error:
        return (), f"{file.name}: cannot be read ({error.strerror})"
    text = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    return (tuple(line.strip() for line in text.splitlines() if line.strip()) if lines else ()) or (text,), None


def unread_captions(folder: Path, bare: Sequence[Path], files: Iterable[Path], trigger: str | None) -> dict[str, list[Path]]:
    """Faults of files that look like captions of images without one, so that their texts are not left out unseen: fault -> the files."""
    if not bare:
        return {}
    others = list(files)
    stems = {image.stem.casefold() for image in bare}
    alike = [file for file in others if file.suffix.lower() in TEXTS and _begins_like(file.name.casefold(), stems)]
    known = set(alike)
    tables = [file for file in others if file not in known and file.suffix.lower() in TABLES and _names_images(file, bare)]
    faults = {}
    alone = "" if trigger is None else f" As they are, data.trigger alone ({trigger!r}) would be the caption of those images."
    if alike:
        fault = (
            f"{names_of(alike)}: named like images without a caption, and not read. If they hold the captions, {AS_CAPTIONS};"
            f" else move them out of the folder.{alone}"
        )
        faults[fault] = alike
    if tables:
        fault = (
            f"{names_of(tables)}: names images without a caption, and is not read. If it holds the captions, save it as metadata.jsonl or"
            f" metadata.csv with the columns file_name and text; else move it out of the folder.{alone}"
        )
        faults[fault] = tables
    for inner in listed(folder).folders:
        texts = [file for file in inner.iterdir() if file.suffix.lower() in TEXTS and _begins_like(file.name.casefold(), stems)]
        if texts and not _has_own_images(texts, inner):
            fault = (
                f"{inner.name}/ has {counted(len(texts), 'file')} named like images without a caption ({names_of(texts, most=3)}),"
                f" and is not read. If they hold the captions, {AS_CAPTIONS}; else move the folder away.{alone}"
            )
            faults[fault] = texts
    return faults


def _begins_like(name: str, stems: set[str]) -> bool:
    """Whether a file's name begins with an image's, up to a letter or digit: cat.json, cat_caption.txt, not catalogue.txt."""
    return any(name[:end] in stems and not name[end].isalnum() for end in range(1, len(name)))


def _names_images(table: Path, images: Sequence[Path]) -> bool:
    """Whether a table's text has the name of one of the first images."""
    if table.stat().st_size > LARGEST:
        return False
    text = table.read_bytes()
    wanted = [image.name for image in images[:SEARCHED]]
    wanted += [f'{before}{image.stem}"' for image in images[:SEARCHED] for before in '"/' if len(image.stem) > 2]  # kohya's meta_cap.json
    return any(name.encode() in text for name in wanted)


def _has_own_images(texts: Iterable[Path], folder: Path) -> bool:
    """Whether one of the text files has an image of its own beside it: another set, such as heldout/."""
    from train.data.images import is_image

    stems = {other.stem for other in folder.iterdir() if is_image(other)}
    return any(file.stem in stems or Path(file.stem).stem in stems for file in texts)
