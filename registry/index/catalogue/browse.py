"""A selection of the index: how many there are, in which order, how many of each kind, and the records of a part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from registry.index.catalogue.selection import FACETS, NONE, SORTS, Selection
from registry.index.catalogue.summary import Summary, summaries, summary_of
from registry.index.listing import Listing
from registry.index.search import search_ranks
from registry.record import Record


@dataclass(frozen=True)
class Browsed:
    """The records of a selection in their order, composed as they are read, while the connection is open."""

    ids: Sequence[str]
    everything: int  # records that there are, selected or not
    facets: Mapping[str, Mapping[str, int]]  # facet -> value (NONE: without one) -> how many, were that facet not filtered by
    missing: int  # of the selected words: how many have lost their file
    _listing: Listing = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, first: int, count: int) -> Iterator[Record]:
        """At most `count` records from the `first` on, counted from 0."""
        return self._listing.part(first, count)


def browse(connection: Connection, embedded: Sequence[Record], selection: Selection, sort: str | None) -> Browsed:
    """The selection, sorted; without `sort` as registered, or with words as `registry find` does: names first."""
    indexed = summaries(connection)
    everything = [*map(summary_of, embedded), *indexed]
    known, ranks = everything, dict[str, int]()
    if selection.words:
        ranks = search_ranks(connection, embedded, {one.id: one.name for one in indexed}, selection.words)
        known = [one for one in known if one.id in ranks]
    kept = [one for one in known if selection.keeps(one)]
    if sort is not None:
        _, key, largest = SORTS[sort]
        kept = sorted(kept, key=key, reverse=largest)
    else:
        own = {record.id for record in embedded}
        kept = sorted(kept, key=lambda one: (ranks.get(one.id, 0), one.id not in own, one.created, one.name))
    facets = {name: counted(known, selection, name) for name in FACETS}
    gone = sum(one.missing for one in known)
    ids = [one.id for one in kept]
    return Browsed(ids, len(everything), facets, gone, Listing(connection, ids, embedded))


def counted(known: Sequence[Summary], selection: Selection, facet: str) -> dict[str, int]:
    """Value -> how many records have it, the most frequent first. Tags are counted among those that have the selected ones."""
    counts: Counter[str] = Counter()
    for one in known:
        if selection.keeps(one, but=facet):
            counts.update(_values(one, facet))
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _values(one: Summary, facet: str) -> Sequence[str]:
    if facet == "tag":
        return one.tags
    if facet == "warning":
        return tuple(dict.fromkeys(one.warnings))
    value = getattr(one, facet)
    return (NONE if value is None else str(value),)
