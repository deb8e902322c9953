"""`loraloom report RUN`: one HTML file of what a training run did, or the same as JSON."""

import argparse
from pathlib import Path
from typing import Any

from loraloom import console
from loraloom.output_files import html_path
from registry.home import expanded

HELP = "write the report of a training run: verdict, curves, images by step, spectrum, plan"


def add_parser(subparsers: Any) -> None:
    """Add `report` to the command line."""
    about = f"{HELP.capitalize()}. One HTML file that opens from the disk. A run that is being trained, or was stopped, has one too."
    parser: argparse.ArgumentParser = subparsers.add_parser("report", help=HELP, description=about)
    parser.add_argument("folder", metavar="RUN", help="a run folder, runs/<name>/<stamp>; latest is the newest one in runs/")
    parser.add_argument("--output", metavar="FILE.html", help="the file to write; default: report.html in the run folder")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout; a page is written only with --output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page, or print the values."""
    from train.run_report.page import document, write_page
    from train.run_report.report import make_report

    output = html_path(arguments.output, "--output", "report") if arguments.output is not None else None
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


def _folder(given: str) -> Path:
    """The run folder that is meant."""
    if given == "latest":
        from train.output.folder import find_folder

        return find_folder("latest", out="runs", name=None)
    return expanded(given)
