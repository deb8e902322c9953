"""A report whose images lie beside it, as one file that holds them: for sending."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from infer.output.page.explained import with_images_inside
from infer.output.page.images import embedded
from registry.errors import BadFile, Refused
from registry.formats.atomic_file import write_text
from registry.plain_values import from_json
from registry.printable import one_line, script_json

NAME = "report-single-file.html"
DATA = re.compile(r'(<script id="data" type="application/json">)(.*?)(</script>)', re.DOTALL)
BESIDE = (
    "The images of this page lie beside it, in images/ and thumbs/. To send it, send the whole folder, or make a page that holds them:"
    " loraloom report FOLDER --single-file."
)


def write_single_file(report: Path, output: Path) -> list[str]:
    """Write a copy of a report with its images inside; gives notes on images that had to be embedded smaller.

    Raises Refused where it holds them already or its grid is being drawn, BadFile where it is no report or an image is missing.
    """
    text = report.read_text(encoding="utf-8")
    data = page_data_of(report, text)
    if data["live"]:
        raise Refused(
            f"{one_line(report)}: its grid is being drawn, or was killed. Wait for its end, or finish it: loraloom report FOLDER."
        )
    if data["kind"]:
        raise Refused(f"{one_line(report)} holds its images already: it can be sent as it is.")
    files = [_file(report, address) for address, *_ in data["images"]]
    images, kind, notes = embedded(dict.fromkeys(files))
    explained, left_out = with_images_inside(data.get("explained", {}), report.parent)
    notes += left_out
    data |= {"images": [images[file].to_json() for file in files], "kind": kind, "explained": explained}
    text = DATA.sub(lambda match: match[1] + script_json(data) + match[3], text, count=1)
    beside = f'<p class="note">{escape(BESIDE)}</p>'
    write_text(output, text.replace(beside, "".join(f'<p class="note">{escape(note)}</p>' for note in notes), 1))
    return notes


def page_data_of(report: Path, text: str) -> dict[str, Any]:
    """The data of a report's HTML. Raises BadFile where it is no report."""
    found = DATA.search(text)
    try:
        data = from_json((found[2] if found else "").encode())
        rows = data["images"]
        good = data["grid"] == "1" and type(data["live"]) is bool and data["kind"] in ("", "png", "webp")
        if not good or not isinstance(rows, Sequence) or not all(isinstance(row, list) and isinstance(row[0], str) for row in rows):
            raise ValueError("its data has another form")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadFile(
            report, "no-report", "is no report of a grid of this version. Start the grid again: nothing is drawn twice."
        ) from error
    return dict(data)


def _file(report: Path, address: str) -> Path:
    """The file of an address of the page, which lies in its folder."""
    folder = report.parent.resolve()
    path = (folder / unquote(address)).resolve()
    if not path.is_relative_to(folder):
        raise BadFile(report, "outside", f"has an image outside of its folder: {one_line(address)}")
    if not path.is_file():
        raise BadFile(path, "missing", "is missing, and the report shows it.")
    return path
