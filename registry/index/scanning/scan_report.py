"""The report of a scan: counts, problems, checkpoints of runs, and records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from registry.index import records
from registry.index.database import Index
from registry.index.listing import Listing
from registry.index.run_checkpoints import RunCheckpoint
from registry.index.scanning.walk import Problem
from registry.record import Record


@dataclass
class ScanReport:
    """What a scan did: counts, problems, the checkpoints of runs among what it saw, and the records of all."""

    index: Index
    added: int = 0
    updated: int = 0
    relinked: int = 0
    unchanged: int = 0
    missing: int = 0
    problems: list[Problem] = field(default_factory=list)
    checkpoints: list[RunCheckpoint] = field(default_factory=list)  # beside the adapter, which has a record, is the training's state
    ids: dict[str, None] = field(default_factory=dict)

    @contextlib.contextmanager
    def listing(self) -> Iterator[Listing]:
        """The Records of everything the scan saw, composed as they are read."""
        with self.index.reading() as connection:
            yield Listing(connection, [id_ for id_, _ in records.named(connection, ids=self.ids)])

    def records(self) -> list[Record]:
        """The Records of everything the scan saw, in the order of the index."""
        with self.index.reading() as connection:
            return records.load(connection, self.ids)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {**self.summary(), "records": [record.to_json() for record in self.records()]}

    def summary(self) -> dict[str, Any]:
        """The same without the records."""
        return {
            "added": self.added,
            "updated": self.updated,
            "relinked": self.relinked,
            "unchanged": self.unchanged,
            "missing": self.missing,
            "problems": [vars(problem) for problem in self.problems],
            "checkpoints": [vars(checkpoint) for checkpoint in self.checkpoints],
        }
