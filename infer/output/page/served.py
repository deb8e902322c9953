"""A grid's report for a server that shows folders of other people: our template and scripts, and of the file nothing but checked data.

A report.html may come from anyone. It is read, never sent: each text goes into our page as a text, each number as a number, each image
as an address of the server, which sends images of that folder alone. Explanations are made anew of their explain.json.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from infer.output.gallery import OUTSIDE
from infer.output.page.mended import read_part
from infer.output.page.read import no_report, read_page
from infer.output.page.single_file import BESIDE
from infer.output.report import Head, rendered
from registry.errors import BadFile, LoomError
from registry.plain_values import from_json
from registry.printable import counted

LARGEST = 1 << 28  # bytes of a report.html
SMALL = 384  # pixels of the longer side, above which tiles show a small copy
INSIDE = re.compile(r"data:image/(?:png|webp|jpeg);base64,[A-Za-z0-9+/]+=*")
KEY = re.compile(r"[0-9a-f]{16,64}")
FIXED = re.compile(r"<div><dt>([^<]*)</dt><dd>([^<]*)</dd></div>")
NOTE = re.compile(r'<p class="note">([^<]*)</p>')
COUNTED = {"rendered": "rendered", "reused": "reused", "failed": "failed", "missing": "not drawn", OUTSIDE: "made elsewhere"}
STATUSES = (*COUNTED, "absent")


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the page finds what it needs: an image by its path in the folder (True: a small copy), a part of a live grid, a panel."""

    image: Callable[[str, bool], str]
    part: str
    panel: str


def served_page(folder: Path, addresses: Addresses) -> tuple[str, str]:
    """The page of a grid, and its policy. Raises BadFile for a report that is none of this version."""
    report = folder / "report.html"
    if report.is_file() and report.stat().st_size > LARGEST:
        raise BadFile(report, "too-large", f"has more than {LARGEST:,} bytes.")
    text, data = read_page(report)
    try:
        checked = _Checked(data, addresses, _files(folder) if data["kind"] else {}).data()
        header = text.partition("</header>")[0]
        notes = [note for note in map(unescape, NOTE.findall(header)) if note != BESIDE]
        fixed = {unescape(name): unescape(value) for name, value in FIXED.findall(header)}
    except (ValueError, KeyError, TypeError, AttributeError, LookupError) as error:
        raise no_report(report) from error
    checked["explained"] = {key: True for key in map(str, data.get("explained", {})) if KEY.fullmatch(key)}
    checked["served"] = {"folder": str(folder), "part": addresses.part, "panel": addresses.panel}
    summary = _summary(checked["cells"], _seconds(folder), live=checked["live"])
    head = Head(checked["title"], summary, fixed, notes)
    return rendered(head, checked, served=True)


def served_part(folder: Path, number: int, addresses: Addresses) -> dict[str, Any]:
    """A part of a grid that is being drawn, as its page takes it in; `ended` where it is not there. Raises BadFile for what is none."""
    part = read_part(folder, number)
    if part is None:
        return {"part": number, "ended": True}  # parts are deleted when the grid is done
    rows = []
    for index, change, address in part.rows:
        try:
            own = _change(change)
            own["image"] = _whole(change["image"], 1 << 20) if change["image"] is not None else None
            image = None if address is None else _image(address, addresses, None)
        except (ValueError, KeyError, TypeError) as error:
            raise no_report(folder / "report.html") from error
        rows.append([index, own, image])
    return {"part": number, "ended": False, "full": part.full, "cells": rows}


class _Checked:
    """A page's data as this version writes them, whatever else the file holds. Raises ValueError, KeyError, TypeError."""

    def __init__(self, data: Mapping[str, Any], addresses: Addresses, files: Mapping[str, str]) -> None:
        self._given, self._addresses = data, addresses
        self._files = files  # key of a cell -> its image in the folder
        self._axes = [{"name": _text(one["name"]), "labels": [*map(_text, one["labels"])]} for one in data["axes"]]

    def data(self) -> dict[str, Any]:
        given, files = self._given, {}
        for cell in given["cells"]:
            if cell["image"] is not None and cell["key"] in self._files:
                files[cell["image"]] = self._files[cell["key"]]
        sides = [None if given[side] is None else _whole(given[side], len(self._axes)) for side in ("rows", "columns")]
        self._images = [_image(row, self._addresses, files.get(number)) for number, row in enumerate(given["images"])]
        self._sources = [[_text(label), uri if INSIDE.fullmatch(uri) else ""] for label, uri in given["sources"]]
        self._texts = [*map(_text, given["texts"])]
        self._tables = [self._numbers(one, len(self._texts)) for one in given["tables"]]
        scores = given["scores"]
        return {
            "grid": "1",
            "title": _text(given["title"]),
            "id": _text(given["id"])[:64],
            "axes": self._axes,
            "rows": sides[0],
            "columns": sides[1],
            "tile": max(16, _whole(given["tile"], 1025)),
            "kind": "",
            "images": self._images,
            "sources": self._sources,
            "scores": [
                {"name": _text(one["name"]), "definition": _text(one["definition"]), "better": _better(one["better"])} for one in scores
            ],
            "cells": [self._cell(one) for one in given["cells"]],
            "texts": self._texts,
            "tables": self._tables,
            "live": given["live"],
        }

    def _cell(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        place = [_whole(value, len(axis["labels"])) for value, axis in zip(cell["place"], self._axes, strict=True)]
        return {
            "place": place,
            "key": _text(cell["key"])[:128],
            "settings": self._numbers(cell["settings"], len(self._texts)),
            "details": _whole(cell["details"], len(self._tables)),
            "sources": self._numbers(cell["sources"], len(self._sources)),
            "command": _text(cell["command"]),
            **_change(cell),
            "image": None if cell["image"] is None else _whole(cell["image"], len(self._images)),
        }

    def _numbers(self, given: Sequence[Any], limit: int) -> list[int]:
        return [_whole(one, limit) for one in given]


def _change(given: Mapping[str, Any]) -> dict[str, Any]:
    """What drawing adds to a cell, but its image."""
    if given["status"] not in STATUSES:
        raise ValueError("a status is another one")
    return {
        "status": given["status"],
        "error": None if given["error"] is None else _text(given["error"]),
        "seconds": _number(given.get("seconds", 0.0)),
        "parameters": _text(given["parameters"]),
        "scores": {_text(name): _number(value) for name, value in given.get("scores", {}).items()},
    }


def _image(row: Sequence[Any], addresses: Addresses, file: str | None) -> list[str | int]:
    """An image as the page has it: of the folder by the server's address, or inside the page as the file has it; "" for anything else."""
    address, _, width, height = row
    sides = [_whole(width, 1 << 15), _whole(height, 1 << 15)]
    if file is None and INSIDE.fullmatch(_text(address)):
        return [address, "", *sides]
    inner = unquote(address) if file is None else file
    small = addresses.image(inner, True) if max(sides) > SMALL else ""
    return [addresses.image(inner, False), small, *sides]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number was expected")
    return value


def _whole(value: Any, limit: int) -> int:
    """A whole number from 0 on, below the limit."""
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError("a number is out of range")
    return value


def _better(value: Any) -> str | None:
    return value if value in ("higher", "lower") else None


def _files(folder: Path) -> dict[str, str]:
    """Key of a cell -> its image's path in the folder, for a page that holds its images itself."""
    from infer.vote.finished import read_grid

    try:
        cells = read_grid(folder).cells
    except LoomError:
        return {}
    return {cell.key: cell.image.relative_to(folder).as_posix() for cell in cells if cell.image is not None}


def _seconds(folder: Path) -> float | None:
    """The seconds that drawing took, as result.json says."""
    try:
        return _number(from_json((folder / "result.json").read_bytes())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _summary(cells: Iterable[Mapping[str, Any]], seconds: float | None, *, live: bool) -> str:
    count = Counter(cell["status"] for cell in cells)
    parts = [counted(sum(number for status, number in count.items() if status not in (OUTSIDE, "absent")), "cell")]
    if live:
        return parts[0]  # the page itself counts what is done
    parts += [f"{count[status]} {word}" for status, word in COUNTED.items() if count[status]]
    return " · ".join([*parts, *([f"{seconds:.1f} s"] if seconds is not None else [])])
