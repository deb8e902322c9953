"""`registry list`, `show`, `find` and `duplicates`: what is registered."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from loraloom import console
from loraloom.commands.registry.answers import answer, answer_all
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store
from registry.errors import LoomError, NotFound
from registry.formats.model_folder import CODE, shard_faults
from registry.record import KINDS, Warn

PLACE = 30


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "list", listing, "everything that is registered")
    parser.add_argument("--kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--family", help="sd1, sdxl, flux1, ...")
    parser.add_argument("--tag", help="only what has this tag")
    parser = add_command(words, "show", show, "all that is known of one model; hashes it when it has no hash yet")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser = add_command(words, "find", find, "models by words in name, tags, notes, triggers, family, path, hashes, metadata")
    parser.add_argument("words", nargs="+", metavar="WORD", help="all must be there; or one reference")
    add_command(words, "duplicates", duplicates, "files and weights that are there more than once, of all that is hashed (scan --hash)")


def listing(arguments: argparse.Namespace) -> int:
    """List what is registered."""
    return answer_all(open_store().records(kind=arguments.kind, family=arguments.family, tag=arguments.tag), arguments)


def find(arguments: argparse.Namespace) -> int:
    """List what holds the words, or what the one reference names."""
    store = open_store()
    found = store.search(arguments.words)
    if not found and len(arguments.words) == 1:
        try:
            found = store.expand(arguments.words[0])
        except NotFound as error:  # a listing of nothing is an answer
            console.say(f"note: {error}")
    return answer_all(found, arguments)


def show(arguments: argparse.Namespace) -> int:
    """Show one Record."""
    store = open_store()
    record = store.find(arguments.reference)
    with console.progress() as report:
        try:
            record = store.hashed(record, report=report)
        except LoomError as error:
            console.say(f"note: it could not be hashed: {error}")
    if record.path is not None and Path(record.path).is_dir():
        known = {warning.code for warning in record.warnings}
        faults = shard_faults(Path(record.path)) if CODE not in known and record.kind not in ("dataset", "run") else []
        record = replace(record, warnings=(*record.warnings, *(Warn(code=CODE, message=f"{fault}") for fault in faults)))
    return answer(record, arguments)


def duplicates(arguments: argparse.Namespace) -> int:
    """List what is there more than once."""
    found = open_store().duplicates()
    if arguments.json:
        console.answer_json([one.to_json() for one in found])
        return 0
    rows = [
        [f"same {one.same}", record.name, record.dialect, path]
        for one in found
        for record in one.records
        for path in (record.path, *record.metadata.get("copies", ()))
    ]
    console.answer_table(["", "name", "dialect", "path"], rows)
    return 0
