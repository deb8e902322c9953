"""The data of a page: the cells of a gallery as JSON, each text that many of them share written once.

Texts stand in `texts`; `settings` of a cell is [name, value, name, value, ...] as numbers in there, and so is each list of `tables`, which
hold the details of cells. Images are [address, small copy or "", width, height].
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from infer.output.gallery import CellImage, Gallery
from infer.output.page.images import PageImage, data_uri

TILE = (192, 256)  # pixels a cell at most at first: for small images, for those of 512 and more


def page_data(gallery: Gallery, images: Mapping[Path, PageImage], *, kind: str = "png", live: bool = False) -> dict[str, Any]:
    """The data of a page that shows the gallery with these images. `kind` is that of embedded images; "" for images beside the page."""
    layout = gallery.layout
    texts, tables = _Numbers(), _Numbers()
    numbers = {file: number for number, file in enumerate(images)}
    return {
        "grid": "1",  # the version of this form
        "title": gallery.title,
        "id": sha256("\n".join(one.key for one in gallery.images).encode()).hexdigest()[:16],
        "axes": [{"name": one.name, "labels": list(one.labels)} for one in layout.dimensions],
        "rows": layout.rows,
        "columns": layout.columns,
        "tile": TILE[0] if max((one.width for one in images.values()), default=64) < 512 else TILE[1],
        "kind": kind,
        "images": [one.to_json() for one in images.values()],
        "sources": [[one.label, data_uri("png", one.png)] for one in gallery.sources],
        "scores": [{"name": one.name, "definition": one.definition, "better": one.better} for one in gallery.scores],
        "cells": [_cell(one, numbers, texts, tables) for one in gallery.images],
        "texts": list(texts.found),
        "tables": [list(one) for one in tables.found],
        "explained": {},  # HTML by the key of its cell; explained.py adds it
        "live": live,
    }


def changes(image: CellImage, number: int | None) -> dict[str, Any]:
    """What a cell's drawing adds to it, as the page keeps it."""
    return {
        "image": number,
        "status": image.status,
        "error": image.error,
        "seconds": round(image.seconds, 3),
        "parameters": image.parameters,
        "scores": {name: value for name, value in image.scores.items() if value is not None},
    }


def _cell(image: CellImage, numbers: Mapping[Path, int], texts: _Numbers, tables: _Numbers) -> dict[str, Any]:
    details = tuple(texts.of(text) for pair in image.details.items() for text in pair)
    return {
        "place": list(image.place),
        "key": image.key,
        "settings": [texts.of(text) for pair in image.settings.items() for text in pair],
        "details": tables.of(details),
        "sources": list(image.sources),
        "command": image.command,
        **changes(image, numbers[image.path] if image.path else None),
    }


class _Numbers:
    """Values in the order in which they were first met, each with its number."""

    def __init__(self) -> None:
        self.found: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        return self.found.setdefault(value, len(self.found))
