"""One model's page: every fact of `registry show`, the images, what its warnings mean, and what can be done with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.commands.registry.convert import FORMS
from loraloom.studio.context import Studio
from loraloom.studio.models.grid_images import GridImages
from loraloom.studio.models.images import ModelImage, gallery
from loraloom.studio.models.meanings import meaning
from registry.errors import LoomError, NotFound
from registry.exporting.layouts import LAYOUTS
from registry.formats.dialects import writable
from registry.index.catalogue.selection import Selection
from registry.record import Record
from registry.references import EMBEDDED
from registry.store import Store

TAGS = 200  # that are offered
PARTNERS = 200  # bases of an adapter, or adapters of a base, that are offered to compare


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A registered model with what its page shows beside the record itself. `reference` names it on a command line."""

    record: Record
    reference: str
    own_triggers: Sequence[str]  # those that a person gave; the others are its file's
    images: Sequence[ModelImage]
    there: bool
    embedded: bool
    known_tags: Sequence[str]  # of all models, the most frequent first
    forms: Sequence[str]
    layouts: Sequence[tuple[str, str]]
    images_wait: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for a page."""
        record = self.record
        return {
            "record": record.to_json(),
            "path": record.path,
            "bytes": sum(entry.bytes for entry in record.files),
            "reference": self.reference,
            "own_triggers": list(self.own_triggers),
            "images": [image.to_json() for image in self.images],
            "meanings": {one.code: text for one in record.warnings if (text := meaning(one.code)) is not None},
            "there": self.there,
            "embedded": self.embedded,
            "known_tags": list(self.known_tags),
            "forms": list(self.forms),
            "layouts": [{"name": name, "title": title} for name, title in self.layouts],
            "images_wait": self.images_wait,
        }


def detail(studio: Studio, id: str, grids: GridImages) -> Detail:
    """The page of the record with this id. Raises NotFound."""
    store = studio.store
    known = grids.refresh(wait=0.3)
    record = registered(store, id)
    return Detail(
        record=record,
        reference=reference_of(record, store),
        own_triggers=store.given_triggers(record.id),
        images=gallery(record, grids),
        there=record.path is not None and os.path.exists(record.path),
        embedded=record.id in EMBEDDED,
        known_tags=store.tags(TAGS),
        forms=forms_of(record),
        layouts=layouts(),
        images_wait=not known,
    )


def layouts() -> list[tuple[str, str]]:
    """(name, title) of each tool that models are exported to."""
    return [(name, layout.title) for name, layout in LAYOUTS.items()]


def registered(store: Store, id: str) -> Record:
    """The record with this id, refreshed from its file. Raises NotFound: a page never inspects a path for a person."""
    if not store.with_ids([id]):
        raise NotFound("This model is not registered any more. It was removed, or its record was joined with that of the same file.")
    return store.find(id)


def reference_of(record: Record, store: Store) -> str:
    """Its name where that names it and nothing else, else its id."""
    if record.name.startswith("-"):
        return record.id
    try:
        return record.name if store.find(record.name, fresh=False).id == record.id else record.id
    except LoomError:
        return record.id


def forms_of(record: Record) -> list[str]:
    """The forms that `registry convert` may write it in."""
    if record.kind == "adapter":
        return [*(name for name in writable() if name != record.dialect), "safetensors"]
    if record.kind == "checkpoint":
        folder = record.path is not None and Path(record.path).is_dir()
        return ["single-file"] if folder else [name for name in FORMS if name != "single-file"]
    return ["safetensors"] if record.kind in ("vae", "embedding", "controlnet", "text_encoder") else []


@dataclass(frozen=True)
class Partner:
    """A model that an adapter or base can be compared with."""

    id: str
    name: str
    family: str | None


def partners(store: Store, record: Record) -> list[Partner]:
    """Of an adapter the bases of its family, of a base the adapters, those of no known family last; [] of any other kind."""
    other = {"adapter": "checkpoint", "checkpoint": "adapter"}.get(record.kind)
    if other is None:
        return []
    found: list[Partner] = []
    for family in dict.fromkeys([record.family or "none", "none"]):
        with store.browse(Selection(kind=other, family=family), sort="name") as some:
            found += [Partner(one.id, one.name, one.family) for one in some.part(0, PARTNERS - len(found))]
    return found
