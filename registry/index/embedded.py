"""The embedded base as a Record: always there under its name, never written to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from registry.detect.inspect import inspect
from registry.home import pocket_dir
from registry.index import records, rows
from registry.index.storage.hash_cache import cached_hashes, folder_hashes, hashed_files
from registry.record import Record
from registry.references import POCKET, absolute


class Embedded:
    """The Record of `pocket`; the folder is inspected once."""

    def __init__(self) -> None:
        self._seen: Record | None = None

    @property
    def path(self) -> Path:
        return absolute(pocket_dir())

    def records(self, connection: Connection) -> list[Record]:
        """[its Record], [] where the folder is not there. It has its hash when all its files were hashed before."""
        path = self.path
        if not (path / "model_index.json").is_file():
            return []
        if self._seen is None or self._seen.path != str(path):
            self._seen = replace(inspect(path), id=POCKET, name=POCKET)
        record = records.compose(self._seen, records.gather(connection, [POCKET]))
        files = hashed_files(self._seen)
        known = cached_hashes(connection, map(rows.place_of, files))
        if len(known) == len(files):
            record = records.with_content(record, *folder_hashes(path, {file: hashes.sha256 for file, (hashes, _) in known.items()}))
        return [record]
