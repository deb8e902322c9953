"""What was explained of cells, put into the page of their grid: the open cell shows it in a tab."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infer.output.page.images import LARGEST, data_uri, small_copy
from infer.output.page.read import DATA, no_report, read_page
from registry.errors import BadFile, Refused
from registry.formats.atomic_file import write_text
from registry.printable import one_line, script_json

FOLDER = "explain"  # beside the report: a folder for each cell that is explained
IMAGE = re.compile(r'src="(explain/[0-9a-f]{16}/images/[a-z0-9-]+\.png)"')  # what people wrote has no quote of its own in there


def check_report(report: Path) -> None:
    """Refuse a report that takes in no explanations. Raises BadFile for what is none of this version, Refused while it is drawn."""
    _read(report)


def add_panels(report: Path, panels: Mapping[str, str]) -> list[str]:
    """Show HTML by the key of its cell, in place of what was there; gives notes on what a page that holds its images left out.

    The HTML is that of a template of ours, in which everything a person wrote is escaped, and its images lie in explain/ beside the page.
    """
    text, data = _read(report)
    known = data["explained"]
    notes: list[str] = []
    if data["kind"]:
        panels, notes = with_images_inside(panels, report.parent, room=sum(map(len, known.values())))
    data["explained"] = known | dict(panels)
    write_text(report, DATA.sub(lambda match: match[1] + script_json(data) + match[3], text, count=1))
    return notes


def with_images_inside(panels: Mapping[str, str], folder: Path, *, room: int = 0) -> tuple[dict[str, str], list[str]]:
    """The HTML with small copies of its images in it, as long as a page takes them (`room` bytes are taken), and a note on the others."""
    held: dict[str, str] = {}
    for key, html in panels.items():
        whole = IMAGE.sub(lambda match: f'src="{_inside(folder, match[1])}"', html)
        room += len(whole)
        if room > LARGEST:
            rest = len(panels) - len(held)
            return held, [f"The page has no room for all explanations: {rest} of {len(panels)} are in the folder {FOLDER}/ alone."]
        held[key] = whole
    return held, []


def _inside(folder: Path, address: str) -> str:
    path = folder / address
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise BadFile(path, "missing", "is missing, and the report shows it. Delete the folder that it was in, and explain the cell again.")
    return data_uri(*small_copy(path.read_bytes()))


def _read(report: Path) -> tuple[str, dict[str, Any]]:
    """The text of a report, and its data."""
    text, data = read_page(report)
    if "explained" not in data:  # a page of before has no tab for them
        raise no_report(report)
    if data["live"]:
        raise Refused(
            f"{one_line(report)}: its grid is being drawn, or was killed. Wait for its end, or finish it: loraloom report FOLDER."
        )
    return text, data
