"""Writes a model, dataset or run into the index: one record for the same content, with every place and name it was given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from registry.detect.model_card import card_licence
from registry.errors import BadFile, Refused
from registry.formats.model_folder import folder_files
from registry.index import records, rows
from registry.plain_values import storable
from registry.record import OWN_METADATA, FileEntry, Hashes, Record
from registry.typed_values import mistyped


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What is registered: an inspected record, its place and hashes, and what the caller gives beside what the files show."""

    record: Record
    place: rows.Place
    hashes: Hashes = field(default_factory=Hashes)
    learned: Mapping[str, Any] = field(default_factory=dict)  # facts that only reading the whole file shows
    given: Mapping[str, Any] = field(default_factory=dict)  # columns of the table `given`
    name: str | None = None
    tags: Iterable[str] = ()
    triggers: Iterable[str] = ()

    @property
    def kind(self) -> str:
        return str(self.given.get("kind") or self.record.kind)


def register(connection: Connection, new: Registration) -> Record:
    """Write a record, or add to the one that is the same, and give it."""
    try:
        rows.check_storable(new.record)
    except UnicodeEncodeError:
        raise Refused(f"{storable(new.place.path)} has files with names that are not valid Unicode. Rename them to register it.") from None
    record_id = _same(connection, new) or rows.new_id()
    rows.put_record(connection, replace(new.record, id=record_id))
    rows.put_place(connection, record_id, new.place)
    if new.hashes.sha256:
        rows.put_content(connection, record_id, new.hashes, new.learned)
    rows.put_given(connection, record_id, new.given)
    if new.name:
        rows.put_name(connection, record_id, new.name, rows.shelf_of(new.kind))
    rows.put_labels(connection, record_id, "tag", new.tags)
    rows.put_labels(connection, record_id, "trigger", new.triggers)
    return records.load(connection, [record_id])[0]


def _same(connection: Connection, new: Registration) -> str | None:
    """The id of the existing record: the same content of the same kind, else the same place.

    A changed dataset is a new record, so that the lineage of models trained on the first stays valid.
    """
    sha256, shelf = new.hashes.sha256, rows.shelf_of(new.kind)
    same = records.load(connection, rows.ids_by_sha256(connection, sha256)) if sha256 else []
    there = records.load(connection, rows.ids_by_path(connection, new.place.path)) if new.kind != "dataset" else []
    known = [record for record in same if record.hashes.sha256 == sha256] + there
    return next((record.id for record in known if rows.shelf_of(record.kind) == shelf), None)


def inspect_as(path: Path, kind: str | None) -> Record:
    """The unsaved Record of a path: a model is inspected, a dataset or run is its folder. Raises BadFile."""
    if kind not in ("dataset", "run"):
        from registry.detect.inspect import inspect, refuse_partial  # not at the top: it imports every family

        refuse_partial(path)
        return inspect(path)
    if not path.is_dir():
        raise BadFile(path, "unreadable", f"is no folder; a {kind} is one.")
    files = tuple(FileEntry(path=str(file), bytes=file.stat().st_size) for file in folder_files(path)) if kind == "dataset" else ()
    return Record(id="", name=path.name, kind=kind, files=files, metadata={"root": str(path)})


def folder_registration(
    path: Path,
    *,
    kind: str,
    name: str,
    sha256: str | None = None,
    parents: Sequence[Mapping[str, Any]] = (),
    recipe: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Registration:
    """The Registration of a dataset's or run's folder. Its files are not read."""
    return Registration(
        record=Record(id="", name=path.name, kind=kind, licence=card_licence(path), metadata={"root": str(path)}),
        place=rows.place_of(path),
        hashes=Hashes(sha256=sha256),
        given={"kind": kind, **plain_values(parents, recipe, metadata)},
        name=name,
    )


def plain_values(
    parents: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Parents, recipe and metadata as the index keeps them; None where nothing was given. Raises Refused for what is not JSON."""
    lean = [{"role": parent.get("role"), "ref": parent.get("ref"), "sha256": parent.get("sha256")} for parent in parents]
    values = {"parents": lean or None, "recipe": recipe, "metadata": metadata}
    if wrong := mistyped(values, {"recipe": Mapping[str, Any] | None, "metadata": Mapping[str, Any] | None}) or mistyped(
        metadata or {}, OWN_METADATA
    ):
        raise Refused(f"{wrong[0]}.")
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise Refused(f"recipe and metadata must be plain values (text, numbers, lists, objects): {error}") from error
    return values
