"""The report of a scan: counts, problems, and records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from registry.index import records
from registry.index.database import Index
from registry.index.scanning.walk import Problem
from registry.record import Record


@dataclass
class ScanReport:
    """What a scan did: counts, problems, and the records of what it saw."""

    index: Index
    added: int = 0
    updated: int = 0
    relinked: int = 0
    unchanged: int = 0
    missing: int = 0
    problems: list[Problem] = field(default_factory=list)
    ids: dict[str, None] = field(default_factory=dict)

    def records(self) -> list[Record]:
        """The Records of everything the scan saw, in the order of the index."""
        with self.index.reading() as connection:
            return records.load(connection, self.ids)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "added": self.added,
            "updated": self.updated,
            "relinked": self.relinked,
            "unchanged": self.unchanged,
            "missing": self.missing,
            "problems": [vars(problem) for problem in self.problems],
            "records": [record.to_json() for record in self.records()],
        }
