"""Backups of a SQLite index, made beside it with SQLite's backup API: `index.backup-20261128-054135.sqlite`, UTC.

A backup is whole or not there, and was checked when it was made. A damaged index is replaced by the newest sound one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from registry.errors import IndexDamaged
from registry.record import OWN_METADATA, Hashes, Record
from registry.typed_values import is_of, mistyped

logger = logging.getLogger(__name__)

KEPT = 5  # backups; a sixth takes the place of the oldest
STAMP = "%Y%m%d-%H%M%S"
JOURNALS = ("-wal", "-shm")
DAMAGE = ("malformed", "not a database", "file is encrypted", "unsupported file format", "already exists", "Could not decode to UTF-8")
TABLES = ("record", "location", "content", "file_hash", "given", "given_name", "alias", "label")
JSON_COLUMNS: Mapping[str, Callable[[Any], bool]] = {  # column -> whether a value is what its reader expects
    "data": lambda value: is_of(Record.from_json({"id": "", "name": "", **value}), Record) and _is_metadata(value.get("metadata", {})),
    "hashes": lambda value: is_of(Hashes(**value), Hashes),
    "learned": lambda value: not mistyped(value, LEARNED) and _is_metadata(value.get("metadata", {})),
    "parents": lambda value: is_of(value, list[dict[str, Any]]),
    "recipe": lambda value: is_of(value, dict[str, Any]),
    "metadata": lambda value: is_of(value, dict[str, Any]) and _is_metadata(value),
}
LEARNED: Mapping[str, Any] = {"alpha": float | None, "metadata": dict[str, Any], "warnings": list[dict[str, str]]}
WAIT_SECONDS = 60  # for a writer
UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


# --- making


def back_up(path: Path) -> Path:
    """Copy an index that others may be reading and writing. Raises IndexDamaged; OSError or sqlite3.Error where it cannot be written."""
    backup = path.with_name(f"{path.stem}.backup-{datetime.now(UTC).strftime(STAMP)}{path.suffix}")
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        with (
            contextlib.closing(_connect(path)) as source,
            contextlib.closing(sqlite3.connect(temporary)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a journal beside it
        shutil.copymode(path, temporary)
        reason = fault(temporary)
        if reason is not None:
            raise IndexDamaged(path, reason, damage_message(path, reason))
        os.replace(temporary, backup)
    finally:
        for ending in ("", "-journal", *JOURNALS):
            temporary.with_name(temporary.name + ending).unlink(missing_ok=True)
    for old in backups_of(path)[KEPT:]:
        old.unlink(missing_ok=True)
    return backup


def backups_of(path: Path) -> list[Path]:
    """The backups of an index, the newest first."""
    beginning = f"{path.stem}.backup-"
    found = [one for one in path.parent.iterdir() if one.name.startswith(beginning) and one.suffix == path.suffix and made_at(one)]
    return sorted(found, reverse=True)


def made_at(backup: Path) -> datetime | None:
    """When a backup was made, by its name; None for other files."""
    try:
        return datetime.strptime(backup.stem.rpartition(".backup-")[2], STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def holds_anything(path: Path) -> bool:
    """Whether an index has a record, or a tag or note of one. True where it is too damaged to be read."""
    try:
        with contextlib.closing(_connect(path)) as connection:
            return any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ("record", "given", "label"))
    except (sqlite3.Error, UnicodeDecodeError):
        return True


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=WAIT_SECONDS)


# --- checking


def fault(path: Path) -> str | None:
    """What is damaged in a SQLite file: its pages, or values that no writer of the index put there. None when it is sound.

    Raises sqlite3.Error for what is not damage: a lock, a full disk.
    """
    try:
        with contextlib.closing(_connect(path)) as connection:
            found = " ".join(str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0]).split())
            return found if found != "ok" else _strange_value(connection)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if is_damage(error):
            return str(error)
        raise


def is_damage(error: BaseException | None) -> bool:
    """Whether an error of SQLite means a damaged file, or a file that is not an index.

    A UnicodeDecodeError is of SQLite's own message, which quotes the garbage that it found.
    """
    return isinstance(error, UnicodeDecodeError) or any(word in str(error) for word in DAMAGE)


def _strange_value(connection: sqlite3.Connection) -> str | None:
    """A column with a value of another type than its own, or JSON of another form than its reader's: garbage can look like a row."""
    for column, check in JSON_COLUMNS.items():
        connection.create_function(f"is_{column}", 1, partial(_is_json, check=check), deterministic=True)
    for table in TABLES:
        for _, column, declared, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
            strange = f"typeof({column}) NOT IN ('{'integer' if 'INT' in declared else 'text'}', 'null')"
            if column in JSON_COLUMNS:
                strange += f" OR NOT is_{column}({column})"
            if connection.execute(f"SELECT 1 FROM {table} NOT INDEXED WHERE {strange} LIMIT 1").fetchone():
                return f"{table}.{column} holds garbage"
        for _ in connection.execute(f"SELECT * FROM {table} NOT INDEXED"):
            pass  # every text is decoded: one that is no UTF-8 raises
    return None


def _is_json(text: str | None, check: Callable[[Any], bool]) -> bool:
    try:
        return text is None or check(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def _is_metadata(value: Mapping[str, Any]) -> bool:
    return not mistyped(value, OWN_METADATA)


def damage_message(path: Path, reason: str) -> str:
    """What is wrong with an index, and what a person can do about it."""
    return (
        f"The index {path} is damaged ({reason}). Run `loraloom registry rebuild`: it restores the newest sound backup, "
        f"{_age(next(iter(backups_of(path)), None))}, and inspects the files again. The models themselves are untouched."
    )


def _age(backup: Path | None) -> str:
    """'made 2026-11-28 05:41 UTC (3 hours ago)' of a backup."""
    made = made_at(backup) if backup is not None else None
    if made is None:
        return "of which there is none yet"
    seconds = max(0, int((datetime.now(UTC) - made).total_seconds()))
    unit, size = next((unit, size) for unit, size in UNITS if seconds >= size or size == 1)
    count = seconds // size
    return f"made {made:%Y-%m-%d %H:%M} UTC ({count} {unit}{'' if count == 1 else 's'} ago)"


# --- restoring


def restore(path: Path, reason: str) -> str:
    """Replace a damaged index by its newest sound backup; gives a report. Without a backup, the next use makes an empty index.

    The damaged file is kept aside. A kill at any moment leaves the damaged index or the restored one.
    """
    backup = next(filter(_is_sound, backups_of(path)), None)
    kept = _keep_aside(path)
    if backup is None:
        path.unlink()
        done = "There was no sound backup: names, tags, notes and aliases are lost. Scan your folders to register your models again."
    else:
        _replace(path, backup)
        done = f"The backup {backup.name}, {_age(backup)}, is in its place. Scan your folders to find what was registered after it."
    return f"The index {path} was damaged ({reason}). The damaged file is kept as {kept.name}. {done}"


def _is_sound(backup: Path) -> bool:
    try:
        return fault(backup) is None
    except sqlite3.Error as error:
        logger.warning("The backup %s cannot be read (%s): the one before it is used.", backup, error)
        return False


def _replace(path: Path, backup: Path) -> None:
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        shutil.copy2(backup, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _keep_aside(path: Path) -> Path:
    """A copy of the damaged file and its journal. The journal is deleted: SQLite would replay it into the restored file."""
    stamp = datetime.now(UTC).strftime(STAMP)
    number, kept = 1, path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.stem}.damaged-{stamp}-{number}{path.suffix}")
    for ending in ("", "-wal"):
        source = path.with_name(path.name + ending)
        if source.exists():
            shutil.copy2(source, kept.with_name(kept.name + ending))
    for ending in JOURNALS:
        path.with_name(path.name + ending).unlink(missing_ok=True)
    return kept
