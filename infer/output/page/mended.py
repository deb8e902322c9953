"""The report of a grid that was killed, made whole: what had been drawn is on it, and the rest is said to be not drawn.

A report is written once while its grid is drawn and takes in the others from live/; a kill leaves it waiting for parts that never come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from infer.output.gallery import OUTSIDE, UNFINISHED
from infer.output.page.images import beside
from infer.output.page.live import FOLDER, end_live
from infer.output.page.read import DATA, read_page
from infer.output.page.single_file import BESIDE
from infer.output.png import read_png
from registry.errors import BadFile, Refused
from registry.files.locks import locked_while_it_lasts
from registry.formats.atomic_file import write_text
from registry.plain_values import from_json
from registry.printable import one_line, script_json

LOCK = ".drawing.lock"  # in a run folder, held by the process that draws it
PART = re.compile(r"livePart\((.*)\)\n", re.DOTALL)


@dataclass(frozen=True)
class Mended:
    """How many cells the page has, of all that the grid was to draw."""

    there: int
    cells: int


@contextmanager
def being_drawn(folder: Path) -> Iterator[None]:
    """Marks a run folder as being drawn, until this process ends; where no lock can be made, nothing does."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(locked_while_it_lasts(folder / LOCK, wait=False))
        yield


def was_killed(folder: Path) -> bool:
    """Whether the folder is that of a grid which ended without its last files, and no process draws it."""
    if (folder / "result.json").is_file() or not (folder / "cells.jsonl").is_file():
        return False
    try:
        with locked_while_it_lasts(folder / LOCK, wait=False) as free:
            return free
    except OSError:
        return False


def is_live(report: Path) -> bool:
    """Whether the report waits for cells."""
    return bool(read_page(report)[1]["live"])


def mend(folder: Path) -> Mended:
    """Make the report and cells.jsonl of a killed grid whole. Raises Refused where the grid is being drawn, BadFile for another page."""
    with locked_while_it_lasts(folder / LOCK, wait=False) as free:
        if not free:
            raise Refused(f"{one_line(folder)}: its grid is being drawn. Its report takes in the cells as they come.")
        return _mended(folder)


def _mended(folder: Path) -> Mended:
    report = folder / "report.html"
    text, data = read_page(report)
    for index, change, address in _parts(folder):
        _put(report, data, index, change, address)
    lines = (folder / "cells.jsonl").read_text(encoding="utf-8").splitlines()
    for index, file, own in _unread(folder, data):
        _put(report, data, index, own | {"image": len(data["images"])}, beside(report, file).to_json())
        line = from_json(lines[index].encode())
        lines[index] = json.dumps(
            line | {"image": file.relative_to(folder).as_posix(), "status": own["status"], "error": None}, ensure_ascii=False
        )
    drawn = [cell for cell in data["cells"] if cell["status"] not in (OUTSIDE, "absent")]
    for cell in drawn:
        if cell["status"] == "missing":
            cell["error"] = UNFINISHED
    there = sum(cell["image"] is not None for cell in drawn)
    data["live"] = False
    text = DATA.sub(lambda match: match[1] + script_json(data) + match[3], text, count=1)
    summary = f"{len(drawn)} cells · {there} drawn · {len(drawn) - there} not drawn"
    text = re.sub(r'(<p class="summary">)[^<]*(</p>)', lambda match: match[1] + summary + match[2], text, count=1)
    text = text.replace(" 'self'\">\n", '">\n', 1)  # it loads no parts any more
    note = f'<p class="note">{escape(f"The run was ended before its end. {BESIDE}")}</p>'
    write_text(folder / "cells.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(report, text.replace("</header>", f"  {note}\n</header>", 1))
    end_live(report)
    return Mended(there=there, cells=len(drawn))


def _parts(folder: Path) -> Iterator[tuple[int, dict[str, Any], list[str | int] | None]]:
    """(index, what its drawing adds, address of its image) of the cells in live/."""
    number = 0
    while (part := read_part(folder, number)) is not None:
        yield from part.rows
        number += 1


@dataclass(frozen=True)
class Part:
    """One part of a live report: (index, what its drawing adds, address of its image) of its cells; `full`: another follows."""

    full: bool
    rows: Sequence[tuple[int, dict[str, Any], list[str | int] | None]]


def read_part(folder: Path, number: int) -> Part | None:
    """A part in live/, None where there is none. Raises BadFile for what is no part."""
    path = folder / FOLDER / f"{number}.js"
    try:
        found = PART.fullmatch(path.read_text(encoding="utf-8"))
        value = from_json((found[1] if found else "").encode())
        return Part(value["full"] is True, [(int(index), dict(change), address) for index, change, address in value["cells"]])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(path, "no-part", "is no part of a report. Delete it, and what it has is left out.") from error


def _unread(folder: Path, data: dict[str, Any]) -> Iterator[tuple[int, Path, dict[str, Any]]]:
    """(index, file, what its drawing adds) of images that were written after the last part."""
    waiting: dict[str, list[int]] = {}
    for index, cell in enumerate(data["cells"]):
        if cell["status"] == "missing":
            waiting.setdefault(cell["key"], []).append(index)
    for file in sorted((folder / "images").glob("*")) if waiting else ():
        with suppress(BadFile):  # an image made elsewhere
            carried = read_png(file)
            if places := waiting.get(carried.key):
                own = {"status": "rendered", "error": None, "parameters": carried.parameters}
                yield places.pop(0), file, own


def _put(report: Path, data: dict[str, Any], index: int, change: dict[str, Any], address: list[str | int] | None) -> None:
    """As the page's own script does it."""
    if not 0 <= index < len(data["cells"]):
        raise BadFile(report, "no-report", f"has no cell {index}.")
    if address is not None:
        data["images"] += [None] * (change["image"] + 1 - len(data["images"]))
        data["images"][change["image"]] = address
    data["cells"][index] |= change
