"""`registry export-notes`, `import-notes` and `rebuild`: annotations as a file, and a rebuilt index."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from loraloom import console
from loraloom.commands.registry.subcommand import add_command, open_store
from registry.home import expanded
from registry.printable import as_lines, counted

PLACE = 90


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "export-notes", export_notes, "write all annotations (names, aliases, tags, notes, ...) as JSON")
    parser.add_argument("file", metavar="FILE", nargs="?", help="default: on stdout")
    parser = add_command(
        words, "import-notes", import_notes, "add the annotations of such a file; exit code 1 when a model is not registered"
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--replace", action="store_true", help="overwrite annotations that differ")
    parser = add_command(
        words, "rebuild", rebuild, "inspect every registered model again; a damaged index is restored from its last backup first"
    )
    parser.add_argument("--hash", action="store_true", help="hash all files again as well")


def export_notes(arguments: argparse.Namespace) -> int:
    """Write annotations."""
    from registry.formats.atomic_file import write_json

    document = open_store().export_notes()
    if arguments.file is None:
        console.answer_json(document)
        return 0
    path = expanded(arguments.file).absolute()
    write_json(path, document)
    if arguments.json:
        console.answer_json({"file": str(path), "records": len(document["records"])})
    else:
        console.answer(f"{path}: annotations of {counted(len(document['records']), 'model')}.")
    return 0


def import_notes(arguments: argparse.Namespace) -> int:
    """Read annotations."""
    with console.progress() as report:
        done = open_store().import_notes(arguments.file, replace=arguments.replace, report=report)
    if arguments.json:
        console.answer_json(asdict(done))
    else:
        console.answer(f"{done.applied} applied, {done.unchanged} there already, {len(done.unmatched)} not registered")
        lines = [f"not registered: {name}" for name in done.unmatched] + done.conflicts
        console.answer_lines(as_lines(lines)) if lines else None
        if done.conflicts:
            console.say("note: annotations that differ were kept; --replace overwrites them.")
    if done.unmatched:
        console.say("note: scan or add the models that are not registered, then import the file again.")
    return 1 if done.unmatched else 0


def rebuild(arguments: argparse.Namespace) -> int:
    """Rebuild the index."""
    with console.progress() as report:
        done = open_store().rebuild(hash=arguments.hash, report=report)
    if arguments.json:
        console.answer_json(done.to_json())
        return 0
    if done.recovered:
        console.answer(done.recovered)
    console.answer(f"{done.rebuilt} rebuilt, {done.missing} missing, {len(done.problems)} that cannot be read")
    if done.problems:
        console.answer_table(["code", "path", "why"], [[one.code, one.path, one.message] for one in done.problems])
    return 0
