"""Plans of new images in a set, copied from elsewhere, never over an existing file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from registry.errors import Refused
from registry.formats.image_file import Unreadable, decode
from registry.home import expanded
from train.data.editing.changes import Added, sha256_of
from train.data.editing.edit_plan import EditPlan, Shown, refuse
from train.data.images import is_image, unread_reason
from train.data.metadata import METADATA
from train.data.sidecars import SIDECARS


def plan_additions(folder: Path, given: Sequence[str], *, looked_at: int = 0) -> EditPlan:
    """The files that are copied into the set: images, which are decoded, and caption files of the same names.

    Raises Refused or Faults for names that are there, for what is no image, and for a file whose content the set has.
    """
    if not folder.is_dir():
        raise Refused(f"{folder}: there is no such folder.")
    paths = [expanded(one).absolute() for one in given]
    taken = {entry.name.casefold(): entry.name for entry in folder.iterdir()}
    if tables := [name for name in taken.values() if name.lower() in METADATA]:
        raise Refused(f"{folder}: its captions are in {tables[0]}, which has no row for a new image. Add image and row by hand.")
    faults: list[str] = []
    changes: list[Added] = []
    for path in paths:
        sha256 = sha256_of(path) if path.is_file() else None
        fault = _fault(path, taken) if sha256 else "there is no such file."
        if fault or sha256 is None:
            faults.append(f"{path.name}: {fault}")
            continue
        taken[path.name.casefold()] = path.name
        changes.append(Added(path.name, sha256, str(path)))
    refuse(faults)
    return EditPlan(folder, tuple(Shown(change.file, change.file, "added") for change in changes), tuple(changes), looked_at or len(paths))


def _fault(path: Path, taken: dict[str, str]) -> str | None:
    name = path.name
    if name.startswith("."):
        return "hidden files are not read as images; give it another name."
    if name.casefold() in taken:
        return f"the set has {taken[name.casefold()]} already, which is not written over; rename one of the two."
    if path.suffix.lower() in SIDECARS:
        return None
    twins = [other for other in taken.values() if is_image(Path(other)) and Path(other).stem.casefold() == path.stem.casefold()]
    if is_image(path) and twins:
        return f"{twins[0]} has this name, and the two would share caption and mask; rename one of them."
    if not is_image(path):
        return unread_reason(path) or "is neither an image nor a caption file (.txt, .caption)."
    try:
        decode(path.read_bytes())
    except (Unreadable, OSError) as error:
        return f"{error}."
    return None
