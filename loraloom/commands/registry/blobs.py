"""`registry keep` and `fetch`: copies in the blob store, and back."""

from __future__ import annotations

import argparse
from typing import Any

from loraloom import console
from loraloom.commands.registry.answers import answer
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store
from registry.printable import as_lines

PLACE = 25


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "keep", keep, "copy a model into the blob store: in the home, or LORALOOM_BLOBS")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser = add_command(words, "fetch", fetch, "restore a model whose file is gone, from the blob store or its source")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)


def keep(arguments: argparse.Namespace) -> int:
    """Copy a model into the blob store."""
    with console.progress() as report:
        addresses = open_store().keep(arguments.reference, report=report)
    if arguments.json:
        console.answer_json({"blobs": addresses})
    else:
        console.answer_lines(as_lines(addresses))
    return 0


def fetch(arguments: argparse.Namespace) -> int:
    """Restore a model."""
    with console.progress() as report:
        record = open_store().fetch(arguments.reference, report=report)
    return answer(record, arguments)
