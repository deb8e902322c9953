"""The embedded base and its ControlNet as Records: always there under their names, never written to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from registry.formats.model_folder import folder_files
from registry.home import pocket_dir, pocket_lines_dir
from registry.index import records, rows
from registry.index.storage.hash_cache import cached_hashes, folder_hashes, hashed_files
from registry.record import Record
from registry.references import POCKET, POCKET_LINES, absolute

ENTRANCE = {POCKET: "model_index.json", POCKET_LINES: "config.json"}  # the file that each folder is known by


class Embedded:
    """The Records of `pocket` and `pocket-lines`; each folder is inspected once."""

    def __init__(self) -> None:
        self._seen: dict[str, Record] = {}

    @property
    def paths(self) -> Mapping[str, Path]:
        """Name -> folder, whether it is there or not."""
        return {POCKET: absolute(pocket_dir()), POCKET_LINES: absolute(pocket_lines_dir())}

    def name_of(self, path: Path) -> str | None:
        """The name of the one in this folder."""
        return next((name for name, folder in self.paths.items() if folder == path), None)

    def records(self, connection: Connection, name: str | None = None) -> list[Record]:
        """The Records of the folders that are there, or of the one called `name`, with hashes when all their files were hashed before."""
        there = {one: path for one, path in self.paths.items() if name in (None, one) and (path / ENTRANCE[one]).is_file()}
        return [self._record(connection, one, path) for one, path in there.items()]

    def _record(self, connection: Connection, name: str, path: Path) -> Record:
        seen = self._inspected(name, path)
        record = records.compose(seen, records.gather(connection, [name]))
        files = hashed_files(seen)
        known = cached_hashes(connection, map(rows.place_of, files))
        if len(known) == len(files):
            record = records.with_content(record, *folder_hashes(path, {file: hashes.sha256 for file, (hashes, _) in known.items()}))
        return record

    def _inspected(self, name: str, path: Path) -> Record:
        if name not in self._seen or self._seen[name].path != str(path):
            self._seen[name] = _as_shipped(name, path) or self.inspected(name, path)
        return self._seen[name]

    def inspected(self, name: str, path: Path) -> Record:
        """The Record of one of the folders, from its files."""
        from registry.detect.inspect import inspect  # not at the top: it imports every family

        seen = inspect(path)
        if name != POCKET and seen.family is None:  # its own config fits several families; it was made for the base
            seen = replace(seen, family=self._inspected(POCKET, self.paths[POCKET]).family)
        return replace(seen, id=name, name=name)


# The records of the folders beside this package, written once: a listing then needs no family. A test holds them against the files.
PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = Path(__file__).with_name("embedded_records.json")


def shipped_json(record: Record) -> dict[str, Any]:
    """A Record with its paths relative to its folder, as SHIPPED has it by name."""
    values = record.to_json()
    files = [{"path": Path(one.path).relative_to(str(record.path)).as_posix(), "bytes": one.bytes} for one in record.files]
    return {**values, "files": files, "metadata": {**record.metadata, "root": ""}}


def _as_shipped(name: str, path: Path) -> Record | None:
    """The Record of the folder that was shipped, while its files are there in their sizes; None for another folder."""
    if path != PACKAGE / path.name or not SHIPPED.is_file():
        return None
    values = json.loads(SHIPPED.read_text(encoding="utf-8")).get(name)
    if values is None:
        return None
    files = [{"path": str(path / one["path"]), "bytes": one["bytes"]} for one in values["files"]]
    if [(str(file), file.stat().st_size) for file in folder_files(path)] != [(one["path"], one["bytes"]) for one in files]:
        return None
    return Record.from_json({**values, "files": files, "metadata": {**values["metadata"], "root": str(path)}})
