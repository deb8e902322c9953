"""Image-caption sets read whole and checked before anything is trained: every fault is found, with its file's name.

A folder is read as train/data/folder.py describes; anything else is opened by `datasets.load_dataset`.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import Faults
from registry.formats.image_file import Decoded, Size, Unreadable, read_image
from registry.home import expanded
from registry.printable import some
from registry.progress import Report, Tick, silent
from train.config import DataConfig
from train.data.captions import check_caption
from train.data.folder import EXPECTED, read_folder
from train.data.near_duplicates import near_duplicates, small_copy
from train.data.overview import Overview, overview
from train.data.wording import MOST, counted
from train.masks.attach import Owner, read_masks
from train.masks.files import check_source
from train.masks.mask import Mask

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Sample:
    """One image and its caption as the set gives it (None: the set has no captions). `read` gives the file's bytes.

    A prior sample is a regularisation image: what the base is to keep. `trigger` is its subset's own, None: data.trigger counts.
    """

    name: str
    sha256: str
    size: Size
    caption: str | None
    read: Callable[[], bytes] = field(repr=False, compare=False)
    small: bytes = field(default=b"", repr=False, compare=False)  # a small copy, by which near duplicates are found
    others: tuple[str, ...] = ()  # further captions of the image
    set: str = ""  # its subset's name, where there are several
    repeats: int = 1  # how often an epoch has it
    weight: float = 1.0  # of its loss
    trigger: str | None = None
    prior: bool = False
    mask: Mask | None = None  # what of the image its loss counts

    @property
    def captions(self) -> tuple[str, ...]:
        """Every caption of the image, `caption` first."""
        return () if self.caption is None else (self.caption, *self.others)

    @property
    def identity(self) -> str:
        """What of it training depends on, whatever its name: its bytes, its captions, and what its subset sets."""
        own = {"repeats": self.repeats, "weight": self.weight, "trigger": self.trigger, "prior": self.prior}
        usual = {"repeats": 1, "weight": 1.0, "trigger": None, "prior": False}
        parts = [self.caption or "", *self.others, *(f"{key}={value}" for key, value in own.items() if value != usual[key])]
        parts += [] if self.mask is None else [f"mask={self.mask.identity}"]
        return ", ".join([self.sha256, *parts])


Measure = Callable[[Sample, "Image", Overview], None]  # given an image of a set while its pixels are there


@dataclass(frozen=True)
class ImageSet:
    """A set that training accepts. `notes` are findings that do not stop training."""

    path: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Of the sorted 'image sha256, caption' lines: the set's identity, whatever the names."""
        lines = sorted(f"{sample.identity}\n" for sample in self.samples)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class Findings:
    """What reading a set found: images with captions, faults that stop training, notes that do not."""

    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    alike: list[list[int]] = field(default_factory=list)  # places of samples that show one image, equal files among them


def read_set(config: DataConfig, *, path: str | None = None, report: Report = silent) -> ImageSet:
    """The set at `path` (default: data.path), every image decoded. Raises Faults with everything that is wrong."""
    place = str(path or config.path)
    found = inspect_set(config, path=place, report=report)
    if found.faults:
        raise Faults(f"{place} cannot be trained on:", found.faults)
    return ImageSet(place, tuple(found.samples), tuple(found.notes))


def inspect_set(config: DataConfig, *, path: str, report: Report = silent, measure: Measure | None = None) -> Findings:
    """All findings about the set at `path`, as `data lint` shows them. `measure` is given each image while its pixels are there."""
    check_source(config.masks)
    folder = expanded(path)
    if os.path.isfile(folder):
        from train.data.hub import is_table

        if not is_table(folder):
            return Findings(faults=[f"{folder} is a file. {EXPECTED}."])
    found = _inspect_folder(folder, config, report, measure) if os.path.isdir(folder) else _inspect_hub(path, config, report, measure)
    _check_captions(found, config)
    _note_twins(found)
    return found


def _inspect_folder(folder: Path, config: DataConfig, report: Report, measure: Measure | None) -> Findings:
    try:
        reading = read_folder(folder, config)
    except OSError as error:
        return Findings(faults=[f"{error.filename or folder} cannot be read ({error.strerror or error})"])
    found = Findings(faults=reading.faults)
    entries = [(file.relative_to(folder).as_posix(), file.read_bytes, caption) for file, caption in reading.captions]
    _decode_all(found, entries, report, measure)
    found.notes += reading.notes
    _attach_masks(found, {file.relative_to(folder).as_posix(): masks for file, masks in reading.masks.items()}, config)
    return found


def _attach_masks(found: Findings, files: Mapping[str, Sequence[Path]], config: DataConfig) -> None:
    if config.masks != "none":
        owners = [Owner(sample.name, sample.size, sample.read, sample.prior) for sample in found.samples]
        read = read_masks(owners, files, config.masks)
        found.samples = [replace(sample, mask=mask) for sample, mask in zip(found.samples, read.masks, strict=True)]
        found.faults += read.faults
        found.notes += read.notes


def _inspect_hub(path: str, config: DataConfig, report: Report, measure: Measure | None) -> Findings:
    from train.data.hub import read_hub

    entries, faults = read_hub(path, config)
    found = Findings(faults=faults)
    _decode_all(found, entries, report, measure)
    _attach_masks(found, {}, config)
    return found


# --- every image, whatever the source


def _decode_all(
    found: Findings, entries: Sequence[tuple[str, Callable[[], bytes], str | None]], report: Report, measure: Measure | None
) -> None:
    images: dict[str, Decoded] = {}
    for done, (name, read, caption) in enumerate(entries, 1):
        try:
            data = read()
            image = read_image(data)
        except (Unreadable, OSError) as error:
            found.faults.append(f"{name}: {error}")
        else:
            view = overview(image.image)
            small = small_copy(view.image, view.box)
            sample = Sample(name, hashlib.sha256(data).hexdigest(), image.size, caption, read, small)
            found.samples.append(sample)
            if image.profile is not None or image.remarks or image.size.frames > 1:
                images[name] = replace(image, image=None)  # type: ignore[arg-type]  # the pixels are not kept
            if measure is not None:
                measure(sample, image.image, view)
        report(Tick("read images", done, len(entries), name))
    found.notes += _reading_notes(images)


def _reading_notes(images: Mapping[str, Decoded]) -> list[str]:
    """What a person should know of how the images were read: profiles, frames, what may be lost."""
    profiles: dict[str, list[str]] = defaultdict(list)
    remarks: dict[str, list[str]] = defaultdict(list)
    deep = [f"{name} ({image.size.frames})" for name, image in images.items() if image.size.frames > 1]
    for name, image in images.items():
        if image.profile is not None:
            profiles[image.profile].append(name)
        for remark in image.remarks:
            remarks[remark].append(name)
    notes = [
        f"{len(names)} converted to sRGB from the colour profile {profile}: {some(names, MOST)}" for profile, names in profiles.items()
    ]
    notes += [f"several frames, the first is used: {some(deep, MOST)}"] if deep else []
    return notes + [f"{some(names, MOST)}: {remark}" for remark, names in remarks.items()]


def _check_captions(found: Findings, config: DataConfig) -> None:
    with_caption = [sample for sample in found.samples if sample.caption is not None]
    for sample in with_caption:
        fault = check_caption(sample.caption or "")
        if fault:
            found.faults.append(f"{sample.name}: {fault}")
    if found.samples and not with_caption and not found.faults and config.trigger is None:
        found.faults.append(
            f"none of its {counted(len(found.samples), 'image')} has a caption, and data.trigger is not set. Write NAME.txt beside each, "
            "or set data.trigger to the word that will be their caption"
        )


def _note_twins(found: Findings) -> None:
    """The same image under several names, byte by byte or nearly: trained as many times, noted."""
    names: dict[str, list[str]] = defaultdict(list)
    for sample in found.samples:
        names[sample.sha256].append(sample.name)
    twins = [" = ".join(same) for same in names.values() if len(same) > 1]
    if twins:
        found.notes.append(f"the same image several times: {some(twins, MOST, between='; ')}")
    alike = []
    found.alike = near_duplicates(found.samples)
    for places in found.alike:
        group = [found.samples[place] for place in places]
        if len({sample.sha256 for sample in group}) > 1:
            alike.append(" ~ ".join(sample.name for sample in group))
    if alike:
        found.notes.append(f"nearly the same image several times, in another format, quality or size: {some(alike, MOST, between='; ')}")
