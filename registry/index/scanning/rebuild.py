"""Rebuilds the derived half of the index from the files; annotations stay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import delete

from registry.index import database as tables
from registry.index import records, rows
from registry.index.database import Index
from registry.index.scanning.walk import Problem, problem_of
from registry.progress import Report, Tick
from registry.record import Record

BATCH = 100  # records written in one transaction


@dataclass
class Rebuilt:
    """What a rebuild did; `recovered` names the backup that was restored when the index was damaged."""

    recovered: str | None = None
    rebuilt: int = 0
    missing: int = 0
    problems: list[Problem] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        problems = [vars(problem) for problem in self.problems]
        return {"recovered": self.recovered, "rebuilt": self.rebuilt, "missing": self.missing, "problems": problems}


def rebuild(index: Index, report: Report, *, hash: bool = False) -> Rebuilt:
    """Inspect every registered model again, after a damaged index is restored from its backup. Hashes stay, unless `hash`."""
    done = Rebuilt(recovered=index.restore())
    if hash:
        with index.writing() as connection:
            connection.execute(delete(tables.file_hash))
    with index.reading() as connection:
        found = [record for record in records.load(connection) if record.kind not in ("dataset", "run")]
    for begin in range(0, len(found), BATCH):
        _again(index, found[begin : begin + BATCH], done)
        report(Tick("rebuild", min(begin + BATCH, len(found)), len(found)))
    return done


def _again(index: Index, records: Sequence[Record], done: Rebuilt) -> None:
    from registry.detect.inspect import inspect  # not at the top: it imports every family

    seen: dict[str, Record] = {}
    empty: list[str] = []
    for record in records:
        path = str(record.path)
        if not os.path.lexists(path):
            empty.append(path)
            continue
        try:
            found = inspect(path)
            rows.check_storable(found)
            seen[record.id] = found
        except Exception as error:  # as in a scan
            done.problems.append(problem_of(path, error))
    with index.writing() as connection:
        alive = rows.ids_that_are(connection, list(seen))
        for record_id in alive:
            rows.put_record(connection, replace(seen[record_id], id=record_id))
        rows.mark_missing(connection, empty, True)
    done.rebuilt += len(alive)
    done.missing += len(empty)
