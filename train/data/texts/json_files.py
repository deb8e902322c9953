"""Captions in JSON: NAME.json beside an image, and kohya's meta file, {image: {caption, tags}} of a whole folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from registry.plain_values import from_json
from train.data.metadata import NO_CAPTIONS, caption_column_of, texts_of
from train.data.sidecars import LARGEST

Captions = tuple[str, ...]
TAGS = "tags"  # behind the caption, as sd-scripts joins them


def read_object(file: Path, column: str | None) -> tuple[Captions, str | None]:
    """(the captions of NAME.json, a fault). Neither: it is JSON without a caption."""
    value, fault = _read(file)
    if fault or not isinstance(value, dict):
        return (), fault
    return captions_of(value, column, where=file.name)


def captions_of(values: Mapping[str, Any], column: str | None, *, where: str) -> tuple[Captions, str | None]:
    """(the captions of one image's object, a fault). A list of texts is several captions; tags stand behind each."""
    tags = values.get(TAGS)
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        tags = ", ".join(tags)
    if column is None and isinstance(tags, str) and not {"text", "prompt"} & values.keys():
        captions, fault = texts_of(values["caption"], where=f"{where}: 'caption'") if values.get("caption") else ((), None)
        return (tuple(f"{caption}, {tags}" if tags else caption for caption in captions) or ((tags,) if tags else ())), fault
    found, fault = caption_column_of(list(values), column, where=where)
    if fault or found is None:
        return (), fault
    return texts_of(values[found], where=f"{where}: {found!r}")


def is_meta(file: Path) -> bool:
    """Whether it is kohya's meta file: an object of objects, of which one has a caption or tags."""
    value, _ = _read(file)
    if not isinstance(value, dict) or not value or not all(isinstance(inner, dict) for inner in value.values()):
        return False
    return any({"caption", TAGS} & inner.keys() for inner in value.values())


def read_meta(file: Path, images: Sequence[Path], column: str | None) -> tuple[dict[Path, Captions], list[str]]:
    """(the captions of the images by kohya's meta file, faults). Its keys are paths or names, with their ending or without."""
    value, fault = _read(file)
    if fault:
        return {}, [fault]
    names = {image.name: image for image in images}
    stems: dict[str, list[Path]] = {}
    for image in images:
        stems.setdefault(image.stem, []).append(image)
    found: dict[Path, Captions] = {}
    faults = []
    for key, inner in value.items():
        name = PurePosixPath(key.replace("\\", "/")).name
        owners = [names[name]] if name in names else stems.get(name, [])
        if len(owners) != 1:
            why = "several images have it" if owners else "which does not exist"
            faults.append(f"{file.name}: names {key}, {why}")
            continue
        captions, fault = captions_of(inner, column, where=f"{file.name}, {key}")
        faults += [fault] if fault else []
        faults += [f"{file.name}: names {owners[0].name} a second time"] if owners[0] in found else []
        found[owners[0]] = captions
    faults += [f"{image.name}: has no caption in {file.name}" for image in images if not found.get(image) and not faults]
    return found, faults


def _read(file: Path) -> tuple[Any, str | None]:
    try:
        if file.stat().st_size > LARGEST:
            return None, f"{file.name}: is larger than {LARGEST >> 20} MiB, the most that is read of one JSON file; use metadata.jsonl"
        return from_json(file.read_bytes()), None
    except OSError as error:
        return None, f"{file.name}: cannot be read ({error.strerror})"
    except ValueError as error:
        return None, f"{file.name}: is not JSON ({error})"


def may_hold(column: str | None) -> bool:
    """Whether JSON files are read at all: not for a set that is declared to have no captions."""
    return column != NO_CAPTIONS
