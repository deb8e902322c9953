"""The registered models of what a person dropped on the page: of an image those its metadata names, of a model file itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from infer.metadata.models import FoundModel, find_models
from infer.metadata.reader import metadata_in
from infer.metadata.result import ImageMetadata
from registry.errors import Faults
from registry.record import Record
from registry.store import Store

HASHES = ("sha256", "kohya", "autov1", "autov3")  # what a browser computes, or reads in the header
MOST = 20  # records that an answer lists


@dataclass(frozen=True)
class DroppedImage:
    """What an image says of the models that it was made with, and which of them are registered."""

    metadata: ImageMetadata
    models: Sequence[FoundModel]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a page."""
        models = [{**one.to_json(), "id": one.record.id if one.record else None} for one in self.models]
        return {"tool": self.metadata.tool, "source": self.metadata.source, "models": models}


def models_of_image(data: bytes, name: str, store: Store) -> DroppedImage:
    """The models of an image file's bytes. Raises BadFile for what is no image, or says nothing of how it was made."""
    metadata = metadata_in(data, PurePath(name).name or "image")
    return DroppedImage(metadata, find_models(metadata, store))


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file as a browser sees it: name, size, and the hashes it computed. AutoV1 is of 64 KiB, AutoV3 from the header."""

    name: str
    bytes: int
    hashes: Mapping[str, str]

    def check(self) -> None:
        """Raise Faults for hashes of other kinds, and for what is no hash."""
        faults = [f"{name}: unknown; expected {', '.join(HASHES)}" for name in self.hashes if name not in HASHES]
        wrong = (f"{name}: expected 8 to 64 hex digits" for name, digits in self.hashes.items() if not DIGITS.fullmatch(digits))
        if faults := [*faults, *wrong]:
            raise Faults("This file cannot be looked for:", faults)


DIGITS = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class KnownFile:
    """What is known of a model file: records with one of its hashes, and by which; else unhashed ones of its size and name."""

    found: Sequence[tuple[Record, str]]
    likely: Sequence[Record]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a page."""
        return {
            "found": [{**_brief(record), "by": by} for record, by in self.found[:MOST]],
            "likely": [_brief(record) for record in self.likely[:MOST]],
        }


def known_file(file: ModelFile, store: Store) -> KnownFile:
    """The records of a file. The whole file's hash decides where it is known; AutoV1 alone may be another file's, too."""
    file.check()
    found: dict[str, tuple[Record, str]] = {}
    for name in HASHES:
        for record, by in store.with_hash(file.hashes[name]) if name in file.hashes else ():
            same_size = name != "autov1" or sum(one.bytes for one in record.files) == file.bytes
            if same_size:
                found.setdefault(record.id, (record, by))
        if found:
            return KnownFile(list(found.values()), [])
    same = store.with_size(file.bytes)
    likely = [record for record in same if record.hashes.sha256 is None and record.path and PurePath(record.path).name == file.name]
    return KnownFile([], likely)


def _brief(record: Record) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in ("id", "name", "kind", "family", "path")}
    return {**values, "file": PurePath(record.path or "").name}
