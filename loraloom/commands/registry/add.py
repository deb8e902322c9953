"""`registry add`: register one thing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.commands.registry.answers import answer
from loraloom.commands.registry.subcommand import add_command, open_store
from registry.errors import NotFound, Refused
from registry.home import expanded
from registry.record import KINDS

if TYPE_CHECKING:
    from registry.record import Record
    from registry.store import Store

PLACE = 20
PARENT_ROLES = ("base", "dataset", "run", "adapter", "source")


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "add", add, "register a model file, a diffusers folder or, with --kind dataset, an image-caption set")
    parser.add_argument("path", metavar="SOURCE", help="a path, hf:owner/repo[@revision][/file], or an https address with --sha256")
    parser.add_argument("--sha256", help="the hash its file must have; needed for an address on the web")
    parser.add_argument("--name", help="registered name; default: the file's name")
    parser.add_argument("--replace", action="store_true", help="take the name from the record that has it, which becomes NAME@<its date>")
    parser.add_argument("--kind", choices=KINDS, metavar="KIND", help=f"override the detected kind: {', '.join(KINDS)}")
    parser.add_argument("--family", help="override the detected family: sd1, sdxl, flux1, ...")
    parser.add_argument(
        "--parent", action="append", default=[], metavar="ROLE=REF", help=f"a model it was made from; ROLE: {', '.join(PARENT_ROLES)}"
    )
    parser.add_argument("--licence", help="its licence")
    parser.add_argument("--tag", action="append", default=[], help="a tag; may be given again")
    parser.add_argument("--trigger", action="append", default=[], help="a trigger word; may be given again")
    parser.add_argument("--note", help="a note")


def add(arguments: argparse.Namespace) -> int:
    """Register one thing."""
    from registry.references import absolute, file_name

    store = open_store()
    with console.progress() as report:
        if arguments.name and not arguments.replace:
            _refuse_taken(store, arguments.path, arguments.name, arguments.kind)
        record = store.add(
            arguments.path,
            name=arguments.name,
            kind=arguments.kind,
            family=arguments.family,
            parents=[_parent(store, text) for text in arguments.parent],
            licence=arguments.licence,
            tags=arguments.tag,
            triggers=arguments.trigger,
            notes=arguments.note,
            sha256=arguments.sha256,
            report=report,
        )
    path = absolute(arguments.path)
    others = [one for one in record.metadata.get("copies", ()) if os.path.exists(one) and os.path.realpath(one) != os.path.realpath(path)]
    if others and not arguments.name and file_name(path) != record.name:
        console.say(f"note: {arguments.path} is a copy of {others[0]}: both are {record.name}. --name gives them another name.")
    return answer(record, arguments)


def _refuse_taken(store: Store, path: str, name: str, kind: str | None) -> None:
    """Raise Refused for a name that other content has."""
    from registry.sources.source import is_source, same_source

    try:
        holder = store.find(name)
    except NotFound:
        return
    if holder.name != name or (holder.kind in ("dataset", "run")) != (kind in ("dataset", "run")):
        return
    if is_source(path):
        if holder.metadata.get("source") == same_source(path):
            return
        raise Refused(f"{name!r} is the name of {holder.path}. Give another --name, or --replace to let that one become {name}@<its date>.")
    mine = str(expanded(path).absolute())
    if holder.path != mine and holder.hashes.sha256 != store.find(mine).hashes.sha256 and _differs(store, holder, mine):
        raise Refused(f"{name!r} is the name of {holder.path}. Give another --name, or --replace to let that one become {name}@<its date>.")


def _differs(store: Store, holder: Record, path: str) -> bool:
    if holder.kind in ("dataset", "run"):
        return True
    return store.sha256(holder) != store.sha256(store.find(path))


def _parent(store: Store, text: str) -> Mapping[str, Any]:
    """ROLE=REF as a parent; an unknown reference is kept without a hash."""
    role, equals, reference = text.partition("=")
    if not equals or role not in PARENT_ROLES or not reference:
        raise Refused(f"--parent {text!r} is not ROLE=REF. ROLE is one of {', '.join(PARENT_ROLES)}.")
    try:
        record = store.find(reference)
    except NotFound as error:
        console.say(f"note: {error} It is kept as a parent that is not registered.")
        return {"role": role, "ref": reference, "sha256": None}
    sha256 = record.hashes.sha256 if record.kind in ("dataset", "run") else store.sha256(record)
    return {"role": role, "ref": record.name, "sha256": sha256}
