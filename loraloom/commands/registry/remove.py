"""`registry rm` and `gc`: remove models, and delete unreferenced files."""

from __future__ import annotations

import argparse
from typing import Any

from loraloom import console
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store

PLACE = 80


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "rm", remove, "remove a model and its annotations from the index; its files stay")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("--delete-files", action="store_true", help="also delete files that LoRA Loom wrote or downloaded itself")
    parser = add_command(words, "gc", collect, "list unreferenced files: orphaned blobs, leftovers of downloads and killed processes")
    parser.add_argument("--apply", action="store_true", help="delete them; without this they are only listed")
    parser.add_argument("--missing", action="store_true", help="also remove models whose files are gone, with their annotations")
    parser.add_argument("--caches", action="store_true", help="also the caches of images, latents and embeddings; they are made again")
    parser.add_argument("--elsewhere", action="store_true", help="also blobs of LORALOOM_BLOBS that this index does not know")


def remove(arguments: argparse.Namespace) -> int:
    """Forget a Record."""
    done = open_store().remove(arguments.reference, delete_files=arguments.delete_files)
    if done.derived:
        console.say(f"note: made from {done.record.name}, a parent that is not registered now: {', '.join(done.derived)}.")
    if arguments.json:
        console.answer_json({**done.record.to_json(), "derived": list(done.derived), "deleted": list(done.deleted)})
    elif done.deleted:
        console.answer(f"{done.record.name} is forgotten; deleted: {', '.join(done.deleted)}")
    else:
        console.answer(f"{done.record.name} is forgotten; {done.record.path} stays where it is.")
    return 0


def collect(arguments: argparse.Namespace) -> int:
    """List or delete unreferenced files."""
    found = open_store().garbage(apply=arguments.apply, missing=arguments.missing, caches=arguments.caches, elsewhere=arguments.elsewhere)
    if arguments.json:
        console.answer_json(found.to_json())
        return 0
    console.answer_table(["why", "size", "what"], [[item.why, console.spell_bytes(item.bytes), item.path] for item in found.items])
    for note in found.left:
        console.say(f"note: {note}")
    size = console.spell_bytes(found.bytes)
    console.answer(
        f"{size} freed." if found.applied else f"{size} would be freed by --apply." if found.items else "There is nothing to free."
    )
    return 0
