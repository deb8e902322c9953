"""Image-caption sets read whole and checked before anything is trained: every fault is found, with its file's name.

A folder is read in one of two ways: kohya's (NAME.png beside NAME.txt) or `datasets`' imagefolder (metadata.jsonl, .csv or
.parquet with file_name and a caption column). Anything else is opened by `datasets.load_dataset`. Subfolders are not read.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import Faults
from registry.formats.image_file import Size, Unreadable, decode
from registry.progress import Report, Tick, silent
from train.config import DataConfig
from train.data.captions import check_caption
from train.data.images import SUFFIXES
from train.data.metadata import METADATA, read_rows

SIDECARS = (".txt", ".caption")
EXPECTED = (
    "Expected a folder of images (NAME.png, .jpg, .webp, ...) each with its caption in NAME.txt beside it, "
    "or with one metadata.jsonl, .csv or .parquet that has the columns file_name and text"
)


@dataclass(frozen=True)
class Sample:
    """One image and its caption as the set gives it (None: the set has no captions). `read` gives the file's bytes."""

    name: str
    sha256: str
    size: Size
    caption: str | None
    read: Callable[[], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True)
class ImageSet:
    """A set that training accepts. `notes` are findings that do not stop training."""

    path: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Of the sorted 'image sha256, caption' lines: the set's identity, whatever the names."""
        lines = sorted(f"{sample.sha256}, {sample.caption or ''}\n" for sample in self.samples)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class Findings:
    """What reading a set found: images with captions, faults that stop training, notes that do not."""

    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_set(config: DataConfig, *, path: str | None = None, report: Report = silent) -> ImageSet:
    """The set at `path` (default: data.path), every image decoded. Raises Faults with everything that is wrong."""
    place = str(path or config.path)
    found = inspect_set(config, path=place, report=report)
    if found.faults:
        raise Faults(f"{place} cannot be trained on:", found.faults)
    return ImageSet(place, tuple(found.samples), tuple(found.notes))


def inspect_set(config: DataConfig, *, path: str, report: Report = silent) -> Findings:
    """All findings about the set at `path`, as `data lint` shows them."""
    folder = Path(path).expanduser()
    if folder.is_file():
        from train.data.hub import is_table

        if not is_table(folder):
            return Findings(faults=[f"{folder} is a file. {EXPECTED}."])
    found = _inspect_folder(folder, config, report) if folder.is_dir() else _inspect_hub(path, config, report)
    _check_captions(found, config)
    _note_twins(found)
    return found


def _inspect_hub(path: str, config: DataConfig, report: Report) -> Findings:
    from train.data.hub import read_hub

    entries, faults = read_hub(path, config)
    found = Findings(faults=faults)
    _decode_all(found, entries, report)
    return found


# --- a folder


def _inspect_folder(folder: Path, config: DataConfig, report: Report) -> Findings:
    found = Findings()
    files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    _note_hidden(folder, found)
    tables = [file for file in files if file.name.lower() in METADATA]
    sidecars = [file for file in files if file.suffix.lower() in SIDECARS]
    inside = _note_subfolders(folder, found, empty=not images)
    if not images and not tables:
        found.faults.append(f"there are no images in it{inside}. {EXPECTED}")
        return found
    if len(tables) > 1:
        found.faults.append(f"there are {len(tables)} metadata files ({_names(tables)}); keep one")
        return found
    if tables:
        captions = _captions_of_table(folder, tables[0], images, sidecars, config, found)
    else:
        captions = _captions_of_sidecars(images, sidecars, found)
    entries = [(file.relative_to(folder).as_posix(), file.read_bytes, caption) for file, caption in captions]
    _decode_all(found, entries, report)
    rest = [file for file in files if file not in images and file not in tables and file not in sidecars]
    if rest:
        found.notes.append(f"neither images nor captions, ignored: {_names(rest)}")
    return found


def _note_hidden(folder: Path, found: Findings) -> None:
    hidden = [entry for entry in sorted(folder.iterdir()) if entry.name.startswith(".") and entry.suffix.lower() in SUFFIXES]
    if hidden:
        found.notes.append(f"hidden files are not read: {_names(hidden)}")


def _note_subfolders(folder: Path, found: Findings, *, empty: bool) -> str:
    """A note on subfolders with images, which are not read; gives the words for a folder that has only those."""
    counts = {}
    for inner in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        count = sum(1 for file in inner.rglob("*") if file.suffix.lower() in SUFFIXES)
        if count:
            counts[inner.name] = count
    if not counts:
        return ""
    listed = ", ".join(f"{name}/ ({count} images)" for name, count in counts.items())
    if empty:
        return f", only in its subfolders: {listed}; data.path reads one folder, so name one of them"
    found.notes.append(f"subfolders are not read: {listed}" + (" (heldout/ is for held-out loss)" if "heldout" in counts else ""))
    return ""


def _captions_of_sidecars(images: Sequence[Path], sidecars: Sequence[Path], found: Findings) -> list[tuple[Path, str | None]]:
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for file in sidecars:
        by_stem[file.stem].append(file)
    twice = [stem for stem, count in Counter(file.stem for file in images).items() if count > 1 and stem in by_stem]
    found.faults += [f"{stem}: several images share the caption file {by_stem[stem][0].name}; rename one of them" for stem in twice]
    pairs: list[tuple[Path, str | None]] = []
    for image in images:
        beside = by_stem.get(image.stem, [])
        if len(beside) > 1:
            found.faults.append(f"{image.name}: has several caption files ({_names(beside)}); keep one")
        pairs.append((image, _read_caption(beside[0], found) if beside else None))
    bare = [image for image, caption in pairs if caption is None and not by_stem.get(image.stem)]
    if bare and len(bare) < len(images):
        found.faults += [f"{image.name}: has no caption, the others have; write {image.stem}.txt" for image in bare]
    lone = [file for file in sidecars if file.stem not in {image.stem for image in images}]
    if lone:
        found.notes.append(f"text files with no image of their name: {_names(lone)}")
    return pairs


def _read_caption(file: Path, found: Findings) -> str | None:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        found.faults.append(f"{file.name}: is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except OSError as error:
        found.faults.append(f"{file.name}: cannot be read ({error.strerror})")
    return None


def _captions_of_table(
    folder: Path, table: Path, images: Sequence[Path], sidecars: Sequence[Path], config: DataConfig, found: Findings
) -> list[tuple[Path, str | None]]:
    beside = [file for file in sidecars if file.stem in {image.stem for image in images}]
    if beside:
        found.faults.append(f"captions come from both {table.name} and {_names(beside)}; keep one of the two")
    rows, faults = read_rows(table, image_column=config.image_column, caption_column=config.caption_column)
    found.faults += faults
    if faults:
        return [(image, None) for image in images]
    listed: dict[Path, str | None] = {}
    for number, (name, caption) in enumerate(rows, 1):
        file = folder / name
        where = f"{table.name}, row {number}"
        if Path(name).is_absolute() or ".." in Path(name).parts:
            found.faults.append(f"{where}: {name} lies outside the folder")
        elif not file.is_file():
            found.faults.append(f"{where}: names {name}, which does not exist")
        elif file in listed:
            found.faults.append(f"{where}: names {name} a second time")
        else:
            listed[file] = caption
    missing = [image for image in images if image not in listed]
    found.faults += [f"{image.name}: is not listed in {table.name}, which lists {len(rows)} of the images" for image in missing]
    return list(listed.items())


# --- every image, whatever the source


def _decode_all(found: Findings, entries: Sequence[tuple[str, Callable[[], bytes], str | None]], report: Report) -> None:
    deep = []
    for done, (name, read, caption) in enumerate(entries, 1):
        try:
            data = read()
            _, size = decode(data)
        except (Unreadable, OSError) as error:
            found.faults.append(f"{name}: {error}")
        else:
            found.samples.append(Sample(name, hashlib.sha256(data).hexdigest(), size, caption, read))
            deep += [f"{name} ({size.frames})"] if size.frames > 1 else []
        report(Tick("read images", done, len(entries), name))
    if deep:
        found.notes.append(f"several frames, the first is used: {', '.join(deep)}")


def _check_captions(found: Findings, config: DataConfig) -> None:
    with_caption = [sample for sample in found.samples if sample.caption is not None]
    for sample in with_caption:
        fault = check_caption(sample.caption or "")
        if fault:
            found.faults.append(f"{sample.name}: {fault}")
    if found.samples and not with_caption and not found.faults and config.trigger is None:
        found.faults.append(
            f"none of its {len(found.samples)} images has a caption, and data.trigger is not set. Write NAME.txt beside each, "
            "or set data.trigger to the word that will be their caption"
        )


def _note_twins(found: Findings) -> None:
    """The same image bytes under two names: trained twice as often, noted."""
    names: dict[str, list[str]] = defaultdict(list)
    for sample in found.samples:
        names[sample.sha256].append(sample.name)
    twins = [" = ".join(same) for same in names.values() if len(same) > 1]
    if twins:
        found.notes.append(f"the same image several times: {'; '.join(twins)}")


def _names(files: Iterable[Path], most: int = 12) -> str:
    names = [file.name for file in files]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
