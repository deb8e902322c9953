"""Duplicates: copies of a file, and the same weights under other names, metadata or dialects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry.record import Record

NOT_MODELS = ("dataset", "run")


@dataclass(frozen=True)
class Duplicate:
    """Records and paths of one content. `same` is file (sha256) or weights (content_sha256)."""

    same: str
    hash: str
    records: tuple[Record, ...]

    @property
    def paths(self) -> list[str]:
        """Every path of the content."""
        return [str(path) for record in self.records for path in (record.path, *record.metadata.get("copies", ())) if path]

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        records = [{"id": one.id, "name": one.name, "dialect": one.dialect, "path": one.path} for one in self.records]
        return {"same": self.same, "hash": self.hash, "paths": self.paths, "records": records}


def duplicates(records: Sequence[Record]) -> list[Duplicate]:
    """Duplicates among hashed records, sorted by name. Copies of one file are not listed again as equal weights."""
    found: list[Duplicate] = []
    for same, name in (("file", "sha256"), ("weights", "content_sha256")):
        groups: dict[str, list[Record]] = {}
        for record in records:
            digest = getattr(record.hashes, name)
            if digest and record.kind not in NOT_MODELS:
                groups.setdefault(digest, []).append(record)
        for digest, members in groups.items():
            one = Duplicate(same, digest, tuple(sorted(members, key=lambda record: record.name)))
            if len(one.paths) > 1 and (same == "file" or len({record.hashes.sha256 for record in members}) > 1):
                found.append(one)
    return sorted(found, key=lambda one: (one.records[0].name, one.same))
