"""`loraloom registry ...`: scan, add, list, show and trace the models on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import LoomError, NotFound, Refused
from registry.record import KINDS

if TYPE_CHECKING:
    from registry.record import Record
    from registry.store import Store

HELP = "what models there are, what they are, and what they were made from"
REFERENCE = "name, name@alias, name@step-300, sha256:<prefix>, or a path"
PARENT_ROLES = ("base", "dataset", "run", "adapter", "source")
DIGITS = 12  # of a hash, where people read it


def add_parser(subparsers: Any) -> None:
    """Add `registry` and what it can do to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("registry", help=HELP, description=HELP)
    words = parser.add_subparsers(metavar="WHAT", required=True)
    _add_scan(words)
    _add_add(words)
    _add_list(words)
    _add_questions(words)
    _add_sayings(words)


def _command(words: Any, name: str, run: Any, about: str) -> Any:
    parser = words.add_parser(name, help=about, description=about)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)
    return parser


def _add_scan(words: Any) -> None:
    parser = _command(words, "scan", scan, "look through a folder for models; reads headers only, changes nothing")
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--hash", action="store_true", help="hash everything found as well")


def _add_add(words: Any) -> None:
    parser = _command(words, "add", add, "register a model file, a diffusers folder or an image-caption set")
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("--name", help="what to call it; default: the file's name")
    parser.add_argument("--replace", action="store_true", help="take the name from what has it; that stays NAME@<its date>")
    parser.add_argument("--kind", choices=KINDS, metavar="KIND", help=f"say what it is, where that cannot be seen: {', '.join(KINDS)}")
    parser.add_argument("--family", help="say its family, where that cannot be seen: sd1, sdxl, flux1, ...")
    parser.add_argument(
        "--parent", action="append", default=[], metavar="ROLE=REF", help=f"what it was made from; ROLE: {', '.join(PARENT_ROLES)}"
    )
    parser.add_argument("--licence", help="its licence")
    parser.add_argument("--tag", action="append", default=[], help="a tag; may be given again")
    parser.add_argument("--trigger", action="append", default=[], help="a word that calls it; may be given again")
    parser.add_argument("--note", help="a note")


def _add_list(words: Any) -> None:
    parser = _command(words, "list", listing, "everything that is registered")
    parser.add_argument("--kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--family", help="sd1, sdxl, flux1, ...")
    parser.add_argument("--tag", help="only what has this tag")


def _add_questions(words: Any) -> None:
    parser = _command(words, "show", show, "all that is known of one model; hashes it when it has no hash yet")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser = _command(words, "find", find, "models by words in name, tags, notes, triggers, family, path")
    parser.add_argument("words", nargs="+", metavar="WORD", help="all must be there; or one reference")
    parser = _command(words, "fits", fit, "whether an adapter fits a base, by modules and shapes; exit code 2 when it does not")
    parser.add_argument("adapter", metavar="ADAPTER", help=REFERENCE)
    parser.add_argument("base", metavar="BASE", help=REFERENCE)
    parser.add_argument("--threshold", type=float, default=100.0, metavar="PERCENT", help="modules that must fit; default 100")
    parser = _command(words, "lineage", lineage, "what a model was made from, to the roots, and what was made from it")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("--dot", action="store_true", help="the graph in Graphviz's language")
    parser = _command(words, "verify", verify, "read files again and compare them with their hashes; exit code 1 when one differs")
    parser.add_argument("references", nargs="*", metavar="REF", help=f"{REFERENCE}; default: everything")


def _add_sayings(words: Any) -> None:
    parser = _command(words, "tag", tag, "add or remove tags")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("tags", nargs="*", metavar="TAG")
    parser.add_argument("--remove", action="append", default=[], metavar="TAG")
    parser = _command(words, "note", note, "keep a note; it takes the place of the one before")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("text", metavar="TEXT")
    parser = _command(words, "alias", alias, "let NAME@ALIAS mean this model, and no other of its name")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    parser.add_argument("alias", metavar="ALIAS")
    parser = _command(words, "rm", remove, "forget a model and what was said of it; its files stay")
    parser.add_argument("reference", metavar="REF", help=REFERENCE)


def _store() -> Store:
    from registry.store import Store

    return Store()


# --- putting in


def scan(arguments: argparse.Namespace) -> int:
    """Scan a folder."""
    with console.progress() as report:
        found = _store().scan(arguments.folder, hash=arguments.hash, report=report)
    if arguments.json:
        console.answer_json(found.to_json())
        return 0
    counts = ("added", "updated", "relinked", "unchanged", "missing")
    console.answer(", ".join(f"{getattr(found, name)} {name}" for name in counts))
    _show_table(found.records())
    if found.problems:
        console.answer(f"\nnot registered ({len(found.problems)}):")
        console.answer_table(["code", "path", "why"], [[one.code, one.path, one.message] for one in found.problems])
    return 0


def add(arguments: argparse.Namespace) -> int:
    """Register one thing."""
    store = _store()
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
            report=report,
        )
    return _answer(record, arguments)


def _refuse_taken(store: Store, path: str, name: str, kind: str | None) -> None:
    """Refuse a name that other content of the same shelf has."""
    try:
        holder = store.find(name)
    except NotFound:
        return
    if holder.name != name or (holder.kind in ("dataset", "run")) != (kind in ("dataset", "run")):
        return
    mine = str(Path(path).expanduser().absolute())
    if holder.path != mine and holder.hashes.sha256 != store.find(mine).hashes.sha256 and _differs(store, holder, mine):
        raise Refused(f"{name!r} is the name of {holder.path}. Give another --name, or --replace to let that one become {name}@<its date>.")


def _differs(store: Store, holder: Record, path: str) -> bool:
    if holder.kind in ("dataset", "run"):
        return True
    return store.sha256(holder) != store.sha256(store.find(path))


def _parent(store: Store, text: str) -> Mapping[str, Any]:
    """ROLE=REF as a parent; a reference that names nothing is kept as a name without a hash."""
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


# --- asking


def listing(arguments: argparse.Namespace) -> int:
    """List what is registered."""
    return _answer_all(_store().records(kind=arguments.kind, family=arguments.family, tag=arguments.tag), arguments)


def find(arguments: argparse.Namespace) -> int:
    """List what holds the words, or what the one reference names."""
    store = _store()
    found = store.search(arguments.words)
    if not found and len(arguments.words) == 1:
        found = store.expand(arguments.words[0])
    return _answer_all(found, arguments)


def show(arguments: argparse.Namespace) -> int:
    """Show one Record."""
    store = _store()
    record = store.find(arguments.reference)
    with console.progress() as report:
        try:
            record = store.hashed(record, report=report)
        except LoomError as error:
            console.say(f"note: it could not be hashed: {error}")
    return _answer(record, arguments)


def fit(arguments: argparse.Namespace) -> int:
    """Compare an adapter with a base."""
    from registry.detect import fits

    store = _store()
    adapter, base = store.find(arguments.adapter, kind="adapter"), store.find(arguments.base, kind="checkpoint")
    found = fits(Path(str(adapter.path)), Path(str(base.path)))
    good = found.share * 100 >= arguments.threshold and found.share > 0
    if arguments.json:
        console.answer_json({**found.to_json(), "adapter": adapter.name, "base": base.name})
    else:
        console.answer(f"{adapter.name} {'fits' if good else 'does not fit'} {base.name}: {found.explain()}")
    return 0 if good else 2


def lineage(arguments: argparse.Namespace) -> int:
    """Trace one Record to its roots."""
    found = _store().lineage(arguments.reference)
    if arguments.json:
        console.answer_json(found.to_json())
    else:
        console.answer(found.to_dot() if arguments.dot else found.to_text())
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Read files again and compare."""
    store = _store()
    wanted = [store.find(reference, fresh=False) for reference in arguments.references] or store.records()
    with console.progress() as report:
        checks = [store.verify(record, report=report) for record in wanted]
    if arguments.json:
        console.answer_json([asdict(check) for check in checks])
    else:
        console.answer_table(["name", "status", ""], [[check.name, check.status, check.message] for check in checks])
    return 0 if all(check.good for check in checks) else 1


# --- saying


def tag(arguments: argparse.Namespace) -> int:
    """Add and remove tags."""
    return _answer(_store().tag(arguments.reference, arguments.tags, remove=arguments.remove), arguments)


def note(arguments: argparse.Namespace) -> int:
    """Keep a note."""
    return _answer(_store().note(arguments.reference, arguments.text), arguments)


def alias(arguments: argparse.Namespace) -> int:
    """Set an alias."""
    return _answer(_store().alias(arguments.reference, arguments.alias), arguments)


def remove(arguments: argparse.Namespace) -> int:
    """Forget a Record."""
    record = _store().remove(arguments.reference)
    if arguments.json:
        console.answer_json(record.to_json())
    else:
        console.answer(f"{record.name} is forgotten; {record.path} stays where it is.")
    return 0


# --- answers


def _answer(record: Record, arguments: argparse.Namespace) -> int:
    if arguments.json:
        console.answer_json(record.to_json())
        return 0
    apart = ("hashes", "files", "metadata", "parents", "recipe")
    rows = [(name, _cell(value)) for name, value in record.to_json().items() if name not in apart]
    rows += list(asdict(record.hashes).items())
    rows += [(f"made from {parent.get('role')}", f"{parent.get('ref') or ''} {_short(parent.get('sha256'))}") for parent in record.parents]
    rows += [("recipe", f"{len(record.recipe)} settings; --json shows them" if record.recipe else None)]
    rows += [("path", record.path), ("size", console.spell_bytes(sum(entry.bytes for entry in record.files)))]
    told = [(name, value) for name, value in rows if value]
    width = max(len(name) for name, _ in told)
    console.answer("\n".join(f"{name.ljust(width)}  {value}" for name, value in told))
    return 0


def _cell(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None) or None
    if isinstance(value, (list, tuple)):
        return (
            "; ".join(f"{item['code']}: {item['message']}" if isinstance(item, Mapping) and "code" in item else str(item) for item in value)
            or None
        )
    return None if value is None else str(value)


def _short(digest: Any) -> str:
    return f"sha256:{str(digest)[:DIGITS]}" if digest else ""


def _answer_all(records: list[Record], arguments: argparse.Namespace) -> int:
    if arguments.json:
        console.answer_json([record.to_json() for record in records])
    else:
        _show_table(records)
    return 0


def _show_table(records: list[Record]) -> None:
    rows = [
        [
            record.name,
            record.kind,
            record.family or "|".join(record.candidates) or "?",
            record.rank,
            record.dtype,
            console.spell_bytes(sum(entry.bytes for entry in record.files)) if record.files else "",
            " ".join(record.tags),
            " ".join(warning.code for warning in record.warnings),
        ]
        for record in records
    ]
    console.answer_table(["name", "kind", "family", "rank", "dtype", "size", "tags", "warnings"], rows)
