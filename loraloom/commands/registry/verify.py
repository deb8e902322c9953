"""`registry verify`: whether files are still what they were."""

from __future__ import annotations

import argparse
from typing import Any

from loraloom import console
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store
from registry.printable import as_lines

PLACE = 60


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "verify", verify, "read files again and compare them with their hashes; exit code 1 when one differs")
    parser.add_argument("references", nargs="*", metavar="REF", help=f"{REFERENCE}; default: everything")


def verify(arguments: argparse.Namespace) -> int:
    """Read files again and compare."""
    store = open_store()
    wanted = [store.find(reference, fresh=False) for reference in arguments.references] or store.records()
    with console.progress() as report:
        checks = [store.verify(record, report=report) for record in wanted]
    if arguments.json:
        console.answer_json([check.to_json() for check in checks])
    else:
        console.answer_table(["name", "status", ""], [[check.name, check.status, check.message] for check in checks])
        for check in checks:
            if len(check.files) > 1 or (check.files and check.files[0] != check.path):
                console.answer_lines(as_lines(f"{check.status}: {file}" for file in check.files))
    return 0 if all(check.good for check in checks) else 1
