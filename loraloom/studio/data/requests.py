"""Edits as the page asks for them: the command's own EditRequest, made of a request's values."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from loraloom.studio.context import Studio
from loraloom.studio.data import uploads
from loraloom.studio.data.pages import Filter, set_now, version_of
from loraloom.studio.data.sizes import sizes_asked
from loraloom.studio.routes import Ask
from registry.errors import Refused
from train.data.editing.edit_plan import Choice
from train.data.editing.operations import Add, Deduplicate, Operation, Remove, Rename, Replace, Sort
from train.data.editing.request import EditRequest
from train.data.subsets import HELDOUT
from train.masks.files import FOLDER as MASKS

SCOPES = ("all", "filtered", "selected")
SECONDS = 10.0  # that a regular expression may take for a whole set


def filter_asked(ask: Ask) -> Filter:
    """The filter of the address."""
    tagged = tuple(tag for tag in ask.text("tagged", "").split(",") if tag.strip())
    return Filter(
        ask.optional("only") or None, tagged, ask.text("state", "all"), ask.optional("finding") or None, ask.optional("bucket") or None
    )


def set_folder(studio: Studio, ask: Ask, *, writes: bool = False) -> Path:
    """The set's real folder. Raises Refused where it may not be read, or written with its subfolders."""
    given = ask.text("set")
    folder = studio.places.writable(given) if writes else studio.places.readable(given)
    if not folder.is_dir():
        raise Refused(f"{given}: this is no folder.")
    if writes:
        for inner in (HELDOUT, MASKS, f"{HELDOUT}/{MASKS}"):
            if (folder / inner).exists():
                studio.places.writable(folder / inner)
    return folder


def edit_asked(studio: Studio, ask: Ask) -> EditRequest:
    """The edit that `kind` names. Raises Refused."""
    path = str(set_folder(studio, ask, writes=True))
    kind = ask.text("kind")
    if kind == "operation":
        return EditRequest(path=path, operations=[_operation(ask)], choice=_choice(studio, ask, Path(path)), lines=ask.flag("lines", False))
    if kind == "caption":
        return EditRequest(path=path, captions={ask.text("image"): ask.text("text")})
    if kind == "mask":
        return EditRequest(path=path, masks={ask.text("image"): str(uploads.taken(studio.home, ask.text("file")))})
    images = ask.texts("images")
    if kind in ("hold_out", "train", "unmask"):
        if not images:
            raise Refused("No image is chosen.")
        names: dict[str, Any] = {kind: images}
        return EditRequest(path=path, **names)
    if kind == "add":
        return EditRequest(path=path, add=[str(uploads.taken(studio.home, file)) for file in ask.texts("files")])
    raise Refused(f"kind: expected operation, caption, mask, hold_out, train, unmask or add, got {kind!r:.60}.")


def check_time(request: EditRequest, *, seconds: float = SECONDS) -> None:
    """Raise Refused for a regular expression that takes too long. Another process tries it: nothing is answered while this one does."""
    if not any(isinstance(operation, Replace) and operation.regex for operation in request.operations):
        return
    try:
        subprocess.run(
            [sys.executable, "-P", "-m", "loraloom", *request.words(), "--dry-run"], capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(
            f"This regular expression takes more than {seconds:g} s. Make it simpler, with no repeats inside repeats, or run the command."
        ) from error


def check_unchanged(request: EditRequest, ask: Ask) -> None:
    """Raise Refused where a caption, or a mask, is not what the page showed, `was`: another page or a command changed it since."""
    was = ask.optional("was")
    if was is None:
        return
    for name in request.masks:
        masks = set_now(request.folder).found.named(name).masks
        if len(masks) < 2 and (version_of(request.folder / masks[0]) if masks else "") != was:  # of several the edit itself says what to do
            raise Refused(f"{name}: its mask was changed meanwhile. Nothing is written; save again to write over it.")
    for name in request.captions:
        now = [caption.strip() for caption in set_now(request.folder).found.named(name).captions]
        if now not in ([was], [] if not was else [was]):
            now_is = f"is now {now[0]!r:.200}" if now else "is gone"
            raise Refused(f"{name}: its caption was changed meanwhile, and {now_is}. Nothing is written; save again to write over it.")


def masks_written(request: EditRequest, hashes: Collection[str]) -> dict[str, str]:
    """The versions of the masks that an edit wrote, by image, of files with these hashes; "0" where another was put there since."""
    found = {}
    for name in request.masks:
        masks = set_now(request.folder).found.named(name).masks
        path = request.folder / (masks[0] if masks else "")
        version = version_of(path)
        found[name] = version if not hashes or (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() in hashes) else "0"
    return found


def _operation(ask: Ask) -> Operation:
    made: Mapping[str, Any] = {
        "replace": lambda: Replace(ask.text("old"), ask.text("new", ""), ask.flag("regex", False)),
        "add": lambda: Add(ask.text("tag"), ask.flag("end", False)),
        "remove": lambda: Remove(ask.text("tag")),
        "rename": lambda: Rename(ask.text("old"), ask.text("new")),
        "dedupe": Deduplicate,
        "sort": Sort,
    }
    name = ask.text("operation")
    if name not in made:
        raise Refused(f"operation: expected one of {', '.join(made)}, got {name!r:.60}.")
    operation: Operation = made[name]()
    return operation


def _choice(studio: Studio, ask: Ask, folder: Path) -> Choice:
    """The images of a scope, by the command's own options where those say it, else by their names."""
    scope = ask.text("scope", "all")
    if scope not in SCOPES:
        raise Refused(f"scope: expected one of {', '.join(SCOPES)}, got {scope!r:.60}.")
    if scope == "all":
        return Choice()
    wanted = filter_asked(ask)
    if scope == "filtered" and wanted.is_of_command:
        return wanted.choice
    files = ask.texts("images")
    if scope == "filtered":
        files = [entry.name for entry in set_now(folder).chosen(wanted, sizes_asked(ask))]
    if not files:
        raise Refused("No image is chosen.")
    return Choice(files=tuple(files))
