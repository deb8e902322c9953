"""The masks of a set's images, each read and checked; every fault is found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from registry.formats.image_file import Size, Unreadable
from registry.printable import some
from train.data.wording import MOST, names_of
from train.masks.mask import ALPHA, Mask, NoMask, read


@dataclass(frozen=True)
class Owner:
    """An image that a mask is looked for: its name in the set, its size, its bytes. A regularisation image (prior) may be without one."""

    name: str
    size: Size
    read: Callable[[], bytes]
    prior: bool = False


@dataclass
class Found:
    """The mask of each image (None without one), and what was found about them."""

    masks: list[Mask | None] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_masks(images: Sequence[Owner], files: Mapping[str, Sequence[Path]], source: str, *, several: bool = False) -> Found:
    """The masks of the images by data.masks; `files` are the mask files of each image, by its name. `several`: of one of several sets.

    A file is read before the alpha channel where data.masks is auto.
    """
    found = Found()
    notes: dict[str, list[str]] = defaultdict(list)
    without = []
    for image in images:
        own = files.get(image.name, ())
        mask: Mask | None = None
        remarks: list[str] = []
        try:
            if len(own) > 1:
                raise Unreadable(f"there are several ({names_of(own)}); keep one")
            mask, remarks = _mask_of(image, own, source)
        except NoMask:
            without += [] if image.prior else [image.name]
        except (Unreadable, OSError) as error:
            found.faults.append(f"{image.name}: its {f'mask {own[0].name}' if own else 'alpha channel as a mask'}: {error}")
        for remark in remarks:
            notes[remark].append(image.name)
        found.masks.append(mask)
    found.faults += [_missing(without, source, several=several)] if without else []
    found.notes += [f"the mask of {some(names, MOST)}: {remark}" for remark, names in notes.items()]
    return found


def _mask_of(image: Owner, own: Sequence[Path], source: str) -> tuple[Mask, list[str]]:
    """The mask with its remarks. Raises NoMask, Unreadable, OSError."""
    if own:
        return read(own[0].name, own[0].read_bytes, image.size)
    if source not in ("auto", ALPHA):
        raise NoMask
    return read(ALPHA, image.read, image.size)


def _missing(names: Sequence[str], source: str, *, several: bool) -> str:
    what = {ALPHA: "no alpha channel", "auto": "neither a mask file nor an alpha channel"}.get(source, "no mask file")
    rest = "give the set `masks: none` in data.sets" if several else "set data.masks=none"
    how = "save each with one" if source == ALPHA else "write NAME-masklabel.png beside each (`loraloom data mask` makes them)"
    return f"{some(names, MOST)}: {what}, and data.masks is {source}: {how}, or {rest}"
