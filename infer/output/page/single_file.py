"""A report whose images lie beside it, as one file that holds them: for sending."""

from __future__ import annotations

from html import escape
from pathlib import Path
from urllib.parse import unquote

from infer.output.page.explained import with_images_inside
from infer.output.page.images import embedded
from infer.output.page.read import DATA, read_page
from registry.errors import BadFile, Refused
from registry.formats.atomic_file import write_text
from registry.printable import one_line, script_json

NAME = "report-single-file.html"
BESIDE = (
    "The images of this page lie beside it, in images/ and thumbs/. To send it, send the whole folder, or make a page that holds them:"
    " loraloom report FOLDER --single-file."
)


def write_single_file(report: Path, output: Path) -> list[str]:
    """Write a copy of a report with its images inside; gives notes on images that had to be embedded smaller.

    Raises Refused where it holds them already or its grid is being drawn, BadFile where it is no report or an image is missing.
    """
    text, data = read_page(report)
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


def _file(report: Path, address: str) -> Path:
    """The file of an address of the page, which lies in its folder."""
    folder = report.parent.resolve()
    path = (folder / unquote(address)).resolve()
    if not path.is_relative_to(folder):
        raise BadFile(report, "outside", f"has an image outside of its folder: {one_line(address)}")
    if not path.is_file():
        raise BadFile(path, "missing", "is missing, and the report shows it.")
    return path
