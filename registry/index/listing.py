"""Many records, composed a part at a time: a listing of a large index holds few of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from sqlalchemy import Connection

from registry.index import records
from registry.record import Record

PART = 500  # records that are composed together: the ids of one query


class Listing:
    """The records of these ids, behind those that are known already."""

    def __init__(self, connection: Connection, known: Sequence[Record], ids: Sequence[str]) -> None:
        self._connection = connection
        self._known = known
        self._ids = ids

    def __len__(self) -> int:
        return len(self._known) + len(self._ids)

    def __iter__(self) -> Iterator[Record]:
        return self.part(0, len(self))

    def part(self, first: int, count: int) -> Iterator[Record]:
        """At most `count` records from the `first` on, counted from 0."""
        ids = self._ids[max(0, first - len(self._known)) : max(0, first + count - len(self._known))]
        composed = (records.load(self._connection, ids[begin : begin + PART]) for begin in range(0, len(ids), PART))
        return chain(self._known[first : first + count], chain.from_iterable(composed))
