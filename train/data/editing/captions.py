"""Plans of edited captions: in text files beside the images, and in metadata.jsonl."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from registry.errors import Faults, Refused
from registry.plain_values import from_json
from registry.printable import counted
from train.data.captions import check_caption
from train.data.editing.changes import Change, TextChange
from train.data.editing.edit_plan import Choice, EditPlan, Shown, named, refuse, refuse_links
from train.data.editing.entries import EditableSet, Entry, TableRow, TextFile, Unedited
from train.data.editing.operations import Operation, applied, check
from train.data.editing.rows import Row, Rows, written
from train.data.wording import MOST

Edited = Callable[[str], str]


def plan_operations(found: EditableSet, operations: Sequence[Operation], choice: Choice) -> EditPlan:
    """The captions that the operations change. Raises Refused or Faults: what cannot be edited, and captions that would be none."""
    check(operations)
    lines = found.config.captions == "lines"
    _refuse_unread(found, choice)
    chosen = choice.of(found)
    with_caption = [entry for entry in chosen if entry.captions or (isinstance(entry.source, TextFile) and entry.source.exists)]
    edits: dict[str, Edited] = {entry.name: lambda text: applied(operations, text, lines=lines) for entry in with_caption}
    return replace(_plan(found, chosen, edits, in_lines=lines), without_caption=len(chosen) - len(with_caption))


def _refuse_unread(found: EditableSet, choice: Choice) -> None:
    """Raise Refused or Faults where captions of the images cannot be read: whether they would change, nobody knows."""
    unread = [entry for entry in named(found, choice.files or [entry.name for entry in found.entries]) if _is_unread(entry)]
    if not unread:
        return
    reasons = [f"{entry.name}: {entry.source.reason}" for entry in unread if isinstance(entry.source, Unedited)]
    faults = [*(found.faults or reasons)]
    more = [f"and {counted(len(faults) - MOST, 'more fault')}: `loraloom data lint` lists them"] if len(faults) > MOST else []
    raise Faults(f"Captions of {counted(len(unread), 'image')} cannot be read, and nothing is changed:", [*faults[:MOST], *more])


def _is_unread(entry: Entry) -> bool:
    source = entry.source
    has_some = isinstance(source, Unedited) or (source.exists if isinstance(source, TextFile) else source.column is not None)
    return has_some and not entry.captions


def plan_captions(found: EditableSet, texts: Mapping[str, str]) -> EditPlan:
    """Whole captions by the names of their images; the file is made where there is none. Raises as `plan_operations`."""
    by_name = {name.removeprefix("./"): text.strip() for name, text in texts.items()}
    chosen = named(found, list(texts))

    def whole(name: str) -> Edited:
        return lambda text: by_name[name] if text.strip() != by_name[name] else text

    return _plan(found, chosen, {entry.name: whole(entry.name) for entry in chosen}, in_lines=found.config.captions == "lines")


def _plan(found: EditableSet, chosen: Sequence[Entry], edits: Mapping[str, Edited], *, in_lines: bool) -> EditPlan:
    faults: list[str] = []
    shown: list[Shown] = []
    texts: list[TextChange] = []
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for entry in chosen:
        if entry.name not in edits:
            continue
        try:
            if isinstance(entry.source, TextFile):
                change = _of_text(found.folder, entry, entry.source, edits[entry.name])
                texts += [change] if change else []
                shown += [Shown(entry.name, change.file, "caption", _bare(change.before), _bare(change.after))] if change else []
            elif isinstance(entry.source, TableRow):
                row, before, after = _of_row(entry, entry.source, edits[entry.name])
                rows[entry.source.table, entry.source.image_column] += [row] if row else []
                shown += [Shown(entry.name, entry.source.table, "caption", before, after)] if row else []
            elif any(edits[entry.name](caption) != caption for caption in entry.captions) or not entry.captions:
                faults.append(f"{entry.name}: {entry.source.reason}.")
        except Refused as error:
            faults.append(str(error))
    refuse(faults)
    tables = [Rows(file, column, tuple(some)) for (file, column), some in rows.items() if some]
    changes: list[Change] = [*texts, *tables]
    refuse_links(found.folder, [change.file for change in changes])
    return EditPlan(found.folder, tuple(shown), tuple(changes), len(chosen))


def _bare(text: str | None) -> str | None:
    return None if text is None else text.removeprefix("\ufeff").strip()


def _of_text(folder: Path, entry: Entry, source: TextFile, edit: Edited) -> TextChange | None:
    if not source.exists:
        text = edit("").strip()
        _checked(entry, text)
        return TextChange(source.file, None, f"{text}\n")
    try:
        before = (folder / source.file).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"{source.file}: is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    bom = "\ufeff" if before.startswith("\ufeff") else ""
    body = before.removeprefix(bom)
    inner = body.strip()
    edited = edit(body)
    if edited == body:
        return None
    _checked(entry, edited)
    begin, end = body[: body.find(inner)] if inner else "", body[body.find(inner) + len(inner) :] if inner else "\n"
    after = bom + begin + edited.strip() + end
    return TextChange(source.file, before, after)


def _of_row(entry: Entry, source: TableRow, edit: Edited) -> tuple[Row | None, str | None, str]:
    if source.column is None:
        raise Refused(f"{entry.name}: {source.table} has no column for captions. Add one named text, for every row.")
    values: dict[str, Any] = from_json(source.line)
    old = values.get(source.column)
    several = isinstance(old, list)
    before = [*old] if isinstance(old, list) else [old if isinstance(old, str) else ""]
    if not all(isinstance(one, str) for one in before):
        raise Refused(f"{entry.name}: its {source.column!r} in {source.table} is no text.")
    after = [edit(text) for text in before]
    if several and len(set(after)) < len(set(before)):
        after = list(dict.fromkeys(after))  # a whole caption in place of several
    shown = "\n".join(before) if isinstance(old, (str, list)) else None
    if after == before:
        return None, shown, shown or ""
    for text in after:
        _checked(entry, text)
    try:
        line = written({**values, source.column: after if several else after[0]}, source.line)
    except ValueError as error:
        raise Refused(f"{entry.name}: its row in {source.table} holds a number that JSON has no word for ({error}).") from error
    return Row(source.line, line, source.place), shown, "\n".join(after)


def _checked(entry: Entry, text: str) -> None:
    """Raise Refused for a text that training would refuse as a caption."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"{entry.name}: its caption would hold a character that UTF-8 has no bytes for.") from error
    if fault := check_caption(text):
        raise Refused(f"{entry.name}: {fault.replace('is empty', 'would be empty').replace('holds', 'would hold')}.")
