"""`registry lineage`: what a model was made from."""

from __future__ import annotations

import argparse
from typing import Any

from loraloom import console
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store

PLACE = 50


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "lineage", lineage, "what a model was made from, to the roots, and what was made from it")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("--dot", action="store_true", help="the graph in Graphviz's language")


def lineage(arguments: argparse.Namespace) -> int:
    """Trace one Record to its roots."""
    found = open_store().lineage(arguments.reference)
    if arguments.json:
        console.answer_json(found.to_json())
    else:
        console.answer_lines(found.to_dot() if arguments.dot else found.to_text())
    return 0
