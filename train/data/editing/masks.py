"""Plans of masks: a grey image in the place where `data.masks=files` reads an image's mask."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from registry.errors import Refused
from registry.formats.image_file import Unreadable, decode
from train.data.editing.changes import FileChange, sha256_of
from train.data.editing.edit_plan import EditPlan, Shown, named, refuse, refuse_links
from train.data.editing.entries import EditableSet, Entry
from train.data.wording import names_of
from train.masks.decode import read_mask
from train.masks.files import FOLDER, WRITTEN
from train.masks.mask import read


def plan_masks(found: EditableSet, masks: Mapping[str, bytes]) -> EditPlan:
    """The masks by the names of their images, each the bytes of an image file; an image's own mask is replaced.

    Raises Refused or Faults for what training would refuse as a mask.
    """
    by_name = {name.removeprefix("./"): data for name, data in masks.items()}
    shown: list[Shown] = []
    changes: list[FileChange] = []
    contents: list[bytes] = []
    faults: list[str] = []
    for entry in named(found, list(masks)):
        try:
            own = _own(found, entry)
            data = _as_png(found.folder / entry.name, by_name[entry.name])
        except (Refused, Unreadable, OSError) as error:
            faults.append(f"{entry.name}: its mask: {error}".rstrip(".") + ".")
            continue
        target = own if own is not None and own.lower().endswith(".png") else _place(found, entry)
        if own is not None and target != own:
            changes.append(FileChange(own, sha256_of(found.folder / own), None))
        before, after = sha256_of(found.folder / target), hashlib.sha256(data).hexdigest()
        if before != after:
            contents.append(data)
            changes.append(FileChange(target, before, after))
            shown.append(Shown(entry.name, target, "mask"))
    refuse(faults)
    refuse_links(found.folder, [change.file for change in changes])
    return EditPlan(found.folder, tuple(shown), tuple(changes), len(masks), tuple(contents))


def plan_unmasked(found: EditableSet, names: Sequence[str]) -> EditPlan:
    """The images without their masks. Raises Refused or Faults for images that have none."""
    chosen = named(found, names)
    owned = [(entry, file) for entry in chosen for file in entry.masks]
    refuse([f"{entry.name}: has no mask file." for entry in chosen if not entry.masks])
    refuse_links(found.folder, [file for _, file in owned])
    changes = [FileChange(file, sha256_of(found.folder / file), None) for _, file in owned]
    return EditPlan(found.folder, tuple(Shown(entry.name, file, "mask removed") for entry, file in owned), tuple(changes), len(chosen))


def _own(found: EditableSet, entry: Entry) -> str | None:
    """The mask file that the image has."""
    if entry.is_nested:
        raise Refused("would not be read, as the image lies in a subfolder; move it out of its folder first, in the table too")
    if len(entry.masks) > 1:
        raise Refused(f"there are several ({names_of([Path(mask) for mask in entry.masks])}); keep one")
    twin = [other.name for other in found.entries if other.name != entry.name and _stem(other.name) == _stem(entry.name)]
    if twin:
        raise Refused(f"would be the mask of {twin[0]} too; rename one of the two images")
    return entry.masks[0] if entry.masks else None


def _stem(name: str) -> PurePosixPath:
    return PurePosixPath(name).with_suffix("")


def _place(found: EditableSet, entry: Entry) -> str:
    """masks/NAME.png where the set has that folder, else NAME-masklabel.png beside the image."""
    image = PurePosixPath(entry.name)
    folder = image.parent / FOLDER
    if (found.folder / folder).is_dir():
        return (folder / f"{image.stem}.png").as_posix()
    return image.with_name(image.stem + WRITTEN).as_posix()


def _as_png(image: Path, data: bytes) -> bytes:
    """The mask as a grey PNG. Raises Unreadable for one that training would refuse."""
    _, size = decode(image.read_bytes())
    grey = read_mask(data)
    whole = io.BytesIO()
    grey.save(whole, "PNG", optimize=True)
    read("mask", whole.getvalue, size)
    return whole.getvalue()
