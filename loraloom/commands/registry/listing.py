"""`registry list`, `show`, `find` and `duplicates`: what is registered."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.commands.registry.answers import answer, answer_all, show_table
from loraloom.commands.registry.image_models import answer_models, image_named
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store
from registry.errors import LoomError, NotFound, Refused
from registry.formats.model_folder import CODE, shard_faults
from registry.index.catalogue.selection import NONE, SORTS, Selection
from registry.record import KINDS, Record, Warn

if TYPE_CHECKING:
    from registry.index.catalogue.browse import Browsed
    from registry.index.listing import Listing
    from registry.store import Store

MOST = 1000  # rows of a table that was not asked for a number
PLACE = 30


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "list", listing, "everything that is registered")
    parser.add_argument("--kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--family", help=f"sd1, sdxl, flux1, ..., or {NONE}")
    parser.add_argument("--tag", action="append", default=[], help="only what has this tag; may be given again: all of them")
    parser.add_argument("--rank", help=f"only adapters of this rank, or {NONE}")
    parser.add_argument("--licence", help=f"only what has this licence, or {NONE}")
    parser.add_argument("--warning", metavar="CODE", help="only what has this warning: pickle, duplicate, zero-delta, ...")
    parser.add_argument("--missing", action="store_true", help="only models whose file is gone")
    parser.add_argument(
        "--find", action="append", default=[], metavar="WORD", help="only what `registry find WORD` finds; may be given again"
    )
    orders = "; ".join(f"{name}: {about}" for name, (about, _, _) in SORTS.items())
    parser.add_argument("--sort", choices=SORTS, metavar="ORDER", help=orders)
    parser.add_argument("--limit", type=int, metavar="N", help=f"at most N of them, the oldest first (default: {MOST:,}; all with --json)")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="leave out the first N")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser = add_command(words, "show", show, "all that is known of one model; hashes it when it has no hash yet")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    about = "models by words in name, tags, notes, triggers, family, path, hashes, metadata; or the models of an image"
    parser = add_command(words, "find", find, about)
    parser.add_argument("words", nargs="+", metavar="WORD", help="all must be there; or one reference; or an image, IMAGE.png")
    add_command(words, "duplicates", duplicates, "files and weights that are there more than once, of all that is hashed (scan --hash)")


def listing(arguments: argparse.Namespace) -> int:
    """List what is registered, a part at a time: an index may hold a hundred thousand records."""
    limit, first = arguments.limit, arguments.offset
    if arguments.all and limit is not None:
        raise Refused(f"--all and --limit {limit} are both given. --all lists everything, --limit N at most N: give one of them.")
    if limit is not None and limit < 1:
        raise Refused(f"--limit {limit}: expected 1 or more, the most that are listed. --all lists everything.")
    if first < 0:
        raise Refused(f"--offset {first}: expected 0 or more, how many are left out before the first that is listed.")
    with _selected(arguments) as found:
        count = limit if limit is not None else len(found) if arguments.all or arguments.json else MOST
        if arguments.json:
            console.answer_json_rows(record.to_json() for record in found.part(first, count))
        else:
            show_table(found.part(first, count))
        last = min(first + count, len(found))
    if not arguments.json and first and first >= last:
        console.say(f"note: there are {last:,} of them, and --offset {first} leaves all of them out.")
    elif not arguments.json and (first, last) != (0, len(found)):
        more = f" --offset {last} goes on, --all lists everything." if last < len(found) else ""
        order = SORTS[arguments.sort][0] if arguments.sort else "the best match first" if arguments.find else "the oldest first"
        console.say(f"note: {first + 1:,} to {last:,} of {len(found):,}, {order}.{more}")
    return 0


def _selected(arguments: argparse.Namespace) -> AbstractContextManager[Listing | Browsed]:
    """What is listed: the index in its own order is read a part at a time, anything else takes a line of every record."""
    store = open_store()
    more = (arguments.rank, arguments.licence, arguments.warning, arguments.missing, arguments.find, arguments.sort)
    if not any(more) and len(arguments.tag) < 2 and arguments.family != NONE:
        return store.listing(kind=arguments.kind, family=arguments.family, tag=arguments.tag[0] if arguments.tag else None)
    selection = Selection(
        words=tuple(arguments.find),
        kind=arguments.kind,
        family=arguments.family,
        rank=arguments.rank,
        tags=tuple(arguments.tag),
        licence=arguments.licence,
        warning=arguments.warning,
        missing=arguments.missing,
    )
    return store.browse(selection, sort=arguments.sort)


def find(arguments: argparse.Namespace) -> int:
    """List what holds the words, what the one reference names, or the models that an image was made with."""
    from registry.index.by_hash import is_digits

    store = open_store()
    if len(arguments.words) == 1 and (image := image_named(arguments.words[0])) is not None:
        return answer_models(image, store, arguments)
    if _answer_searched(store, arguments):
        return 0
    found: list[Record] = []
    if len(arguments.words) == 1 and is_digits(arguments.words[0]):
        with console.progress() as report:
            found = store.search(arguments.words) if store.hash_rest(report=report) else []
    if not found and len(arguments.words) == 1:
        try:
            found = store.expand(arguments.words[0])
        except NotFound as error:  # a listing of nothing is an answer
            console.say(f"note: {error}")
    return answer_all(found, arguments)


def _answer_searched(store: Store, arguments: argparse.Namespace) -> bool:
    """Show what holds the words, a part at a time; False where nothing does."""
    with store.searched(arguments.words) as found:
        if not len(found):
            return False
        if arguments.json:
            console.answer_json_parts(record.to_json() for record in found)
        else:
            show_table(found)
        return True


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
