"""Annotations as a JSON file: names, aliases, tags, notes, triggers and overrides.

An entry is matched by content, else by id or path, so that a file of one machine can be imported on another. Importing adds to
what is there and overwrites nothing unless asked to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from registry.errors import BadFile, Faults, Refused
from registry.formats.model_folder import read_json
from registry.index import database as tables
from registry.index import records, rows
from registry.index.overrides import validate_overrides
from registry.index.run_checkpoints import checkpoint_step
from registry.printable import one_line
from registry.record import OWN_METADATA, Record
from registry.references import EMBEDDED, check_alias, check_name, looks_like_path
from registry.typed_values import mistyped, shown

FORMAT = "loraloom-notes"
VERSION = 1
FIELDS = ("kind", "family", "variant", "prediction", "licence", "notes", "image", "parents", "recipe", "metadata")
PLAIN = ("kind", "family", "variant", "prediction", "licence", "notes", "image")  # texts; the others are JSON
IDENTITY = ("sha256", "tensors_sha256", "content_sha256")
FROM_FILES = ("root", "copies", "files_sha256")  # of a record's metadata: never an annotation
ROWS = list[dict[str, Any]]
ENTRY: Mapping[str, Any] = {
    "id": str,
    "name": str,
    "kind": str,
    "paths": list[str],
    "bytes": int,
    "hashes": dict[str, str | None],
    "said": dict[str, Any],
    "names": ROWS,
    "aliases": ROWS,
    "tags": list[str],
    "triggers": list[str],
}
NAME: Mapping[str, Any] = {"name": str, "shelf": str, "current": bool}
ALIAS: Mapping[str, Any] = {"name": str, "alias": str}
SAID: Mapping[str, Any] = {**dict.fromkeys(PLAIN, str), "parents": ROWS, "recipe": dict[str, Any], "metadata": dict[str, Any]}
PARENT: Mapping[str, Any] = dict.fromkeys(("role", "ref", "sha256"), str | None)


@dataclass
class Imported:
    """What reading a notes file did; `unmatched` are entries whose model is not registered, `conflicts` what was left as it is."""

    applied: int = 0
    unchanged: int = 0
    unmatched: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


# --- out


def notes_of(connection: Connection, known: Sequence[Record]) -> dict[str, Any]:
    """A document of all annotations of these records; records without any are left out."""
    extra = records.gather(connection, None)
    entries = [entry for record in known if (entry := _entry(record, extra))]
    return {"format": FORMAT, "version": VERSION, "created": rows.now(), "records": entries}


def _entry(record: Record, extra: records.Annotated) -> dict[str, Any] | None:
    given, labels = extra.given.get(record.id), extra.labels.get(record.id, [])
    values = {name: value for name in FIELDS if given is not None and (value := getattr(given, name)) is not None}
    names = sorted(extra.names.get(record.id, []), key=lambda row: row.turn)
    annotations = {
        "said": {name: value if name in PLAIN else json.loads(value) for name, value in values.items()},
        "names": [{"name": row.name, "shelf": row.shelf, "current": bool(row.current)} for row in names],
        "aliases": [{"name": row.name, "alias": row.alias} for row in extra.aliases.get(record.id, [])],
        "tags": sorted(row.value for row in labels if row.kind == "tag"),
        "triggers": [row.value for row in labels if row.kind == "trigger"],
    }
    if not any(annotations.values()):
        return None
    return {
        "id": record.id,
        "name": record.name,
        "kind": record.kind,
        "paths": [path for path in (record.path, *record.metadata.get("copies", ())) if path],
        "bytes": sum(entry.bytes for entry in record.files),
        "hashes": {name: getattr(record.hashes, name) for name in IDENTITY},
        **annotations,
    }


# --- in


def read_notes(path: Path) -> list[dict[str, Any]]:
    """The entries of a notes file. Raises BadFile, and Faults with everything that is not as it should be."""
    if not path.is_file():
        raise BadFile(path, "unreadable", "is no file. Give one that `registry export-notes` wrote.")
    document = read_json(path)
    if document.get("format") != FORMAT or not isinstance(document.get("records"), list):
        raise BadFile(path, "unknown-format", "is no notes file. Give one that `registry export-notes` wrote.")
    if document.get("version") != VERSION:
        raise BadFile(path, "unknown-format", f"has version {document.get('version')!r}; this LoRA Loom knows {VERSION}. Update it.")
    faults = [fault for number, entry in enumerate(document["records"], 1) for fault in _faults(entry, f"record {number}")]
    if faults:
        raise Faults(f"{path} cannot be read; nothing was changed:", faults)
    return list(document["records"])


def _faults(entry: object, what: str) -> list[str]:
    """Everything that is wrong with an entry."""
    if not isinstance(entry, dict):
        return [f"{what} is no object"]
    what = f"{what} ({shown(entry.get('name'))})"
    wrong = _mistyped(entry, ENTRY, optional=("bytes",))
    if not wrong:
        wrong = [fault for row in entry["names"] for fault in _mistyped(row, NAME, optional=("current",))]
        wrong += [fault for row in entry["aliases"] for fault in _mistyped(row, ALIAS)]
        wrong += _said_faults(entry["said"])
    return [f"{what}: {fault}" for fault in wrong or _name_faults(entry)]


def _mistyped(values: Mapping[str, Any], types: Mapping[str, Any], *, optional: Sequence[str] = ()) -> list[str]:
    missing = [repr(name) for name in types if name not in values and name not in optional]
    return ([f"{', '.join(missing)} missing"] if missing else []) + mistyped(values, types)


def _said_faults(said: Mapping[str, Any]) -> list[str]:
    if unknown := sorted(set(said) - set(FIELDS)):
        return [f"unknown fields: {', '.join(map(repr, unknown))}"]
    if wrong := mistyped(said, SAID):
        return wrong
    wrong = [fault for parent in said.get("parents", ()) for fault in mistyped(parent, PARENT)]
    metadata = said.get("metadata", {})
    wrong += [f"{name!r} in 'metadata' comes from the files themselves and cannot be given" for name in FROM_FILES if name in metadata]
    wrong += mistyped(metadata, OWN_METADATA)
    return wrong + _refused(validate_overrides, [said])


def _name_faults(entry: Mapping[str, Any]) -> list[str]:
    """Of names and aliases that no reference can have."""
    aliases = [row["alias"] for row in entry["aliases"]]
    wrong = _refused(check_name, _names(entry)) + _refused(check_alias, aliases)
    wrong += [
        f"{alias!r} cannot be an alias: step-<number> means a run's checkpoint." for alias in aliases if checkpoint_step(alias) is not None
    ]
    shelves = [row["shelf"] for row in entry["names"]]
    return wrong + [f"'shelf' must be model, dataset or run, got {shown(shelf)}" for shelf in shelves if rows.shelf_of(shelf) != shelf]


def _refused(check: Callable[[Any], None], values: Iterable[Any]) -> list[str]:
    """What the check says of the values that it refuses."""
    found = []
    for value in values:
        try:
            check(value)
        except Refused as error:
            found.append(str(error))
    return found


def _names(entry: Mapping[str, Any]) -> list[str]:
    """The names that references have. A model without a given name has aliases under its file's, an embedded one under its own."""
    aliased = [row["name"] for row in entry["aliases"] if row["name"] not in EMBEDDED]
    own = [name for name in aliased if name == entry["name"] and not looks_like_path(name) and one_line(name) == name]
    return [*(row["name"] for row in entry["names"]), *(name for name in aliased if name not in own)]


def may_match(entries: Sequence[Mapping[str, Any]], known: Sequence[Record]) -> list[Record]:
    """The records without a hash whose files have the size of a hashed entry."""
    sizes = {entry.get("bytes") for entry in entries if entry["hashes"].get("sha256")}
    unhashed = (record for record in known if record.hashes.sha256 is None and os.path.exists(str(record.path)))
    return [record for record in unhashed if sum(file.bytes for file in record.files) in sizes]


def import_entries(connection: Connection, entries: Sequence[Mapping[str, Any]], *, replace: bool) -> Imported:
    """Add the entries' annotations to the records they match. With `replace` they overwrite."""
    done = Imported()
    for entry in entries:
        record_id = match(connection, entry)
        if record_id is None:
            done.unmatched.append(f"{entry['name']} ({', '.join(entry['paths']) or entry['id']})")
        else:
            apply(connection, record_id, entry, done, replace=replace)
    return done


def match(connection: Connection, entry: Mapping[str, Any]) -> str | None:
    """The id of the record an entry matches: the same content, else the same id, else the same path and size."""
    if entry["id"] in EMBEDDED:
        return str(entry["id"])
    shelf = rows.shelf_of(entry["kind"])

    def first(ids: Sequence[str]) -> str | None:
        return next((record.id for record in records.load(connection, ids) if rows.shelf_of(record.kind) == shelf), None)

    for name in IDENTITY:
        digest = entry["hashes"].get(name)
        table = tables.content
        if digest:
            found = first([str(row.record_id) for row in connection.execute(select(table).where(getattr(table.c, name) == digest))])
            if found:
                return found
    content = first([entry["id"]])
    if content is not None and not _differs(connection, content, entry):
        return content
    for path in entry["paths"]:
        there = first(rows.ids_by_path(connection, path))
        if there is not None and not _differs(connection, there, entry):
            return there
    return None


def _differs(connection: Connection, record_id: str, entry: Mapping[str, Any]) -> bool:
    """Whether a record's hash, or its size where it has none, differs from the entry's."""
    record = records.load(connection, [record_id])[0]
    if record.kind in ("dataset", "run"):
        return bool(record.hashes.sha256 and entry["hashes"].get("sha256") and record.hashes.sha256 != entry["hashes"]["sha256"])
    for name in ("tensors_sha256", "sha256"):
        mine, stated = getattr(record.hashes, name), entry["hashes"].get(name)
        if mine and stated:
            return bool(mine != stated)
    return sum(one.bytes for one in record.files) != entry.get("bytes")


def apply(connection: Connection, record_id: str, entry: Mapping[str, Any], done: Imported, *, replace: bool) -> None:
    """Add an entry's annotations to a record."""
    before = _state(connection, record_id)
    _apply_fields(connection, record_id, entry, done, replace)
    rows.put_labels(connection, record_id, "tag", entry["tags"])
    rows.put_labels(connection, record_id, "trigger", entry["triggers"])
    for one in entry["names"]:
        _apply_name(connection, record_id, one, done, replace)
    for one in entry["aliases"]:
        held = [other for other in rows.ids_by_alias(connection, one["name"], one["alias"]) if other != record_id]
        if held and not replace:
            done.conflicts.append(f"{one['name']}@{one['alias']} means another record here; it stays so")
        else:
            rows.put_alias(connection, record_id, one["name"], one["alias"])
    if _state(connection, record_id) == before:
        done.unchanged += 1
    else:
        done.applied += 1


def _apply_fields(connection: Connection, record_id: str, entry: Mapping[str, Any], done: Imported, replace: bool) -> None:
    has = connection.execute(select(tables.given).where(tables.given.c.record_id == record_id)).first()
    values: dict[str, Any] = {}
    for name, value in entry["said"].items():
        mine = getattr(has, name) if has is not None else None
        if mine is not None and name not in PLAIN:
            mine = json.loads(mine)
        if mine is None or replace:
            values[name] = value
        elif mine != value:
            done.conflicts.append(f"{entry['name']}: {name} is something else here; it stays so")
    rows.put_given(connection, record_id, values)


def _apply_name(connection: Connection, record_id: str, one: Mapping[str, Any], done: Imported, replace: bool) -> None:
    table = tables.given_name
    holders = connection.execute(
        select(table.c.record_id).where(table.c.name == one["name"], table.c.shelf == one["shelf"], table.c.current == 1)
    ).all()
    if any(row.record_id == record_id for row in holders) or not one.get("current", True):
        return
    if holders and not replace:
        done.conflicts.append(f"{one['name']} is the name of another record here; it stays so")
    else:
        rows.put_name(connection, record_id, one["name"], one["shelf"])


def _state(connection: Connection, record_id: str) -> list[Any]:
    wanted = (tables.given, tables.label, tables.given_name, tables.alias)
    return [sorted(map(repr, connection.execute(select(table).where(table.c.record_id == record_id)).all())) for table in wanted]
