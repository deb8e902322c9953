"""`registry scan`: look through a folder for models."""

from __future__ import annotations

import argparse
from typing import Any

from loraloom import console
from loraloom.commands.registry.answers import show_table
from loraloom.commands.registry.subcommand import add_command, open_store
from registry.printable import as_lines

PLACE = 10


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "scan", scan, "look through a folder for models; reads headers only, changes nothing")
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--hash", action="store_true", help="hash everything found as well")


def scan(arguments: argparse.Namespace) -> int:
    """Scan a folder."""
    with console.progress() as report:
        found = open_store().scan(arguments.folder, hash=arguments.hash, report=report)
    if arguments.json:
        console.answer_json(found.to_json())
        return 0
    counts = ("added", "updated", "relinked", "unchanged", "missing")
    console.answer(", ".join(f"{getattr(found, name)} {name}" for name in counts))
    records = found.records()
    show_table(records)
    twins = {f"{one.name}: {warning.message}" for one in records for warning in one.warnings if warning.code == "duplicate"}
    if twins:
        console.answer_lines("\n" + as_lines(sorted(twins)))
    if found.problems:
        console.answer_lines(f"\nnot registered ({len(found.problems)}):")
        console.answer_table(["code", "path", "why"], [[one.code, one.path, one.message] for one in found.problems])
    return 0
