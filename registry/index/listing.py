"""Many records, composed a part at a time: a listing of a large index holds few of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection

from registry.index import records
from registry.record import Record

PART = 100  # records that are composed together; those of a diffusers folder take 10 to 20 KB each


class Listing:
    """The records of these ids, in this order. Those in `known` are composed already; any other must be in the index."""

    def __init__(self, connection: Connection, ids: Sequence[str], known: Sequence[Record] = ()) -> None:
        self._connection = connection
        self._known = {record.id: record for record in known}
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Record]:
        return self.part(0, len(self))

    def part(self, first: int, count: int) -> Iterator[Record]:
        """At most `count` records from the `first` on, counted from 0."""
        last = min(first + count, len(self))
        for begin in range(first, last, PART):
            ids = self._ids[begin : min(begin + PART, last)]
            found: Mapping[str, Record] = {
                **{record.id: record for record in records.load(self._connection, [id_ for id_ in ids if id_ not in self._known])},
                **self._known,
            }
            yield from (found[id_] for id_ in ids)
