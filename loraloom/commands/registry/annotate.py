"""`registry tag`, `note`, `alias` and `set`: annotations of a model."""

from __future__ import annotations

import argparse
from typing import Any

from loraloom import console
from loraloom.commands.registry.answers import answer, answer_all
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store
from registry.errors import Refused
from registry.record import KINDS, OVERRIDABLE, PREDICTIONS

PLACE = 70


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "tag", tag, "add or remove tags")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("tags", nargs="*", metavar="TAG")
    parser.add_argument("--remove", action="append", default=[], metavar="TAG")
    parser.add_argument("--also", nargs="+", action="extend", default=[], metavar="REF", help="more models, tagged alike")
    parser = add_command(words, "note", note, "set the note, in place of the one before")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("text", metavar="TEXT")
    parser = add_command(words, "alias", alias, "let NAME@ALIAS mean this model, and no other of its name")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("--remove", action="store_true", help="take the alias away")
    parser = add_command(words, "set", set_fields, "override what detection found, or could not find", hidden_alias="tell")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("--kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--family", help="sd1, sdxl, flux1, ...")
    parser.add_argument("--variant", help="which build or edition of its family it is")
    parser.add_argument("--prediction", choices=PREDICTIONS, metavar="TYPE", help=", ".join(PREDICTIONS))
    parser.add_argument("--licence", help="its licence")
    parser.add_argument("--image", metavar="FILE", help="the image that is shown for it")
    parser.add_argument("--trigger", action="append", default=[], help="a trigger word; may be given again")
    forgettable = f"remove an override: {', '.join(OVERRIDABLE)}"
    parser.add_argument("--forget", action="append", default=[], choices=OVERRIDABLE, metavar="FIELD", help=forgettable)


def tag(arguments: argparse.Namespace) -> int:
    """Add and remove tags."""
    with console.progress() as report:
        changed = open_store().tag_all([arguments.reference, *arguments.also], arguments.tags, remove=arguments.remove, report=report)
    return answer_all(changed, arguments) if arguments.also else answer(changed[0], arguments)


def note(arguments: argparse.Namespace) -> int:
    """Set the note."""
    with console.progress() as report:
        record = open_store().note(arguments.reference, arguments.text, report=report)
    return answer(record, arguments)


def alias(arguments: argparse.Namespace) -> int:
    """Set an alias."""
    with console.progress() as report:
        record = open_store().alias(arguments.reference, arguments.alias, remove=arguments.remove, report=report)
    return answer(record, arguments)


def set_fields(arguments: argparse.Namespace) -> int:
    """Override detected fields."""
    fields = {name: getattr(arguments, name) for name in ("kind", "family", "variant", "prediction", "licence", "image")}
    if not any(fields.values()) and not arguments.trigger and not arguments.forget:
        ways = "--kind --family --variant --prediction --licence --image --trigger"
        raise Refused(f"There is nothing to set. Give one of {ways}, or --forget FIELD.")
    with console.progress() as report:
        record = open_store().override(arguments.reference, **fields, triggers=arguments.trigger, forget=arguments.forget, report=report)
    return answer(record, arguments)
