"""Plans of images that are held out: they move into the set's heldout/ with their caption and mask, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from registry.errors import Refused
from train.data.editing.changes import Change, Move, sha256_of
from train.data.editing.edit_plan import EditPlan, Shown, named, refuse
from train.data.editing.entries import EditableSet, Entry, TableRow, TextFile, Unedited
from train.data.editing.rows import Row, Rows, lines_of
from train.data.metadata import METADATA
from train.data.subsets import HELDOUT


def plan_heldout(found: EditableSet, names: Sequence[str], *, hold_out: bool) -> EditPlan:
    """The files that move. Raises Refused or Faults for images that are there already, and for what cannot move."""
    chosen = named(found, names)
    refuse([_there(entry, hold_out=hold_out) for entry in chosen if entry.is_heldout == hold_out])
    if hold_out and not [entry for entry in found.entries if not entry.is_heldout and entry not in chosen]:
        raise Refused(f"{found.folder}: no image would be left to train on.")
    owners: dict[str, list[str]] = defaultdict(list)
    for entry in found.entries:
        for file in (*entry.beside, *entry.masks):
            owners[file].append(entry.name)
    faults = [f"{entry.name}: {reason}." for entry in chosen if (reason := _stays(found, entry))]
    own = [file for entry in chosen for file in (*entry.beside, *entry.masks)]
    faults += [f"{file}: is of {' and '.join(owners[file])}; rename one of the two images." for file in own if len(owners[file]) > 1]
    files = dict.fromkeys([*(entry.name for entry in chosen), *own])
    moves = [_move(found.folder, file, hold_out=hold_out, faults=faults) for file in files]
    refuse(faults)
    rows = _rows(found.folder, chosen, hold_out=hold_out)
    changes: list[Change] = [*moves, *rows]
    what = "held out" if hold_out else "trained on"
    shown = tuple(Shown(entry.name, _other_side(entry.name, hold_out=hold_out), what) for entry in chosen)
    return EditPlan(found.folder, shown, tuple(changes), len(chosen))


def _there(entry: Entry, *, hold_out: bool) -> str:
    return f"{entry.name}: is {'held out' if hold_out else 'trained on'} already."


def _other_side(name: str, *, hold_out: bool) -> str:
    return f"{HELDOUT}/{name}" if hold_out else name.removeprefix(f"{HELDOUT}/")


def _stays(found: EditableSet, entry: Entry) -> str | None:
    """Why an image cannot move, or None."""
    if entry.is_nested:
        return "lies in a subfolder, and of heldout/ none is read; move it out of its folder first, in the table too"
    if isinstance(entry.source, Unedited) and not entry.beside:
        return entry.source.reason
    other = found.folder if entry.is_heldout else found.folder / HELDOUT
    tables = [file.name for file in other.iterdir() if file.name.lower() in METADATA] if other.is_dir() else []
    here = "the set" if entry.is_heldout else f"{HELDOUT}/"
    if isinstance(entry.source, TextFile) and tables:
        return f"{here} has its captions in {tables[0]}, this image in a text file; use one kind for both"
    if isinstance(entry.source, TableRow):
        texts = [e for e in found.entries if e.is_heldout != entry.is_heldout and not isinstance(e.source, TableRow)]
        if texts and tables != [entry.source.table.rpartition("/")[2]]:
            return f"{here} has no {entry.source.table.rpartition('/')[2]}, this image has its caption in one; use one kind for both"
    return None


def _move(folder: Path, file: str, *, hold_out: bool, faults: list[str]) -> Move:
    to = _other_side(file, hold_out=hold_out)
    path, target = folder / file, folder / to
    if path.is_symlink() and not path.readlink().is_absolute():
        faults.append(f"{file}: is a relative link, which would point elsewhere. Put the file itself there.")
    if target.exists() or target.is_symlink():
        faults.append(f"{file}: {to} is there already; rename one of the two.")
    return Move(file, to, sha256_of(path) or "")


def _rows(folder: Path, chosen: Sequence[Entry], *, hold_out: bool) -> list[Rows]:
    """The rows of metadata.jsonl that leave one table and come into the other, behind its own."""
    leaving: dict[str, list[Row]] = defaultdict(list)
    coming: dict[str, list[Row]] = defaultdict(list)
    columns: dict[str, str] = {}
    for entry in chosen:
        source = entry.source
        if not isinstance(source, TableRow):
            continue
        to = _other_side(source.table, hold_out=hold_out)
        columns[source.table] = columns[to] = source.image_column
        end = len(lines_of(folder / to)) + len(coming[to])
        leaving[source.table].append(Row(source.line, None, source.place))
        coming[to].append(Row(None, source.line, end))
    tables = {**coming, **leaving}
    return [Rows(table, columns[table], tuple(rows)) for table, rows in tables.items()]
