"""`loraloom report RUN`: one HTML file of what a training run did, or the same as JSON; of a grid, its report with the images inside."""

import argparse
from pathlib import Path
from typing import Any

from loraloom import console
from loraloom.output_files import html_path
from registry.errors import Refused
from registry.home import expanded
from registry.printable import one_line

HELP = "write the report of a training run: verdict, curves, images, spectrum, plan; or finish that of a killed grid"


def add_parser(subparsers: Any) -> None:
    """Add `report` to the command line."""
    about = f"{HELP.capitalize()}. One HTML file that opens from the disk. A run that is being trained, or was stopped, has one too."
    parser: argparse.ArgumentParser = subparsers.add_parser("report", help=HELP, description=about)
    parser.add_argument(
        "folder", metavar="RUN", help="a run folder, runs/<name>/<stamp>; latest is the newest one in runs/; a grid's folder"
    )
    parser.add_argument("--output", metavar="FILE.html", help="the file to write; default: report.html in the run folder")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout; a page is written only with --output")
    parser.add_argument("--single-file", action="store_true", help="of a grid: a copy of its report with the images inside it, to send")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page, or print the values; of a grid, make its page whole or put its images inside."""
    from train.run_report.page import document, write_page
    from train.run_report.report import make_report

    output = html_path(arguments.output, "--output", "report") if arguments.output is not None else None
    grid = expanded(arguments.folder)
    if arguments.single_file or (grid / "cells.jsonl").is_file():
        return _single_file(grid, output, asked=arguments.single_file and not arguments.json)
    if grid.is_dir() and not any((grid / name).is_file() for name in ("config.yaml", "inputs.json")):
        what = "the folder of no training run (config.yaml, inputs.json) and of no grid (cells.jsonl)"
        raise Refused(f"{one_line(grid)} is {what}. Give runs/<name>/<stamp>.")
    with console.progress() as report:
        found = make_report(_folder(arguments.folder), report=report)
    path = None if arguments.json and output is None else write_page(found, output)
    if arguments.json:
        console.answer_json(document(found, path))
        return 0
    if found.verdict is not None:
        console.say(found.verdict.sentence)
    for line in found.missing:
        console.say(f"missing: {line}")
    console.answer(str(path))
    return 0


def _single_file(folder: Path, output: Path | None, *, asked: bool) -> int:
    """Write the report of a grid again with its images inside; that of a killed grid is made whole before."""
    from infer.output.page.mended import is_live, mend
    from infer.output.page.single_file import NAME, write_single_file

    report = folder / "report.html"
    killed = (folder / "cells.jsonl").is_file() and report.is_file() and is_live(report)
    if killed:
        found = mend(folder)
        console.say(f"The grid was ended before its end: {found.there} of its {found.cells} cells are there.")
    if killed and not asked:
        console.answer(str(report))
        return 0
    if not asked and (folder / "cells.jsonl").is_file():
        raise Refused(
            f"{one_line(folder)} is the folder of a grid, and report.html in it is its report. --single-file puts its images inside."
        )
    if not (folder / "cells.jsonl").is_file() or not report.is_file():
        raise Refused(
            f"{one_line(folder)} is not the folder of a grid: it has no cells.jsonl with a report.html. --single-file is for grids;"
            " the report of a training run holds its images already."
        )
    path = folder / NAME if output is None else output
    for note in write_single_file(report, path):
        console.say(f"note: {note}")
    console.answer(str(path))
    return 0


def _folder(given: str) -> Path:
    """The run folder that is meant."""
    if given == "latest":
        from train.output.folder import find_folder

        return find_folder("latest", out="runs", name=None)
    return expanded(given)
