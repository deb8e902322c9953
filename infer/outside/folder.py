"""A folder of images made elsewhere: its images with their metadata, and the files beside them that state prompts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from infer.outside.texts import Stated, read_stated
from registry.errors import LoomError, Refused
from registry.formats.image_file import Unreadable
from registry.formats.safetensors_header import open_regular
from registry.home import expanded
from registry.plain_values import from_json, storable
from registry.printable import one_line, some

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff")
TABLES = ("metadata.jsonl", "metadata.csv", "captions.json")
COLUMNS = ("prompt", "text", "caption")
MOST_FILES = 10_000
LARGEST, LARGEST_TEXT = 1 << 28, 1 << 24  # bytes of an image, of a file of prompts
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class OutsideImage:
    """An image of the folder: `stated` has what each source says of its prompt, by the source's name."""

    path: Path
    sha256: str
    texts: Mapping[str, str] = field(repr=False)
    stated: Mapping[str, Stated] = field(default_factory=dict)

    @property
    def order(self) -> tuple[tuple[int, str], ...]:
        """2.png before 10.png."""
        return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", self.path.name))


@dataclass(frozen=True, kw_only=True)
class OutsideFolder:
    """A folder by the name that its column has."""

    name: str
    path: Path
    images: tuple[OutsideImage, ...]
    notes: tuple[str, ...] = ()


Gather = Callable[[str], None]


def read_folder(name: str, given: str, gather: Gather) -> OutsideFolder | None:
    """The folder, every fault to `gather`; None where there is none to read."""
    path, where = expanded(given).absolute(), f"outside {one_line(name)}"
    if not path.is_dir():
        gather(f"{where}: there is no folder {one_line(path)}. Give a folder of images.")
        return None
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        gather(f"{where}: {one_line(path)} cannot be read ({error.strerror}).")
        return None
    files = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")]
    if not files or len(files) > MOST_FILES:
        what = f"{len(files):,} images, more than {MOST_FILES:,}" if files else f"no image ({', '.join(SUFFIXES)})"
        gather(f"{where}: {one_line(path)} holds {what}.")
        return None
    table, notes = _table(path, files, where, gather)
    images = []
    for file in files:
        try:
            images.append(_image(file, path, table))
        except (LoomError, Unreadable, OSError) as error:
            reason = str(error).removeprefix(f"{file}: ").removeprefix(str(file)).strip(" :")
            gather(f"{where}: {one_line(file.name)}: {one_line(reason)}")
    folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if folders:
        notes.append(f"{where}: folders inside are not read: {some(map(one_line, folders))}.")
    return OutsideFolder(name=name, path=path, images=tuple(images), notes=tuple(notes))


def _image(file: Path, folder: Path, table: Mapping[str, Stated]) -> OutsideImage:
    if storable(file.name) != file.name:
        raise Refused("it is called by bytes that are not UTF-8. Rename the file.")
    data = _bytes(file, folder, LARGEST)
    texts, states = read_stated(data)
    sources: dict[str, Stated] = {}
    if file.name in table:
        sources["the file of captions"] = table[file.name]
    if (beside := _sidecar(file, folder)) is not None:
        sources[beside[0]] = beside[1]
    sources |= {f"its metadata ({name})": found for name, found in states.items()}
    return OutsideImage(path=file, sha256=sha256(data).hexdigest(), texts=texts, stated=sources)


def _bytes(file: Path, folder: Path, most: int) -> bytes:
    if not file.resolve().is_relative_to(folder.resolve()):
        raise Refused("it is a link out of the folder. Put the image itself there.")
    with open_regular(file) as opened:
        data = opened.read(most + 1)
    if len(data) > most:
        raise Refused(f"it has more than {most:,} bytes.")
    return data


def _sidecar(image: Path, folder: Path) -> tuple[str, Stated] | None:
    """What NAME.json or NAME.txt beside the image states. Raises Refused for both, and for one that cannot be read."""
    found = [path for path in (image.with_suffix(".json"), image.with_suffix(".txt")) if path.is_file() and path.name not in TABLES]
    if not found:
        return None
    if len(found) > 1:
        raise Refused(f"both {one_line(found[0].name)} and {one_line(found[1].name)} are beside it. Keep one.")
    (path,) = found
    try:
        text = _bytes(path, folder, LARGEST_TEXT).decode("utf-8-sig")
        return path.name, Stated(text.strip()) if path.suffix == ".txt" else _stated(from_json(text))
    except ValueError as error:
        raise Refused(f"{one_line(path.name)} beside it cannot be read ({one_line(error)[:100]}).") from error


def _stated(value: Any) -> Stated:
    """The prompt and seed of an object. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("expected an object with a prompt")
    prompts = [value[name] for name in COLUMNS if isinstance(value.get(name), str)]
    if not prompts:
        raise ValueError(f"it has no text {' or '.join(COLUMNS)}")
    seed = value.get("seed")
    if isinstance(seed, str) and re.fullmatch(r"\d{1,20}", seed):
        seed = int(seed)
    if seed not in (None, "") and type(seed) is not int:
        raise ValueError("its seed is no whole number")
    return Stated(prompts[0].strip(), seed if type(seed) is int else None)


def _table(path: Path, files: list[Path], where: str, gather: Gather) -> tuple[dict[str, Stated], list[str]]:
    """File name -> what the folder's file of captions states, and notes on what it names that is not there."""
    tables = [path / name for name in TABLES if (path / name).is_file()]
    if len(tables) > 1:
        gather(f"{where}: {' and '.join(table.name for table in tables)} are both there. Keep one.")
    if not tables:
        return {}, []
    table = tables[0]
    found: dict[str, Stated] = {}
    try:
        for number, (name, value) in enumerate(_rows(table.name, _bytes(table, path, LARGEST_TEXT).decode("utf-8-sig")), 1):
            try:
                stated_here = _stated(value)
            except ValueError as error:
                gather(f"{where}: {table.name}, entry {number}: {error}.")
                continue
            if found.setdefault(name, stated_here) != stated_here:
                gather(f"{where}: {table.name} names {one_line(name)} twice, with different prompts.")
    except (ValueError, LoomError, csv.Error) as error:
        gather(f"{where}: {table.name} cannot be read ({one_line(error)[:200]}).")
    absent = sorted(found.keys() - {file.name for file in files})
    notes = [f"{where}: {table.name} names files that are not there: {some(map(one_line, absent))}."] if absent else []
    return found, notes


def _rows(name: str, text: str) -> Iterator[tuple[str, Any]]:
    """(file name, object) of each entry. Raises ValueError."""
    if name.endswith(".json"):
        value = from_json(text)
        if not isinstance(value, dict):
            raise ValueError("expected an object: file names with their prompts")
        yield from ((file, {"prompt": one} if isinstance(one, str) else one) for file, one in value.items())
        return
    rows = (from_json(line) for line in text.splitlines() if line.strip()) if name.endswith(".jsonl") else csv.DictReader(io.StringIO(text))
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise ValueError("expected rows with a file_name, and a prompt, text or caption")
        yield row["file_name"], row
