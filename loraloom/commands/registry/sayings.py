"""`registry tag`, `note` and `alias`: what a person says of a model."""

from __future__ import annotations

import argparse
from typing import Any

from loraloom import console
from loraloom.commands.registry.answers import answer
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store

PLACE = 70


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "tag", tag, "add or remove tags")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("tags", nargs="*", metavar="TAG")
    parser.add_argument("--remove", action="append", default=[], metavar="TAG")
    parser = add_command(words, "note", note, "keep a note; it takes the place of the one before")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("text", metavar="TEXT")
    parser = add_command(words, "alias", alias, "let NAME@ALIAS mean this model, and no other of its name")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("alias", metavar="ALIAS")


def tag(arguments: argparse.Namespace) -> int:
    """Add and remove tags."""
    with console.progress() as report:
        record = open_store().tag(arguments.reference, arguments.tags, remove=arguments.remove, report=report)
    return answer(record, arguments)


def note(arguments: argparse.Namespace) -> int:
    """Keep a note."""
    with console.progress() as report:
        record = open_store().note(arguments.reference, arguments.text, report=report)
    return answer(record, arguments)


def alias(arguments: argparse.Namespace) -> int:
    """Set an alias."""
    with console.progress() as report:
        record = open_store().alias(arguments.reference, arguments.alias, report=report)
    return answer(record, arguments)
