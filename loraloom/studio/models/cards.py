"""A part of a selection of the registry as its cards and its table show it, with the counts of every facet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from loraloom.studio.models.grid_images import GridImages
from loraloom.studio.models.images import card_image
from registry.index.catalogue.selection import Selection
from registry.record import Record
from registry.store import Store

VALUES = 40  # of a facet, the most frequent ones


@dataclass(frozen=True, kw_only=True)
class CardPage:
    """`images_wait`: grids are still read, and cards without an image may have one a moment later."""

    records: Sequence[Record]
    images: Sequence[str | None]  # a version of each record's image
    total: int
    everything: int
    missing: int
    facets: Mapping[str, Mapping[str, int]]
    images_wait: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for a page: of each facet the most frequent values, and how many there are."""
        cards = [card_json(record, image) for record, image in zip(self.records, self.images, strict=True)]
        facets = {name: {"values": list(islice(found.items(), VALUES)), "count": len(found)} for name, found in self.facets.items()}
        counts = {"total": self.total, "everything": self.everything, "missing": self.missing}
        return {"cards": cards, **counts, "facets": facets, "images_wait": self.images_wait}


def card_page(store: Store, selection: Selection, sort: str | None, grids: GridImages, *, offset: int, limit: int) -> CardPage:
    """The records `offset` to `offset + limit` of a selection."""
    known = grids.refresh(wait=0.02)
    with store.browse(selection, sort=sort) as found:
        records = list(found.part(offset, limit))
        total, everything, missing, facets = len(found), found.everything, found.missing, found.facets
    images = [None if (image := card_image(record, grids)) is None else image.version for record in records]
    return CardPage(
        records=records, images=images, total=total, everything=everything, missing=missing, facets=facets, images_wait=not known
    )


def card_json(record: Record, image: str | None) -> dict[str, Any]:
    """A record as its card shows it."""
    names = ("id", "name", "kind", "family", "variant", "dialect", "rank", "dtype", "licence", "created", "path")
    return {
        **{name: getattr(record, name) for name in names},
        "tags": list(record.tags),
        "triggers": list(record.triggers),
        "candidates": list(record.candidates),
        "warnings": [{"code": one.code, "message": one.message} for one in record.warnings],
        "bytes": sum(entry.bytes for entry in record.files),
        "image": image,
    }
