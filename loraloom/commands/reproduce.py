"""`loraloom reproduce IMAGE.png`: draw an image again from its own metadata, and compare the pixels."""

import argparse
from pathlib import Path
from typing import Any

HELP = "draw an image again from its own metadata, and compare the pixels"


def add_parser(subparsers: Any) -> None:
    """Add `reproduce` to the command line."""
    about = f"{HELP.capitalize()}. Exit code 1 when they differ (by more than the tolerance, of a cell that shared forwards)."
    parser: argparse.ArgumentParser = subparsers.add_parser("reproduce", help=HELP, description=about)
    parser.add_argument("image", type=Path, metavar="IMAGE.png", help="an image that loraloom drew")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw and compare; exit code 1 when the pixels differ, beyond the tolerance where forwards were shared."""
    from infer.output.reproduce import reproduce
    from loraloom import console
    from registry.home import expanded
    from registry.store import Store

    with console.progress() as report:
        made = reproduce(expanded(arguments.image).absolute(), Store(), report=report)
    if arguments.json:
        console.answer_json(made.to_json())
    else:
        console.answer_lines(made.to_text())
    return 0 if made.reproduced else 1
