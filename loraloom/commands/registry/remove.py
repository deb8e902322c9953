"""`registry rm`: forget a model."""

from __future__ import annotations

import argparse
from typing import Any

from loraloom import console
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store

PLACE = 80


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "rm", remove, "forget a model and what was said of it; its files stay")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)


def remove(arguments: argparse.Namespace) -> int:
    """Forget a Record."""
    record = open_store().remove(arguments.reference)
    if arguments.json:
        console.answer_json(record.to_json())
    else:
        console.answer(f"{record.name} is forgotten; {record.path} stays where it is.")
    return 0
