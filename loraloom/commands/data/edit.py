"""`loraloom data edit SET`: captions, masks and held-out images changed on the disk, each edit kept so that it can be undone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import Refused
from registry.home import expanded
from registry.printable import as_lines, counted, some

if TYPE_CHECKING:
    from train.data.editing.edit_plan import Choice, EditPlan
    from train.data.editing.journal import Made
    from train.data.editing.operations import Operation
    from train.data.editing.request import EditRequest

HELP = "change captions, masks and which images are held out; what was before is kept in the set, and every edit can be undone"
ABOUT = f"""\
{HELP}. Operations on captions are done in the order in which they are given, on NAME.txt (or .caption) beside the images and on
metadata.jsonl. The edits lie in the set's hidden folder .loraloom-edits, and go with the set when it is moved."""
OPERATIONS = "operations"


class _Operation(argparse.Action):
    """Puts (option, values) behind those before it: operations are done in the order in which they are given."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        given = [values] if isinstance(values, str) else list(values or [])
        setattr(namespace, OPERATIONS, [*getattr(namespace, OPERATIONS), (str(option), given)])


def add_parser(inner: Any) -> None:
    """Add `data edit` to the command line."""
    edit: argparse.ArgumentParser = inner.add_parser("edit", help=HELP, description=ABOUT)
    edit.add_argument("path", metavar="SET", help="a folder of images; its heldout/ is a part of it")
    _add_operations(edit)
    files = edit.add_argument_group("files")
    files.add_argument(
        "--set-caption", metavar=("IMAGE", "TEXT"), nargs=2, action="append", default=[], help="the caption of an image; repeatable"
    )
    files.add_argument("--hold-out", metavar="IMAGE", nargs="+", default=[], help="move images into heldout/, with captions and masks")
    files.add_argument("--train", metavar="IMAGE", nargs="+", default=[], help="move images out of heldout/ again: heldout/NAME.png")
    files.add_argument(
        "--set-mask", metavar=("IMAGE", "FILE"), nargs=2, action="append", default=[],
        help="an image file of the image's size as its mask, white is trained; repeatable",
    )  # fmt: skip
    files.add_argument("--remove-mask", metavar="IMAGE", nargs="+", default=[], help="take away the mask files of images")
    files.add_argument(
        "--add-image", metavar="FILE", nargs="+", default=[], help="copy images (and their NAME.txt) into the set, never over a file"
    )
    edits = edit.add_argument_group("edits that were made")
    edits.add_argument("--history", action="store_true", help="list them, the newest first")
    edits.add_argument("--undo", action="store_true", help="take back the newest; again for the one before it")
    edits.add_argument("--finish", action="store_true", help="finish an edit, or an undo, that was interrupted")
    edits.add_argument(
        "--keep-changed", action="store_true", help="with --undo and --finish: leave files that something else changed since"
    )
    edit.add_argument("--lines", action="store_true", help="as data.captions=lines: each line of a text file is a caption of its own")
    edit.add_argument("--image-column", metavar="NAME", help="as data.image_column")
    edit.add_argument("--caption-column", metavar="NAME", help="as data.caption_column")
    edit.add_argument("--dry-run", action="store_true", help="show every change and make none")
    edit.add_argument("--json", action="store_true", help="one JSON document on stdout")
    edit.set_defaults(run=run)


def _add_operations(edit: argparse.ArgumentParser) -> None:
    group = edit.add_argument_group("operations on captions")
    own = {"action": _Operation, "dest": OPERATIONS, "default": []}
    group.add_argument("--replace", metavar=("OLD", "NEW"), nargs=2, help="a text by another, wherever it is", **own)  # type: ignore[arg-type]
    group.add_argument("--add", metavar="TAG", help="put a tag in front, unless the caption has it", **own)  # type: ignore[arg-type]
    group.add_argument("--remove", metavar="TAG", help="take a tag out", **own)  # type: ignore[arg-type]
    group.add_argument("--rename", metavar=("OLD", "NEW"), nargs=2, help="a tag by another in its place", **own)  # type: ignore[arg-type]
    group.add_argument("--dedupe", nargs=0, help="each tag once, where it is first", **own)  # type: ignore[arg-type]
    group.add_argument("--sort", nargs=0, help="tags in alphabetical order", **own)  # type: ignore[arg-type]
    group.add_argument("--regex", action="store_true", help="--replace: OLD is a regular expression of Python, NEW may have \\1")
    group.add_argument("--end", action="store_true", help="--add: at the end")
    group.add_argument("--only", metavar="TEXT", help="captions that contain this, in capitals or not")
    group.add_argument("--tagged", metavar="TAG", action="append", default=[], help="captions with this tag; repeatable")
    group.add_argument("--files", metavar="IMAGE", nargs="+", default=[], help="these images: NAME.png, heldout/NAME.png")


def request_of(arguments: argparse.Namespace) -> EditRequest:
    """The edit that is asked for. Raises Refused."""
    from train.data.editing.edit_plan import Choice
    from train.data.editing.request import EditRequest

    choice = Choice(tuple(arguments.files), arguments.only, tuple(arguments.tagged))
    return EditRequest(
        path=arguments.path,
        operations=_operations(arguments.operations, regex=arguments.regex, at_end=arguments.end),
        choice=choice,
        captions=_pairs("--set-caption", arguments.set_caption),
        hold_out=arguments.hold_out,
        train=arguments.train,
        masks=_pairs("--set-mask", arguments.set_mask),
        unmask=arguments.remove_mask,
        add=arguments.add_image,
        lines=arguments.lines,
        image_column=arguments.image_column,
        caption_column=arguments.caption_column,
    )


def _operations(given: Sequence[tuple[str, list[str]]], *, regex: bool, at_end: bool) -> list[Operation]:
    from train.data.editing.operations import Add, Deduplicate, Remove, Rename, Replace, Sort

    made: list[Operation] = []
    for option, values in given:
        if option == "--replace":
            made.append(Replace(values[0], values[1], regex))
        elif option == "--add":
            made.append(Add(values[0], at_end))
        elif option == "--remove":
            made.append(Remove(values[0]))
        elif option == "--rename":
            made.append(Rename(values[0], values[1]))
        else:
            made.append(Deduplicate() if option == "--dedupe" else Sort())
    for option, wanted, kind in (("--regex", regex, Replace), ("--end", at_end, Add)):
        if wanted and not any(isinstance(one, kind) for one in made):
            raise Refused(f"{option} is for {'--replace' if kind is Replace else '--add'}, which is not given.")
    return made


def _pairs(option: str, given: Sequence[Sequence[str]]) -> dict[str, str]:
    names = [name.removeprefix("./") for name, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refused(f"{option}: {some(twice)} is given twice.")
    return {pair[0]: pair[1] for pair in given}


def run(arguments: argparse.Namespace) -> int:
    """Make the edit, or list, undo or finish those that were made."""
    from train.data.editing.edit_plan import Choice

    request = request_of(arguments)
    chosen = [name for name in ("history", "undo", "finish") if getattr(arguments, name)]
    given = [value for name, value in vars(request).items() if name != "path" and value]
    others = len(chosen) > 1 or any(value != Choice() for value in given) or request.choice != Choice()
    if chosen and (others or arguments.dry_run):
        raise Refused(f"--{chosen[0]} goes with no other edit and with no --dry-run.")
    if arguments.keep_changed and chosen not in (["undo"], ["finish"]):
        raise Refused("--keep-changed is for --undo and --finish.")
    if chosen:
        return _of_history(arguments, chosen[0])
    if arguments.dry_run:
        plan, made = request.plan(), None
    else:
        with console.progress() as report:
            plan, made = request.make(report=report)
    if arguments.json:
        console.answer_json({**plan.to_json(), "edit": made.edit.to_json() if made else None})
    else:
        console.answer_lines(_in_words(plan, made, request.choice, dry_run=arguments.dry_run))
    return 0


def _in_words(plan: EditPlan, made: Made | None, choice: Choice, *, dry_run: bool) -> str:
    if not plan.looked_at:
        return as_lines([f"{plan.folder}: no image {'of --files ' if choice.files else ''}has {choice.to_text()}: nothing is to be done"])
    head = f"{plan.folder}: {plan.summary} "
    bare = [f"{counted(plan.without_caption, 'image')} without a caption: not changed"] if plan.without_caption else []
    if not plan.changes:
        return as_lines([f"{head}would change" if dry_run else f"{head}changed: nothing was to be done", *bare])
    if dry_run:
        return "\n".join([as_lines([f"{head}would change:"]), plan.to_text(), *bare])
    assert made is not None
    return as_lines([f"{head}changed (edit {made.edit.number}; --undo takes it back)", *bare])


def _of_history(arguments: argparse.Namespace, what: str) -> int:
    from train.data.editing import journal

    folder = expanded(arguments.path).absolute()
    if not arguments.path or not folder.is_dir():
        raise Refused(f"{arguments.path or repr(arguments.path)}: there is no such folder.")
    if what == "history":
        edits = journal.history(folder)
        if arguments.json:
            console.answer_json({"folder": str(folder), "edits": [edit.to_json() for edit in edits]})
        else:
            console.answer_lines(as_lines([f"{folder}: {counted(len(edits), 'edit')}", *(edit.to_text() for edit in edits)]))
        return 0
    with console.progress() as report, journal.editing(folder):
        act = journal.undo if what == "undo" else journal.finish
        made = act(folder, keep_changed=arguments.keep_changed, report=report)
    if arguments.json:
        console.answer_json({"folder": str(folder), "edit": made.edit.to_json(), "changed": list(made.changed), "left": list(made.left)})
        return 0
    word = "undone" if made.edit.stage == "undone" else "finished"
    lines = [f"{folder}: edit {made.edit.number} is {word}, {counted(len(made.changed), 'file')}: {made.edit.command}"]
    lines += [f"left as they are, something else changed them: {some(made.left, 12)}"] if made.left else []
    console.answer_lines(as_lines(lines))
    return 0
